"""How a running stream is reached from outside: ended, interrupted."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

from musetalk_cli.errors import InputError

log = logging.getLogger(__name__)

POLL_S = 0.1
"""How soon the end is noticed."""
CLIENTS = 8
"""Connections to a control socket that are served at once; more are closed."""
WARNINGS = 10
"""Unknown commands that are warned of; more are passed over."""
LINE_BYTES = 256
"""A longer line is no command, and its rest is not kept."""


class Interruptible(Protocol):
    """What an interrupt goes to: a session."""

    def interrupt(self) -> None:
        """Discard everything that was said and not yet shown."""


class ControlHandle:
    """The two things that can be asked of a running stream, from any thread, also before it runs.

    Attributes:
        stop: Set to end the stream; what was made so far is completed.
        ended: True where `end` was called.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()
        self.ended = False
        self._session: Interruptible | None = None

    @property
    def bound(self) -> bool:
        """True from when the stream runs, so that `stop` is looked at."""
        return self._session is not None

    def bind(self, session: Interruptible) -> None:
        """Say which session interrupts go to."""
        self._session = session

    def end(self) -> None:
        """End the stream by the user's wish, which is no interruption."""
        self.ended = True
        self.stop.set()

    def interrupt(self) -> None:
        """Discard everything that was said and not yet shown; nothing where the stream has not begun."""
        if self._session is not None:
            self._session.interrupt()


class ControlLines:
    """Reads commands, one a line: `interrupt`, `stop`. Used in a `with` statement.

    Args:
        target: Number of an open file descriptor, or the path of a unix socket, which is made for its owner
            only, and removed at the end. Several programs may connect to it.
        handle: What the commands act on.

    Raises:
        InputError: The descriptor is not open, or the socket cannot be made.
    """

    def __init__(self, target: str, handle: ControlHandle) -> None:
        self._handle = handle
        self._path: Path | None = None
        self._server: socket.socket | None = None
        self._lines: dict[int, bytes] = {}
        self._clients: dict[int, socket.socket] = {}
        self._ended = threading.Event()
        self._unknown = 0
        if target.isdecimal():
            self._lines[_check_open(int(target))] = b""
        else:
            self._path = Path(target)
            self._server = _listen(self._path)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def __enter__(self) -> ControlLines:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for client in self._clients.values():
            client.close()
        if self._server is not None and self._path is not None:
            self._server.close()
            with suppress(OSError):
                self._path.unlink()

    def _run(self) -> None:
        while not self._ended.is_set():
            server = [] if self._server is None else [self._server.fileno()]
            if not server and not self._lines:
                return
            poll = select.poll()
            for descriptor in (*server, *self._lines):
                poll.register(descriptor, select.POLLIN)
            for descriptor, _ in poll.poll(POLL_S * 1e3):
                if descriptor in server:
                    self._accept()
                else:
                    self._read(descriptor)

    def _accept(self) -> None:
        assert self._server is not None  # noqa: S101 - only its own descriptor leads here
        with suppress(OSError):
            client, _ = self._server.accept()
            if len(self._clients) >= CLIENTS:
                client.close()
                return
            self._clients[client.fileno()] = client
            self._lines[client.fileno()] = b""

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, LINE_BYTES)
        except OSError:
            data = b""
        if not data:
            # the last line may have no end
            self._do(self._lines.pop(descriptor))
            if (client := self._clients.pop(descriptor, None)) is not None:
                client.close()
            return
        *lines, rest = (self._lines[descriptor] + data).split(b"\n")
        for line in lines:
            self._do(line)
        # one byte more than a command may have, so that its end is still known to be too late
        self._lines[descriptor] = rest[: LINE_BYTES + 1]

    def _do(self, line: bytes) -> None:
        command = line.decode("utf-8", "replace").strip() if len(line) <= LINE_BYTES else "a long line"
        if command == "interrupt":
            self._handle.interrupt()
        elif command == "stop":
            self._handle.end()
        elif command and self._unknown < WARNINGS:
            self._unknown += 1
            log.warning("--control does not know %r; it knows interrupt and stop.", command[:40])


def _check_open(descriptor: int) -> int:
    try:
        os.fstat(descriptor)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--control {descriptor} is not an open file descriptor.",
            "Open one, like: --control 3 3<commands",
        ) from error
    return descriptor


def _listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_over(path):
            path.unlink()
        # from its first moment on: between `bind` and a later `chmod` others could connect
        mask = os.umask(0o177)
        try:
            server.bind(str(path))
        finally:
            os.umask(mask)
        server.listen(CLIENTS)
    except OSError as error:
        server.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"--control {path} cannot be made: {reason}.",
            "Name a path that is not there yet, at most 100 letters.",
        ) from error
    return server


def _is_left_over(path: Path) -> bool:
    """True for a socket that nobody listens at any more: its program was killed."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.setblocking(False)  # a program that is alive and lets nobody in would be waited for without end
        with suppress(BlockingIOError):
            return trial.connect_ex(str(path)) == errno.ECONNREFUSED
    return False
