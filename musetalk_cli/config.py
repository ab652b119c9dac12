"""Settings: what the user chose, what was taken instead, and where each value came from."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import platformdirs

from musetalk_cli.errors import InputError
from musetalk_cli.timeline import DEFAULT_FPS, Alignment

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
PrecisionName = Literal["auto", "fp32", "fp16", "bf16"]
ImageOpsName = Literal["auto", "gpu", "cpu"]
VaeName = Literal["own", "taesd"]
WhenLate = Literal["auto", "drop", "wait"]

DEFAULT_MODEL = "v15"
"""The model that is taken where neither the user nor an avatar says another one."""
BATCH_SIZES = (1, 256)
_LEVEL = re.compile(r"(-\d{1,3}(\.\d{1,3})?)(dB)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sharpen:
    """Unsharp mask of the resized face, with the published values as defaults.

    Attributes:
        amount: How much of the detail is added, >= 0.
        sigma: Width of the Gaussian in pixels of the resized face, > 0.
        threshold: Differences below this many levels (0..255) are left alone.
    """

    amount: float = 1.2
    sigma: float = 1.0
    threshold: float = 5.0

    def __str__(self) -> str:
        return f"{self.amount:g},{self.sigma:g},{self.threshold:g}"


def parse_sharpen(text: str) -> Sharpen | None:
    """Read `on`, `off` or `AMOUNT[,SIGMA[,THRESHOLD]]`; None is off.

    Raises:
        InputError: The text is none of these, or a number is out of range.
    """
    if text == "off":
        return None
    if text == "on":
        return Sharpen()
    try:
        values = [float(part) for part in text.split(",")]
        sharpen = Sharpen(*values)
    except (ValueError, TypeError):
        raise InputError(
            f"--sharpen {text} is not understood.", "Use on, off or AMOUNT[,SIGMA[,THRESHOLD]], like 1.2,1,5."
        ) from None
    finite = all(math.isfinite(value) for value in values)
    if not finite or sharpen.amount < 0 or not 0 < sharpen.sigma <= 50 or sharpen.threshold < 0:
        raise InputError(
            f"--sharpen {text} is out of range.", "The amount is >= 0, sigma in (0, 50], the threshold >= 0."
        )
    return sharpen


@dataclass(frozen=True, slots=True)
class SilenceLevel:
    """Where silence begins and ends.

    Attributes:
        opens_db: Level at which speech begins, in dB of full scale (RMS over 20 ms), below 0.
        hysteresis_db: How far below that speech ends.
        hang_over_s: Seconds below the lower level before speech has ended.
    """

    opens_db: float = -45.0
    hysteresis_db: float = 6.0
    hang_over_s: float = 0.3

    def __str__(self) -> str:
        return f"{self.opens_db:g}dB"


def parse_silence(text: str) -> SilenceLevel | None:
    """Read `-45dB`; `off` is None.

    Raises:
        InputError: It is neither, or outside -90..-10 dB.
    """
    if text == "off":
        return None
    found = _LEVEL.fullmatch(text)
    if found is None:
        raise InputError(f"--silence {text} is not understood.", "Write it like -45dB, or off.")
    level = float(found.group(1))
    if not -90 <= level <= -10:
        raise InputError(f"--silence {text} is outside -90..-10 dB.", "-45dB suits most microphones.")
    return SilenceLevel(level)


def check_batch_size(size: int | None) -> None:
    """Refuse a size that no batch of faces may have; None is what suits the device.

    Raises:
        InputError: It is outside 1..256.
    """
    if size is not None and not BATCH_SIZES[0] <= size <= BATCH_SIZES[1]:
        raise InputError(
            f"--batch-size {size} is outside {BATCH_SIZES[0]}..{BATCH_SIZES[1]}.", "8 is a good start."
        )


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder, and who chose it.

    Attributes:
        path: The folder.
        origin: `flag`, `environment`, `working folder`, `user data folder`, or `embedded`: it came with the
            program.
    """

    path: Path
    origin: str


def default_folder(name: str) -> DataFolder:
    """`name/` in the working folder if it is there, else in the user data folder."""
    local = Path.cwd() / name
    if local.is_dir():
        return DataFolder(local, "working folder")
    return DataFolder(Path(platformdirs.user_data_dir("musetalk")) / name, "user data folder")


def cache_folder() -> Path:
    """Where avatars are kept that were prepared on the way, in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("musetalk")) / "avatars"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Where things are and what computes: the options every command shares.

    Attributes:
        models: Folder of model bundles.
        avatars: Folder of avatars.
        model: `v15`, `v1`, `demo`, `random-v15` or the path of a bundle. None is not chosen: the one that
            the avatar was made for (`run/defaults.py`), and v1.5 where there is no avatar.
        device: Which device to compute on.
        precision: Number format of the networks.
        vae: What makes the pictures of faces: the model's own VAE, or a tiny one, whose mouths are softer.
    """

    models: DataFolder = field(default_factory=lambda: default_folder("models"))
    avatars: DataFolder = field(default_factory=lambda: default_folder("avatars"))
    model: str | None = None
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    vae: VaeName = "own"


@dataclass(frozen=True, slots=True)
class JobConfig:
    """How a face is made to speak.

    Attributes:
        fps: Frames per second of the result.
        alignment: Which sound a frame hears: that around its start, as at 25 fps, or at other rates what the
            published code's padding gives.
        chunk: Seconds of sound per hop of a stream; where hops begin with the utterance, of the longest.
        auto_chunk: Where sound comes live, take the shortest chunk that this machine sustains, and none
            longer than `chunk`.
        context: Seconds of past sound the encoder hears with each hop; None is as much as its window holds.
        window: Seconds of the encoder's window; None is what the model card says.
        sharpen: Unsharp mask after the resize, or None.
        image_ops: Where resize, sharpen and blend run.
        graphs: On CUDA the work of each batch size is captured, to be launched at once: in a warm-up, or,
            where there is none, once some batches of that size were made.
        batch_sizes: Sizes a batch may have, ascending; a batch is padded up to the next one. None is what
            suits the device.
        silence: The level below which the sound is silent, and no frame is made; None makes every frame.
        idle_avatar: Avatar whose idle clip, or else whose frames, are shown in silence; None is the one
            that speaks.
        ahead: Seconds of sound that a stream takes ahead of its time; whoever sends more waits.
        when_late: Whether frames that cannot be shown in time are left out, or everything waits for them.
            `auto` waits for a source that waits too.
    """

    fps: Fraction = DEFAULT_FPS
    alignment: Alignment = "frame"
    chunk: Fraction = Fraction(1, 2)
    auto_chunk: bool = False
    context: Fraction | None = None
    window: Fraction | None = None
    sharpen: Sharpen | None = Sharpen()
    image_ops: ImageOpsName = "auto"
    graphs: bool = True
    batch_sizes: tuple[int, ...] | None = None
    silence: SilenceLevel | None = SilenceLevel()
    idle_avatar: str | None = None
    ahead: Fraction = Fraction(30)
    when_late: WhenLate = "auto"
