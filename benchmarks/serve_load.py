"""What `musetalk serve` carries: sessions that speak and that rest, watched by clients of this machine.

    python benchmarks/serve_load.py [--by websocket|webrtc] [--speakers 1] [--idle 3] [--seconds 20]
                                    [--device-ms MS] [--json FILE]

The server is a process of its own, with the demo; with `--device-ms` it has a device that takes so long for
a frame in place of networks, so that what is measured is loop, encoders and network. The clients share one
other process and do not decode what they get. Speakers say utterances in bursts with pauses of a second.
Half-way one that rested tries to speak too, where all places are taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
from serve_load_clients import by_webrtc, by_websocket, count_in_place_of_decoding
from serve_load_server import ROOT, Server

from musetalk_cli import __version__


async def run(server: Server, arguments: argparse.Namespace) -> dict:
    """All clients at once; what they saw."""
    work = {"websocket": by_websocket, "webrtc": by_webrtc}[arguments.by]
    begin, ready, tasks = asyncio.Event(), [], []
    for number in range(arguments.speakers + arguments.idle):
        tasks.append(
            asyncio.create_task(work(server, number < arguments.speakers, arguments.seconds, begin, ready))
        )
        # one after the other: the first of them loads the avatar
        while len(ready) <= number:
            await asyncio.sleep(0.05)
            if tasks[-1].done():
                tasks[-1].result()
    await asyncio.sleep(1.0)
    before, started = server.cpu_s(), time.perf_counter()
    begin.set()
    if arguments.speakers >= server.told["speakers"] and arguments.idle:
        # while the speakers speak, one that rests begins too
        await asyncio.sleep(arguments.seconds / 2)
        sample = (ROOT / "avatars" / "demo" / "sample.wav").read_bytes()
        path = f"/v1/sessions/{ready[-1]}/speak"
        one_more = await asyncio.to_thread(server.ask, "POST", path, sample, "audio/wav")
    else:
        one_more = None
    seen = await asyncio.gather(*tasks)
    wall, cpu = time.perf_counter() - started, server.cpu_s() - before
    answers = [one for each in seen for one in each.responses]
    figures = [each.figures(arguments.seconds) for each in seen]
    return {
        "by": arguments.by,
        "device_ms": arguments.device_ms,
        "speakers": arguments.speakers,
        "idle": arguments.idle,
        "speakers_sustained": server.told["speakers"],
        "seconds": arguments.seconds,
        "fps_least": min(each["fps"] for each in figures),
        "gaps_most": max(each["gaps"] for each in figures),
        "jitter_p95_ms_most": max(each["jitter_p95_ms"] for each in figures),
        "responses": len(answers),
        "response_p50_ms": float(np.median(answers) * 1e3) if answers else None,
        "response_p95_ms": float(np.percentile(answers, 95) * 1e3) if answers else None,
        "server_cpu_share": cpu / wall,
        "server_cpu_share_per_session": cpu / wall / len(seen),
        "one_more_speaker": one_more,
        "clients": figures,
    }


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--by", choices=("websocket", "webrtc"), default="websocket")
    parser.add_argument("--speakers", type=int, default=1)
    parser.add_argument("--idle", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--device-ms", type=float)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    count_in_place_of_decoding()
    server = Server("demo" if arguments.device_ms is None else arguments.device_ms)
    try:
        result = asyncio.run(run(server, arguments))
    finally:
        server.end()
    model = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    )
    result |= {
        "version": __version__,
        "processor": model.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
