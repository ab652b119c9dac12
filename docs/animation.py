"""Makes the animation of the README: both embedded avatars say the sample.

python docs/animation.py [--output docs/demo.gif]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.nets.embedded import AVATARS, demo_sample
from musetalk_cli.run.generate import generate

FIRST, COUNT, STEP = 15, 56, 2
"""Frames of the sample that are shown, at 25 a second: every other one."""
SIZE = (256, 320)
COLOURS = 255
HEAD = (60, 170, 200, 230)
"""Of a picture; lower faces weigh more in the palette, or lips would get none of its colours."""


def main() -> None:
    """Generate frames, put them side by side and write them as one GIF."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("demo.gif"))
    target: Path = parser.parse_args().output
    sample = demo_sample()
    if sample is None:
        raise SystemExit("The embedded avatars are not installed.")
    with tempfile.TemporaryDirectory() as work:
        for avatar in AVATARS:
            generate(RunConfig(), JobConfig(silence=None), avatar, sample, frames_dir=Path(work) / avatar)
        names = sorted(path.name for path in (Path(work) / AVATARS[0]).iterdir())[FIRST::STEP][:COUNT]
        pictures = [_side_by_side([Path(work) / avatar / name for avatar in AVATARS]) for name in names]
    palette = _heads(pictures[::7]).quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    frames[0].save(
        target, save_all=True, append_images=frames[1:], duration=40 * STEP, loop=0, optimize=True, disposal=1
    )
    print(f"{target}: {len(frames)} frames, {target.stat().st_size / 1e6:.2f} MB")


def _heads(pictures: list[Image.Image]) -> Image.Image:
    """The lower faces of some pictures, one below the other, and a whole picture."""
    parts = [
        picture.crop((HEAD[0] + shift, HEAD[1], HEAD[2] + shift, HEAD[3]))
        for picture in pictures
        for shift in (0, SIZE[0])
    ]
    height = sum(part.height for part in parts)
    sheet = Image.new("RGB", (pictures[0].width, height + pictures[0].height))
    for number, part in enumerate(parts):
        sheet.paste(part.resize((sheet.width, part.height)), (0, number * part.height))
    sheet.paste(pictures[0], (0, height))
    return sheet


def _side_by_side(paths: list[Path]) -> Image.Image:
    both = Image.new("RGB", (SIZE[0] * len(paths), SIZE[1]))
    for number, path in enumerate(paths):
        with Image.open(path) as picture:
            both.paste(picture.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS), (number * SIZE[0], 0))
    return both


if __name__ == "__main__":
    main()
