"""A rehearsal of the published files: full-size networks of random numbers, laid out as the hub has them."""

import gc
import json
import shutil

import cv2
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from musetalk_cli.nets import random_v15

UNET_BYTES = 3_400_074_924
VAE_BYTES = 334_643_276
"""Sizes of the published files: the same tensors in the same format give the same size, up to names."""

UNET_CONFIG = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0.dev0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 384,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 8,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
VAE_CONFIG = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.4.2",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
"""It states no scaling factor: that is the class's default."""


def old_attention_names(state):
    """Names of the VAE's attention as the first diffusers had them."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in state.items():
        part = next((new for new in names if ".attentions." in name and f".{new}." in name), None)
        published = name if part is None else name.replace(f".{part}.", f".{names[part]}.")
        renamed[published] = value.contiguous()
    return renamed


def whisper(encoder):
    """Config and tensors of a whole Whisper model with a given encoder; the tied output layer is left out."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig()  # the defaults are those of the tiny model
    assert (config.d_model, config.encoder_layers, config.decoder_layers) == (384, 4, 4)
    model = WhisperForConditionalGeneration(config)
    model.model.encoder.load_state_dict(encoder.state_dict())
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("proj_out.")}
    plain = json.loads(config.to_json_string(use_diff=False))
    return plain | {"architectures": ["WhisperForConditionalGeneration"]}, state


def write_models(folder):
    """Write the networks of `random-v15` as the hub has those of v1.5; nothing of them stays in memory."""
    unet, vae, encoder, _ = random_v15.build(torch.device("cpu"), torch.float32)
    for name in ("musetalkV15", "sd-vae", "whisper"):
        (folder / name).mkdir()
    (folder / "musetalkV15" / "musetalk.json").write_text(json.dumps(UNET_CONFIG, indent=2))
    torch.save(unet.state_dict(), folder / "musetalkV15" / "unet.pth")
    (folder / "sd-vae" / "config.json").write_text(json.dumps(VAE_CONFIG, indent=2))
    save_file(
        old_attention_names(vae.state_dict()),
        folder / "sd-vae" / "diffusion_pytorch_model.safetensors",
        metadata={"format": "pt"},
    )
    config, state = whisper(encoder)
    (folder / "whisper" / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "whisper" / "pytorch_model.bin")


@pytest.fixture(scope="module")
def models(golden, tmp_path_factory):
    """A models folder with v1.5 in it."""
    folder = tmp_path_factory.mktemp("published")
    write_models(folder)
    shutil.copy(golden / "models" / "whisper" / "preprocessor_config.json", folder / "whisper")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_published_layout_loads_and_makes_the_frame_of_its_networks(
    models, avatars_dir, golden_avatar, musetalk, tmp_path
):
    sizes = {path.name: path.stat().st_size for path in models.rglob("*") if path.is_file()}
    assert sizes["unet.pth"] == pytest.approx(UNET_BYTES, rel=1e-4)
    assert sizes["diffusion_pytorch_model.safetensors"] == pytest.approx(VAE_BYTES, rel=1e-4)
    sound = 0.2 * np.sin(2 * np.pi * 220 * np.arange(16_000 // 25) / 16_000)
    soundfile.write(tmp_path / "one.wav", sound, 16_000)
    made = {}
    for model in ("v15", "random-v15"):
        code, out, err = musetalk(
            "generate", "--model", model, "--models-dir", models, "--avatars-dir", avatars_dir,
            "--avatar", "synthetic", "--audio", tmp_path / "one.wav", "--device", "cpu",
            "--precision", "fp32", "--frames-dir", tmp_path / model, "--json",
        )  # fmt: skip
        assert code == 0, err
        assert json.loads(out)["frames"] == 1
        made[model] = (tmp_path / model / "00000000.png").read_bytes()
        gc.collect()  # networks of both at once are more than a small machine has
    assert made["v15"] == made["random-v15"]
    shown = cv2.imdecode(np.frombuffer(made["v15"], np.uint8), cv2.IMREAD_COLOR)
    assert (shown != golden_avatar.frames[0]).any(), "a face was put into it"
