"""A model bundle: a folder in upstream's layout, and the networks in it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from musetalk_cli.config import DEFAULT_MODEL, RunConfig, VaeName
from musetalk_cli.errors import ModelError
from musetalk_cli.nets import modules, random_v15
from musetalk_cli.nets.device import conv_layout, keep_freed_memory, resolve_device, resolve_dtype
from musetalk_cli.nets.files import NO_CARD, RANDOM, BundleFiles, Card, family, resolve, tell_others
from musetalk_cli.nets.loading import ENCODER_RULES, UNET_RULES, VAE_RULES, load_weights
from musetalk_cli.nets.tiny_decoder import load_tiny_decoder
from musetalk_cli.timeline import ROWS_PER_WINDOW, SAMPLE_RATE
from musetalk_cli.types import FACE_SIZE, LATENT_SIZE

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

log = logging.getLogger(__name__)

_RANDOM_SAID = "Model %s has random weights: it shows the cost, and its pictures are noise."


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """The networks of one model, ready to run: shared by all sessions, never changed.

    Attributes:
        name: What it was asked for by.
        version: `v15` or `v1`.
        unet: Latents `[B, 8, 32, 32]`, timestep and tokens `[B, T, token_width]` to latents `[B, 4, 32, 32]`.
        vae: Faces `[B, 3, 256, 256]` in -1..1 to latents `[B, 4, 32, 32]`, and back.
        audio_encoder: Log-mel `[B, bins, 3000]` to rows `[B, 1500, token_width]`.
        feature_extractor: Sound at 16 kHz to log-mel.
        device: Where the networks are.
        dtype: Their number format.
        random: True where the weights are random numbers.
        card: What the bundle says of itself.
        decoder: Latents `[B, 4, 32, 32]` to faces in the VAE's place; None is the VAE.
    """

    name: str
    version: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    audio_encoder: WhisperEncoder
    feature_extractor: WhisperFeatureExtractor
    device: torch.device
    dtype: torch.dtype
    random: bool = False
    card: Card = NO_CARD
    decoder: AutoencoderTiny | None = None

    @property
    def drawing(self) -> AutoencoderKL | AutoencoderTiny:
        """What makes the pictures of faces."""
        return self.vae if self.decoder is None else self.decoder

    @property
    def family(self) -> str:
        """What avatars that are prepared with it record as the name of their model."""
        return family(self.name, self.card)

    @property
    def token_width(self) -> int:
        """Channels of an audio token."""
        width: int = self.unet.config.cross_attention_dim
        return width

    @property
    def layers(self) -> int:
        """Hidden states the encoder gives for each row: its input and every layer's output."""
        layers: int = self.audio_encoder.config.encoder_layers
        return layers + 1


@dataclass(frozen=True, slots=True, eq=False)
class FaceNetwork:
    """The part of a model that makes latents of faces: all that a preparation needs.

    Attributes:
        name: What it was asked for by.
        version: `v15` or `v1`.
        vae: Faces `[B, 3, 256, 256]` in -1..1 to latents `[B, 4, 32, 32]`.
        device: Where the network is.
        dtype: Its number format.
        card: What the bundle says of itself.
    """

    name: str
    version: str
    vae: AutoencoderKL
    device: torch.device
    dtype: torch.dtype
    card: Card = NO_CARD

    @property
    def family(self) -> str:
        """What avatars that are prepared with it record as the name of their model."""
        return family(self.name, self.card)


def open_bundle(run: RunConfig) -> Bundle:
    """Load the model a command was asked for, where and in the format it was asked for.

    Args:
        run: Where things are and what computes; without a model it is v1.5.

    Raises:
        DeviceError: The device is not there.
        ModelError: There is no such model, or its files are missing, broken or do not fit together.
    """
    model, device, dtype = settled(run)
    return load_bundle(model, run.models.path, device, dtype, run.vae)


def open_face_network(run: RunConfig) -> FaceNetwork:
    """Load the VAE alone of the model a command was asked for.

    Args:
        run: Where things are and what computes; without a model it is v1.5.

    Raises:
        DeviceError: The device is not there.
        ModelError: There is no such model, or its files are missing or broken.
    """
    model, device, dtype = settled(run)
    if model == RANDOM:
        network = FaceNetwork(model, "v15", random_v15.build_vae(device, dtype), device, dtype)
        log.warning(_RANDOM_SAID, model)
    else:
        files = resolve(model, run.models.path)
        vae = _load_vae(files, device, dtype)
        network = FaceNetwork(files.name, files.version, vae, device, dtype, files.card)
    _set_up(device, dtype, network.vae)
    return network


def settled(run: RunConfig) -> tuple[str, torch.device, torch.dtype]:
    """The model, the device and the number format, where nothing else was chosen what suits.

    Raises:
        DeviceError: The device is not there.
        ModelError: There is no such model, or its card is broken.
    """
    model = run.model or DEFAULT_MODEL
    if run.model is None:
        log.debug("model: %s (default)", model)
    device = resolve_device(run.device)
    card = NO_CARD if model == RANDOM else resolve(model, run.models.path).card
    dtype = resolve_dtype(run.precision, device, card.cpu_precision)
    if run.precision == "auto":
        log.debug("precision: %s (what suits the model on %s)", str(dtype).removeprefix("torch."), device)
    if device.type == "cpu":
        keep_freed_memory()
    return model, device, dtype


