"""Programs that write into one models folder take turns, and what one that was killed has left is found."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from musetalk_cli.errors import OutputError
from musetalk_cli.nets.record import ELSEWHERE

Notice = Callable[[str], None]
"""Told a line that is worth knowing."""
Work = Literal["download", "conversion"]

PARTIAL = ".partial"
"""The hidden name of a file ends so while it comes, and begins so while it is made of another one."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a program that writes now, or that was killed, has left.

    Attributes:
        path: The file.
        bytes: Its size.
        work: What it is of. A download goes on with it; a conversion begins anew.
    """

    path: Path
    bytes: int
    work: Work


@contextmanager
def turn(models_dir: Path, notice: Notice) -> Iterator[bool]:
    """Be the only one who writes into a folder: two would mix the bytes of a file.

    What conversions that were killed have left is removed, where the file system has locks. Gives False where
    another program was waited for, which may have done what is wanted.

    Raises:
        OutputError: The folder cannot be made.
    """
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(models_dir, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OutputError(f"{models_dir} cannot be written: {error.strerror}.", ELSEWHERE) from error
    try:
        at_once = True
        with suppress(OSError):  # a file system without locks, or what cannot be removed
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                at_once = False
                notice(f"Another program that writes to {models_dir} is waited for.")
                fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_conversions(models_dir)
        yield at_once
    finally:
        os.close(lock)


def is_written_to(models_dir: Path) -> bool:
    """True where a program has its turn right now."""
    try:
        lock = os.open(models_dir, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(lock)
    return False


def leftovers(models_dir: Path) -> list[Leftover]:
    """What lies under hidden names in a models folder; nothing where that cannot be read."""
    patterns: dict[str, Work] = {f"*/.*{PARTIAL}": "download", f"*/{PARTIAL}.*": "conversion"}
    found = list[Leftover]()
    for pattern, work in patterns.items():
        with suppress(OSError):
            paths = sorted(path for path in models_dir.glob(pattern) if path.is_file())
            found += [Leftover(path, path.stat().st_size, work) for path in paths]
    return found


def _remove_conversions(models_dir: Path) -> None:
    for left in leftovers(models_dir):
        if left.work == "conversion":
            left.path.unlink(missing_ok=True)
