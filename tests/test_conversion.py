"""Weights as safetensors: the same tensors, strictly, beside the old file."""

import json
import re
import resource
import shutil
import threading

import pytest
import torch
from hubs import sha256
from lives import LIMIT_S
from safetensors.torch import load_file

from musetalk_cli.nets import conversion, pins, record
from musetalk_cli.nets.bundle import load_bundle
from musetalk_cli.nets.conversion import convert
from musetalk_cli.nets.pins import Pin
from musetalk_cli.nets.turns import turn

CPU = torch.device("cpu")
MADE = (
    "musetalkV15/unet.safetensors",
    "sd-vae/diffusion_pytorch_model.safetensors",
    "whisper/model.safetensors",
)


@pytest.fixture
def folder(golden, tmp_path):
    return shutil.copytree(golden / "models", tmp_path / "models")


def pickles(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in {".pth", ".bin"})


def hidden(folder):
    return [path for path in folder.rglob(".*") if path.is_file()]


def test_every_pickle_gets_a_safetensors_with_the_same_tensors(folder, musetalk):
    before = {path: path.read_bytes() for path in pickles(folder)}
    assert len(before) == 3
    code, out, err = musetalk("models", "convert", folder, "--device", "cpu")
    assert code == 0, err
    assert re.search(r"Loading the model took \d+\.\d s, and takes \d+\.\d s with them\.", out)
    assert {path: path.read_bytes() for path in pickles(folder)} == before, "the old files stay"
    for old, made in zip(sorted(before), sorted(folder / name for name in MADE), strict=True):
        assert str(made) in out
        expected = torch.load(old, weights_only=True)
        found = load_file(made)
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert made.stat().st_mode == old.stat().st_mode
    assert hidden(folder) == []


def test_the_new_files_are_taken_and_proven_and_made_once(folder, musetalk):
    assert musetalk("models", "convert", folder, "--device", "cpu")[0] == 0
    for path in pickles(folder):
        path.unlink()
    code, out, err = musetalk("models", "verify", folder, "--device", "cpu", "--json")
    assert code == 0, err
    files = {entry["file"]: entry["state"] for entry in json.loads(out)["files"]}
    assert [files[name] for name in MADE] == ["proven"] * 3
    code, out, err = musetalk("models", "convert", folder, "--device", "cpu")
    assert (code, out) == (0, f"Model {folder} has .safetensors for all of its networks.\n")
    made = folder / MADE[0]
    made.write_bytes(made.read_bytes()[:-1] + b"\xff")
    code, out, err = musetalk("models", "verify", folder, "--device", "cpu")
    assert (code, out) == (1, "")
    assert f"{folder} is damaged: {made} has SHA-256" in err
    assert f"`musetalk models convert {folder}`" in err


def test_what_a_conversion_that_was_killed_has_left_goes_with_the_next_download_or_conversion(
    folder, musetalk, tmp_path
):
    left = [folder / "musetalkV15" / ".partial.unet.safetensors", folder / "old" / ".partial.x.safetensors"]
    left[1].parent.mkdir()
    for path in left:
        path.write_bytes(b"half of it")
    with turn(folder, pytest.fail):
        assert hidden(folder) == []
    left[1].write_bytes(b"half of it")
    assert musetalk("models", "convert", folder, "--device", "cpu")[0] == 0
    assert hidden(folder) == []


def test_two_who_convert_take_turns(folder, monkeypatch):
    """The second one finds that there is nothing to do any more."""
    waits, made = threading.Event(), []

    def other():
        made.append(convert(str(folder), folder, CPU, torch.float32, lambda _: waits.set()))

    thread, real = threading.Thread(target=other), conversion.load_files

    def load_files(*arguments):
        if not thread.ident:
            thread.start()
            assert waits.wait(LIMIT_S)
        return real(*arguments)

    monkeypatch.setattr(conversion, "load_files", load_files)
    assert len(convert(str(folder), folder, CPU, torch.float32).files) == 3
    thread.join()
    assert made == [None]


