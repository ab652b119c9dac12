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

import numpy as np

from musetalk_cli.clock import Clock
from musetalk_cli.errors import InputError
from musetalk_cli.sources.containers import refusal
from musetalk_cli.sources.s16 import BYTES_PER_SAMPLE, READ_BYTES, PcmDecoder, check_format
from musetalk_cli.sources.scheduled import on_schedule
from musetalk_cli.types import AudioBlock, Delivery, Samples

log = logging.getLogger(__name__)

DEFAULT_HOST = "127.0.0.1"
RECEIVE_BUFFER_BYTES = 1 << 16
"""What the system may hold of a client's sound, so that a sender that is too fast soon has to wait."""
AHEAD_BYTES = 1 << 19
"""What is read ahead of the schedule, 16 s at 16 kHz: so the end of a client that sends fast is seen soon."""
IDLE_S = 10.0
"""A client of whom nothing was heard for so long gives its place to the next one that comes."""
BACKLOG = 8
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds and tries after which a client that vanished without a word no longer holds the only place."""

_ADDRESS = re.compile(r"(?:(?P<host>\[[^][]+\]|[^][:]*):)?(?P<port>[0-9]{1,5})")


class ListenSource:
    """Little-endian signed 16-bit PCM, interleaved, from whoever connects; silence while nothing comes.

    The sound of a client that sends faster than it lasts is taken at the sound's own speed. When a client
    goes, its part of a sample is dropped, the next client may come, and what waits is heard before the next
    one's sound. A client that was silent for `IDLE_S` keeps its place until another one wants it.

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
        self._ahead: deque[Samples] = deque()
        self._ahead_bytes = 0
        self._heard = 0.0
        self._discarded = False
        self.address = _written(host, port)
        self.sample_rate = sample_rate
        self.channels = channels
        if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            log.warning("Anyone who can reach %s can make the face speak.", self.address)

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield what clients send, at most 50 ms at once, and silence where they send nothing."""
        yield from on_schedule(self._receive, self.sample_rate, self.channels, self._clock, self._closed)

    def discard(self) -> None:
        """Throw away what the client sent and nobody read, up to 4 MiB."""
        with self._lock:
            self._discarded = True
            self._ahead.clear()
            self._ahead_bytes = 0
            self._decoder.discard(self._read)

    def close(self) -> None:
        """Stop listening and let the client go; a waiting iteration ends within a fiftieth of a second."""
        with self._lock:
            self._closed.set()
            self._drop_client()
            _end(self._listener)

    def _receive(self, most: int, seconds: float) -> AudioBlock | None:
        # outside the lock, so that `discard` and `close` need not wait for sound
        ready = self._poll(0.0 if most > 0 and self._ahead else seconds)
        with self._lock:
            if self._closed.is_set():
                return None
            if self._client is not None and self._client.fileno() in ready:
                self._read_ahead()
            if self._listener.fileno() in ready:
                self._accept(seconds)
            block = self._take(most)
            if self._discarded:
                # an empty block, so that the schedule does not fill with silence what was thrown away
                self._discarded = False
                block = block or AudioBlock(np.zeros((0, self.channels), np.float32), self._clock.now())
            return block

    def _poll(self, seconds: float) -> set[int]:
        """Descriptors that can be read within so many seconds; the client only while there is room."""
        poller = select.poll()
        with self._lock:
            if self._closed.is_set():
                return set()
            poller.register(self._listener.fileno(), select.POLLIN)
            if self._client is not None and self._ahead_bytes < AHEAD_BYTES:
                poller.register(self._client.fileno(), select.POLLIN)
        return {descriptor for descriptor, _ in poller.poll(seconds * 1e3)}

    def _read_ahead(self) -> None:
        """Keep what the client sent; let it go where it went, and send it away with anything but PCM."""
        data = self._read(READ_BYTES)
        if data is None:
            return
        if data:
            self._heard = self._clock.now()
        samples = self._decoder.decode(data) if data else self._decoder.flush()
        if len(samples):
            self._ahead.append(samples)
            self._ahead_bytes += BYTES_PER_SAMPLE * samples.size
        if self._decoder.container:
            refused = refusal("the client", self._decoder.container, self.sample_rate, self.channels)
            log.warning("The client of %s was sent away. %s %s", self.address, refused.message, refused.hint)
            self._drop_client()
        elif not data:
            log.info("The client of %s went away.", self.address)
            self._drop_client()

    def _take(self, most: int) -> AudioBlock | None:
        """What was read, up to `most` samples; None where there is nothing."""
        taken: list[Samples] = []
        while most > 0 and self._ahead:
            samples = self._ahead.popleft()
            if len(samples) > most:
                self._ahead.appendleft(samples[most:])
            taken.append(samples[:most])
            most -= len(taken[-1])
        if not taken:
            return None
        self._heard = self._clock.now()
        block = np.concatenate(taken)
        self._ahead_bytes -= BYTES_PER_SAMPLE * block.size
        return AudioBlock(block, self._heard)

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

    def _accept(self, seconds: float) -> None:
        """Serve a new client, or send it away while another is served."""
        try:
            client, peer = self._listener.accept()
        except OSError as error:
            log.debug("A client of %s could not be let in: %s", self.address, error)
            self._clock.wait(seconds, self._closed)  # out of descriptors it would be ready again at once
            return
        name = _written(*peer[:2])
        if not self._has_place():
            client.close()
            log.info("%s was sent away from %s: another client is served.", name, self.address)
            return
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEP_ALIVE.items():
            if hasattr(socket, option):
                client.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._client, self._heard = client, self._clock.now()
        log.info("Sound comes from %s.", name)

    def _has_place(self) -> bool:
        """True where a new client can be served: there is none, or one that was silent for too long."""
        if self._client is not None and self._ahead_bytes < AHEAD_BYTES:
            self._read_ahead()
        if self._client is None:
            return True
        if self._ahead or self._clock.now() - self._heard < IDLE_S:
            return False
        log.info("The client of %s was silent for %g s and lost its place.", self.address, IDLE_S)
        self._drop_client()
        return True

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
