"""Clients of the server that `serve_load.py` measures: they note when frames come, and decode none."""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from serve_load_server import ROOT, Server
from websockets.asyncio.client import connect

from musetalk_cli.bench.speech import utterances

RATE = 16_000
PAUSE_S = 1.0
GAP_S = 0.08
"""A gap between frames that somebody sees: two of them at 25 a second."""


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
