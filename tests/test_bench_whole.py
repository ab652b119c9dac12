"""The whole benchmark on tiny networks: every figure is there, and what it is made of."""

import dataclasses
import json
import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from musetalk_cli.bench.compare import Comparison, Row
from musetalk_cli.bench.options import AvatarSizes, BenchOptions
from musetalk_cli.bench.run import bench
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.nets.generator import Generator

STEPS = ["resize", "sharpen", "blend", "download"]
SIZES = AvatarSizes(width=320, height=240, face=96, frames=4)
SMALL = "--device cpu --batch-size 1,2 --seconds 0.4 --chunk 0.2 --budget 0"
SMALL += " --frame-size 320x240 --face-size 96 --avatar-frames 4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a profile; not there yet, nor the one that it is in."""
    return tmp_path_factory.mktemp("bench") / "deep" / "profile"


@pytest.fixture(scope="module")
def benchmarked():
    """Whether cuDNN was to measure its convolutions, each time that faces were made."""
    return []


@pytest.fixture(scope="module")
def ended():
    """The engines that were ended, by the length of their chunks."""
    return []


@pytest.fixture(scope="module")
def result(models, folder, benchmarked, ended):
    """All that is measured, recorded and predicted of tiny networks."""
    made = Generator.unet

    def unet(self, tokens, latents):
        if not tokens.is_meta:  # what a prediction counts computes nothing
            benchmarked.append(torch.backends.cudnn.benchmark)
        return made(self, tokens, latents)

    nowhere = DataFolder(Path("nowhere"), "flag")
    run = RunConfig(nowhere, nowhere, str(models), "cpu")
    options = BenchOptions((Fraction(1, 5),), 0.4, 0.0, predict="h200", profile=folder, sizes=SIZES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generator, "unet", unet)
        patch.setattr(Engine, "end", lambda engine: ended.append(engine.job.chunk))
        return bench(run, JobConfig(batch_sizes=(1, 2)), options, lambda _: None)


@pytest.fixture
def shown(musetalk, monkeypatch, result, tmp_path):
    """Shows a result; gives the exit code, the JSON, stdout and stderr."""

    def show(result=result):
        monkeypatch.setattr("musetalk_cli.bench.run.bench", lambda *_: result)
        code, out, err = musetalk("bench", "--json", tmp_path / "bench.json")
        return code, json.loads((tmp_path / "bench.json").read_text()), out, err

    return show


@pytest.fixture
def measured(musetalk, models, tmp_path):
    """Runs a small one with more options; gives its exit code, its JSON or None, stdout and stderr."""

    def call(*options, name="bench.json"):
        path = tmp_path / name
        code, out, err = musetalk("bench", *SMALL.split(), "--model", models, "--json", path, *options)
        return code, json.loads(path.read_text()) if path.exists() else None, out, err

    return call


@pytest.mark.slow
def test_bench_measures_every_stage_and_the_whole(result):
    figures = result.as_json()
    assert "comparison" not in figures
    assert figures["settings"]["random_weights"] is False
    assert [batch["size"] for batch in figures["batches"]] == [1, 2]
    for batch in figures["batches"]:
        _check_batch(batch, figures)
    [chunk] = figures["chunks"]
    assert (chunk["chunk_s"], chunk["frames"]) == (0.2, 10)
    assert chunk["published"]["count"] >= 1
    assert 0 < chunk["published"]["first_frame_ms"]["p50"] <= chunk["published"]["last_frame_ms"]["p50"]


@pytest.mark.slow
def test_convolutions_are_those_of_a_stream_that_was_warmed_up(result, benchmarked):
    """cuDNN remembers what it took unmeasured: one batch before a warm-up, and no stream has the fastest."""
    assert benchmarked
    assert all(benchmarked)
    assert not torch.backends.cudnn.benchmark


