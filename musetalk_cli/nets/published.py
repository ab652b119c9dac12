"""The published files: where they are on the hub, and where they belong under the models folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from musetalk_cli.errors import ModelError
from musetalk_cli.nets import pins
from musetalk_cli.nets.pins import HubFile, hub_file


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a model.

    Attributes:
        folder: Its folder under the models folder.
        names: File names that are accepted there, the preferred one first.
        repository: The hub repository that publishes it.
        published: Its paths in the repository, the preferred one first; the last component is one of `names`.
    """

    folder: str
    names: tuple[str, ...]
    repository: str
    published: tuple[str, ...]

    def find(self, root: Path) -> Path | None:
        """The preferred one of the files that are there, or None."""
        candidates = (root / self.folder / name for name in self.names)
        return next((path for path in candidates if path.is_file()), None)

    def sources(self) -> tuple[HubFile, ...]:
        """What the repository publishes of it, the preferred one first."""
        return tuple(hub_file(self.repository, path) for path in self.published)

    def __str__(self) -> str:
        return f"{self.folder}/{' or '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one model, in upstream's own folder layout."""

    unet_config: Part
    unet_weights: Part
    vae_config: Part
    vae_weights: Part
    whisper_config: Part
    whisper_preprocessor: Part
    whisper_weights: Part

    def parts(self) -> dict[str, Part]:
        """Every file by its role, in the order above."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def _layout(folder: str, unet_weights: str) -> Layout:
    musetalk, vae, whisper = pins.MUSETALK, pins.VAE, pins.WHISPER
    unet_names = ("unet.safetensors", "diffusion_pytorch_model.safetensors", unet_weights)
    vae_names = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    whisper_names = ("model.safetensors", "pytorch_model.bin")
    return Layout(
        unet_config=Part(folder, ("musetalk.json",), musetalk, (f"{folder}/musetalk.json",)),
        unet_weights=Part(folder, unet_names, musetalk, (f"{folder}/{unet_weights}",)),
        vae_config=Part("sd-vae", ("config.json",), vae, ("config.json",)),
        vae_weights=Part("sd-vae", vae_names, vae, vae_names),
        whisper_config=Part("whisper", ("config.json",), whisper, ("config.json",)),
        whisper_preprocessor=Part(
            "whisper", ("preprocessor_config.json",), whisper, ("preprocessor_config.json",)
        ),
        whisper_weights=Part("whisper", whisper_names, whisper, whisper_names),
    )


LAYOUTS: dict[str, Layout] = {
    "v15": _layout("musetalkV15", "unet.pth"),
    "v1": _layout("musetalk", "pytorch_model.bin"),
}
"""The published models by version."""

DWPOSE, FACE_PARSING = "dwpose", "face-parsing"

TOOLS: dict[str, tuple[Part, ...]] = {
    DWPOSE: (Part(DWPOSE, ("dw-ll_ucoco_384.onnx",), pins.DWPOSE_HUB, ("dw-ll_ucoco_384.onnx",)),),
    FACE_PARSING: tuple(
        Part(FACE_PARSING, names, pins.FACE_PARSING_HUB, names)
        for names in (
            ("config.json",),
            ("model.safetensors", "pytorch_model.bin"),
            ("preprocessor_config.json",),
        )
    ),
}
"""What prepares avatars, by name: the face's landmarks, and the parsing of its regions."""

TAESD = "taesd"

DECODERS: dict[str, tuple[Part, ...]] = {
    TAESD: tuple(
        Part(TAESD, (name,), pins.TAESD_HUB, (name,))
        for name in ("config.json", "diffusion_pytorch_model.safetensors")
    )
}
"""What may make the pictures of faces in place of a model's own VAE, by name: configuration and weights."""

PUBLISHED: dict[str, tuple[Part, ...]] = {
    **{name: tuple(layout.parts().values()) for name, layout in LAYOUTS.items()},
    **DECODERS,
    **TOOLS,
}
"""The files of everything that can be fetched, by name: models, decoders, then tools of preparation."""


def complete(models_dir: Path) -> list[str]:
    """The published models all of whose files are there, v1.5 first."""
    return [name for name in LAYOUTS if not missing(name, models_dir)]


def missing(name: str, models_dir: Path) -> list[Part]:
    """The files of a published model or tool that are not there.

    Raises:
        ModelError: Nothing of that name is published.
    """
    parts = PUBLISHED.get(name)
    if parts is None:
        raise ModelError(f"No model {name} is published.", f"Choose one of {', '.join(PUBLISHED)}.")
    return [part for part in parts if part.find(models_dir) is None]


def find_dwpose(models_dir: Path) -> Path | None:
    """The file of DWPose's network, or None where it is not there."""
    return TOOLS[DWPOSE][0].find(models_dir)


def find_face_parsing(models_dir: Path) -> Path | None:
    """The folder of the face parser, or None where a file of it is not there."""
    return None if missing(FACE_PARSING, models_dir) else models_dir / FACE_PARSING


def require(name: str, models_dir: Path) -> list[Path]:
    """The files of a published model or tool, in the order of the table.

    Raises:
        ModelError: Nothing of that name is published, or a file of it is not there.
    """
    parts = missing(name, models_dir)
    if parts:
        raise ModelError(
            f"{name} is incomplete: {models_dir} holds no {', no '.join(map(str, parts))}.",
            f"`musetalk models download {name}` fetches it; --models-dir names the models folder.",
        )
    return [path for part in PUBLISHED[name] if (path := part.find(models_dir)) is not None]
