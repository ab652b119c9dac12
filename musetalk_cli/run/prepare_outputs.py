"""What a preparation takes besides its options, and what it writes besides the avatar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from musetalk_cli.errors import OutputError

DetectorName = Literal["auto", "dwpose", "haar"]
ParserName = Literal["auto", "segformer", "outline"]


@dataclass(frozen=True, slots=True)
class PrepareOutputs:
    """What a preparation uses and gives besides the avatar.

    Attributes:
        detector: What finds the face; `auto` is DWPose where its file is there, else OpenCV's cascade.
        parser: What draws the mask; `auto` is the face parser where it is there, else the landmarks' outline.
        landmarks_file: Where the landmarks are written, as they were seen; None for nowhere.
        preview: Where a contact sheet is written; None for nowhere.
        grid: Where a sheet with several values of `--bbox-shift` is written; None for nowhere.
    """

    detector: DetectorName = "auto"
    parser: ParserName = "auto"
    landmarks_file: Path | None = None
    preview: Path | None = None
    grid: Path | None = None

    def check(self, avatar: Path) -> None:
        """Refuse files that cannot be written, before any work.

        Args:
            avatar: The folder that the avatar replaces, with all that is in it.

        Raises:
            OutputError: The folder of one is not there or takes no file, or it is a folder itself, another of
                these files, or in the avatar's own folder.
        """
        from musetalk_cli.sinks.checks import check_parent

        seen: set[Path] = set()
        for option, path in (
            ("--save-landmarks", self.landmarks_file),
            ("--preview", self.preview),
            ("--preview grid", self.grid),
        ):
            if path is None:
                continue
            check_parent(path, option)
            if path.is_dir():
                raise OutputError(f"{option} {path} is a folder.", "Name a file.")
            place = path.resolve()
            if place.is_relative_to(avatar.resolve()):
                raise OutputError(
                    f"{option} {path} is in the folder of the avatar.", "Name a file elsewhere."
                )
            if place in seen:
                raise OutputError(f"{option} {path} is written by another option too.", "Name two files.")
            seen.add(place)
