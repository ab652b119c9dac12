"""What is known of the published files: the revision that is fetched, sizes, digests and licences.

Each digest was found, the same, in at least three independent public manifests; the hub itself was not asked.
A file without one is held to what its first download recorded (`nets/record.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

MUSETALK, VAE, WHISPER = "TMElyralab/MuseTalk", "stabilityai/sd-vae-ft-mse", "openai/whisper-tiny"
DWPOSE_HUB, FACE_PARSING_HUB = "yzd-v/DWPose", "jonathandinu/face-parsing"
TAESD_HUB = "madebyollin/taesd"
LATEST = "main"
"""The revision of a repository of which none is known."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What a file has to be.

    Attributes:
        bytes: Its size; None where it is not known.
        sha256: Its digest in hexadecimal; None where it is not known.
        revision: The commit of the repository it is fetched from, or `LATEST`.
    """

    bytes: int | None = None
    sha256: str | None = None
    revision: str = LATEST


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as a hub repository publishes it.

    Attributes:
        repository: The repository, `owner/name`.
        path: Its path there.
        pin: What is known of it.
    """

    repository: str
    path: str
    pin: Pin

    @property
    def name(self) -> str:
        """Its name, without folders."""
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.repository}/{self.path}"


_V15, _V1 = "3ef28bc5cff08c90ad8178a25f1b570cd800170f", "2bcb936e2fddb4d86db4c62fd45b387d0c061571"
_VAE, _WHISPER = "31f26fdeee1355a5c34592e401dd41e45d25a493", "169d4a4341b33bc18d8881c4b69c2e104e1cc0af"
_DWPOSE = "1a7144101628d69ee7a3768d1ee3a094070dc388"
_UNET_CONFIG = "5b6923aee04d71692e0e9846c471e0a4ea07a4f686d39545e472bd4ba17e1b47"
"""The configuration of the UNet is the same in both versions."""

PINS: dict[tuple[str, str], Pin] = {
    (MUSETALK, "musetalkV15/musetalk.json"): Pin(748, _UNET_CONFIG, _V15),
    (MUSETALK, "musetalkV15/unet.pth"): Pin(
        3_400_074_924, "7ebf6c98c181e20838e4c0054e96e944ac60d5d692cc01db42839fe11b787007", _V15
    ),
    (MUSETALK, "musetalk/musetalk.json"): Pin(748, _UNET_CONFIG, _V1),
    (MUSETALK, "musetalk/pytorch_model.bin"): Pin(revision=_V1),
    (VAE, "config.json"): Pin(547, "92d3dfb746fca211a2c9e019e285f8597412211728dce3c5bcf4eda0f2d62e7e", _VAE),
    (VAE, "diffusion_pytorch_model.safetensors"): Pin(
        334_643_276, "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815", _VAE
    ),
    (VAE, "diffusion_pytorch_model.bin"): Pin(
        334_707_217, "1b4889b6b1d4ce7ae320a02dedaeff1780ad77d415ea0d744b476155c6377ddc", _VAE
    ),
    (WHISPER, "config.json"): Pin(
        1983, "ffdccec4f3211f4c63310f2b7098f309fe70f3952cedc5e4d11e43f5b2379b98", _WHISPER
    ),
    (WHISPER, "preprocessor_config.json"): Pin(
        184_990, "9b5cd03a36fbb8a627c64d98a5b5b126ead95a77720723944487311f0110b666", _WHISPER
    ),
    (WHISPER, "model.safetensors"): Pin(
        151_061_672, "7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395", _WHISPER
    ),
    (WHISPER, "pytorch_model.bin"): Pin(
        151_095_027, "9607f98a2b22d9e229ae43c52ecea79dcede9e0c5cfae67e8da6eda86d8aac1d", _WHISPER
    ),
    (DWPOSE_HUB, "dw-ll_ucoco_384.onnx"): Pin(
        134_399_116, "724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843", _DWPOSE
    ),
}
"""What is known, by repository and path."""

_LICENCES = {
    MUSETALK: "CreativeML Open RAIL-M",
    VAE: "MIT",
    WHISPER: "Apache-2.0",
    DWPOSE_HUB: "Apache-2.0",
    TAESD_HUB: "MIT",
}


def hub_file(repository: str, path: str) -> HubFile:
    """A file of a repository, with what is known of it."""
    return HubFile(repository, path, PINS.get((repository, path), Pin()))


def licence(repository: str) -> str:
    """The licence of what a repository publishes, in a few words."""
    return _LICENCES.get(repository, "see its page")
