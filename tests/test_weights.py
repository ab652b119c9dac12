import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError

from musetalk_cli.errors import ModelError
from musetalk_cli.weights import LAYOUTS, REVISION, download


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


@pytest.mark.parametrize("version", ["v15", "v1"])
def test_every_part_lands_where_it_is_looked_for(version, monkeypatch, tmp_path):
    asked = publish(monkeypatch)
    told = []
    download(version, tmp_path, lambda *step: told.append(step))
    parts = LAYOUTS[version].parts().values()
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
    for layout in (v15, v1):
        for part in layout.parts().values():
            assert {Path(source).name for source in part.published} <= set(part.names)


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


def test_unknown_model_lists_the_valid_ones(tmp_path):
    with pytest.raises(ModelError) as caught:
        download("v16", tmp_path)
    assert "v15, v1" in caught.value.hint


def test_the_table_needs_no_torch():
    code = "import sys, musetalk_cli.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