def load_bundle(
    model: str, models_dir: Path, device: torch.device, dtype: torch.dtype, vae: VaeName = "own"
) -> Bundle:
    """Load a model.

    Args:
        model: `v15`, `v1`, `demo`, `random-v15` or the path of a bundle folder.
        models_dir: The models folder.
        device: Where the networks shall be.
        dtype: Their number format.
        vae: What makes the pictures of faces.

    Raises:
        ModelError: There is no such model, or its files are missing, broken or do not fit together.
    """
    if model == RANDOM:
        bundle = Bundle(model, "v15", *random_v15.build(device, dtype), device, dtype, random=True)
        log.warning(_RANDOM_SAID, model)
    else:
        files = resolve(model, models_dir)
        tell_others(files)
        bundle = load_files(files, device, dtype)
    if vae != "own":
        bundle = replace(bundle, decoder=load_tiny_decoder(vae, models_dir, bundle))
    _set_up(device, dtype, bundle.unet, bundle.vae, *([] if bundle.decoder is None else [bundle.decoder]))
    return bundle


def _set_up(device: torch.device, dtype: torch.dtype, *networks: nn.Module) -> None:
    """Give networks the memory layout that suits the device."""
    layout = conv_layout(device, dtype)
    if layout != torch.contiguous_format:
        for network in networks:
            network.to(memory_format=layout)  # type: ignore[call-overload]


def _load_vae(files: BundleFiles, device: torch.device, dtype: torch.dtype) -> AutoencoderKL:
    config = modules.read_config(files.vae_config, "_class_name", "AutoencoderKL")
    build = partial(modules.build_vae, config, files.vae_config)
    return load_weights(build, files.vae_weights, device, dtype, VAE_RULES)


def load_files(files: BundleFiles, device: torch.device, dtype: torch.dtype) -> Bundle:
    """Load a model from the files that are named.

    Raises:
        ModelError: A file is broken, or they do not fit together.
    """
    unet_config = modules.read_config(files.unet_config, "_class_name", "UNet2DConditionModel")
    encoder_config = modules.read_config(files.whisper_config, "model_type", "whisper")
    mel_config = modules.read_config(
        files.whisper_preprocessor, "feature_extractor_type", "WhisperFeatureExtractor"
    )
    bundle = Bundle(
        files.name,
        files.version,
        load_weights(
            partial(modules.build_unet, unet_config, files.unet_config),
            files.unet_weights,
            device,
            dtype,
            UNET_RULES,
        ),
        _load_vae(files, device, dtype),
        load_weights(
            partial(modules.build_encoder, encoder_config, files.whisper_config),
            files.whisper_weights,
            device,
            dtype,
            ENCODER_RULES,
        ),
        modules.build_feature_extractor(mel_config, files.whisper_preprocessor),
        device,
        dtype,
        card=files.card,
    )
    _check(bundle, files)
    return bundle


def _check(bundle: Bundle, files: BundleFiles) -> None:
    """Refuse networks that do not fit together.

    Raises:
        ModelError: Two of the configurations disagree; the message names both.
    """
    unet, vae, encoder = bundle.unet.config, bundle.vae.config, bundle.audio_encoder.config
    extractor = bundle.feature_extractor
    latents = vae.latent_channels
    rows = ROWS_PER_WINDOW
    frames = extractor.nb_max_frames
    shrink = 2 ** (len(vae.block_out_channels) - 1)
    unet_file, vae_file = files.unet_config, files.vae_config
    encoder_file, extractor_file = files.whisper_config, files.whisper_preprocessor
    _same(
        (unet_file, "cross_attention_dim", unet.cross_attention_dim),
        (encoder_file, "d_model", encoder.d_model),
    )
    _same((unet_file, "in_channels", unet.in_channels), (vae_file, "2 * latent_channels", 2 * latents))
    _same((unet_file, "out_channels", unet.out_channels), (vae_file, "latent_channels", latents))
    _same((vae_file, "in_channels", vae.in_channels), ("a colour image", "channels", 3))
    _same((vae_file, "out_channels", vae.out_channels), ("a colour image", "channels", 3))
    _same((vae_file, "reduction", shrink), ("a face", "reduction to latents", FACE_SIZE // LATENT_SIZE))
    _same(
        (encoder_file, "num_mel_bins", encoder.num_mel_bins),
        (extractor_file, "feature_size", extractor.feature_size),
    )
    _same(
        (extractor_file, "sampling_rate", extractor.sampling_rate),
        ("the pipeline", "sample rate", SAMPLE_RATE),
    )
    _same((encoder_file, "max_source_positions", encoder.max_source_positions), ("a window", "rows", rows))
    _same((extractor_file, "frames per window", frames), (encoder_file, "frames it takes", 2 * rows))
    scale = vae.scaling_factor
    if not isinstance(scale, int | float) or not 0 < scale < 1000:
        raise ModelError(f"{vae_file} is broken: scaling_factor is {scale!r}.")


def _same(one: tuple[Path | str, str, object], other: tuple[Path | str, str, object]) -> None:
    if one[2] != other[2]:
        raise ModelError(
            f"The bundle does not fit together: {one[1]} is {one[2]} in {one[0]}, "
            f"and {other[1]} is {other[2]} in {other[0]}.",
            "All parts of a bundle must come from the same model.",
        )
