"""What a measured preparation is told, and what it tells: plain values, to pass between processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from musetalk_cli.config import DeviceName, PrecisionName
from musetalk_cli.run.prepare_outputs import DetectorName, ParserName

Order = Literal["ours", "upstream"]
"""Stages side by side in bounded memory, or the published order of work."""
OURS: Order = "ours"
UPSTREAM: Order = "upstream"


@dataclass(frozen=True, slots=True)
class Task:
    """One preparation.

    Attributes:
        order: In which order the work is done.
        source: Path of the clip.
        frames: How many of its frames.
        folder: Where the result goes; there, and empty.
        models: Folder of model weights.
        model: The networks.
        device: Where to compute.
        precision: Number format of the networks.
        detector: What finds the face.
        parser: What draws the mask.
        batch_size: Faces encoded at once in our order; None is what suits the device.
    """

    order: Order
    source: str
    frames: int
    folder: str
    models: str
    model: str | None
    device: DeviceName
    precision: PrecisionName
    detector: DetectorName
    parser: ParserName
    batch_size: int | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What one preparation took.

    Attributes:
        order: In which order the work was done.
        frames: Frames prepared.
        faces: How many of them have a face.
        seconds: Of the whole, after loading and a warm-up.
        stages: Frames a second of each stage while it is at work, of one of its threads.
        models_bytes: Resident size of the process once the networks were loaded.
        ready_bytes: Resident size once every tool had been used, and what that left free was given back.
        peak_bytes: Largest resident size from then on; ffmpeg is a process of its own and not in it.
        peak_device_bytes: Largest size of tensors on the device from then on, or None on a CPU.
        detector: What found the faces.
        parsed: True where a face parser drew the masks.
        batch_size: Faces encoded at once.
        precision: Number format of the networks.
        boxes: Box of the face in each frame, or None.
    """

    order: Order
    frames: int
    faces: int
    seconds: float
    stages: dict[str, float]
    models_bytes: int
    ready_bytes: int
    peak_bytes: int
    peak_device_bytes: int | None
    detector: str
    parsed: bool
    batch_size: int
    precision: str
    boxes: list[list[int] | None]

    @property
    def frames_per_s(self) -> float:
        """Frames a second of the whole."""
        return self.frames / self.seconds

    @property
    def beyond_models_bytes(self) -> int:
        """What the work takes beyond the networks and what their first use left."""
        return self.peak_bytes - self.ready_bytes
