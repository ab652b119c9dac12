"""A stream from Python: sources that come and go, and recordings whose sound and picture stay together."""

import os
import socket
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lives import RATE, at_the_latest, delay_of, level, pcm, read_back, speech, write_sound

from musetalk_cli.avatar.upstream import import_avatar
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import DataFolder, JobConfig, RunConfig, SilenceLevel
from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.live import garbage
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.run.realtime import realtime
from musetalk_cli.sinks import NullSink, RecordingSink
from musetalk_cli.sources import FileSource, ListenSource
from musetalk_cli.types import Fate

FPS = 10
JOB = JobConfig(
    fps=Fraction(FPS), chunk=Fraction(1, 5), context=Fraction(0), sharpen=None, silence=SilenceLevel()
)
DATA = os.environ.get("MUSETALK_TEST_DATA")


pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture
def run(models, avatars_dir):
    return RunConfig(DataFolder(models, "flag"), DataFolder(avatars_dir, "flag"), str(models), "cpu", "fp32")


class Shows(NullSink):
    """Keeps what each frame's picture is."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def write(self, frame):
        self.shown.append(frame.fate)


class Fails(NullSink):
    """A server that goes away with its fifth frame."""

    def __init__(self):
        super().__init__()
        self.name = "server"
        self.taken, self.aborted = 0, False

    def write(self, frame):
        self.taken += 1
        if self.taken == 5:
            raise OutputError("The server went away.")

    def abort(self):
        self.aborted = True


def assert_together(recording, frames, fps=FPS):
    """Every frame is at its time, and the sound is as long as the picture, to a frame."""
    assert len(recording.times) == frames
    np.testing.assert_allclose(recording.times, np.arange(frames) / fps, atol=0.002)
    assert abs(recording.sound_s - frames / fps) < 1 / fps


def test_a_client_speaks_pauses_and_speaks_again(run, tmp_path):
    clock, handle, shows = MonotonicClock(), ControlHandle(), Shows()
    source = ListenSource("127.0.0.1:0", RATE, 1, clock)
    host, port = source.address.rsplit(":", 1)
    sentences = [speech(1, seed=0), speech(1, seed=1)]
    acts = iter(["speak", "stop"])
    rested = 0
    with at_the_latest(handle.stop.set), socket.create_connection((host, int(port))) as client:
        client.sendall(pcm(sentences[0]))

        def watch(now):
            nonlocal rested
            spoken = now.frames - now.idle
            if now.speaking or spoken <= rested or now.frames < 20:
                return
            rested = spoken + 5
            if next(acts, None) == "speak":
                client.sendall(pcm(sentences[1]))
            else:
                handle.stop.set()

        report = realtime(
            run,
            JOB,
            "synthetic",
            source,
            [RecordingSink(tmp_path / "out.mp4"), shows],
            handle,
            watch,
            None,
            clock,
        )
    assert (report.interrupted, report.failures) == (True, [])
    recording = read_back(tmp_path / "out.mp4")
    assert_together(recording, report.frames)
    places = [delay_of(sentence, recording.sound) for sentence in sentences]
    assert all(alike > 0.9 for _, alike in places)
    first, second = (int(at * RATE) for at, _ in places)
    assert second - first > 1.5 * RATE
    assert level(recording.sound[first + RATE + 1600 : second - 1600]) < -80
    assert len(shows.shown) == report.frames
    pause = shows.shown[(first + RATE) * FPS // RATE + 6 : second * FPS // RATE - 3]
    assert pause
    assert set(pause) == {Fate.IDLE}
    assert report.idle_frames == shows.shown.count(Fate.IDLE)
    assert report.idle_share == report.idle_frames / report.frames


@pytest.mark.parametrize("pace", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_source_that_fails_on_the_way_leaves_what_it_gave(run, tmp_path, pace):
    """A file of two seconds that was cut after about half of them."""
    path = tmp_path / "in.flac"
    soundfile.write(path, speech(2), RATE, subtype="PCM_16")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    clock = MonotonicClock()
    report = realtime(
        run,
        JOB,
        "synthetic",
        FileSource(path, clock, pace=pace),
        [RecordingSink(tmp_path / "out.mp4")],
        clock=clock,
    )
    (told,) = map(str, report.failures)
    assert told.startswith(f"{path} is damaged or cut off")
    assert 6 <= report.frames <= 11
    assert not report.interrupted
    recording = read_back(tmp_path / "out.mp4")
    assert_together(recording, report.frames)
    assert delay_of(speech(0.5), recording.sound) == (0, pytest.approx(1, abs=0.1))


def test_a_source_that_gives_nothing_is_an_error(run, tmp_path):
    path = write_sound(tmp_path / "in.wav", speech(2))
    path.write_bytes(path.read_bytes()[:44])
    source = FileSource(path, MonotonicClock(), pace=False)
    with pytest.raises(InputError, match="holds no samples"):
        realtime(run, JOB, "synthetic", source, [RecordingSink(tmp_path / "out.mp4")])
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_a_sink_that_fails_is_closed_and_told_and_the_others_go_on(run, tmp_path):
    clock, told, server = MonotonicClock(), [], Fails()
    path = write_sound(tmp_path / "in.wav", speech(2))
    report = realtime(
        run,
        JOB,
        "synthetic",
        FileSource(path, clock, pace=False),
        [server, RecordingSink(tmp_path / "out.mp4")],
        watch=lambda now: told.append(now.failed),
        clock=clock,
    )
    assert (server.taken, server.aborted) == (5, True)
    assert [str(one) for one in report.failures] == ["The server went away."]
    assert told[-1] == ("server",)
    assert report.frames == 20
    assert_together(read_back(tmp_path / "out.mp4"), 20)


@pytest.mark.slow
def test_what_is_loaded_is_left_out_of_garbage_collection_while_a_stream_runs(run, tmp_path, monkeypatch):
    happened = []

    @contextmanager
    def frozen():
        happened.append("frozen")
        yield
        happened.append("free")

    class Notes(NullSink):
        def write(self, _):
            happened.append("frame")

    monkeypatch.setattr(garbage, "frozen", frozen)
    path = write_sound(tmp_path / "in.wav", speech(0.3))
    realtime(run, JOB, "synthetic", FileSource(path, MonotonicClock(), pace=False), [Notes()])
    assert happened == ["frozen", *["frame"] * 3, "free"]


def test_where_every_sink_fails_the_stream_ends(run, tmp_path):
    path = write_sound(tmp_path / "in.wav", speech(20))
    report = realtime(
        run, JOB, "synthetic", FileSource(path, MonotonicClock(), pace=False), [Fails(), Fails()]
    )
    assert [str(one) for one in report.failures[:2]] == ["The server went away."] * 2
    assert len(report.failures) == 2
    assert report.frames < 200


def test_a_stream_that_was_stopped_before_it_began_leaves_nothing(run, tmp_path):
    handle = ControlHandle()
    handle.stop.set()
    source = ListenSource("127.0.0.1:0", RATE, 1, MonotonicClock())
    report = realtime(run, JOB, "synthetic", source, [RecordingSink(tmp_path / "out.mp4")], handle)
    assert (report.frames, report.interrupted, report.failures) == (0, True, [])
    assert list(tmp_path.iterdir()) == []


def test_without_silence_every_frame_is_made(run, tmp_path):
    path = write_sound(tmp_path / "in.wav", np.zeros(RATE, np.float32))
    frames = []
    for silence in (None, SilenceLevel()):
        source, shows = FileSource(path, MonotonicClock(), pace=False), Shows()
        report = realtime(run, replace(JOB, silence=silence), "synthetic", source, [shows])
        frames.append((report.idle_frames, set(shows.shown)))
    assert frames == [(0, {Fate.SPEAKING}), (10, {Fate.IDLE})]


@pytest.mark.skipif(not DATA, reason="MUSETALK_TEST_DATA does not name a folder with footage/eng.wav")
def test_sound_and_picture_of_real_speech_do_not_drift(models, tmp_path):
    """Ten seconds of a recording at its own speed, on a face from footage; the first three are quiet."""
    import soundfile

    sound, rate = soundfile.read(Path(DATA) / "footage" / "eng.wav", dtype="float32", frames=10 * RATE)
    assert rate == RATE
    import_avatar(Path(DATA) / "golden" / "footage" / "avatar", tmp_path / "avatars", "footage")
    run = RunConfig(
        DataFolder(models, "flag"), DataFolder(tmp_path / "avatars", "flag"), str(models), "cpu", "fp32"
    )
    job = replace(JOB, fps=Fraction(25), chunk=Fraction(1, 2))
    clock = MonotonicClock()
    source = FileSource(write_sound(tmp_path / "in.wav", sound), clock, pace=True)
    report = realtime(run, job, "footage", source, [RecordingSink(tmp_path / "out.mp4")], clock=clock)
    assert (report.frames, report.duration_s, report.failures) == (250, 10.0, [])
    recording = read_back(tmp_path / "out.mp4")
    assert_together(recording, 250, fps=25)
    assert 60 <= report.idle_frames <= 100
    for begin in range(2, 8):
        part = sound[(begin + 1) * RATE : (begin + 2) * RATE]
        at, alike = delay_of(part, recording.sound[begin * RATE : (begin + 3) * RATE])
        assert abs(at - 1) < 0.001
        assert alike > 0.95
