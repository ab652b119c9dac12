"""Many streams at once: each is spoken to its end, what is late is counted, and none is left behind."""

import json
import re
import threading
from fractions import Fraction

import pytest

from musetalk_cli.bench.options import AvatarSizes, SoakOptions
from musetalk_cli.bench.soak import bench_soak
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.errors import DeviceError
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.sinks import NullSink

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
SIZES = AvatarSizes(width=128, height=128, face=64, frames=2)
JOB = JobConfig(fps=Fraction(5), context=Fraction(0), sharpen=None)


@pytest.fixture
def soak(models):
    """Lets tiny networks speak; gives what was measured and what was said."""

    def run(sessions, seconds, handle, job=JOB, said=None):
        run = RunConfig(DataFolder(models, "flag"), DataFolder(models, "flag"), str(models), "cpu", "fp32")
        told = [] if said is None else said
        return bench_soak(run, job, SoakOptions(sessions, seconds, SIZES), told.append, handle)

    return run


def test_all_speak_to_their_end_and_their_frames_are_counted(musetalk, models, tmp_path):
    command = "bench soak --device cpu --fps 5 --frame-size 128x128 --face-size 64 --avatar-frames 2"
    command += " --context 0 --sharpen off --sessions 3 --seconds 1 --chunk 0.2"
    code, out, err = musetalk(*command.split(), "--model", models, "--json", tmp_path / "soak.json")
    assert code == 0, err
    figures = json.loads((tmp_path / "soak.json").read_text())
    assert (figures["sessions"], figures["frames"], figures["chunk_s"]) == (3, 3 * 5, 0.2)
    assert figures["missed_deadlines"] == figures["late"] + figures["dropped"] <= figures["frames"]
    assert (figures["failures"], figures["interrupted"], figures["random_weights"]) == ([], False, False)
    assert 0 < figures["first_frame_ms"]["p50"] <= figures["last_frame_ms"]["p99"]
    assert 0 < figures["busy_share"] <= 1
    assert figures["settings"]["silence"] == "off"
    assert re.search(rf"^\s+3\s+{figures['capacity']}\s+0\.2 s", out, re.MULTILINE)
    sustained = figures["capacity"] or "none"
    assert f"sessions: 3, for 1 s in chunks of 0.2 s; this machine sustains {sustained}" in err


@pytest.mark.slow
@pytest.mark.parametrize(("sustained", "opened"), [(2, 2), pytest.param(1000, 64, marks=pytest.mark.slow)])
def test_as_many_speak_as_the_machine_sustains(soak, monkeypatch, sustained, opened):
    monkeypatch.setattr("musetalk_cli.bench.soak.sessions_of", lambda *_: sustained)
    result = soak(None, 1.0, ControlHandle())
    assert (result.sessions, result.capacity) == (opened, sustained)
    assert result.frames == 5 * opened


@pytest.mark.slow
def test_a_machine_that_sustains_none_says_so_and_measures_what_is_asked_for(soak, monkeypatch):
    monkeypatch.setattr("musetalk_cli.bench.soak.sessions_of", lambda *_: 0)
    with pytest.raises(
        DeviceError, match=r"sustains no session in chunks of .* s, so none was opened"
    ) as raised:
        soak(None, 3600.0, ControlHandle())
    assert "--sessions 1" in raised.value.hint
    told = []
    result = soak(1, 0.4, ControlHandle(), said=told)
    assert (result.sessions, result.capacity) == (1, 0)
    assert told[-1].startswith("sessions: 1, for 0.4 s in chunks of ")
    assert told[-1].endswith("; this machine sustains none")


def test_a_stop_ends_all_of_them(soak):
    handle = ControlHandle()

    class Telling(list):
        def append(self, text):
            if "this machine sustains" in text:
                handle.stop.set()

    result = soak(2, 3600.0, handle, said=Telling())
    assert result.interrupted
    assert result.frames < 3600


def test_a_stream_that_cannot_be_opened_ends_the_run_and_is_told(soak, monkeypatch):
    opened = []

    def fail_second(self, stream):
        opened.append(stream)
        if len(opened) == 2:
            raise OSError("no room for another")

    monkeypatch.setattr(NullSink, "open", fail_second)
    result = soak(3, 3600.0, ControlHandle())
    assert [failure for failure in result.failures if "no room for another" in failure]
    assert threading.active_count() < 10
