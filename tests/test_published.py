import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from face_graphs import write_dwpose
from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError

from musetalk_cli.errors import ModelError
from musetalk_cli.nets.published import (
    LAYOUTS,
    PUBLISHED,
    REVISION,
    TOOLS,
    complete,
    download,
    find_dwpose,
    find_face_parsing,
    missing,
    require,
)

NAMES = ["v15", "v1", "dwpose", "face-parsing"]


def publish(monkeypatch, refuse=(), error=None):
    """Stand in for the hub: files appear in their local folder, `refuse` ones fail with `error`."""
    asked = []

    def hf_hub_download(repo_id, filename, *, revision, local_dir):
        asked.append((repo_id, filename, revision))
        if filename in refuse:
            raise error
        path = Path(local_dir) / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(repo_id)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return asked


def place(name, root):
    """Put a file where each of a name's is looked for."""
    for part in PUBLISHED[name]:
        path = root / part.folder / part.names[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", NAMES)
def test_every_part_lands_where_it_is_looked_for(name, monkeypatch, tmp_path):
    asked = publish(monkeypatch)
    told = []
    download(name, tmp_path, lambda *step: told.append(step))
    parts = PUBLISHED[name]
    for part in parts:
        found = part.find(tmp_path)
        assert found is not None
        assert found.read_text() == part.repository
    assert [step[1:] for step in told] == [(number, len(parts)) for number in range(1, len(parts) + 1)]
    assert {revision for *_, revision in asked} == {REVISION}


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


def test_what_is_there_is_not_fetched_again(monkeypatch, tmp_path):
    asked = publish(monkeypatch)
    (tmp_path / "sd-vae").mkdir()
    (tmp_path / "sd-vae" / "diffusion_pytorch_model.bin").write_text("here")
    download("v15", tmp_path)
    assert len(asked) == len(LAYOUTS["v15"].parts()) - 1
    download("v15", tmp_path)
    assert len(asked) == len(LAYOUTS["v15"].parts()) - 1


def test_second_published_name_is_tried(monkeypatch, tmp_path):
    publish(monkeypatch, {"model.safetensors"}, EntryNotFoundError("404"))
    download("v15", tmp_path)
    assert (tmp_path / "whisper" / "pytorch_model.bin").is_file()


@pytest.mark.parametrize("error", [OSError("no route"), LocalEntryNotFoundError("offline"), RuntimeError()])
def test_without_network_the_message_says_what_to_place_where(error, monkeypatch, tmp_path):
    publish(monkeypatch, {"diffusion_pytorch_model.safetensors"}, error)
    with pytest.raises(ModelError) as caught:
        download("v15", tmp_path)
    message, hint = caught.value.message, caught.value.hint
    assert (
        "diffusion_pytorch_model.safetensors could not be fetched from stabilityai/sd-vae-ft-mse" in message
    )
    assert "could not be reached" in message
    assert "\n" not in message
    assert str(tmp_path / "sd-vae" / "diffusion_pytorch_model.safetensors") in hint


@pytest.mark.parametrize("name", ["v16", "all", "dwpose|face-parsing", ""])
def test_an_unknown_name_lists_the_valid_ones(name, tmp_path):
    with pytest.raises(ModelError) as caught:
        download(name, tmp_path)
    assert caught.value.hint == "Choose one of v15, v1, dwpose, face-parsing."


def test_the_table_needs_no_torch():
    code = "import sys, musetalk_cli.nets.published; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_list_shows_models_and_tools(musetalk, tmp_path):
    place("dwpose", tmp_path)
    code, out, err = musetalk("models", "list", "--models-dir", tmp_path, "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert list(dict.fromkeys(entry["model"] for entry in shown)) == NAMES
    assert all(set(entry) == {"model", "file", "path", "repository"} for entry in shown)
    assert [entry["path"] for entry in shown if entry["path"]] == [str(find_dwpose(tmp_path))]
    assert "jonathandinu/face-parsing" in musetalk("models", "list", "--models-dir", tmp_path)[1]


@pytest.mark.parametrize("name", ["dwpose", "face-parsing"])
def test_the_command_fetches_tools(name, musetalk, monkeypatch, tmp_path):
    publish(monkeypatch)
    code, out, err = musetalk("models", "download", name, "--models-dir", tmp_path, "--json")
    assert code == 0, err
    assert json.loads(out) == {"model": name, "folder": str(tmp_path)}
    assert err.startswith(f"1/{len(TOOLS[name])} {name}/")
    assert missing(name, tmp_path) == []
    code, out, err = musetalk("models", "download", name, "--models-dir", tmp_path)
    assert (code, out, err) == (0, f"Tool {name} is complete in {tmp_path}.\n", "")


def test_help_names_the_tools(musetalk):
    for command in ("download", "verify"):
        assert "dwpose|face-parsing" in musetalk("models", command, "--help")[1]


@pytest.mark.parametrize("name", ["dwpose", "face-parsing"])
def test_a_tool_that_is_not_there_is_refused(name, musetalk, tmp_path):
    code, out, err = musetalk("models", "verify", name, "--models-dir", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {name} is incomplete: {tmp_path} holds no {name}/")
    assert f"`musetalk models download {name}`" in err


def test_dwpose_is_verified(musetalk, tmp_path):
    place("dwpose", tmp_path)
    options = ["--models-dir", tmp_path, "--device", "cpu"]
    code, out, err = musetalk("models", "verify", "dwpose", *options)
    assert (code, out) == (1, "")
    assert "dw-ll_ucoco_384.onnx cannot be opened as an ONNX network" in err
    write_dwpose(find_dwpose(tmp_path), {0: (255, 0, 0)})
    code, out, err = musetalk("models", "verify", "dwpose", *options, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"model": "dwpose", "folder": str(tmp_path / "dwpose")}
    assert musetalk("models", "verify", "dwpose", *options)[1] == (
        f"Tool dwpose is complete in {tmp_path / 'dwpose'}.\n"
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
    assert out == f"Tool face-parsing is complete in {tmp_path / 'face-parsing'}.\n"
