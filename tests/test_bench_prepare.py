"""The benchmark of preparation does the same work in both orders, and tells what it took."""

import json
import re
from dataclasses import asdict

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file
from workers import run_workers_here

from musetalk_cli.bench import preparing, worker
from musetalk_cli.bench.clip import write_clip
from musetalk_cli.bench.memory import forget_peak, peak_bytes, resident_bytes
from musetalk_cli.bench.one_by_one import prepare_one_by_one
from musetalk_cli.bench.task import Measured, Task
from musetalk_cli.errors import InputError
from musetalk_cli.face.haar import HaarFinder
from musetalk_cli.measure.throughput import StageRates
from musetalk_cli.media.video import Selection, read_frames
from musetalk_cli.nets.generator import FaceEncoder
from musetalk_cli.preparation.inputs import FaceNetworks, PictureSource
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.run import prepare_avatar

SIZE = (320, 240)
STAGES = {"decode", "detect", "write", "read", "encode", "mask"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, 8, SIZE)
    return path


@pytest.fixture
def here(monkeypatch):
    run_workers_here(monkeypatch)


@pytest.fixture
def small(models):
    return [
        "--model",
        models,
        "--models-dir",
        models,
        "--device",
        "cpu",
        "--frame-size",
        "320x240",
    ]


class WholeFrames(HaarFinder):
    """Searches every frame as a whole in either order of work."""

    batch = 1


def labels(crops):
    """A stand-in for the parser: skin in the lower half of a crop, lips in the middle of that."""
    found = np.zeros((len(crops), 512, 512), np.uint8)
    found[:, 200:] = 1
    found[:, 350:380, 200:300] = 12
    return found


def measured(order, frames, ready, peak, seconds=1.0, boxes=()):
    return Measured(
        order, frames, frames, seconds, {"decode": 5.0}, 10, ready, peak, None, "haar", False, 2, "float32",
        list(boxes),
    )  # fmt: skip


def result(*runs):
    options = preparing.PreparingOptions()
    return preparing.PreparingResult(options, "demo", "a CPU", "a CPU", 2, 0.5, {}, list(runs))


def test_the_clip_goes_back_and_forth_and_shows_a_face(clip, tmp_path):
    with read_frames(clip) as video:
        assert (video.width, video.height, video.fps, video.expected) == (*SIZE, 25, 8)
        frames = list(video)
    assert all(len(HaarFinder().find([frame], [])[0]) == 1 for frame in frames)
    assert not np.array_equal(frames[0], frames[7])
    with pytest.raises(InputError, match="face is not found in frames of 64x32"):
        write_clip(tmp_path / "small.mp4", 2, (64, 32))


@pytest.mark.slow
@pytest.mark.parametrize(
    "parse", [pytest.param(None, marks=pytest.mark.slow), labels], ids=["outline", "parsed"]
)
def test_both_orders_give_the_same_avatar(clip, golden_bundle, tmp_path, parse):
    networks = FaceNetworks(FaceEncoder(golden_bundle), WholeFrames(), parse, batch_size=2)
    source, options, rates = PictureSource(clip, Selection(max_frames=5)), PrepareOptions(), StageRates()
    ours = prepare_avatar(
        source, tmp_path, "ours", networks=networks, options=options, model={"version": "v15"}
    ).plan
    theirs = prepare_one_by_one(source, tmp_path / "theirs", networks, options, "v15", rates)
    assert [face.box for face in theirs.faces] == [face.box for face in ours.faces]
    assert len(theirs.animated) == 5
    for place in ("full_imgs", "masks"):
        names = sorted(path.name for path in (tmp_path / "ours" / place).iterdir())
        assert names == sorted(path.name for path in (tmp_path / "theirs" / place).iterdir())
        for name in names:
            pictures = [cv2.imread(str(tmp_path / order / place / name)) for order in ("ours", "theirs")]
            assert np.array_equal(*pictures)
    one, other = (
        load_file(tmp_path / order / "latents.safetensors")["latents"] for order in ("ours", "theirs")
    )
    np.testing.assert_allclose(other, one, atol=1e-4)
    assert set(rates.rates()) == STAGES | ({"parse"} if parse else set())


