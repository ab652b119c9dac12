"""Many streams at once: each is spoken to its end, what is late is counted, and none is left behind."""

import json
import threading
from fractions import Fraction

import pytest

from musetalk_cli.bench.options import AvatarSizes, SoakOptions
from musetalk_cli.bench.soak import bench_soak
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
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
    assert f"3 of {figures['capacity']}" in out
    assert f"3 speak for 1 s in chunks of 0.2 s; {figures['capacity']} are sustained" in err


def test_as_many_speak_as_the_machine_sustains(soak):
    # by a warm-up of tiny networks there is room for many: what is asked for is what is opened
    result = soak(None, 1.0, ControlHandle())
    assert result.sessions == max(1, min(result.capacity, 64))
    assert result.frames == 5 * result.sessions


def test_a_stop_ends_all_of_them(soak):
    handle = ControlHandle()

    class Telling(list):
        def append(self, text):
            if "speak for" in text:
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
