"""Which part of a face each pixel shows, told by a SegFormer that was trained on CelebAMask-HQ."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pictures
from torch import nn

from musetalk_cli.errors import ModelError
from musetalk_cli.face.settings import PARSING_SIZE
from musetalk_cli.nets.device import exact_convolutions
from musetalk_cli.nets.files import read_object
from musetalk_cli.types import Image

LABELS = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
"""The names of CelebAMask-HQ; the place of a name is its number in BiSeNet's label maps."""
CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
"""The weights; the preferred one first."""

_NEEDED = ("skin", "nose", "mouth", "u_lip", "l_lip", "neck")
_STAGES = 4
_STRIDES = [4, 2, 2, 2]
_STAGE_LIMITS = {
    "depths": 64,
    "hidden_sizes": 2048,
    "num_attention_heads": 64,
    "sr_ratios": PARSING_SIZE // math.prod(_STRIDES),
    "patch_sizes": 31,
    "mlp_ratios": 16,
}
"""Largest value of each setting that has one for every stage. A key map cannot be reduced below a pixel."""
_MAX_DECODER = 8192
_ACTIVATIONS = ("gelu", "relu", "silu")
_CPU_BATCH, _CUDA_BATCH = 1, 4
"""Crops at once. With MiT-B5 each takes about half a gigabyte, which a CPU's memory has for other things."""
_NAMES = tuple(
    (re.compile(old), new)
    for old, new in (
        (r"^segformer\.encoder\.patch_embeddings\.(\d+)\.", r"segformer.stages.\1.patch_embeddings."),
        (r"^segformer\.encoder\.block\.(\d+)\.", r"segformer.stages.\1.blocks."),
        (r"^segformer\.encoder\.layer_norm\.(\d+)\.", r"segformer.stages.\1.layer_norm."),
        (r"\.attention\.self\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
        (r"\.attention\.self\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
        (r"\.attention\.self\.layer_norm\.", ".attention.sequence_reduction.layer_norm."),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
        (r"\.layer_norm_1\.", ".layernorm_before."),
        (r"\.layer_norm_2\.", ".layernorm_after."),
        (r"^decode_head\.linear_c\.", "decode_head.linear_projections."),
    )
)
"""The names of tensors up to transformers 4, which published files have, and those since."""


@dataclass(frozen=True, slots=True)
class _Scaling:
    """From a colour value 0..255 to what the network takes: `(value * factor - mean) / std`, R, G, B."""

    factor: float = 1 / 255
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


class FaceParser:
    """Labels the pixels of crops; the crops are resized to 512 x 512 and computed in fp32.

    Args:
        folder: A SegFormer as transformers saves it: `config.json`, `model.safetensors` or
            `pytorch_model.bin`, and possibly `preprocessor_config.json`. Labels are known by their names in
            `id2label`, so their order does not matter.
        device: Where it computes.

    Raises:
        ModelError: A file is missing or broken, describes another network, or labels other things than
            CelebAMask-HQ does.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        settings, numbers = _read_config(folder / CONFIG_FILE)
        scaling = _read_scaling(folder / PREPROCESSOR_FILE)
        self._network = _load(folder, settings, device)
        self._device = device
        self._batch = _CUDA_BATCH if device.type == "cuda" else _CPU_BATCH
        self._numbers = torch.tensor(numbers, dtype=torch.uint8, device=device)
        self._factor = scaling.factor
        self._mean = torch.tensor(scaling.mean, device=device)[:, None, None]
        self._std = torch.tensor(scaling.std, device=device)[:, None, None]

    def __call__(self, crops: Sequence[Image]) -> Image:
        """Label the pixels of crops.

        Args:
            crops: uint8 `[height, width, 3]`, BGR; each may have its own size.

        Returns:
            uint8 `[crops, 512, 512]`, the places of the labels in `LABELS`.
        """
        labels = np.empty((len(crops), PARSING_SIZE, PARSING_SIZE), np.uint8)
        for start in range(0, len(crops), self._batch):
            part = slice(start, start + self._batch)
            labels[part] = self._parse(np.stack([_resized(crop) for crop in crops[part]]))
        return labels

    def _parse(self, pictures: Image) -> NDArray[np.uint8]:
        with torch.inference_mode(), exact_convolutions:
            pixels = torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2).float()
            logits = self._network((pixels * self._factor - self._mean) / self._std).logits
            size = (PARSING_SIZE, PARSING_SIZE)
            wide = nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            labels: NDArray[np.uint8] = self._numbers[wide.argmax(1)].cpu().numpy()
        return labels


def _resized(crop: Image) -> Image:
    """The crop as R, G, B in the network's size, by PIL's bilinear filter."""
    picture = Pictures.fromarray(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB))
    return np.asarray(picture.resize((PARSING_SIZE, PARSING_SIZE), Pictures.Resampling.BILINEAR))


def _read_config(path: Path) -> tuple[dict[str, Any], list[int]]:
    """What the network is built from, and the number in `LABELS` of each of its channels.

    Only settings that are known go on to the library: others could make it fetch and run code.

    Raises:
        ModelError: The file cannot be read or describes another network.
    """
    config = read_object(path, "a configuration")
    if config.get("model_type") != "segformer":
        raise ModelError(f"{path} describes a {str(config.get('model_type'))[:80]}; a segformer is needed.")
    for key, value in {"num_channels": 3, "num_encoder_blocks": _STAGES, "strides": _STRIDES}.items():
        if config.get(key, value) != value:
            raise _broken(path, key, config[key], f"not {value}")
    settings: dict[str, Any] = {}
    for key, limit in _STAGE_LIMITS.items():
        if key in config:
            settings[key] = config[key]
            if not _are_counts(config[key], limit):
                raise _broken(path, key, config[key], f"not {_STAGES} numbers in 1..{limit}")
    width = config.get("decoder_hidden_size", 256)
    if type(width) is not int or not 1 <= width <= _MAX_DECODER:
        raise _broken(path, "decoder_hidden_size", width, f"outside 1..{_MAX_DECODER}")
    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise _broken(path, "hidden_act", activation, f"none of {', '.join(_ACTIVATIONS)}")
    numbers = _numbers_of(path, config.get("id2label"))
    settings |= {"decoder_hidden_size": width, "hidden_act": activation, "num_labels": len(numbers)}
    return settings, numbers


def _are_counts(values: object, limit: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == _STAGES
        and all(type(value) is int and 1 <= value <= limit for value in values)
    )


def _numbers_of(path: Path, names: object) -> list[int]:
    """The place in `LABELS` of each channel's name.

    Args:
        path: The configuration, for messages.
        names: Its `id2label`: names by the channels' numbers, in any case and possibly ending in `.png`.
    """
    if not isinstance(names, dict) or set(names) != {str(number) for number in range(len(names))}:
        raise ModelError(f"{path} is broken: id2label does not name the labels 0, 1, 2 and so on.")
    plain = [str(names[str(number)]).lower().removesuffix(".png") for number in range(len(names))]
    unknown = sorted(set(plain) - set(LABELS))
    missing = [name for name in _NEEDED if name not in plain]
    twice = sorted({name for name in plain if plain.count(name) > 1})
    for what, found in (("unknown", unknown), ("missing", missing), ("there twice", twice)):
        if found:
            raise ModelError(
                f"The labels in {path} are not those of faces: {_short(', '.join(found))} {what}.",
                f"A network trained on CelebAMask-HQ is needed; its labels are {', '.join(LABELS)}.",
            )
    return [LABELS.index(name) for name in plain]


def _read_scaling(path: Path) -> _Scaling:
    """How the network wants its colours; that of ImageNet where the file is not there or does not say."""
    if not path.exists():
        return _Scaling()
    config = read_object(path, "a configuration")
    default = _Scaling()
    factor = config.get("rescale_factor", default.factor)
    mean, std = config.get("image_mean", [*default.mean]), config.get("image_std", [*default.std])
    for key in ("do_rescale", "do_normalize"):
        if config.get(key, True) is not True:
            raise _broken(path, key, config[key], "not true")
    if not _are_finite([factor], 1) or factor <= 0:
        raise _broken(path, "rescale_factor", factor, "not a number above 0")
    if not _are_finite(mean, 3):
        raise _broken(path, "image_mean", mean, "not three numbers")
    if not _are_finite(std, 3) or min(std) <= 0:
        raise _broken(path, "image_std", std, "not three numbers above 0")
    return _Scaling(float(factor), tuple(map(float, mean)), tuple(map(float, std)))


def _are_finite(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) in (int, float) and abs(value) < 1e6 for value in values)
    )


def _load(folder: Path, settings: dict[str, Any], device: torch.device) -> nn.Module:
    """The network with its weights, in evaluation mode."""
    from musetalk_cli.nets.loading import Rules, load_weights
    from musetalk_cli.nets.modules import on_meta

    weights = next((folder / name for name in WEIGHTS_FILES if (folder / name).is_file()), None)
    if weights is None:
        raise ModelError(f"{folder} holds no {' and no '.join(WEIGHTS_FILES)}.", "Fetch the model again.")
    network = on_meta(lambda: _build(settings, folder / CONFIG_FILE))
    rename = _Renaming(network.state_dict())
    return load_weights(lambda: network, weights, device, torch.float32, Rules(rename))


def _build(settings: dict[str, Any], path: Path) -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    from musetalk_cli.nets.modules import quiet

    def make() -> nn.Module:
        built: nn.Module = SegformerForSemanticSegmentation(SegformerConfig(**settings))
        return built

    try:
        with quiet():
            try:
                network = make()
            except RuntimeError:  # transformers 4 computes while it builds, which needs memory
                with torch.device("cpu"):
                    network = make()
    except Exception as error:  # the library checks little, so a bad value can fail anywhere inside it
        raise ModelError(f"{path} describes a network that cannot be built: {_short(error)}.") from error
    # The count of a training's batches is in some files only. A norm that tracks nothing does not want it,
    # and in evaluation it uses its mean and variance all the same.
    norm: Any = network.get_submodule("decode_head.batch_norm")
    norm.register_buffer("num_batches_tracked", None)
    norm.track_running_stats = False
    return network


class _Renaming:
    """The network's names of a file's tensors, whichever of its two naming schemes either has."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {_modern(name): name for name in names}

    def __call__(self, name: str) -> str | None:
        if name == "decode_head.batch_norm.num_batches_tracked":
            return None
        return self._names.get(_modern(name), name)


def _modern(name: str) -> str:
    for old, new in _NAMES:
        name = old.sub(new, name)
    return name


def _broken(path: Path, key: str, value: object, why: str) -> ModelError:
    return ModelError(f"{path} is broken: {key} is {_short(value)}, {why}.")


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
