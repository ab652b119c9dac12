"""A tiny decoder in the place of a model's own VAE."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from lives import save_bundle, speech, write_sound
from safetensors.torch import load_file, save_file

from musetalk_cli.errors import ModelError
from musetalk_cli.nets import modules, random_v15
from musetalk_cli.nets.bundle import load_bundle
from musetalk_cli.nets.generator import FaceEncoder, Generator

CPU = torch.device("cpu")
CONFIG, WEIGHTS = "taesd/config.json", "taesd/diffusion_pytorch_model.safetensors"
PUBLISHED = {
    "_class_name": "AutoencoderTiny",
    "_diffusers_version": "0.20.0.dev0",
    "act_fn": "relu",
    "decoder_block_out_channels": [8, 8, 8, 8],
    "encoder_block_out_channels": [8, 8, 8, 8],
    "force_upcast": False,
    "in_channels": 3,
    "latent_channels": 4,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "num_decoder_blocks": [3, 3, 3, 1],
    "num_encoder_blocks": [1, 3, 3, 3],
    "out_channels": 3,
    "scaling_factor": 1.0,
    "upsampling_scaling_factor": 2,
}
"""The published configuration, but eight times narrower."""


@pytest.fixture(scope="module")
def library():
    """The library's own, encoder and all, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderTiny.from_config(PUBLISHED).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def published(tiny_bundle, golden, library, tmp_path_factory):
    """A models folder with tiny networks and a tiny decoder; read only."""
    folder = save_bundle(tiny_bundle, golden, tmp_path_factory.mktemp("published"))
    return save_decoder(library, folder)


@pytest.fixture
def models(published, tmp_path):
    """The same, for a test to change what concerns the decoder."""
    for entry in published.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "taesd").unlink()
    return save_decoder(AutoencoderTiny.from_config(PUBLISHED), tmp_path)


def save_decoder(library, folder):
    (folder / "taesd").mkdir()
    (folder / CONFIG).write_text(json.dumps(PUBLISHED))
    save_file({name: value.contiguous() for name, value in library.state_dict().items()}, folder / WEIGHTS)
    return folder


def load(models, vae="taesd", dtype=torch.float32, model="v15"):
    return load_bundle(model, models, CPU, dtype, vae)


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def drawn(library, latents):
    """Faces as the library draws them of scaled latents."""
    with torch.inference_mode():
        picture = library.decode(latents / library.config.scaling_factor).sample
    levels = np.rint(np.clip(picture.numpy() * 127.5 + 127.5, 0, 255)).astype(int)
    return levels.transpose(0, 2, 3, 1)[..., ::-1]


def test_faces_are_the_librarys_of_the_unets_own_latents(published, library):
    generator = Generator(load(published))
    latents = 3 * numbers(2, 4, 32, 32)
    faces = generator.decode(latents)
    expected = drawn(library, latents)
    assert faces.shape == expected.shape == (2, 256, 256, 3)
    assert np.abs(faces.numpy().astype(int) - expected).max() <= 1
    assert faces.float().std() > 1


def test_only_the_decoder_is_another(published):
    tiny, own = load(published), load(published, "own")
    assert own.decoder is None
    tokens, latents = numbers(1, 10 * own.layers, own.token_width), numbers(1, 8, 32, 32)
    assert torch.equal(Generator(tiny).unet(tokens, latents), Generator(own).unet(tokens, latents))
    face = np.zeros((1, 256, 256, 3), np.uint8)
    assert torch.equal(FaceEncoder(tiny)(face), FaceEncoder(own)(face))
    assert not torch.equal(Generator(tiny).decode(latents[:, :4]), Generator(own).decode(latents[:, :4]))
    assert tiny.family == own.family


def test_its_encoder_is_not_loaded(published, library):
    decoder = load(published).decoder
    expected = {name: value for name, value in library.state_dict().items() if name.startswith("decoder.")}
    assert decoder.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in decoder.state_dict().items())


