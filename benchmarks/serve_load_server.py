"""The server that `serve_load.py` and `page_sync.py` measure, in a process of its own.

As a program it is one whose device takes MS milliseconds for a frame, or one that makes faces whose light is
how loud their sound is:

    python -m benchmarks.serve_load_server MS|loud
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from fractions import Fraction
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
WAIT_S = 60


def serve_stand_in(device_ms: float | None) -> None:
    """Be the server whose device takes so long for a frame, and computes nothing; None makes loud faces."""
    import torch

    from benchmarks.loud_face import Loud, hear_levels
    from musetalk_cli.bench.stand_in import Grey, deaf, stand_in
    from musetalk_cli.clock import MonotonicClock
    from musetalk_cli.config import JobConfig, RunConfig
    from musetalk_cli.engine.costs import BUSY_SHARE
    from musetalk_cli.engine.engine import Engine
    from musetalk_cli.measure.stages import StageStats
    from musetalk_cli.serve import server
    from musetalk_cli.serve.service import Service
    from musetalk_cli.serve.settings import ServeConfig
    from musetalk_cli.serve.speakers import Speakers

    class Slow(Grey):
        def draw(self, latents: torch.Tensor) -> torch.Tensor:
            time.sleep(len(latents) * (device_ms or 0) / 1e3)
            return super().draw(latents)

    def make() -> Engine:
        bundle = stand_in()
        job = JobConfig(batch_sizes=(1, 4, 8, 16), image_ops="cpu")
        maker, encode = (Loud(bundle), hear_levels) if device_ms is None else (Slow(bundle), deaf)
        engine = Engine(bundle, job, StageStats(MonotonicClock()), encode=encode, generator=maker, live=True)
        engine.take_chunk(Fraction(1, 5))
        return engine

    def with_stand_in(*arguments: object) -> Service:
        return Service(*arguments, make=make)  # type: ignore[arg-type]

    server.Service = with_stand_in  # type: ignore[misc, assignment]
    config = ServeConfig(port=0, max_sessions=1000, sessions_per_client=1000)

    def ready(url: str, service: Service) -> None:
        # this device is no core: encoders have all of them
        job, costs = service.engine.job, service.engine.costs
        service.speakers = Speakers(int(BUSY_SHARE / costs.share(job.chunk, job.fps)))
        print(json.dumps({"url": url, "speakers": service.speakers.most}), flush=True)

    server.serve(RunConfig(model="demo"), JobConfig(), config, lambda _: None, ready)


class Server:
    """The server's process."""

    def __init__(self, device: float | Literal["demo", "loud"]) -> None:
        common = ["--port", "0", "--json", "--max-sessions", "1000", "--sessions-per-client", "1000"]
        command = [
            sys.executable,
            "-m",
            "musetalk_cli",
            "serve",
            "--model",
            "demo",
            "--device",
            "cpu",
            *common,
        ]
        if device != "demo":
            command = [sys.executable, "-m", "benchmarks.serve_load_server", str(device)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.told = json.loads(self.process.stdout.readline())  # type: ignore[union-attr]
        self.url = self.told["url"]

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> object:
        """The JSON of an answer, with its status in front."""
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind}, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def cpu_s(self) -> float:
        """Seconds of processors that it took."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(WAIT_S)


if __name__ == "__main__":
    serve_stand_in(None if sys.argv[1] == "loud" else float(sys.argv[1]))
