"""Raw 16-bit PCM over TCP, from one client at a time."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import re
import select
import socket
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from musetalk_cli.clock import Clock
from musetalk_cli.errors import InputError
from musetalk_cli.sources.containers import refusal
from musetalk_cli.sources.s16 import READ_BYTES, PcmDecoder, check_format
from musetalk_cli.types import AudioBlock, Delivery, Samples

log = logging.getLogger(__name__)

DEFAULT_HOST = "127.0.0.1"
RECEIVE_BUFFER_BYTES = 1 << 16
"""What the system may hold of a client's sound, so that a sender that is too fast soon has to wait."""
BLOCK_S = 0.05
"""The most sound that is given at once."""
POLL_S = 0.02
"""How long the end of a silent source takes to be noticed."""
IDLE_S = 10.0
"""A client of whom nothing was heard for so long gives its place to the next one that comes."""
BACKLOG = 8
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds and tries after which a client that vanished without a word no longer holds the only place."""

_ADDRESS = re.compile(r"(?:(?P<host>\[[^][]+\]|[^][:]*):)?(?P<port>[0-9]{1,5})")


class ListenSource:
    """Little-endian signed 16-bit PCM, interleaved, from whoever connects.

    The sound is given as fast as it comes and is taken, so that a client that is far ahead waits in the end.
    When a client goes, its utterance ends, its part of a sample is dropped, and the next client may come. A
    client that was silent for `IDLE_S` keeps its place until another one wants it. One that comes while sound
    of another waits to be read is judged after it, since that one may have gone already.

    Args:
        address: `HOST:PORT`, `:PORT` or `PORT`; without a host this machine only, port 0 is any free one.
        sample_rate: Samples per second.
        channels: Channels of the sound.
        clock: Where time comes from.

    Attributes:
        address: Where it listens, as `HOST:PORT`.

    Raises:
        InputError: Rate, channels or address are impossible, or the address is taken.
    """

    delivery = Delivery.LIVE
    lost_samples = 0

    def __init__(self, address: str, sample_rate: int, channels: int, clock: Clock) -> None:
        check_format(sample_rate, channels)
        self._listener = _bind(address)
        host, port = self._listener.getsockname()[:2]
        self._clock = clock
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._client: socket.socket | None = None
        self._decoder = PcmDecoder(channels)
        self._heard = 0.0
        # of what was read at once, the blocks that were not taken yet
        self._waiting: deque[AudioBlock] = deque()
        self.address = _written(host, port)
        self.sample_rate = sample_rate
        self.channels = channels
        if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            log.warning("Anyone who can reach %s can make the face speak.", self.address)

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield what clients send, at most 50 ms at once; the last block of a client says that it is."""
        while not self._closed.is_set():
            block = self._next()
            if block is not None:
                yield block

    def discard(self) -> None:
        """Throw away what the client sent and nobody took, up to 4 MiB; that it has gone is still told."""
        with self._lock:
            self._decoder.discard(self._read)
            ends = [block for block in self._waiting if block.ends]
            self._waiting = deque(replace(block, samples=block.samples[:0]) for block in ends)

    def close(self) -> None:
        """Stop listening and let the client go; a waiting iteration ends within a fiftieth of a second."""
        with self._lock:
            self._closed.set()
            self._drop_client()
            _end(self._listener)

    def _poll(self, seconds: float) -> set[int]:
        """Descriptors that can be read within so many seconds."""
        poller = select.poll()
        with self._lock:
            if self._closed.is_set():
                return set()
            poller.register(self._listener.fileno(), select.POLLIN)
            if self._client is not None:
                poller.register(self._client.fileno(), select.POLLIN)
        return {descriptor for descriptor, _ in poller.poll(seconds * 1e3)}

    def _next(self) -> AudioBlock | None:
        """The next block; None where none came in `POLL_S`, or it was closed."""
        ready = set() if self._waiting else self._poll(POLL_S)
        with self._lock:
            if self._closed.is_set():
                return None
            if not self._waiting:
                self._receive(ready)
            return self._waiting.popleft() if self._waiting else None

    def _receive(self, ready: set[int]) -> None:
        """Read what the client sent, or let a new one in; what that brings waits as blocks."""
        samples, ends = np.zeros((0, self.channels), np.float32), False
        if self._client is not None and self._client.fileno() in ready:
            data = self._read(READ_BYTES)
            if data is not None:
                samples, ends = self._decode(data)
        elif self._listener.fileno() in ready:
            ends = self._accept()
        size = max(1, int(BLOCK_S * self.sample_rate))
        starts = range(0, len(samples), size) if len(samples) else range(int(ends))
        now = self._clock.now()
        for start in starts:
            block = AudioBlock(samples[start : start + size], now, ends and start == starts[-1])
            self._waiting.append(block)

    def _decode(self, data: bytes) -> tuple[Samples, bool]:
        """The sound in it, and whether the client has gone, or was sent away for sending anything but PCM."""
        self._heard = self._clock.now()
        samples = self._decoder.decode(data) if data else self._decoder.flush()
        if self._decoder.container:
            refused = refusal("the client", self._decoder.container, self.sample_rate, self.channels)
            log.warning("The client of %s was sent away. %s %s", self.address, refused.message, refused.hint)
        elif not data:
            log.info("The client of %s went away.", self.address)
        goes = not data or bool(self._decoder.container)
        if goes:
            self._drop_client()
        return samples, goes

    def _read(self, most: int) -> bytes | None:
        """Up to `most` bytes without waiting, empty where the client went; None where there are none yet."""
        if self._client is None:
            return None
        try:
            return self._client.recv(most)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _accept(self) -> bool:
        """Serve a new client, or send it away while another is served; True where one lost its place."""
        try:
            client, peer = self._listener.accept()
        except OSError as error:
            log.debug("A client of %s could not be let in: %s", self.address, error)
            self._clock.wait(POLL_S, self._closed)  # out of descriptors it would be ready again at once
            return False
        name = _written(*peer[:2])
        was_served = self._client is not None
        if was_served and self._clock.now() - self._heard < IDLE_S:
            client.close()
            log.info("%s was sent away from %s: another client is served.", name, self.address)
            return False
        if was_served:
            log.info("The client of %s was silent for %g s and lost its place.", self.address, IDLE_S)
            self._drop_client()
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEP_ALIVE.items():
            if hasattr(socket, option):
                client.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._client, self._heard = client, self._clock.now()
        log.info("Sound comes from %s.", name)
        return was_served

    def _drop_client(self) -> None:
        if self._client is not None:
            _end(self._client)
            self._client = None
        self._decoder = PcmDecoder(self.channels)


def _bind(address: str) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        InputError: It is no address, not one of this machine, or taken.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65_535:
        raise InputError(
            f"--listen {address} is no address.",
            "Write HOST:PORT or PORT, like 127.0.0.1:9000 or [::1]:9000.",
        )
    host = (match["host"] or DEFAULT_HOST).strip("[]")
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, int(match["port"]), type=socket.SOCK_STREAM
        )[0]
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"--listen {address} names a host that cannot be found.", "Use 127.0.0.1 for this machine only."
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        listener.bind(target)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _refused(address, error) from error
    return listener


def _end(connection: socket.socket) -> None:
    """Close a socket now: while another thread polls it, closing alone would leave it open."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _refused(address: str, error: OSError) -> InputError:
    if error.errno == errno.EADDRINUSE:
        return InputError(
            f"--listen {address} is in use by another program.", "Choose another port, or 0 for a free one."
        )
    return InputError(
        f"--listen {address} cannot be listened at: {error.strerror}.",
        "Use an address of this machine, and a port from 1024 on.",
    )


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
