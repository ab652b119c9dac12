import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from face_graphs import write_dwpose
from hubs import a_hub, sha256

from musetalk_cli.errors import ModelError
from musetalk_cli.nets import pins
from musetalk_cli.nets.fetching import download
from musetalk_cli.nets.published import (
    LAYOUTS,
    PUBLISHED,
    TOOLS,
    complete,
    find_dwpose,
    find_face_parsing,
    missing,
    require,
)

LISTED = {
    *("model", "file", "path", "state", "bytes", "published_bytes", "sha256", "licence", "repository"),
}
NAMES = ["v15", "v1", "taesd", "dwpose", "face-parsing"]


@pytest.fixture
def hub(monkeypatch):
    """A hub that publishes everything, of whose files nothing is known."""
    monkeypatch.setattr(pins, "PINS", {})
    with a_hub() as hub:
        for parts in PUBLISHED.values():
            for part in parts:
                for path in part.published:
                    hub.publish(part.repository, path, f"{path} of {part.repository}".encode())
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


def place(name, root):
    """Put a file where each of a name's is looked for."""
    for part in PUBLISHED[name]:
        path = root / part.folder / part.names[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", NAMES)
def test_every_part_lands_where_it_is_looked_for(name, hub, tmp_path):
    told = []
    assert len(download(name, tmp_path, told=lambda *step: told.append(step)).files) == len(PUBLISHED[name])
    parts = PUBLISHED[name]
    sizes = 0
    for part in parts:
        found = part.find(tmp_path)
        assert found.read_text() == f"{part.published[0]} of {part.repository}"
        sizes += found.stat().st_size
    assert told[-1] == ("fetch", sizes, sizes)


def test_what_is_pinned_is_published():
    """No line of the table stands for a file that nothing asks for."""
    published = {
        (part.repository, path) for parts in PUBLISHED.values() for part in parts for path in part.published
    }
    assert set(pins.PINS) <= published
    for pin in pins.PINS.values():
        assert re.fullmatch("[0-9a-f]{40}", pin.revision)
        assert (pin.bytes is None) == (pin.sha256 is None)
        assert pin.sha256 is None or re.fullmatch("[0-9a-f]{64}", pin.sha256)
    digests = [pin.sha256 for pin in pins.PINS.values() if pin.sha256]
    assert len(set(digests)) == len(digests) - 1, "the UNet's configuration is the same in both versions"


def test_v15_and_dwpose_are_known_whole():
    for name in ("v15", "dwpose"):
        assert all(source.pin.sha256 for part in PUBLISHED[name] for source in part.sources())


def test_published_places_are_upstreams():
    v15, v1 = LAYOUTS["v15"], LAYOUTS["v1"]
    assert v15.unet_weights.published == ("musetalkV15/unet.pth",)
    assert v1.unet_weights.published == ("musetalk/pytorch_model.bin",)
    assert str(v15.whisper_weights) == "whisper/model.safetensors or pytorch_model.bin"
    assert list(PUBLISHED) == NAMES
    for parts in PUBLISHED.values():
        for part in parts:
            assert {Path(source).name for source in part.published} <= set(part.names)


def test_tools_are_looked_for_in_folders_of_their_own():
    assert [str(part) for part in TOOLS["dwpose"]] == ["dwpose/dw-ll_ucoco_384.onnx"]
    assert [str(part) for part in TOOLS["face-parsing"]] == [
        "face-parsing/config.json",
        "face-parsing/model.safetensors or pytorch_model.bin",
        "face-parsing/preprocessor_config.json",
    ]
    repositories = {name: {part.repository for part in parts} for name, parts in TOOLS.items()}
    assert repositories == {"dwpose": {"yzd-v/DWPose"}, "face-parsing": {"jonathandinu/face-parsing"}}


def test_tools_are_found_where_all_of_their_files_are(tmp_path):
    assert (find_dwpose(tmp_path), find_face_parsing(tmp_path)) == (None, None)
    place("dwpose", tmp_path)
    place("face-parsing", tmp_path)
    assert find_dwpose(tmp_path) == tmp_path / "dwpose" / "dw-ll_ucoco_384.onnx"
    assert find_face_parsing(tmp_path) == tmp_path / "face-parsing"
    assert require("dwpose", tmp_path) == [find_dwpose(tmp_path)]
    (tmp_path / "face-parsing" / "preprocessor_config.json").unlink()
    assert find_face_parsing(tmp_path) is None
    with pytest.raises(ModelError) as caught:
        require("face-parsing", tmp_path)
    assert caught.value.message == (
        f"face-parsing is incomplete: {tmp_path} holds no face-parsing/preprocessor_config.json."
    )
    assert "`musetalk models download face-parsing`" in caught.value.hint


def test_tools_make_no_model_complete(tmp_path):
    for name in ("dwpose", "face-parsing", "v1"):
        place(name, tmp_path)
    assert complete(tmp_path) == ["v1"]
    assert missing("v1", tmp_path) == []


def test_another_name_that_is_accepted_is_not_fetched_again(hub, tmp_path):
    (tmp_path / "sd-vae").mkdir()
    (tmp_path / "sd-vae" / "diffusion_pytorch_model.bin").write_text("here")
    assert len(download("v15", tmp_path).files) == len(LAYOUTS["v15"].parts()) - 1
    assert download("v15", tmp_path).files == []
    assert not (tmp_path / "sd-vae" / "diffusion_pytorch_model.safetensors").exists()


@pytest.mark.parametrize("name", ["v16", "all", "dwpose|face-parsing", ""])
def test_an_unknown_name_lists_the_valid_ones(name, tmp_path):
    with pytest.raises(ModelError) as caught:
        download(name, tmp_path)
    assert caught.value.hint == "Choose one of v15, v1, taesd, dwpose, face-parsing."


def test_the_table_needs_no_torch():
    code = "import sys, musetalk_cli.nets.published; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_list_shows_models_and_tools(musetalk, tmp_path):
    place("dwpose", tmp_path)
    code, out, err = musetalk("models", "list", "--models-dir", tmp_path, "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert list(dict.fromkeys(entry["model"] for entry in shown)) == NAMES
    assert all(set(entry) == LISTED for entry in shown)
    (here,) = [entry for entry in shown if entry["path"]]
    assert (here["path"], here["state"], here["bytes"]) == (str(find_dwpose(tmp_path)), "other size", 0)
    assert (here["published_bytes"], here["licence"]) == (134_399_116, "Apache-2.0")
    assert {entry["state"] for entry in shown} == {"missing", "other size"}
    table = musetalk("models", "list", "--models-dir", tmp_path)[1]
    for words in ("jonathandinu/face-parsing", "3.4 GB", "CreativeML Open RAIL-M", "other size", "unknown"):
        assert words in table


def test_help_names_all_that_is_published(musetalk):
    for command in ("download", "verify"):
        told = musetalk("models", command, "--help")[1]
        assert all(name in told for name in PUBLISHED)


@pytest.mark.parametrize("name", ["dwpose", "face-parsing"])
def test_a_tool_that_is_not_there_is_refused(name, musetalk, tmp_path):
    code, out, err = musetalk("models", "verify", name, "--models-dir", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {name} is incomplete: {tmp_path} holds no {name}/")
    assert f"`musetalk models download {name}`" in err


def test_dwpose_is_verified(musetalk, monkeypatch, tmp_path):
    monkeypatch.setattr(pins, "PINS", {})
    place("dwpose", tmp_path)
    options = ["--models-dir", tmp_path, "--device", "cpu"]
    code, out, err = musetalk("models", "verify", "dwpose", *options)
    assert (code, out) == (1, "")
    assert "dw-ll_ucoco_384.onnx cannot be opened as an ONNX network" in err
    write_dwpose(find_dwpose(tmp_path), {0: (255, 0, 0)})
    code, out, err = musetalk("models", "verify", "dwpose", *options, "--json")
    assert (code, err) == (0, "")
    network = find_dwpose(tmp_path)
    told = json.loads(out)
    assert (told["model"], told["folder"]) == ("dwpose", str(tmp_path / "dwpose"))
    (file,) = told["files"]
    assert file == {
        "file": "dwpose/dw-ll_ucoco_384.onnx",
        "bytes": network.stat().st_size,
        "sha256": sha256(network.read_bytes()),
        "state": "unknown",
    }
    assert musetalk("models", "verify", "dwpose", *options)[1] == (
        f"Tool dwpose is complete in {tmp_path / 'dwpose'}. 0 of 1 files have the digest they should have. "
        "No digest is known of dwpose/dw-ll_ucoco_384.onnx.\n"
    )


def test_the_face_parser_is_verified(musetalk, tmp_path):
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    from musetalk_cli.face.parsing import LABELS

    options = ["--models-dir", tmp_path, "--device", "cpu"]
    place("face-parsing", tmp_path)
    (tmp_path / "face-parsing" / "config.json").write_text("{}")
    code, out, err = musetalk("models", "verify", "face-parsing", *options)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {tmp_path / 'face-parsing'}")
    SegformerForSemanticSegmentation(
        SegformerConfig(
            depths=[1] * 4,
            hidden_sizes=[8] * 4,
            num_attention_heads=[1] * 4,
            decoder_hidden_size=8,
            id2label=dict(enumerate(LABELS)),
        )
    ).save_pretrained(tmp_path / "face-parsing")
    (tmp_path / "face-parsing" / "preprocessor_config.json").write_text("{}")
    code, out, err = musetalk("models", "verify", "face-parsing", *options)
    assert code == 0, err
    assert out.startswith(f"Tool face-parsing is complete in {tmp_path / 'face-parsing'}. 0 of 3 files")
