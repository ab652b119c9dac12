"""Checks that a result can be written, before any work is done for it."""

from __future__ import annotations

import uuid
from pathlib import Path

from musetalk_cli.errors import OutputError


def check_parent(path: Path, option: str) -> None:
    """Make sure that the folder a result goes into is there and can be written.

    Raises:
        OutputError: It is not, or the name is one that no file can have.
    """
    parent = path.absolute().parent
    try:
        path.exists()
    except OSError as error:
        raise OutputError(f"{option} {path} cannot be written: {error.strerror}.") from error
    if not parent.is_dir():
        raise OutputError(f"The folder of {option} {path} is not there.", f"Make it first: mkdir -p {parent}")
    check_writable(parent, f"The folder of {option} {path}")


def check_file(path: Path, option: str) -> None:
    """Make sure that a file can be made or replaced.

    Raises:
        OutputError: It cannot: of its folder, or of what has its name.
    """
    check_parent(path, option)
    if path.is_dir():
        raise OutputError(f"{option} {path} is a folder.", "Name a file, like out.mp4.")
    if path.exists() and not path.is_file():
        raise OutputError(f"{option} {path} is a pipe or a device.", "Name a file, like out.mp4.")


def check_writable(folder: Path, what: str) -> None:
    """Make and remove a file in a folder: permissions alone do not tell a file system that takes none.

    Raises:
        OutputError: The folder refuses it.
    """
    trial = partial_name(folder)
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise OutputError(f"{what} cannot be written: {error.strerror}.", "Choose another folder.") from error


def check_not_input(path: Path, audio: Path, option: str = "--output") -> None:
    """Make sure that a result does not replace the sound it is made from.

    Raises:
        OutputError: It would.
    """
    try:
        same = path.exists() and audio.exists() and path.samefile(audio)
    except OSError:  # a name that no file can have: whoever opens it says so
        same = False
    if same:
        raise OutputError(f"{option} {path} is the sound itself.", "Choose another name for the result.")


def partial_name(folder: Path) -> Path:
    """A hidden name in a folder that nothing else has, for what is not complete yet."""
    return folder / f".musetalk-{uuid.uuid4().hex}.partial"
