"""Starts a Ray cluster, or a batch on one; each in a process of its own, as Ray has many threads.

ray_driver.py cluster CORES          prints its address; ends with its input
ray_driver.py batch ADDRESS MODELS AVATARS FOLDER kill|split|stop|tell
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from batches import jobs_of
from lives import speech, write_sound

NAMES = "abcdef"
SECONDS = 2


def say(text):
    sys.__stdout__.write(text + "\n")
    sys.__stdout__.flush()


def the_jobs(models, avatars, folder):
    jobs = jobs_of(models, avatars, folder, dict.fromkeys(NAMES, ""))
    for job in jobs:
        write_sound(job.audio, speech(SECONDS))
    return jobs


def cluster(cores):
    import ray

    place = {"object_store_memory": 80 << 20, "include_dashboard": False, "log_to_driver": False}
    context = ray.init(address="local", num_cpus=int(cores), logging_level="ERROR", **place)
    say(context.address_info["gcs_address"])
    sys.stdin.read()
    ray.shutdown()


def batch(address, models, avatars, folder, deed):
    from musetalk_cli.config import RunConfig
    from musetalk_cli.run.batch import cluster
    from musetalk_cli.run.batch.cluster import RayPool, connect, find_share
    from musetalk_cli.run.batch.dispatch import Retry
    from musetalk_cli.run.batch.resume import plan
    from musetalk_cli.run.batch.run import run_batch
    from musetalk_cli.run.batch.watchdog import Watchdog

    cluster.ASK_EVERY_S = 0.05

    jobs = the_jobs(Path(models), Path(avatars), Path(folder))
    results = Path(folder) / "r.jsonl"
    todo = plan(jobs, results, resume=True)
    split_over = None
    if deed == "split":
        todo, split_over = todo[:1], SECONDS / 2
    connect(address)
    pools, killed, works = [], [], set()

    def pool():
        pools.append(RayPool(find_share(RunConfig(device="cpu"), 2, 2)))
        return pools[0]

    def tell(standing):
        works.add(standing.work)
        if deed in {"kill", "stop"} and standing.ended == 1 and not killed:
            killed.append(min(pools[0].pids.values()))
            os.kill(killed[0], signal.SIGKILL if deed == "kill" else signal.SIGSTOP)
        if deed == "tell" and standing.ended == 2:
            say("now")

    retry = Retry(tries=2, first_s=0)
    skipped = len(jobs) - len(todo)
    # a fresh actor loads for as long as six times this before its first frame, on a busy machine too
    dog = Watchdog(5) if deed == "stop" else None
    options = {"skipped": skipped, "retry": retry, "watchdog": dog, "split_over": split_over}
    report = run_batch(todo, pool, results, progress=tell, **options)
    say(json.dumps(asdict(report) | {"works": len(works)}))


if __name__ == "__main__":
    {"cluster": cluster, "batch": batch}[sys.argv[1]](*sys.argv[2:])