def test_figures_as_json(folder, musetalk):
    code, out, err = musetalk("models", "convert", folder, "--device", "cpu", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [path.removeprefix(f"{folder}/") for path in told["files"]] == list(MADE)
    assert told["load_before_s"] > 0
    assert told["load_after_s"] > 0


@pytest.mark.parametrize("damage", ["missing", "unexpected"])
def test_a_model_that_does_not_load_is_not_converted(folder, musetalk, damage):
    path = folder / "musetalkV15" / "unet.pth"
    state = torch.load(path, weights_only=True)
    if damage == "missing":
        del state[next(iter(state))]
    else:
        state["more"] = torch.zeros(1)
    torch.save(state, path)
    code, out, err = musetalk("models", "convert", folder, "--device", "cpu")
    assert (code, out) == (1, "")
    assert f"1 {damage}" in err
    assert [path for path in folder.rglob("*") if path.suffix == ".safetensors"] == []
    assert hidden(folder) == []


def test_a_disk_that_is_full_is_a_sentence(folder, musetalk):
    before, limit = sorted(folder.rglob("*")), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        code, out, err = musetalk("models", "convert", folder, "--device", "cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (code, out) == (1, "")
    assert "takes no new file" in err
    assert "Free some space" in err
    assert sorted(folder.rglob("*")) == before


def test_tensors_that_share_memory_are_written_each_on_its_own(folder, musetalk):
    """Whole Whisper models are stored so: their output layer is the embedding."""
    path = folder / "whisper" / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    shared = torch.arange(12.0).reshape(3, 4)
    state |= {"model.decoder.embed_tokens.weight": shared, "proj_out.weight": shared}
    torch.save(state, path)
    code, _, err = musetalk("models", "convert", folder, "--device", "cpu")
    assert code == 0, err
    found = load_file(folder / MADE[2])
    assert torch.equal(found["proj_out.weight"], shared)
    assert torch.equal(found["model.decoder.embed_tokens.weight"], shared)


def test_a_converted_file_is_not_held_to_the_published_one_of_its_name(folder, musetalk, monkeypatch):
    """The published VAE has both kinds of file under names that the converted one has too."""
    monkeypatch.setattr(
        pins,
        "PINS",
        {
            (pins.VAE, "diffusion_pytorch_model.bin"): Pin(
                (folder / "sd-vae" / "diffusion_pytorch_model.bin").stat().st_size,
                sha256((folder / "sd-vae" / "diffusion_pytorch_model.bin").read_bytes()),
            ),
            (pins.VAE, "diffusion_pytorch_model.safetensors"): Pin(1, "0" * 64),
        },
    )
    chosen = ["v15", "--models-dir", folder, "--device", "cpu"]
    assert musetalk("models", "verify", *chosen)[0] == 0
    assert musetalk("models", "convert", *chosen)[0] == 0
    code, out, err = musetalk("models", "verify", *chosen)
    assert code == 0, err
    assert "3 of 7 files have the digest they should have" in out
    (folder / record.NAME).unlink()
    code, out, err = musetalk("models", "verify", *chosen)
    assert (code, out) == (1, "")
    assert "sd-vae/diffusion_pytorch_model.safetensors has SHA-256" in err


def test_networks_of_ones_own_are_used_where_they_are_named(folder, musetalk):
    code, out, err = musetalk("models", "verify", folder, "--device", "cpu")
    assert code == 0
    assert "0 of 7 files have the digest they should have. Of its own are musetalkV15/musetalk.json, " in out
    assert err == (
        f"Model {folder} has networks of its own, which are used as they are: unet.pth, "
        "diffusion_pytorch_model.bin, pytorch_model.bin.\n"
    )
    (folder / "bundle.json").write_text('{"name": "mine"}')
    assert musetalk("models", "verify", folder, "--device", "cpu")[2] == "", "its card says what it is"
    code, out, err = musetalk("models", "verify", "v15", "--models-dir", folder, "--device", "cpu")
    assert (code, out) == (1, "")
    assert "`musetalk models download v15`" in err
    assert "--model names" in err


def test_other_networks_in_the_place_of_the_published_ones_are_told(folder, caplog):
    load_bundle("v15", folder, torch.device("cpu"), torch.float32)
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.startswith("Model v15 is not as published, and is used as it is: the size of unet.pth, ")
    assert "`musetalk models download v15`" in told
