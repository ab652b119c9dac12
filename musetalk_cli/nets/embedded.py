"""The data that comes with the program: the demo networks, the avatars made for them, a sample of speech."""

from __future__ import annotations

import sysconfig
from pathlib import Path

DEMO = "demo"
"""Name of the embedded networks, and of the avatar that speaks where none was chosen."""
AVATARS = ("demo", "demo2")
"""The embedded avatars; other ones that lie beside them in a checkout are somebody's own."""
SAMPLE = "sample.wav"


def places() -> tuple[Path, ...]:
    """The folders that may hold `models/` and `avatars/`, the preferred one first.

    They are the checkout this package lies in, and where a wheel puts its data: below the environment, or
    below the user's own folder where it was installed with `--user`.
    """
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    shares = [Path(sysconfig.get_path("data", scheme)) / "share" / "musetalk" for scheme in schemes]
    return (Path(__file__).absolute().parents[2], *shares)


def embedded_models() -> Path | None:
    """The folder that holds the demo bundle as `demo/`; None where it was not installed."""
    return _holding_demo("models")


def embedded_avatars() -> Path | None:
    """The folder that holds the embedded avatars; None where they were not installed."""
    return _holding_demo("avatars")


def demo_sample() -> Path | None:
    """A sound for the avatar `demo` to speak; None where it was not installed."""
    folder = embedded_avatars()
    return None if folder is None else sample_of(folder / DEMO)


def sample_of(avatar: Path) -> Path | None:
    """The sample of speech in an avatar's folder, or None where it has none."""
    sample = avatar / SAMPLE
    return sample if sample.is_file() else None


def _holding_demo(kind: str) -> Path | None:
    folders = (place / kind for place in places())
    return next((folder for folder in folders if (folder / DEMO).is_dir()), None)
