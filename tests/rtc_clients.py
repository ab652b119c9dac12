"""Real WebRTC clients, and a session that they watch; run as a file, a client in a process of its own."""

import asyncio
import json
import logging
import sys
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from fractions import Fraction

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from musetalk_cli.clock import MonotonicClock
from musetalk_cli.serve.broadcast import Broadcast
from musetalk_cli.serve.connections import close_connection
from musetalk_cli.serve.naming import SessionLog
from musetalk_cli.types import Frame, FrameRequest, StreamFormat, Utterance

LIMIT_S = 60
FPS, RATE = 25, 48_000
WIDTH, HEIGHT, BLOCK, BITS = 192, 128, 16, 12
SLICE = RATE // FPS


def picture(number, shade=0):
    """A smooth picture that moves, with the number of its frame in black and white blocks along the top."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] / 24 + number / 8
    waves = (np.sin(rows), np.sin(columns + 1), np.sin(rows + columns + 2))
    image = np.stack([128 + 60 * wave for wave in waves], axis=2).astype(np.uint8)
    image[-BLOCK:] = shade
    for bit in range(BITS):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return image


def number_of(image):
    """The number that is written into a picture, also after it was encoded."""
    blocks = image[4 : BLOCK - 4].reshape(BLOCK - 8, BITS, BLOCK, 3)[:, :, 4:-4].mean(axis=(0, 2, 3))
    return sum(1 << bit for bit in range(BITS) if blocks[bit] > 127)


def shade_of(image):
    return image[-BLOCK + 4 : -4].mean()


class ToldBroadcast(Broadcast):
    """Tells when somebody joins or leaves."""

    def __init__(self):
        super().__init__(MonotonicClock())
        self.changed = threading.Condition()

    def join(self, viewer):
        super().join(viewer)
        self._tell()

    def leave(self, viewer):
        super().leave(viewer)
        self._tell()

    def _tell(self):
        with self.changed:
            self.changed.notify_all()

    def wait_for_viewers(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: self.viewers == count, LIMIT_S)


class Session:
    """A session that speaks all the time: what a viewer needs of the real one."""

    is_over = False

    def __init__(self, shade=0, seed=0):
        from lives import speech  # it loads torch, which the client in a process of its own does not need

        self.stream = StreamFormat(WIDTH, HEIGHT, Fraction(FPS), RATE, 1)
        self.log = SessionLog(logging.getLogger(__name__), "of a test")
        self.broadcast = ToldBroadcast()
        self.broadcast.open(self.stream)
        self.sound = speech(20, RATE, seed)
        self.heard = []
        self._shade = shade

    def listen_to_microphone(self, samples):
        self.heard.append(samples)
        return True

    def frame(self, number):
        audio = np.take(self.sound, range(number * SLICE, (number + 1) * SLICE), mode="wrap")[:, None]
        return Frame(
            FrameRequest(number, None, audio, 0.0, 0.0, 0, utterance=Utterance(0, 0.0)),
            picture(number, self._shade),
            Fraction(number, FPS),
            0.0,
        )

    @contextmanager
    def running(self):
        """Show frames at their times meanwhile, then end."""
        over = threading.Event()
        thread = threading.Thread(target=self._run, args=(over,))
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()
            self.broadcast.finish()

    def _run(self, over):
        start, number = time.monotonic(), 0
        while not over.wait(max(0.0, start + number / FPS - time.monotonic())):
            # nothing is made up for where the machine stood still: what comes all at once may be left out
            start = max(start, time.monotonic() - (number + 1) / FPS)
            self.broadcast.write(self.frame(number))
            number += 1


class Voice(MediaStreamTrack):
    """A microphone: sound in frames of 20 ms at its own speed."""

    kind = "audio"

    def __init__(self, sound):
        super().__init__()
        self._sound = sound
        self._sent = 0
        self._start = None

    async def recv(self):
        import av

        self._start = self._start or time.monotonic()
        await asyncio.sleep(max(0.0, self._start + self._sent / RATE - time.monotonic()))
        part = np.take(self._sound, range(self._sent, self._sent + 960), mode="wrap")
        frame = av.AudioFrame.from_ndarray(np.round(part * 32767).astype("<i2")[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, Fraction(1, RATE)
        self._sent += 960
        return frame


class Client:
    """A peer that keeps what it receives.

    Attributes:
        pictures: `(pts in 1/90000 s, uint8 image)` of each decoded picture.
        sounds: `(pts in samples, float32 [n])` of each decoded packet.
    """

    def __init__(self, *tracks, **directions):
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.pictures, self.sounds = [], []
        self._tasks = []
        self._got = asyncio.Event()
        for track in tracks:
            self.connection.addTransceiver(track, "sendrecv")
        for kind, direction in (directions or {"video": "recvonly", "audio": "recvonly"}).items():
            self.connection.addTransceiver(kind, direction)
        self.connection.on("track", self._take)
        for state in ("connectionstatechange", "iceconnectionstatechange"):
            self.connection.on(state, self._got.set)

    def _take(self, track):
        self._tasks.append(asyncio.create_task(self._keep(track)))

    async def _keep(self, track):
        try:
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    self.pictures.append((frame.pts, frame.to_ndarray(format="bgr24")))
                else:
                    self.sounds.append((frame.pts, frame.to_ndarray().reshape(-1, 2)[:, 0] / 32768))
                self._got.set()
        except MediaStreamError:
            self._got.set()

    async def offer(self):
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def take_answer(self, sdp):
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    async def watch(self, peers, session, *, microphone=False):
        answer = await peers.answer(session, await self.offer(), microphone=microphone)
        await self.take_answer(answer.sdp)
        return answer

    async def until(self, condition):
        """Wait until a condition holds that what is received may make true."""
        while not condition():
            self._got.clear()
            await asyncio.wait_for(self._got.wait(), LIMIT_S)

    async def until_pictures(self, count):
        await self.until(lambda: len(self.pictures) >= count)

    @property
    def numbers(self):
        return [number_of(image) for _, image in self.pictures]

    @property
    def sound(self):
        return np.concatenate([part for _, part in self.sounds])

    async def close(self):
        await close_connection(self.connection)
        for task in self._tasks:
            task.cancel()  # tracks of what was never connected do not end
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def clients(*made):
    try:
        yield made
    finally:
        for client in made:
            await client.close()


async def in_thread(function, *arguments):
    """Wait for what blocks, while the loop goes on."""
    return await asyncio.wait_for(asyncio.to_thread(function, *arguments), LIMIT_S)


async def _watch_until_killed():
    client = Client()
    print(json.dumps(await client.offer()), flush=True)  # noqa: T201 - how it talks to the test
    await client.take_answer(json.loads(sys.stdin.readline()))
    await client.until_pictures(5)
    print("seen", flush=True)  # noqa: T201 - as above
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_watch_until_killed())
