"""A service of small networks with a server around it, and clients of it."""

import asyncio
import http.client
import io
import json
import struct
import threading
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import soundfile
import uvicorn
from websockets.sync.client import connect

from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig, SilenceLevel
from musetalk_cli.serve.http import create_app
from musetalk_cli.serve.rtc import Peers
from musetalk_cli.serve.server import bind, configure
from musetalk_cli.serve.service import Service
from musetalk_cli.serve.settings import ServeConfig
from musetalk_cli.serve.speakers import Speakers

TIMEOUT_S = 60
FPS = 10
JOB = JobConfig(
    fps=Fraction(FPS), chunk=Fraction(1, 5), context=Fraction(0), sharpen=None, silence=SilenceLevel()
)
"""How frames of small networks are made: few a second, so that a busy machine keeps up."""


def wav(samples, rate, form="WAV"):
    """A sound file of float32 `[n]` or `[n, channels]`, as bytes."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


@contextmanager
def service_of(run, job, *, speakers=None, **config):
    """A service that is ready.

    Args:
        run: Where models and avatars are.
        job: How frames are made.
        speakers: How many may speak at once; None is what it measured.
        config: Of `ServeConfig`.
    """
    settings = replace(ServeConfig(linger_s=TIMEOUT_S, drain_s=5.0, sessions_per_client=100), **config)
    service = Service(run, job, settings, MonotonicClock())
    told = threading.Event()
    service.start(told.set)
    try:
        assert told.wait(TIMEOUT_S), "the service is not ready"
        if service.failure is not None:
            raise service.failure
        if speakers is not None:
            service.speakers = Speakers(speakers)
        yield service
    finally:
        service.end()


@contextmanager
def serving(run, job, **options):
    """The same with a server; gives its client."""
    with service_of(run, job, **options) as service, server_of(service) as client:
        yield client


@contextmanager
def server_of(service):
    """A server of a service, ready or not; gives a client."""
    clock, peers = MonotonicClock(), Peers(service.config.ice_servers)
    with bind("127.0.0.1", 0) as listener:
        config = configure(create_app(service, peers, clock))
        config.timeout_graceful_shutdown = 2
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            yield Client(f"http://127.0.0.1:{listener.getsockname()[1]}", service)
        finally:
            for session in service.sessions:
                session.stop()
            server.should_exit = True
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "the server does not end"


class Client:
    """Asks a server."""

    def __init__(self, url, service=None):
        self.url, self.service = url, service
        self.address = urlsplit(url).netloc

    def ask(self, method, path, body=None, **headers):
        """Status, headers and body, which is parsed where it is JSON."""
        connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)
        try:
            connection.request(
                method, path, body, {key.replace("_", "-"): value for key, value in headers.items()}
            )
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        told = {key.lower(): value for key, value in answer.getheaders()}
        is_json = told.get("content-type", "").startswith("application/json")
        return SimpleNamespace(
            status=answer.status, headers=told, body=json.loads(data) if is_json and data else data
        )

    def socket(self, **headers):
        """An open WebSocket to `/v1/stream`."""
        return connect(
            f"ws://{self.address}/v1/stream", additional_headers=headers, max_size=None, compression=None
        )

    @contextmanager
    def program(self, avatar="synthetic", **hello):
        """A program that speaks and watches."""
        with self.socket() as socket:
            socket.send(json.dumps({"type": "hello", "avatar": avatar} | hello))
            yield Program(socket)


class Program:
    """A client of `/v1/stream`, after its hello."""

    def __init__(self, socket):
        self.socket = socket
        self.first = self.next()
        self.frames, self.events = [], []

    def next(self):
        """The next message; frames as a namespace with `picture` and `sound`."""
        message = self.socket.recv(TIMEOUT_S)
        if isinstance(message, str):
            return json.loads(message)
        (length,) = struct.unpack_from("<I", message)
        header = json.loads(message[4 : 4 + length])
        rest = message[4 + length :]
        assert len(rest) == header["picture"] + header["sound"]
        return SimpleNamespace(
            **header | {"picture": rest[: header["picture"]], "sound": rest[header["picture"] :]}
        )

    def say(self, samples):
        """Send float32 `[n]` as PCM."""
        self.socket.send(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())

    def tell(self, kind):
        self.socket.send(json.dumps({"type": kind}))

    def until(self, kind, most=2000):
        """Take messages up to an event of a kind; gives it."""
        for _ in range(most):
            message = self.next()
            if isinstance(message, dict):
                self.events.append(message)
                if message["type"] == kind:
                    return message
            else:
                self.frames.append(message)
        raise AssertionError(f"no {kind} in {most} messages: {self.events}")

    def watch(self, frames):
        """Take messages up to so many more frames; gives these."""
        begin = len(self.frames)
        while len(self.frames) < begin + frames:
            message = self.next()
            (self.events if isinstance(message, dict) else self.frames).append(message)
        return self.frames[begin:]

    @property
    def heard(self):
        """All sound so far, float32 `[n]`."""
        return np.frombuffer(b"".join(frame.sound for frame in self.frames), "<i2") / np.float32(32767)