def test_the_peak_is_this_process_and_can_be_forgotten():
    block = np.ones(64 << 20, np.uint8)
    assert peak_bytes() >= resident_bytes() > block.nbytes
    del block
    before = peak_bytes()
    forget_peak()
    assert peak_bytes() <= before - (32 << 20)


def test_growth_speed_up_and_boxes_are_those_of_the_runs():
    found = result(
        measured("ours", 1000, 100, 1_000_100, 10, [[0, 0, 9, 9], None]),
        measured("ours", 250, 100, 250_100, 5, [[1, 1, 5, 5]]),
        measured("upstream", 250, 100, 500_100, 10, [[1, 1, 5, 8]]),
        measured("upstream", 1000, 100, 2_000_100, 30, [[0, 1, 9, 9], [0, 0, 0, 0]]),
    )
    assert found.growth_bytes("ours") == 1000
    assert found.growth_bytes("upstream") == 2000
    assert found.speed_ups() == {250: 2, 1000: 3}
    assert found.box_difference() == 3
    alone = result(measured("ours", 250, 100, 500))
    assert (alone.growth_bytes("ours"), alone.growth_bytes("upstream")) == (None, None)
    assert (alone.speed_ups(), alone.box_difference()) == ({}, None)


@pytest.mark.slow
def test_bench_prepare_tells_every_stage_and_the_memory(musetalk, small, here, tmp_path):
    file = tmp_path / "figures.json"
    code, out, err = musetalk(
        "bench", "prepare", *small, "--frames", "4,2", "--batch-size", 2, "--json", file
    )
    assert code == 0, err
    assert re.search(r"ours, 2 .*\n.*ours, 4 .*\n.*published order, 2 .*\n.*published order, 4 ", out)
    assert "KiB a frame from 2 to 4 frames" in out
    assert "preparing 4 frames, published order" in err
    figures = json.loads(file.read_text())
    assert figures["command"].startswith("musetalk bench prepare --model")
    assert {"device", "processor", "cores", "load", "versions", "model"} <= set(figures)
    assert [(run["order"], run["frames"], run["faces"]) for run in figures["runs"]] == [
        ("ours", 2, 2), ("upstream", 2, 2), ("ours", 4, 4), ("upstream", 4, 4),
    ]  # fmt: skip
    for run in figures["runs"]:
        assert set(run["stages"]) == STAGES
        assert min(*run["stages"].values(), run["frames_per_s"]) > 0
        assert run["frames_per_s"] == pytest.approx(run["frames"] / run["seconds"])
        assert run["beyond_models_bytes"] == run["peak_bytes"] - run["ready_bytes"] >= 0
        assert (run["precision"], run["peak_device_bytes"]) == ("float32", None)
    assert set(figures["growth_bytes_per_frame"]) == {"ours", "upstream"}
    assert set(figures["speed_up"]) == {"2", "4"}
    assert figures["box_difference_px"] <= 4


