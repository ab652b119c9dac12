"""Where a model lies, and what its card says."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from musetalk_cli.config import DataFolder, RunConfig
from musetalk_cli.errors import ModelError
from musetalk_cli.nets.bundle import load_bundle, open_bundle
from musetalk_cli.nets.device import computes_in_bf16
from musetalk_cli.nets.files import Card, family, is_demo, read_card, resolve

CPUINFO = Path("/proc/cpuinfo")


def test_the_demo_of_the_models_folder_comes_first(embedded, golden, tmp_path):
    assert resolve("demo", tmp_path).unet_weights.is_relative_to(embedded / "models" / "demo")
    shutil.copytree(golden / "models", tmp_path / "demo")
    assert resolve("demo", tmp_path).unet_weights.is_relative_to(tmp_path / "demo")
    shutil.rmtree(tmp_path / "demo" / "whisper")
    with pytest.raises(ModelError, match=f"{tmp_path / 'demo'} holds no whisper") as caught:
        resolve("demo", tmp_path)
    assert "install it again" in caught.value.hint


@pytest.mark.usefixtures("nothing_embedded")
def test_a_demo_that_was_not_installed_is_told(tmp_path):
    with pytest.raises(ModelError, match="Model demo is incomplete") as caught:
        resolve("demo", tmp_path)
    assert "install it again" in caught.value.hint


def test_the_card_is_read_and_other_keys_are_not(embedded):
    card = Card("demo", "bf16")
    assert resolve("demo", Path("none")).card == card
    bundle = load_bundle("demo", Path("none"), torch.device("cpu"), torch.float32)
    assert bundle.card == card
    assert bundle.family == "demo"


def test_a_bundle_without_a_card_says_nothing(golden):
    assert resolve("v15", golden / "models").card == Card(None, "fp32")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "nests deeper"),
        (b"[]", "not an object"),
        (b'{"name": 5}', "name is 5"),
        (b'{"name": ""}', "name is ''"),
        (b'{"name": "../demo"}', "name is"),
        (b'{"name": "' + b"x" * 65 + b'"}', "name is 'xxx"),
        (b'{"cpu_precision": "fp16"}', "cpu_precision is 'fp16'"),
        (b'{"cpu_precision": null}', "cpu_precision is None"),
        (b'{"cpu_precision": ["bf16"]}', "cpu_precision is"),
        (b'{"cpu_batch": 0}', "cpu_batch is 0, outside 1..64"),
        (b'{"cpu_batch": 65}', "cpu_batch is 65"),
        (b'{"cpu_batch": true}', "cpu_batch is True"),
        (b'{"cpu_batch": 2.0}', "cpu_batch is 2.0"),
        (b'{"window_s": 2.9}', "window_s is 2.9, outside 3..30"),
        (b'{"window_s": 31}', "window_s is 31"),
        (b'{"window_s": true}', "window_s is True"),
        (b'{"window_s": "10"}', "window_s is '10'"),
        (b" " * (4 << 20) + b"{}", "larger than 4 MB"),
    ],
)
def test_a_broken_card_is_one_sentence(content, complaint, tmp_path):
    (tmp_path / "bundle.json").write_bytes(content)
    with pytest.raises(ModelError, match=complaint) as caught:
        read_card(tmp_path)
    assert str(tmp_path / "bundle.json") in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


def test_a_demo_is_known_by_its_name_or_its_card(embedded, golden, tmp_path):
    assert is_demo("demo", tmp_path)
    assert is_demo(str(embedded / "models" / "demo"), tmp_path)
    assert is_demo("v15", embedded / "models" / "demo")
    assert not is_demo("v15", golden / "models")
    assert not is_demo(str(golden / "models"), tmp_path)
    assert not is_demo("random-v15", tmp_path)
    shutil.copytree(golden / "models", tmp_path / "demo")
    assert not is_demo(str(tmp_path / "demo"), tmp_path)
    with pytest.raises(ModelError, match="no model nothing"):
        is_demo("nothing", tmp_path)


@pytest.mark.parametrize(
    ("model", "card", "recorded"),
    [
        ("v15", Card(), "v15"),
        ("demo", Card(), "demo"),
        ("/models/anna", Card(), "anna"),
        ("/models/anna", Card("anna2"), "anna"),
        ("/models/renamed", Card("demo"), "demo"),
        ("/models/demo", Card(), "/models/demo"),
    ],
)
def test_only_the_demo_networks_are_recorded_as_demo(model, card, recorded):
    assert family(model, card) == recorded


@pytest.mark.skipif(not CPUINFO.exists(), reason="the processor's features are read from /proc/cpuinfo")
def test_the_card_chooses_the_precision_on_a_cpu_that_has_it(embedded, golden, tmp_path):
    native = torch.bfloat16 if computes_in_bf16(CPUINFO.read_text()) else torch.float32
    for model, precision, expected in (
        ("demo", "auto", native),
        ("demo", "fp32", torch.float32),
        (str(golden / "models"), "auto", torch.float32),
    ):
        run = RunConfig(DataFolder(tmp_path, "flag"), DataFolder(tmp_path, "flag"), model, "cpu", precision)
        bundle = open_bundle(run)
        assert (bundle.dtype, bundle.unet.dtype) == (expected, expected)


def test_a_broken_card_is_told_before_anything_is_loaded(golden, tmp_path):
    shutil.copytree(golden / "models", tmp_path / "mine")
    (tmp_path / "mine" / "bundle.json").write_text(json.dumps({"cpu_precision": "int8"}))
    with pytest.raises(ModelError, match="cpu_precision is 'int8', not fp32 or bf16"):
        resolve(str(tmp_path / "mine"), tmp_path)
