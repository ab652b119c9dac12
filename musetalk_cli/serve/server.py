"""The server: a socket, the application on it, and the end of both."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import uvicorn

from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.errors import InputError
from musetalk_cli.live import garbage
from musetalk_cli.run.defaults import settle_alone
from musetalk_cli.serve.guard import App
from musetalk_cli.serve.header_timeout import HEADER_BYTES, HeaderTimeoutProtocol
from musetalk_cli.serve.http import create_app
from musetalk_cli.serve.rtc import Peers
from musetalk_cli.serve.service import Service
from musetalk_cli.serve.settings import ServeConfig
from musetalk_cli.serve.websocket import MESSAGE_BYTES

log = logging.getLogger(__name__)

BACKLOG = 128
CONNECTIONS = 1000
"""Connections at once, idle ones among them; more are answered with status 503."""
PING_S, GONE_S = 20, 40
"""How often a WebSocket is pinged, and how long a peer's system may not confirm what is sent, in seconds."""
GRACE_S = 5
"""Seconds that connections have to end by themselves once every session has."""


class _Server(uvicorn.Server):
    """Ends by what it is told and not by itself: sessions that run are let end first."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[int], None]) -> None:
        super().__init__(config)
        self._ending = ending

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear of SIGHUP too, by which a terminal goes away; ignored it stays so, as `nohup` wants it."""
        former = signal.getsignal(signal.SIGHUP)
        with super().capture_signals():
            if former is not signal.SIG_IGN:
                signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, former)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's own signature
        """A signal came."""
        self._ending(sig)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: The address is taken, or is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # the latter of a name that no host can have
        raise InputError(f"--host {host} cannot be found.", "Use 127.0.0.1 for this machine only.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; its connections have it from here
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_S * 1000)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"Port {port} of {host} is in use by another program.", "Choose another --port, or 0."
            ) from error
        raise InputError(
            f"{host} port {port} cannot be listened at: {error.strerror}.",
            "Use an address of this machine, and a port from 1024 on.",
        ) from error
    return listener


def serve(
    run: RunConfig,
    job: JobConfig,
    config: ServeConfig,
    notice: Callable[[str], None],
    ready: Callable[[str, Service], None],
) -> bool:
    """Serve until a signal comes: a first one lets sessions end, a second one does not wait for them.

    Args:
        run: Where things are and what computes; without a model the published one there is, else the demo.
        job: How frames are made.
        config: How the service runs.
        notice: Told what is taken and that it is loaded.
        ready: Told the address once sessions can be had, in another thread.

    Returns:
        True where it ended by SIGINT or SIGHUP, or at once.

    Raises:
        MuseTalkError: The address or the networks cannot be used, or the device has failed.
    """
    run, taken = settle_alone(run, "serving")
    if taken is not None:
        notice(taken)
    with bind(config.host, config.port) as listener, ExitStack() as at_end:
        notice("loading the networks")
        clock = MonotonicClock()
        service = Service(run, job, config, clock)
        peers = Peers(config.ice_servers)
        end = _End(service)
        server = end.server = _Server(configure(create_app(service, peers, clock)), end.begin)
        url = _url(listener)

        def told() -> None:
            if service.failure is not None or end.has_begun:
                server.should_exit = True
            else:
                at_end.enter_context(garbage.frozen())
                ready(url, service)

        service.start(told)
        try:
            asyncio.run(server.serve([listener]))
        finally:
            service.end()
    if service.failure is not None:
        raise service.failure
    return end.interrupted


def configure(app: App) -> uvicorn.Config:
    """How an application is served."""
    return uvicorn.Config(
        app,
        http=HeaderTimeoutProtocol,
        h11_max_incomplete_event_size=HEADER_BYTES,
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_S,
        # its answer may stand behind sound that is not read for want of room; GONE_S finds who is gone
        ws_ping_timeout=None,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=CONNECTIONS,
    )


class _End:
    """How a server ends: the sessions that run are let end, unless it is asked for twice."""

    def __init__(self, service: Service) -> None:
        self.server: uvicorn.Server | None = None
        self.interrupted = False
        self.has_begun = False
        self._service = service

    def begin(self, sig: int) -> None:
        """A signal came, in the main thread."""
        self.interrupted = self.interrupted or self.has_begun or sig != signal.SIGTERM
        if self.has_begun:
            self._exit()
            return
        self.has_begun = True
        log.info("ending: no new sessions; those that run have %g s", self._service.config.drain_s)
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> None:
        self._service.drain()
        self._exit()

    def _exit(self) -> None:
        if self.server is not None:
            self.server.should_exit = True


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