def test_a_run_has_a_process_of_its_own(musetalk, small, tmp_path, monkeypatch):
    """Which says how it went in its last line."""
    program, told = tmp_path / "python", tmp_path / "told"
    answer = json.dumps(asdict(measured("ours", 2, 100, 250)))
    program.write_text(f"#!/bin/sh\necho \"$@\" > {told}\necho noise\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    code, out, err = musetalk("bench", "prepare", *small, "--frames", 2, "--no-baseline", "--json", "-")
    assert code == 0, err
    figures = json.loads(out)
    assert [(run["order"], run["frames"]) for run in figures["runs"]] == [("ours", 2)]
    assert figures["runs"][0]["beyond_models_bytes"] == 150
    module, task = re.fullmatch(r"-m (\S+) (.*)\n", told.read_text()).groups()
    assert module == worker.__name__
    assert Task(**json.loads(task)).frames == 2


@pytest.mark.slow
def test_a_run_in_its_own_process_has_figures(musetalk, small):
    code, out, err = musetalk("bench", "prepare", *small, "--frames", 2, "--no-baseline", "--json", "-")
    assert code == 0, err
    figures = json.loads(out)
    assert [run["order"] for run in figures["runs"]] == ["ours"]
    assert figures["growth_bytes_per_frame"] == {"ours": None}
    assert figures["speed_up"] == {}
    assert 0 < figures["runs"][0]["models_bytes"] < figures["runs"][0]["peak_bytes"]


def test_a_run_that_fails_answers_why(golden, clip, tmp_path, monkeypatch, capsys):
    task = Task(
        order="ours",
        source=str(clip),
        frames=2,
        folder=str(tmp_path),
        models=str(golden),
        model=str(golden / "models"),
        device="cpu",
        precision="auto",
        detector="haar",
        parser="segformer",
        batch_size=None,
    )
    monkeypatch.setattr("sys.argv", ["worker", json.dumps(asdict(task))])
    assert worker.main() == 1
    answer = json.loads(capsys.readouterr().out)
    assert "face-parsing" in answer["message"] + answer["hint"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo noise\necho \'{"message": "It broke.", "hint": null}\'\nexit 1', "error: It broke."),
        ("echo first >&2\necho why >&2\nexit 3", "error: Preparing 2 frames, ours, ended with code 3: why."),
        ("kill -9 $$", "error: Preparing 2 frames, ours, ended with code -9: it gave no reason."),
    ],
    ids=["answered", "crashed", "killed"],
)
def test_a_run_that_fails_is_told(musetalk, small, tmp_path, monkeypatch, script, words):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    code, out, err = musetalk("bench", "prepare", *small, "--frames", 2)
    assert (code, out) == (1, "")
    assert words in err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--frames", "many"), "--frames many is not understood"),
        (("--frames", "0,5"), "--frames is outside"),
        (("--frames", ""), "after --frames is empty"),
        (("--frame-size", "321x240"), "even numbers"),
        (("--frame-size", "wide"), "--frame-size wide"),
        (("--frame-size", "64x32"), "face is not found"),
        (("--batch-size", "0"), "--batch-size 0 is outside"),
        (("--json", "/nowhere/x.json"), "--json /nowhere/x.json is not there"),
        (("--model", "nothing"), "nothing"),
    ],
)
def test_bad_input_is_refused(musetalk, small, here, option, words):
    code, out, err = musetalk("bench", "prepare", *small, "--frames", 2, *option)
    assert (code, out) == (1, "")
    assert re.search(r"^error: [^\n]+\n(hint:  [^\n]+\n)?\Z", err, re.MULTILINE), err
    assert words in err


def test_without_the_embedded_person_there_is_no_clip(musetalk, small, nothing_embedded):
    code, _, err = musetalk("bench", "prepare", *small, "--frames", 2)
    assert code == 1
    assert "The embedded avatar was not installed" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["prepare", "more"],
        ["prepare", "--nonsense"],
        ["prepare", "--detector", "eyes"],
        ["prepare", "--device", "tpu"],
        ["--seconds", "1", "prepare"],
        ["--json", "-", "prepare", "--frames", "2"],
    ],
)
def test_wrong_usage_is_2(musetalk, arguments):
    code, out, err = musetalk("bench", *arguments)
    assert (code, out) == (2, "")
    assert "Usage: musetalk bench" in err


def test_bench_lists_what_else_it_measures(musetalk):
    code, out, _ = musetalk("bench", "--help")
    assert code == 0
    assert "--budget" in out
    assert re.search(r"prepare +Measure the time of every stage", out)


def test_the_options_are_checked_without_a_command_line():
    assert preparing.PreparingOptions().frames == (250, 1000)
    for wrong in ({"frames": ()}, {"frames": (0,)}, {"width": 31}, {"batch_size": 257}):
        with pytest.raises(InputError):
            preparing.PreparingOptions(**wrong)
