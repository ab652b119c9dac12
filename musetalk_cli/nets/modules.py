"""From a configuration file to a network without weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from musetalk_cli.errors import ModelError, first_line
from musetalk_cli.nets.files import read_object

Config = dict[str, Any]
T = TypeVar("T")

MAX_LIST = 16
LIMITS = {
    "attention_head_dim": 4096,
    "block_out_channels": 8192,
    "chunk_length": 30,
    "cross_attention_dim": 8192,
    "d_model": 8192,
    "decoder_block_out_channels": 8192,
    "encoder_block_out_channels": 8192,
    "encoder_attention_heads": 256,
    "encoder_ffn_dim": 65536,
    "encoder_layers": 64,
    "feature_size": 256,
    "hop_length": 16000,
    "in_channels": 64,
    "latent_channels": 64,
    "layers_per_block": 16,
    "max_source_positions": 65536,
    "n_fft": 16384,
    "norm_num_groups": 1024,
    "num_decoder_blocks": 64,
    "num_encoder_blocks": 64,
    "num_mel_bins": 256,
    "out_channels": 64,
    "sample_size": 8192,
    "sampling_rate": 192_000,
    "transformer_layers_per_block": 16,
    "upsampling_scaling_factor": 16,
}
"""Largest value of each setting that decides how much is built; the smallest is 1."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' remarks about old configuration files to themselves."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def read_config(path: Path, class_key: str, class_name: str) -> Config:
    """Read a configuration file and check that it can describe a network at all.

    Args:
        path: The JSON file.
        class_key: The key that names what it describes.
        class_name: The value that key has where it is there.

    Raises:
        ModelError: It cannot be read, is not JSON, describes something else, or holds absurd values.
    """
    config: Config = read_object(path, "a configuration")
    if config.get(class_key, class_name) != class_name:
        raise ModelError(f"{path} describes a {config[class_key]}; a {class_name} is needed.")
    for key, limit in LIMITS.items():
        _check_value(path, key, config.get(key), limit)
    return config


def _check_value(path: Path, key: str, value: object, limit: int) -> None:
    if value is None:
        return
    values = value if isinstance(value, list) else [value]
    fits = all(type(item) is int and 1 <= item <= limit for item in values)
    if not fits or not 1 <= len(values) <= MAX_LIST:
        raise ModelError(f"{path} is broken: {key} is {value!r}, outside 1..{limit}.")


def build_unet(config: Config, path: Path) -> UNet2DConditionModel:
    """A UNet on the current default device; errors name `path`, the file `config` comes from."""
    return _build(lambda: UNet2DConditionModel.from_config(config), path)


def build_vae(config: Config, path: Path) -> AutoencoderKL:
    """A VAE on the current default device; its scaling factor is the class's unless `config` states one."""
    return _build(lambda: AutoencoderKL.from_config(config), path)


def build_tiny_decoder(config: Config, path: Path) -> AutoencoderTiny:
    """A tiny VAE without its encoder, on the current default device."""

    def make() -> AutoencoderTiny:
        vae = AutoencoderTiny.from_config(config)
        del vae.encoder
        return vae

    return _build(make, path)


def build_encoder(config: Config, path: Path) -> WhisperEncoder:
    """A Whisper encoder, without its decoder, on the current default device."""
    return _build(lambda: WhisperEncoder(WhisperConfig(**config)), path)


def build_feature_extractor(config: Config, path: Path) -> WhisperFeatureExtractor:
    """The log-mel extractor that belongs to the encoder."""
    return _build(lambda: WhisperFeatureExtractor.from_dict(config), path)


def _build(make: Callable[[], T], path: Path) -> T:
    try:
        with quiet():
            return make()
    except Exception as error:  # the libraries check little, so a bad value can fail anywhere inside them
        raise ModelError(f"{path} describes a network that cannot be built: {first_line(error)}.") from error


def on_meta(make: Callable[[], T]) -> T:
    """What `make` builds, with shapes but without memory."""
    with torch.device("meta"):
        return make()
