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
import itertools
import json
import os
import platform
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from websockets.asyncio.client import connect

from musetalk_cli import __version__
from musetalk_cli.bench.speech import utterances

ROOT = Path(__file__).parents[1]
FPS, RATE = 25, 16_000
PAUSE_S = 1.0
GAP_S = 0.08
"""A gap between frames that somebody sees: two of them at 25 a second."""
WAIT_S = 60


@dataclass
class Seen:
    """What one client saw.

    Attributes:
        arrivals: Monotonic seconds of each frame, with its time in the stream.
        responses: Seconds from the sending of each utterance to its first speaking frame.
    """

    arrivals: list[tuple[float, float]] = field(default_factory=list)
    responses: list[float] = field(default_factory=list)

    def figures(self, seconds: float) -> dict[str, float]:
        """Frames per second, gaps, and by how much frames came later than the earliest of them."""
        times = np.array(self.arrivals).reshape(-1, 2)
        late = times[:, 0] - times[:, 1]
        return {
            "fps": len(times) / seconds,
            "gaps": int((np.diff(times[:, 0]) > GAP_S).sum()),
            "jitter_p95_ms": float(np.percentile(late - late.min(), 95) * 1e3) if len(late) else 0.0,
        }


def serve_stand_in(device_ms: float) -> None:
    """Be the server whose device takes so long for a frame, and computes nothing."""
    import torch

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
        def faces(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            time.sleep(len(latents) * device_ms / 1e3)
            return super().faces(latents)

    def make() -> Engine:
        bundle = stand_in()
        job = JobConfig(batch_sizes=(1, 4, 8, 16), image_ops="cpu")
        engine = Engine(
            bundle, job, StageStats(MonotonicClock()), encode=deaf, generator=Slow(bundle), live=True
        )
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

    def __init__(self, device_ms: float | None) -> None:
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
        if device_ms is not None:
            command = [sys.executable, __file__, "--serve", "--device-ms", str(device_ms)]
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


def check(is_so: bool, told: object) -> None:
    """End where the server answered otherwise than it should."""
    if not is_so:
        raise SystemExit(f"the server said: {told}")


def pcm(samples: np.ndarray) -> bytes:
    """Little-endian 16-bit PCM."""
    return np.round(samples * 32767).astype("<i2").tobytes()


async def by_websocket(
    server: Server, speaks: bool, seconds: float, begin: asyncio.Event, ready: list
) -> Seen:
    """One session of a program, which speaks or rests."""
    seen, sounds = Seen(), itertools.cycle(utterances())
    async with connect(
        server.url.replace("http", "ws") + "/v1/stream", max_size=None, compression=None
    ) as socket:
        await socket.send(
            json.dumps({"type": "hello", "avatar": "demo", "video": "h264", "sample_rate": RATE})
        )
        told = json.loads(await socket.recv())
        check(told["type"] == "ready", told)
        ready.append(told["session"])
        sent, next_at, end = None, 0.0, None
        async for message in socket:
            now = time.perf_counter()
            if isinstance(message, str):
                if json.loads(message)["type"] == "segment_finished":
                    next_at = now + PAUSE_S
                continue
            if not begin.is_set():
                continue
            end = end or now + seconds
            if now > end:
                return seen
            (length,) = struct.unpack_from("<I", message)
            header = json.loads(message[4 : 4 + length])
            seen.arrivals.append((now, header["pts"][0] / header["pts"][1]))
            if header["speaking"] and sent is not None:
                seen.responses.append(now - sent)
                sent = None
            if speaks and now >= next_at:
                next_at = float("inf")
                await socket.send(pcm(next(sounds)))
                await socket.send(json.dumps({"type": "end"}))
                sent = time.perf_counter()
    return seen


async def by_webrtc(server: Server, speaks: bool, seconds: float, begin: asyncio.Event, ready: list) -> Seen:
    """One session of a browser that decodes nothing."""
    from aiortc import RTCPeerConnection, RTCSessionDescription

    seen, connection = Seen(), RTCPeerConnection()
    counted = SimpleNamespace(seen=None)
    connection.addTransceiver("audio", direction="recvonly")
    connection.addTransceiver("video", direction="recvonly")
    COUNTING.append(counted)
    await connection.setLocalDescription(await connection.createOffer())
    body = json.dumps({"sdp": connection.localDescription.sdp, "avatar": "demo"}).encode()
    status, answer = await asyncio.to_thread(server.ask, "POST", "/v1/offer", body)
    check(status == 201, answer)
    await connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    path = f"/v1/sessions/{answer['session']}"
    ready.append(answer["session"])
    await begin.wait()
    counted.seen = seen
    end = time.perf_counter() + seconds
    if speaks:
        sample = (ROOT / "avatars" / "demo" / "sample.wav").read_bytes()
        status, told = await asyncio.to_thread(server.ask, "POST", f"{path}/speak", sample, "audio/wav")
        check(status == 202, told)
    await asyncio.sleep(end - time.perf_counter())
    counted.seen = None
    _, told = await asyncio.to_thread(server.ask, "GET", path)
    seen.responses = [told["response_ms"]["p50"] / 1e3] if told["utterances"] else []
    await connection.close()
    return seen


COUNTING: list[SimpleNamespace] = []


def count_in_place_of_decoding() -> None:
    """Let clients note when pictures come, and decode none: what they cost is not the server's."""
    from aiortc import rtcrtpreceiver

    real, clients = rtcrtpreceiver.get_decoder, iter(COUNTING)

    class Counts:
        def __init__(self) -> None:
            self._client = next(clients, None)

        def decode(self, frame: object) -> list:
            if self._client is not None and self._client.seen is not None:
                now = time.perf_counter()
                self._client.seen.arrivals.append((now, frame.timestamp / 90_000))  # type: ignore[attr-defined]
            return []

    class Silent:
        def decode(self, _: object) -> list:
            return []

    def decoder(codec: object) -> object:
        _ = real
        return Counts() if codec.mimeType.lower() == "video/h264" else Silent()  # type: ignore[attr-defined]

    rtcrtpreceiver.get_decoder = decoder


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
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_stand_in(arguments.device_ms)
        return
    count_in_place_of_decoding()
    server = Server(arguments.device_ms)
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
