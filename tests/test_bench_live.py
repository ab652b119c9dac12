"""The live benchmark runs against the wall clock, and its figures are those of its runs."""

import json
import threading
from fractions import Fraction

import numpy as np
import pytest

from musetalk_cli.bench.live import bench_live
from musetalk_cli.bench.options import AvatarSizes, LiveOptions
from musetalk_cli.bench.synthetic import SyntheticSource, synthetic_sound
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.live.control import ControlHandle

SMALL = "--device cpu --fps 5 --frame-size 128x128 --face-size 64 --avatar-frames 2 --context 0 --sharpen off"


pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture
def small(models):
    return ["bench", "realtime", "--model", models, *SMALL.split()]


@pytest.mark.slow
def test_a_run_for_each_chunk_is_measured_and_shown(musetalk, small, tmp_path):
    path = tmp_path / "live.json"
    code, out, err = musetalk(*small, "--seconds", 1, "--chunk", "0.2,0.5", "--json", path)
    assert code == 0, err
    assert err.splitlines()[-2:] == ["speaking 1 s in chunks of 0.2 s", "speaking 1 s in chunks of 0.5 s"]
    figures = json.loads(path.read_text())
    assert figures["command"].startswith("musetalk bench realtime --model")
    assert figures["random_weights"] is False
    assert [run["chunk_s"] for run in figures["runs"]] == [0.2, 0.5]
    for run in figures["runs"]:
        assert (run["frames"], run["fps"], run["duration_s"]) == (5, 5.0, 1.0)
        assert (run["idle_frames"], run["interrupted"], run["failures"]) == (0, False, [])
        assert run["missed_deadlines"] == run["late_frames"] + run["dropped_frames"]
        assert (
            0 < run["first_frame_ms"]["p50"] <= run["first_frame_ms"]["p95"] <= run["first_frame_ms"]["p99"]
        )
        assert run["first_frame_ms"]["p50"] <= run["mouth_to_eye_ms"]["p50"]
        assert run["mouth_to_eye_ms"]["p50"] >= 1e3 * run["chunk_s"]
        assert run["settings"]["context_s"] == 0
    assert "Live at 5 fps" in out
    for words in ("first frame", "mouth to eye", "missed", "0.2 s", "0.5 s", "of 5"):
        assert words in out


def test_json_on_stdout_is_nothing_else(musetalk, small):
    code, out, err = musetalk(*small, "--seconds", 1, "--chunk", "0.5", "--json", "-")
    assert code == 0, err
    assert len(json.loads(out)["runs"]) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--chunk", "0.2,3"], "--chunk 3"),
        (["--chunk", "0.2,"], "--chunk"),
        (["--chunk", "fast"], "--chunk fast"),
        (["--frame-size", "big"], "--frame-size big"),
        (["--face-size", "4000"], "does not fit"),
        (["--json", "nowhere/live.json"], "folder of --json"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--context", "31"], "--context 31"),
    ],
)
def test_bad_values_are_one_sentence(musetalk, small, options, words):
    code, out, err = musetalk(*small, *options)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert words in err
    assert len(err.splitlines()) <= 2


def test_a_stop_ends_the_run_and_leaves_out_the_rest(models):
    stop = threading.Event()
    said = []

    def notice(text):
        said.append(text)
        if text.startswith("speaking"):
            stop.set()

    run = RunConfig(DataFolder(models, "flag"), DataFolder(models, "flag"), str(models), "cpu", "fp32")
    job = JobConfig(fps=Fraction(5), context=Fraction(0), sharpen=None)
    sizes = AvatarSizes(width=128, height=128, face=64, frames=2)
    options = LiveOptions((Fraction(1, 5), Fraction(1, 2)), 3600.0, sizes)
    result = bench_live(run, job, options, notice, ControlHandle(stop))
    assert len(result.runs) == 1
    assert result.runs[0].interrupted
    assert said == ["loading the networks", "speaking 3600 s in chunks of 0.2 s"]


def test_a_long_sound_is_a_short_one_again_and_again():
    sound = synthetic_sound(0.25)
    source = SyntheticSource(sound, 3000, MonotonicClock(), samples=10_000)
    blocks = [block.samples for block in source]
    assert [len(block) for block in blocks] == [3000, 3000, 3000, 1000]
    np.testing.assert_array_equal(np.concatenate(blocks), np.concatenate([sound, sound, sound])[:10_000])