@pytest.mark.slow
def test_no_engine_of_a_chunk_keeps_its_graphs_beside_those_of_the_next(result, ended):
    assert [float(chunk) for chunk in ended] == [one.report.chunk_s for one in result.chunks]


def _check_batch(batch, figures):
    assert set(batch["image_ms"]) == {"cpu", "tensor"}, "no GPU is here, so there is no figure of one"
    assert list(batch["image_ms"]["cpu"]) == list(batch["image_ms"]["tensor"]) == STEPS
    sums = {path: sum(steps.values()) for path, steps in batch["image_ms"].items()}
    assert batch["speed_up"] == pytest.approx(sums["cpu"] / sums["tensor"])
    assert batch["graph_ms"] is None
    networks_s = (batch["unet_ms"] + batch["vae_ms"]) / 1e3
    assert batch["roofline_share"] == pytest.approx(batch["size"] / networks_s / batch["roofline_fps"])
    made_s = networks_s + min(sums.values()) / 1e3
    assert batch["frames_per_s"] == pytest.approx(batch["size"] / made_s)
    window_s, frame_s = figures["features_ms"] / 1e3 / 0.2, made_s / batch["size"] * 25
    assert batch["sessions"] == int(0.8 / (window_s + frame_s))
    assert batch["published_fps"] == pytest.approx(
        batch["size"] / (networks_s + batch["published_image_ms"] / 1e3)
    )
    stages = {stage["name"]: stage for stage in batch["stages"]}
    assert list(stages) == ["features", "unet", "vae", *STEPS]
    assert math.fsum(stage["share"] for stage in stages.values()) == pytest.approx(1)
    assert stages["vae"]["gflop"] == pytest.approx(figures["gflop"]["vae"] * batch["size"])
    for stage in stages.values():
        if stage["reached"] is not None:
            _check_reached(stage, figures["roofline"])


def _check_reached(stage, roofline):
    """The rate and the share are those of the stage's own time, and of this run's best."""
    seconds, rate = stage["ms"] / 1e3, stage["reached"]["rate"]
    if stage["reached"]["bound"] == "matrix":
        assert rate == pytest.approx(stage["gflop"] / 1e3 / seconds)
        best = roofline["tflops"]
    else:
        assert rate == pytest.approx(stage["mbytes"] / 1e3 / seconds)
        best = roofline["gbytes_per_s"]
    assert stage["reached"]["share"] == pytest.approx(rate / best)


def test_what_is_shown_is_what_was_measured(shown, result):
    code, figures, out, err = shown()
    assert code == 0, err
    assert figures.pop("command").startswith("musetalk bench")
    assert figures == json.loads(json.dumps(result.as_json()))
    for title in ("By batch size", "Stages of a batch of 2", "Image steps, ms a frame", "Chunks, p50"):
        assert title in out
    lines = [line.split() for line in out.splitlines()]
    [resize] = [line for line in lines if line[:1] == ["resize"] and "5-10" in line]
    assert resize[3] == "-", "the column of the GPU is empty"
    assert resize[4:] == ["5-10", "1-2"]
    assert "No GPU was measured." in out
    assert "PREDICTED, not measured: NVIDIA H200 SXM" in out
    assert result.profile.operators[0].name in out


def test_a_prediction_is_apart_from_what_was_measured(result):
    figures = result.as_json()
    predicted = figures.pop("predicted")
    assert "nothing here was measured" in predicted["note"]
    assert predicted["assumed"]["sheet"]["name"] == "NVIDIA H200 SXM"
    assert [batch["size"] for batch in predicted["batches"]] == [1, 2]
    rest = json.dumps(figures)
    assert "H200" not in rest
    assert "predict" not in rest.lower()
    measured = set(_numbers(figures))
    for batch in predicted["batches"]:
        for name in ("unet_ms", "vae_ms", "image_ms", "frames_per_s"):
            assert batch[name] > 0
            assert batch[name] not in measured


def _numbers(value):
    if isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif isinstance(value, float):
        yield value


