"""Viewers by WebRTC: one offer in, one answer out, and what they see and hear until they go."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Coroutine, Sequence
from typing import Literal, NamedTuple, Protocol

import av
import numpy as np
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.sdp import candidate_from_sdp

from musetalk_cli.errors import InputError, describe
from musetalk_cli.serve.broadcast import Broadcast, Wants
from musetalk_cli.serve.connections import add_stream, close_connection, received
from musetalk_cli.serve.encoders import SOUND_CLOCK
from musetalk_cli.serve.naming import SessionLog, label_of
from musetalk_cli.serve.offers import LaterCandidate, Offer, read_offer
from musetalk_cli.serve.refusals import RefusedError
from musetalk_cli.serve.settings import IceServer
from musetalk_cli.serve.tracks import PictureTrack, Screen, SoundTrack
from musetalk_cli.types import Samples, StreamFormat

CONNECT_S = 30.0
"""How long a peer may take from its answer to its connection."""
SILENT_S = 15.0
"""How long a peer may send nothing: who receives reports about once a second, every 5 s at the least."""
LOOK_S = 1.0
"""How often it is looked whether a peer sends."""
CLOSE_S = 10.0
"""How long a connection may take to close."""
MOST_PEERS = 256
"""Viewers at once: each has a socket for every address of this machine."""


class Session(Protocol):
    """What a viewer needs of a session.

    Attributes:
        stream: Format of its frames and their sound.
        broadcast: Where its viewers join.
        log: What is said of it.
    """

    stream: StreamFormat
    broadcast: Broadcast
    log: SessionLog

    @property
    def is_over(self) -> bool:
        """True once it has ended."""

    def listen_to_microphone(self, samples: Samples) -> bool:
        """Take float32 `[n, channels]` as it is spoken; never waits."""


class Answer(NamedTuple):
    """What an offer is answered with.

    Attributes:
        viewer: What the viewer is called in requests; who knows it may end it.
        sdp: The answer, with all candidates.
    """

    viewer: str
    sdp: str


class Peers:
    """All viewers by WebRTC of a server. Everything here belongs to its event loop.

    Args:
        ice_servers: STUN and TURN servers besides the addresses of this machine.
        silent_s: How long a peer may send nothing before it is taken to be gone.
        most: Viewers at once.
    """

    def __init__(
        self, ice_servers: Sequence[IceServer] = (), silent_s: float = SILENT_S, most: int = MOST_PEERS
    ) -> None:
        servers = [RTCIceServer(each.url, each.username, each.credential) for each in ice_servers]
        # without a list the library asks a server of its own choice for the address of this machine
        self._configuration = RTCConfiguration(iceServers=servers)
        self._silent_s = silent_s
        self._most = most
        self._answering = 0
        self._peers: dict[str, tuple[_Peer, asyncio.Task[None]]] = {}
        self._closed = False

    @property
    def count(self) -> int:
        """How many there are, those among them that are being connected."""
        return len(self._peers) + self._answering

    async def answer(self, session: Session, offer_sdp: str, *, microphone: bool) -> Answer:
        """Let a viewer in; it watches as soon as it is connected.

        Args:
            session: What it watches.
            offer_sdp: Its offer.
            microphone: The session hears the sound that the offer brings; else it is not even received.

        Raises:
            InputError: The offer cannot be used.
            RefusedError: There are too many, or the service is ending.
        """
        offer = read_offer(offer_sdp)
        if self.count >= self._most:
            raise RefusedError(
                f"All {self._most} places of viewers by WebRTC are taken.", "Try again when one has left."
            )
        peer = _Peer(RTCPeerConnection(self._configuration), session, offer, self._silent_s)
        self._answering += 1
        try:
            sdp = await peer.answer(microphone=microphone)
            if self._closed:
                raise RefusedError("The service is ending.")
        except BaseException:
            await peer.close()
            raise
        finally:
            self._answering -= 1
        name = secrets.token_urlsafe(16)
        self._peers[name] = peer, asyncio.create_task(self._run(name, peer), name=f"viewer {label_of(name)}")
        return Answer(name, sdp)

    async def _run(self, name: str, peer: _Peer) -> None:
        try:
            peer.log.info("viewer %s: %s", label_of(name), await peer.watch())
        except Exception as error:
            peer.log.warning("viewer %s: %s", label_of(name), describe(error))
        finally:
            await peer.close()
            del self._peers[name]

    async def leave(self, viewer: str) -> None:
        """End a viewer, and wait until everything of it is closed; nothing to do where there is none."""
        if viewer in self._peers:
            peer, task = self._peers[viewer]
            peer.leave()
            await asyncio.wait([task])

    async def close(self) -> None:
        """End all viewers, and let none in any more."""
        self._closed = True
        await asyncio.gather(*map(self.leave, tuple(self._peers)))


class _Peer:
    """One viewer, from its offer until everything of it is closed.

    Args:
        connection: Its connection, with nothing on it.
        session: What it watches.
        offer: What it asks for.
        silent_s: How long it may send nothing.

    Attributes:
        log: What is said of its session.
    """

    def __init__(
        self, connection: RTCPeerConnection, session: Session, offer: Offer, silent_s: float
    ) -> None:
        self.log = session.log
        self._connection = connection
        self._session = session
        self._offer = offer
        self._silent_s = silent_s
        wants = Wants("h264" if offer.video else "none", "opus" if offer.sound else "none")
        self._screen = Screen(wants, session.stream.fps, asyncio.get_running_loop(), self.leave)
        self._microphone: MediaStreamTrack | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._left = False
        self._changed = asyncio.Event()
        connection.on("connectionstatechange", self._changed.set)

    async def answer(self, *, microphone: bool) -> str:
        """The answer to its offer.

        Raises:
            InputError: The offer cannot be used.
        """
        stream = self._session.stream
        hears = microphone and self._offer.microphone
        hears = hears and (stream.sample_rate, stream.channels) == (SOUND_CLOCK, 1)
        ours, voice = [], None
        if self._offer.video:
            ours.append(add_stream(self._connection, PictureTrack(self._screen), "sendonly", "H264"))
        if self._offer.sound or hears:
            direction: Literal["sendrecv", "sendonly"] = "sendrecv" if hears else "sendonly"
            voice = add_stream(self._connection, SoundTrack(self._screen), direction, "opus")
            ours.append(voice)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(self._offer.sdp, "offer"))
            for other in self._connection.getTransceivers():
                if other not in ours:
                    other.direction = "inactive"
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:
            # the library has no family of its own errors
            self.log.info("An offer that could be read cannot be used: %s", describe(error))
            raise InputError(
                "The offer cannot be used.", "Its H.264, its Opus or its transport has no fit."
            ) from error
        self._microphone = voice.receiver.track if voice is not None and hears else None
        return self._connection.localDescription.sdp

    async def watch(self) -> str:
        """Connect it, show it the session, and wait until it is gone; why it is."""
        self._start(self._resolve(self._offer.later))
        end = time.monotonic() + CONNECT_S
        while self._connection.connectionState != "connected":
            if self._is_over or time.monotonic() > end:
                return "not connected"
            await self._wait()
        self._session.broadcast.join(self._screen)
        if self._microphone is not None:
            self._start(self._listen(self._microphone))
        count, at = 0, time.monotonic()
        while not self._is_over:
            await self._wait()
            now, before, count = time.monotonic(), count, await received(self._connection)
            if count != before:
                at = now
            elif now - at > self._silent_s:
                return "silent"
        return "left"

    @property
    def _is_over(self) -> bool:
        # of a session that has ended nothing is shown: also who is still being connected need not wait
        return self._left or self._session.is_over or self._connection.connectionState in {"failed", "closed"}

    async def _wait(self) -> None:
        """Until something happens, or it is time to look."""
        self._changed.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), LOOK_S)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _resolve(self, later: Sequence[LaterCandidate]) -> None:
        """Find the addresses that the offer gives as names; without them the peer is found when it calls."""
        for mid, text in later:
            candidate = candidate_from_sdp(text)
            candidate.sdpMid = mid
            try:
                await self._connection.addIceCandidate(candidate)
            except Exception as error:
                self.log.info("An address of a viewer cannot be resolved: %s", describe(error))

    async def _listen(self, track: MediaStreamTrack) -> None:
        """Let the session hear the microphone; what it has no room for is lost: nobody says it again."""
        try:
            while True:
                frame = await track.recv()
                if isinstance(frame, av.AudioFrame):
                    self._session.listen_to_microphone(_mono(frame))
        except MediaStreamError:
            return
        except Exception as error:
            self.log.warning("A microphone is not heard any more: %s", describe(error))

    def leave(self) -> None:
        """Let it end."""
        self._left = True
        self._changed.set()

    async def close(self) -> None:
        """Close everything of it; safe to call twice."""
        self._session.broadcast.leave(self._screen)
        self._screen.close()
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.wait_for(close_connection(self._connection), CLOSE_S)
        except Exception as error:
            self.log.warning("A connection did not close as it should: %s", describe(error))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


def _mono(frame: av.AudioFrame) -> Samples:
    """Sound of a frame of 16 bits, interleaved, as float32 `[n, 1]`."""
    sound = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    mono: Samples = sound.mean(axis=1, keepdims=True, dtype=np.float32) / np.float32(1 << 15)
    return mono