def test_a_generator_made_exact_draws_with_it_too(published):
    half = Generator(load(published, dtype=torch.float16))
    latents = numbers(1, 4, 32, 32)
    faces = half.exact().decode(latents)
    full = Generator(load(published)).decode(latents)
    assert np.abs(faces.numpy().astype(int) - full.numpy()).max() <= 2


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (CONFIG, "{", "not JSON"),
        (CONFIG, json.dumps(PUBLISHED | {"_class_name": "AutoencoderKL"}), "a AutoencoderTiny is needed"),
        (CONFIG, json.dumps(PUBLISHED | {"num_decoder_blocks": [10**9]}), "num_decoder_blocks"),
        (CONFIG, json.dumps(PUBLISHED | {"decoder_block_out_channels": [8]}), "cannot be built"),
        (WEIGHTS, "no weights", "no safetensors file"),
    ],
)
def test_broken_files_are_refused(models, name, content, complaint):
    (models / name).write_text(content)
    with pytest.raises(ModelError) as caught:
        load(models)
    assert str(models / name) in caught.value.message
    assert complaint in caught.value.message


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"latent_channels": 16}, "latent_channels is 16, and 4 is needed"),
        ({"scaling_factor": 0.18215}, "scaling_factor is 0.18215, and 1 is needed"),
        ({"upsampling_scaling_factor": 1}, "the growth of a picture is 1, and 8 is needed"),
    ],
)
def test_a_decoder_of_other_latents_is_refused(models, change, complaint):
    config = PUBLISHED | change
    (models / CONFIG).write_text(json.dumps(config))
    save_file(AutoencoderTiny.from_config(config).state_dict(), models / WEIGHTS)
    with pytest.raises(ModelError, match=complaint):
        load(models)


def test_a_missing_tensor_or_file_is_named(models):
    state = load_file(models / WEIGHTS)
    save_file(
        {name: value for name, value in state.items() if name != "decoder.layers.0.bias"}, models / WEIGHTS
    )
    with pytest.raises(ModelError, match=r"1 missing \(decoder.layers.0.bias\)"):
        load(models)
    (models / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"holds no taesd/diffusion_pytorch_model\.safetensors") as caught:
        load(models)
    assert "`musetalk models download taesd`" in caught.value.hint


def test_a_model_with_other_latents_is_refused(embedded, models):
    config = json.loads((embedded / "models/demo/sd-vae/config.json").read_text()) | {"scaling_factor": 0.5}
    (models / "sd-vae").unlink()
    (models / "sd-vae").mkdir()
    for path in (embedded / "models/demo/sd-vae").iterdir():
        (models / "sd-vae" / path.name).symlink_to(path)
    (models / "sd-vae/config.json").unlink()
    (models / "sd-vae/config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"--vae taesd cannot be used with model v15.* is 0\.5"):
        load(models)


def test_the_random_one_has_the_published_shape():
    decoder = modules.on_meta(
        lambda: modules.build_tiny_decoder(random_v15.tiny_decoder_config(), Path("test"))
    )
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 1_222_531
    whole = modules.on_meta(AutoencoderTiny)
    expected = {
        name: value.shape for name, value in whole.state_dict().items() if name.startswith("decoder.")
    }
    assert {name: value.shape for name, value in decoder.state_dict().items()} == expected
    half = random_v15.build_tiny_decoder(CPU, torch.float32)
    with torch.inference_mode():
        face = half.decode(numbers(1, 4, 32, 32)).sample
    assert face.isfinite().all()
    assert face.std() > 0.01


@pytest.mark.slow
def test_a_video_is_made_with_it(musetalk, published, avatars_dir, tmp_path):
    write_sound(tmp_path / "speech.wav", speech(0.2))
    given = ["--models-dir", published, "--avatars-dir", avatars_dir, "--device", "cpu"]
    made = []
    for vae in ("own", "taesd"):
        output = tmp_path / f"{vae}.mp4"
        code, out, err = musetalk(
            *("generate", "--avatar", "synthetic", "--audio", tmp_path / "speech.wav", "--output", output),
            *("--model", "v15", "--vae", vae, "--silence", "off", "--json", *given),
        )
        assert code == 0, err
        assert json.loads(out)["settings"]["vae"] == vae
        made.append(output.read_bytes())
    assert made[0] != made[1]


def test_models_list_and_verify_know_it(musetalk, published):
    code, out, _ = musetalk("models", "list", "--models-dir", published, "--json")
    here = {row["file"]: row["path"] for row in json.loads(out) if row["model"] == "taesd"}
    assert (code, here) == (0, {name: str(published / name) for name in (CONFIG, WEIGHTS)})
    code, out, err = musetalk("models", "verify", "taesd", "--models-dir", published)
    assert code == 0, err
    assert "taesd is complete" in out