def test_without_one_no_prediction_is_there(shown, result):
    _, figures, out, _ = shown(dataclasses.replace(result, prediction=None, profile=None))
    assert not {"predicted", "profile", "comparison"} & set(figures)
    assert "PREDICTED" not in out


def test_a_profile_is_a_trace_and_a_table(result, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["operators.json", "trace.json"]
    names = {event.get("name") for event in json.loads((folder / "trace.json").read_text())["traceEvents"]}
    assert "aten::convolution" in names
    table = json.loads((folder / "operators.json").read_text())
    assert table == result.as_json()["profile"]
    assert (table["batches"], table["size"]) == (2, 2)
    times = [operator["ms"] for operator in table["operators"]]
    assert times == sorted(times, reverse=True)
    assert 0 < len(times) <= 20
    assert 0 < sum(operator["share"] for operator in table["operators"]) <= 1 + 1e-9


@pytest.mark.slow
def test_without_sharpening_and_the_published_order_neither_is_there(measured, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere")
    code, figures, _, err = measured("--sharpen", "off", "--no-baseline", "--chunk", "0.2,0.4")
    assert code == 0, err
    assert figures["command"].startswith("musetalk bench --device cpu")
    assert [chunk["chunk_s"] for chunk in figures["chunks"]] == [0.2, 0.4]
    assert [chunk["published"] for chunk in figures["chunks"]] == [None, None]
    for batch in figures["batches"]:
        assert "sharpen" not in batch["image_ms"]["cpu"]
        assert batch["published_fps"] is batch["published_image_ms"] is None


def test_a_profile_that_cannot_be_written_is_refused_before_anything_is_done(measured, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing"):
        code, figures, out, err = measured("--profile", folder)
        assert (code, figures, out) == (1, None, "")
        [line] = [line for line in err.splitlines() if line.startswith("error:")]
        assert str(folder) in line
        assert "loading" not in err


@pytest.mark.parametrize(("after", "expected"), [(10.5, 0), (12.0, 1)])
def test_a_figure_that_is_worse_than_the_tolerance_ends_with_1(shown, result, after, expected):
    comparison = Comparison(Path("old.json"), 0.1, [Row("UNet, ms", 10.0, after), Row("VAE, ms", 3.0, 3.0)])
    code, figures, out, err = shown(dataclasses.replace(result, comparison=comparison))
    assert code == expected
    assert figures["comparison"]["rows"][0]["worse"] == bool(expected), "what was measured is kept"
    assert ("1 of 2 figures are worse than in old.json by more than 10 %" in err) == bool(expected)
    [line] = [line.split() for line in out.splitlines() if line.split()[:2] == ["UNet,", "ms"]]
    assert line[2:5] == ["10", f"{after:.4g}", f"{after / 10:.2f}"]


@pytest.mark.slow
def test_two_runs_are_compared_figure_by_figure(measured, tmp_path):
    code, old, _, err = measured("--no-baseline", name="old.json")
    assert code == 0, err
    code, new, out, err = measured("--no-baseline", "--compare", tmp_path / "old.json", "--tolerance", "1000")
    assert code == 0, err
    rows = {row["name"]: row for row in new["comparison"]["rows"]}
    assert rows.keys() == old["figures"].keys() == new["figures"].keys()
    for name, row in rows.items():
        assert (row["before"], row["after"]) == (old["figures"][name], new["figures"][name])
    assert "after / before" in out


def test_another_device_is_refused_before_anything_is_measured(measured, tmp_path):
    conditions = {"device": "an abacus"}
    earlier = {"format": 2, "conditions": conditions, "figures": {"features, ms": 1}}
    (tmp_path / "old.json").write_text(json.dumps(earlier))
    code, figures, out, err = measured("--compare", tmp_path / "old.json")
    assert (code, figures, out) == (1, None, "")
    assert "was measured with another device, an abacus, and this run has" in err
    assert "measuring the hardware" not in err
