"""Jobs of a batch on small data, and a worker that stands in for the real one: it takes no networks."""

import sys
from pathlib import Path

from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.run.batch.job import BatchJob
from musetalk_cli.run.batch.local import LocalPool, Seat

STAND_IN = [sys.executable, str(Path(__file__).with_name("batch_stand_in.py"))]


def jobs_of(models, avatars_dir, folder, sounds, avatar="synthetic"):
    """A job for each name; the sound says what becomes of it in the stand-in."""
    run = RunConfig(DataFolder(models, "flag"), DataFolder(avatars_dir, "flag"), str(models), "cpu", "fp32")
    jobs = []
    for number, (name, content) in enumerate(sounds.items(), 1):
        (folder / f"{name}.wav").write_text(content)
        jobs.append(
            BatchJob(
                f"line {number}", avatar, folder / f"{name}.wav", folder / f"{name}.mp4", run, JobConfig()
            )
        )
    return jobs


def stand_ins(count):
    return LocalPool([Seat(None, 1)] * count, STAND_IN)
