"""The service without a protocol: sessions on one device, on small networks."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from lives import RATE, delay_of, speech
from serving import FPS, JOB, TIMEOUT_S, service_of

from musetalk_cli.errors import DeviceLostError, InputError
from musetalk_cli.live.stream import Stream
from musetalk_cli.serve.broadcast import Wants
from musetalk_cli.serve.refusals import NotFoundError, RefusedError
from musetalk_cli.serve.served import ServedSession
from musetalk_cli.serve.service import GIVEN_UP


class Watcher:
    """A viewer that keeps what it is shown."""

    def __init__(self):
        self.wants = Wants("none", "pcm")
        self.frames = []
        self.changed = threading.Condition()
        self.over = threading.Event()

    def show(self, unit):
        with self.changed:
            self.frames.append(unit.frame)
            self.changed.notify_all()

    def end(self):
        self.over.set()

    def wait(self, is_enough):
        with self.changed:
            assert self.changed.wait_for(lambda: is_enough(self.frames), TIMEOUT_S)

    @property
    def heard(self):
        return np.concatenate([frame.request.audio[:, 0] for frame in self.frames])


def watched(service, avatar, client="10.0.0.7"):
    session, watcher = service.open(avatar, client, sample_rate=RATE), Watcher()
    session.broadcast.join(watcher)
    return session, watcher


def say(session, sound):
    """All of a sound as one segment, waiting for room."""
    for start in range(0, len(sound), 1600):
        block = sound[start : start + 1600, None]
        while not session.hear(block, ends=start + 1600 >= len(sound)):
            threading.Event().wait(0.01)


def has_ended(frames):
    return any(frame.request.ends for frame in frames)


def test_many_sessions_speak_at_once_each_with_its_own_face_and_sound(coloured_run):
    colours = {"red": (0, 0, 200), "blue": (200, 0, 0)}
    with service_of(coloured_run, JOB, speakers=6, max_sessions=6) as service:
        sessions = [(name, *watched(service, name)) for name in ("red", "blue") * 3]
        sounds = [speech(1.0, seed=30 + number) for number in range(6)]
        for (_, session, _), sound in zip(sessions, sounds, strict=True):
            say(session, sound)
        for number, (name, _, watcher) in enumerate(sessions):
            watcher.wait(has_ended)
            own = [delay_of(sound, watcher.heard)[1] for sound in sounds]
            assert own[number] > 0.99
            assert max(alike for other, alike in enumerate(own) if other != number) < 0.3
            for frame in watcher.frames:
                assert (frame.image[:6, :6] == colours[name]).all()


@pytest.mark.parametrize("place", ["assemble", "advance"])
def test_a_session_that_fails_ends_alone(coloured_run, place):
    with service_of(coloured_run, JOB, speakers=3, max_sessions=3) as service:
        (broken, gone), (_, stays) = watched(service, "red"), watched(service, "blue")

        def fails(*_):
            raise KeyError(place)

        next(session for session in service.engine.sessions if session.avatar.meta.name == "red").__dict__[
            place
        ] = fails
        assert gone.over.wait(TIMEOUT_S)
        before = len(stays.frames)
        stays.wait(lambda frames: len(frames) > before + FPS)
        with pytest.raises(NotFoundError):
            service.session(broken.id)
        again, watcher = watched(service, "red")
        watcher.wait(lambda frames: len(frames) > 3)
        assert again.id != broken.id


def test_an_avatar_without_faces_touches_no_other_though_it_speaks_first_of_all(coloured_run):
    with service_of(coloured_run, JOB, speakers=2, max_sessions=2) as service:
        _, stays = watched(service, "blue")
        service.gallery.faces.take("red").avatar.latents.fill_(float("nan"))
        broken, watcher = watched(service, "red")
        say(broken, speech(0.5))
        watcher.wait(has_ended)
        before = len(stays.frames)
        stays.wait(lambda frames: len(frames) > before + FPS)


def test_sessions_beyond_those_there_are_and_of_one_client_are_refused(coloured_run):
    with service_of(coloured_run, JOB, max_sessions=3, sessions_per_client=2) as service:
        first = service.open("red", "10.0.0.7")
        service.open("red", "10.0.0.7")
        with pytest.raises(RefusedError, match=r"10\.0\.0\.7 has 2 sessions"):
            service.open("red", "10.0.0.7")
        service.open("blue", "10.0.0.8")
        with pytest.raises(RefusedError, match="All 3 sessions"):
            service.open("blue", "10.0.0.9")
        first.stop()
        watcher = Watcher()
        first.broadcast.join(watcher)
        assert watcher.over.wait(TIMEOUT_S)
        while len(service.sessions) == 3:
            threading.Event().wait(0.01)
        service.open("blue", "10.0.0.9")


def test_sessions_that_are_being_opened_count_for_their_client(coloured_run, monkeypatch):
    """Else one that asks for many at once gets them all, while the first avatar is loaded."""
    loading, goes_on = threading.Event(), threading.Event()
    with service_of(coloured_run, JOB, max_sessions=3, sessions_per_client=1) as service:
        take = service.gallery.faces.take

        def slow(name):
            loading.set()
            assert goes_on.wait(TIMEOUT_S)
            return take(name)

        monkeypatch.setattr(service.gallery.faces, "take", slow)
        opening = threading.Thread(target=service.open, args=("red", "10.0.0.7"))
        opening.start()
        assert loading.wait(TIMEOUT_S)
        try:
            with pytest.raises(RefusedError, match=r"10\.0\.0\.7 has 1 sessions"):
                service.open("red", "10.0.0.7")
        finally:
            goes_on.set()
            opening.join(TIMEOUT_S)
        assert len(service.sessions) == 1


def test_a_session_that_is_being_opened_as_the_service_ends_ends_too(coloured_run, monkeypatch):
    loading, goes_on = threading.Event(), threading.Event()
    with service_of(coloured_run, JOB, max_sessions=3) as service:
        take, opened = service.gallery.faces.take, []

        def slow(name):
            loading.set()
            assert goes_on.wait(TIMEOUT_S)
            return take(name)

        monkeypatch.setattr(service.gallery.faces, "take", slow)
        opening = threading.Thread(target=lambda: opened.append(service.open("red", "10.0.0.7")))
        opening.start()
        assert loading.wait(TIMEOUT_S)
        draining = threading.Thread(target=service.drain)
        draining.start()
        with pytest.raises(RefusedError, match="about to end"):
            while True:
                service.check_ready()
        goes_on.set()
        opening.join(TIMEOUT_S)
        draining.join(TIMEOUT_S)
        assert not draining.is_alive()
        assert opened[0].is_over
        assert service.sessions == []


def test_what_a_session_was_late_with_stays_counted_where_it_has_failed(coloured_run, monkeypatch):
    """A counter that falls is taken for one that began anew."""

    joined = Stream.join

    def fails(stream):
        joined(stream)
        raise OSError("the stream has failed")

    monkeypatch.setattr(Stream, "join", fails)
    monkeypatch.setattr(ServedSession, "snapshot", SimpleNamespace(late=5, stalls=2))
    with service_of(coloured_run, JOB, max_sessions=3) as service:
        session, watcher = watched(service, "red")
        watcher.wait(lambda frames: len(frames) > 1)
        assert service.state(None).totals == (5, 2)
        session.stop()
        while service.sessions:
            threading.Event().wait(0.01)
        assert service.state(None).totals == (5, 2)


def test_what_cannot_be_opened_leaves_its_place(coloured_run, monkeypatch):
    with service_of(coloured_run, JOB, max_sessions=1) as service:
        for _ in range(2):
            with pytest.raises(NotFoundError):
                service.open("nobody", "10.0.0.7")

        def fails(stream):
            raise OSError("no thread")

        with monkeypatch.context() as patch:
            patch.setattr("musetalk_cli.live.stream.Stream.open", fails)
            with pytest.raises(OSError, match="no thread"):
                service.open("red", "10.0.0.7")
        _, watcher = watched(service, "red")
        watcher.wait(lambda frames: len(frames) > 2)


@pytest.mark.parametrize(
    "name",
    [
        "sink session",
        *(
            pytest.param(other, marks=pytest.mark.slow)
            for other in ("arrival", "presentation", "watcher", "session ")
        ),
    ],
)
def test_a_session_whose_thread_cannot_be_started_is_none(coloured_run, monkeypatch, name):
    with service_of(coloured_run, JOB, max_sessions=1) as service:
        before = set(threading.enumerate())
        start = threading.Thread.start

        def fails(thread):
            if thread.name.startswith(name):
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fails)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                service.open("red", "10.0.0.7")
        assert service.sessions == []
        for thread in set(threading.enumerate()) - before:
            thread.join(TIMEOUT_S)
        assert set(threading.enumerate()) == before
        _, watcher = watched(service, "red")
        watcher.wait(lambda frames: len(frames) > 2)


def test_avatars_that_leave_no_room_are_refused_and_those_in_use_stay(coloured_run):
    with service_of(coloured_run, JOB, max_sessions=8) as service:
        red = service.gallery.faces.take("red")
        service.gallery.faces.give_back(red)
        size = red.size
    with service_of(coloured_run, JOB, max_sessions=8, memory=round(1.5 * size)) as service:
        session, watcher = watched(service, "red")
        with pytest.raises(RefusedError, match="Avatar blue takes"):
            service.open("blue", "10.0.0.7")
        watcher.wait(lambda frames: len(frames) > 3)
        session.stop()
        while service.sessions:
            threading.Event().wait(0.01)
        watched(service, "blue")[1].wait(lambda frames: len(frames) > 3)


def test_the_end_of_a_segment_is_told_though_it_comes_after_its_last_frame_and_last_of_all(coloured_run):
    with service_of(coloured_run, JOB, speakers=1, max_sessions=1) as service:
        session, watcher = watched(service, "red")
        say(session, speech(0.9))
        watcher.wait(has_ended)
        assert session.hear(speech(1.0)[:, None])
        before = len(watcher.frames)
        watcher.wait(lambda frames: len(frames) > before + 2 * FPS)
        session.hear(np.zeros((0, 1), np.float32), ends=True)
        session.finish()
        assert watcher.over.wait(TIMEOUT_S)
        assert sum(len(frame.request.ends) for frame in watcher.frames) == 2


def test_who_was_refused_may_ask_again_after_an_interrupt(coloured_run):
    with service_of(coloured_run, JOB, speakers=1, max_sessions=1) as service:
        session, _ = watched(service, "red")
        service.speakers.claim("somebody")
        session.hear(speech(0.1)[:, None])
        assert "All places are taken" in session.refused
        service.speakers.release("somebody")
        session.interrupt()
        session.hear(speech(0.1)[:, None])
        assert service.speakers.now == 1
        assert session.refused is None


def test_a_file_that_comes_when_its_session_has_ended_takes_no_place(coloured_run):
    with service_of(coloured_run, JOB, speakers=1, max_sessions=1) as service:
        session, watcher = watched(service, "red")
        watcher.wait(lambda frames: len(frames) > 1)
        session.stop()
        while service.sessions:
            threading.Event().wait(0.01)
        with pytest.raises(NotFoundError, match="has ended"):
            session.speak(iter([speech(0.2)[:, None]]))
        session.hear(speech(0.2)[:, None])
        assert service.speakers.now == 0


def test_a_file_that_cannot_be_read_takes_no_place(coloured_run):
    """Where nothing is silence, a place is kept to the end of its session."""
    with service_of(coloured_run, replace(JOB, silence=None), speakers=1, max_sessions=1) as service:
        session, _ = watched(service, "red")

        def broken():
            raise InputError("This is no sound.")
            yield

        with pytest.raises(InputError, match="no sound"):
            session.speak(broken())
        assert service.speakers.now == 0


def test_an_interrupted_file_leaves_room_for_the_next_at_once(coloured_run):
    with service_of(coloured_run, JOB, speakers=1, max_sessions=1) as service:
        session, watcher = watched(service, "red")
        goes_on = threading.Event()

        def slow():
            yield speech(0.2)[:, None]
            goes_on.wait(TIMEOUT_S)
            yield speech(0.2, seed=8)[:, None]

        session.speak(slow())
        session.interrupt()
        session.speak(iter([speech(0.5)[:, None]]))
        goes_on.set()
        watcher.wait(has_ended)


@pytest.mark.slow
def test_opening_and_closing_many_leaves_no_thread_no_avatar_and_no_place(coloured_run):
    with service_of(coloured_run, JOB, max_sessions=4) as service:
        watched(service, "red")[1].wait(lambda frames: len(frames) > 2)
        before = set(threading.enumerate())
        for number in range(12):
            session, watcher = watched(service, ("red", "blue")[number % 2])
            session.hear(speech(0.2)[:, None])
            watcher.wait(lambda frames: len(frames) > 1)
            session.stop()
            assert watcher.over.wait(TIMEOUT_S)
            while len(service.sessions) > 1:
                threading.Event().wait(0.01)
        for thread in set(threading.enumerate()) - before:
            thread.join(TIMEOUT_S)
        assert set(threading.enumerate()) == before
        assert service.speakers.now == 0
        assert [session.avatar.meta.name for session in service.engine.sessions] == ["red"]


def test_a_device_that_fails_again_and_again_is_not_ready(coloured_run, monkeypatch):
    """Each failure ends the sessions of its moment; one that passes leaves the service ready."""
    with service_of(coloured_run, JOB, max_sessions=4) as service:
        real = service.engine.step

        def fails():
            raise RuntimeError("an illegal address was met")

        for number in range(GIVEN_UP):
            service.check_ready()
            if number == 1:  # a device that works again in between
                monkeypatch.setattr(service.engine, "step", real)
                _, watcher = watched(service, "red")
                watcher.wait(lambda frames: len(frames) > 2)
            monkeypatch.setattr(service.engine, "step", fails)
            if number != 1:
                _, watcher = watched(service, "red")
            assert watcher.over.wait(TIMEOUT_S)
            while service.sessions:
                threading.Event().wait(0.01)
        _, watcher = watched(service, "red")
        assert watcher.over.wait(TIMEOUT_S)
        with pytest.raises(RefusedError, match="The device has failed"):
            service.check_ready()


def test_a_device_that_never_comes_back_is_not_ready_from_its_first_failure_on(coloured_run, monkeypatch):
    with service_of(coloured_run, JOB, max_sessions=4) as service:

        def lost():
            raise DeviceLostError("The device has failed: CUDA error: an illegal memory access.")

        service.check_ready()
        monkeypatch.setattr(service.engine, "step", lost)
        _, watcher = watched(service, "red")
        assert watcher.over.wait(TIMEOUT_S)
        with pytest.raises(RefusedError, match="The device has failed"):
            service.check_ready()
