"""How an avatar is prepared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from musetalk_cli.avatar.layout import LatentsFormat
from musetalk_cli.config import check_batch_size
from musetalk_cli.errors import InputError
from musetalk_cli.face.settings import EXTRA_MARGIN, MaskShape, check_choice

if TYPE_CHECKING:
    from musetalk_cli.avatar.description import Json

Trim = Literal["off", "auto"]


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """How an avatar is prepared.

    Attributes:
        face: Who speaks where there are several people: `largest`, `left`, `right`, `center`, or a number
            counted from the left.
        bbox_shift: Rows by which the nose bridge is taken lower (more than 0) or higher.
        extra_margin: Rows added below the chin; None is what the model was trained with.
        smooth: Smooth the landmarks over the whole clip; without it every frame's box is its own.
        constant_size: Give the box one size, the largest of the clip.
        max_gap: Seconds without a face that are filled in between two frames with one.
        min_faces: Share of the frames, 0..1, that must have a face, filled gaps included.
        trim: `auto` cuts both ends where the clip moves least.
        mask: Which pixels of the crop are replaced.
        batch_size: Faces encoded at once; None is what suits the device.
        latents: The number format the latents are stored in; fp16 takes half the space.
    """

    face: str = "largest"
    bbox_shift: int = 0
    extra_margin: int | None = None
    smooth: bool = True
    constant_size: bool = False
    max_gap: float = 0.4
    min_faces: float = 0.5
    trim: Trim = "off"
    mask: MaskShape = field(default_factory=MaskShape)
    batch_size: int | None = None
    latents: LatentsFormat = "fp32"

    def __post_init__(self) -> None:
        check_choice(self.face)
        if not 0 <= (self.extra_margin or 0) <= 1000 or abs(self.bbox_shift) > 1000:
            raise InputError(
                "--extra-margin or --bbox-shift is out of range.", "Use 0..1000 and -1000..1000 rows."
            )
        check_batch_size(self.batch_size)
        if not 0 <= self.max_gap <= 10:
            raise InputError(f"--max-gap {self.max_gap:g} is outside 0..10 s.", "0.4 is a good start.")
        if not 0 <= self.min_faces <= 1:
            raise InputError(f"--min-faces {self.min_faces:g} is outside 0..1.", "0.5 is half of the frames.")

    def margin(self, version: str) -> int:
        """Rows added below the chin for a model of this version."""
        if self.extra_margin is not None:
            return self.extra_margin
        return EXTRA_MARGIN if version == "v15" else 0

    def mask_for(self, version: str) -> MaskShape:
        """The mask's shape; where no mode is chosen, that of the model: `jaw`, and `raw` for v1.0."""
        return replace(self.mask, mode=self.mask.mode or ("jaw" if version == "v15" else "raw"))

    def parameters(self, version: str, *, parsed: bool) -> dict[str, Json]:
        """What `avatar.json` records.

        Args:
            version: The model's version.
            parsed: A parser labels the pixels; without one the mask is the outline of the landmarks.
        """
        mask: dict[str, Json] = {"mask": "outline"}
        if parsed:
            mask = {"mask": self.mask_for(version).mode, "cheek_width": list(self.mask.cheek_width)}
        return {
            "bbox_shift": self.bbox_shift,
            "extra_margin": self.margin(version),
            "smooth": "on" if self.smooth else "off",
            "constant_size": self.constant_size,
            "max_gap": self.max_gap,
            "trim": self.trim,
            **mask,
            "upper_boundary": self.mask.upper_boundary,
            "feather": self.mask.feather,
        }
