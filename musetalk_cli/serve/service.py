"""The service: networks, one device loop, and the sessions on it. It knows no protocol.

Three kinds of thread meet here: the device's, which runs the loop and nothing else; those of requests, which
open sessions and load avatars; and one for each session, which waits for its end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from fractions import Fraction
from functools import partial

from musetalk_cli.clock import Clock, MonotonicClock
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.engine.costs import Filling
from musetalk_cli.engine.engine import Engine
from musetalk_cli.live.device_loop import DeviceLoop
from musetalk_cli.live.ends import Ends
from musetalk_cli.live.observe import Outcome
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.measure.gpu import GpuUse
from musetalk_cli.run.job import make_engine, open_stream
from musetalk_cli.run.kept import Kept
from musetalk_cli.serve.broadcast import Broadcast
from musetalk_cli.serve.capacity import settle
from musetalk_cli.serve.faces import Face
from musetalk_cli.serve.gallery import Gallery
from musetalk_cli.serve.metrics import Meters, State
from musetalk_cli.serve.naming import label_of, new_id
from musetalk_cli.serve.refusals import RefusedError
from musetalk_cli.serve.registry import SessionRegistry, check_rate
from musetalk_cli.serve.served import Parts, ServedSession
from musetalk_cli.serve.settings import ServeConfig
from musetalk_cli.serve.speakers import Speakers
from musetalk_cli.sources.pushed import PushedSource

log = logging.getLogger(__name__)

SOUND_RATE = 48_000
"""Samples per second of sessions that are heard by WebRTC."""
GIVEN_UP = 3
"""How often in a row the device may fail, with all sessions of that moment, before it counts as broken."""


class Service:
    """Serves sessions of one model on one device.

    Args:
        run: Where things are and what computes; with a model.
        job: How frames are made; its chunk may be left open.
        config: How the service runs.
        clock: Where time comes from.
        make: Makes the engine, in the device's thread; None loads the networks that `run` names.

    Attributes:
        config: How the service runs.
        speakers: Who may speak at once; measured as the service starts.
        most_sessions: Sessions that there may be at once; so too, where it was not asked for.
        meters: What is counted over all sessions.
        gallery: The avatars.
    """

    def __init__(
        self,
        run: RunConfig,
        job: JobConfig,
        config: ServeConfig,
        clock: Clock | None = None,
        make: Callable[[], Engine] | None = None,
    ) -> None:
        self.config = config
        self._make = make or (lambda: make_engine(Kept().bundle(run), job, self._clock, live=True))
        self.speakers, self.most_sessions = Speakers(1), 1
        self.meters = Meters()
        self._run = run
        self._job = job
        self._clock = clock or MonotonicClock()
        self.gallery = Gallery(run, job, config.memory)
        self._engine: Engine | None = None
        self._loop: DeviceLoop | None = None
        self._registry = SessionRegistry(config.sessions_per_client)
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._device: threading.Thread | None = None

    # -- the device --------------------------------------------------------------------------------------

    def start(self, told: Callable[[], None] = lambda: None) -> None:
        """Load the networks and warm up, in the device's thread.

        Args:
            told: Called there once the service is ready, and once its device works no more.
        """
        self._device = threading.Thread(target=self._work, args=(told,), name="device", daemon=True)
        self._device.start()

    def _work(self, told: Callable[[], None]) -> None:
        try:
            self.gallery.usable()  # before the networks are loaded for nothing
            engine = self._make()
            avatar = self.gallery.rehearse(engine.warm_up)
            capacity = settle(engine, avatar, self.config.max_sessions)
            self.speakers, self.most_sessions = Speakers(capacity.speakers), capacity.sessions
            loop = DeviceLoop(engine, self._clock)
            self._loop, self._job = loop, engine.job
            self._engine = engine  # the last of them: it says that all are there
            told()
            loop.run(self._ended)
        except BaseException as error:
            self._failure = error
            log.debug("Where the device ended:", exc_info=error)
        told()

    @property
    def failure(self) -> BaseException | None:
        """What the device ended with, or None."""
        return self._failure

    @property
    def engine(self) -> Engine:
        """What makes the frames.

        Raises:
            RefusedError: It is not there yet, or not any more.
        """
        if self._failure is not None or (self._loop is not None and self._loop.failures >= GIVEN_UP):
            raise RefusedError("The device has failed.", "Start the service again; its log says why.")
        if self._engine is None:
            raise RefusedError("The networks are still being loaded.", "Try again in some seconds.")
        return self._engine

    def check_ready(self) -> None:
        """Refuse where no session can be had because of the service itself.

        Raises:
            RefusedError: It is not ready, has failed, or ends.
        """
        _ = self.engine
        if self._registry.closed:
            raise RefusedError("The service is about to end.", "Use another one, or try again in a minute.")

    # -- sessions ----------------------------------------------------------------------------------------

    @property
    def sessions(self) -> list[ServedSession]:
        """Those that run."""
        return self._registry.sessions

    def session(self, name: str) -> ServedSession:
        """A session by its identifier.

        Raises:
            NotFoundError: There is none, or it has ended.
        """
        return self._registry.session(name)

    def open(
        self,
        avatar: str,
        client: str,
        *,
        fps: Fraction | None = None,
        sample_rate: int = SOUND_RATE,
        channels: int = 1,
    ) -> ServedSession:
        """Begin a session. It loads the avatar where nobody shows it, so this takes a while.

        Args:
            avatar: Who speaks.
            client: Who asks: an address.
            fps: Frames per second; None, and the most, is what the service was started with: speakers are
                counted by that.
            sample_rate: Samples per second of the sound that will come.
            channels: Channels of the sound that will come.

        Raises:
            NotFoundError: There is no such avatar.
            RefusedError: There is no room for a session.
            InputError: The frame rate is higher than the service's.
            MuseTalkError: The avatar cannot be shown.
        """
        self.check_ready()
        check_rate(fps, self._job.fps)
        name = self.gallery.home_of(avatar).name
        try:
            self._registry.reserve(client, self.most_sessions)
        except RefusedError:
            self.meters.refused.labels("session").inc()
            raise
        try:
            session = self._open(name, client, fps, sample_rate, channels)
        except BaseException:
            self._registry.give_up(client)
            raise
        session.log.info("%s for %s begins", name, client)
        return session

    def _open(
        self, avatar: str, client: str, fps: Fraction | None, sample_rate: int, channels: int
    ) -> ServedSession:
        engine, loop, job = self.engine, self._loop, self._job
        assert loop is not None  # noqa: S101 - it is there with the engine
        face = self.gallery.faces.take(avatar)
        name = new_id()
        try:
            broadcast = Broadcast(self._clock, name=f"session {label_of(name)}")
            parts = Parts(PushedSource(sample_rate, channels, self._clock), broadcast)
            sinks = [parts.broadcast]
            policy = StreamPolicy.of_stream(parts.source, sinks, job.when_late, job.chunk)
            ends = Ends(parts.source, sinks, parts.stop, parts.watch)
            stream = open_stream(engine, loop, face.avatar, job.silence, face.idle, policy, ends, fps=fps)
            session = ServedSession(
                name, avatar, client, parts, stream, self.speakers, self.meters, job.silence, self._clock
            )
            parts.broadcast.on_shown = session.shown
            try:
                stream.open()
                session.start(partial(self._forget, face))
            except BaseException as error:
                stream.abort(error)
                engine.close(stream.session)
                raise
        except BaseException:
            self.gallery.faces.give_back(face)
            raise
        # nothing has ended it yet: nobody knows its name, and the device does nothing for it
        self._registry.take(session)
        loop.add(stream)
        return session

    def _forget(self, face: Face, session: ServedSession, outcome: Outcome | None) -> None:
        """A session has ended; told by its own thread."""
        self.gallery.faces.give_back(face)

        def count() -> None:
            if outcome is not None:
                self.meters.ended(outcome.latencies.late, outcome.stalls)
            elif session.snapshot is not None:
                self.meters.ended(session.snapshot.late, session.snapshot.stalls)

        self._registry.leave(session, count)
        session.log.info("ended")

    def state(self, gpu: GpuUse | None) -> State:
        """What is read for the metrics at a moment."""
        with self._registry.still() as sessions:
            late, stalls = self.meters.totals(each.snapshot for each in sessions)
        filling = Filling() if self._engine is None else self._engine.filling
        return State(
            (len(sessions), self.most_sessions),
            (late, stalls),
            (self.speakers.now, self.speakers.most),
            sum(session.broadcast.viewers for session in sessions),
            (filling.batches, filling.frames, filling.rows),
            self.gallery.faces.held,
            None if gpu is None else gpu.memory_bytes,
        )

    def close_unwatched(self) -> None:
        """End the sessions that nobody has watched for so long; to be called about once a second."""
        for session in self.sessions:
            if session.unwatched_s() > self.config.linger_s:
                session.log.info("nobody watches")
                session.stop()

    def drain(self) -> None:
        """Begin no session any more, let those that run end by a deadline, and end the device's work."""
        self._registry.close()
        for session in self.sessions:
            session.finisher()
        self._registry.wait(self.config.drain_s)
        self.end()

    def end(self) -> None:
        """End every session at once, and the device's work."""
        self._registry.close()
        for session in self.sessions:
            session.stop()
        self._registry.wait(5.0)
        self._ended.set()
        if self._loop is not None:
            self._loop.wake()
        # while networks are loaded there is nothing to be waited for
        if self._device is not None and self._loop is not None:
            self._device.join(30.0)
