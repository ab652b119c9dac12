"""Where results go: checks before any work is done, and hidden names for what is not complete yet."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from musetalk_cli.errors import OutputError

_HIDDEN = re.compile(r"\.musetalk-[0-9a-f]{32}\.partial")


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

    What killed runs left there goes away first.

    Raises:
        OutputError: The folder refuses it.
    """
    _remove_abandoned(folder)
    trial = Partial(folder)
    try:
        trial.make()
    except OSError as error:
        raise OutputError(f"{what} cannot be written: {error.strerror}.", "Choose another folder.") from error
    finally:
        trial.remove()


def check_not_input(path: Path, given: Path, option: str = "--output", what: str = "the sound") -> None:
    """Make sure that a result does not replace what it is made from.

    Args:
        path: The result.
        given: A file that it is made from.
        option: What asked for the result.
        what: What the file is, for the message.

    Raises:
        OutputError: It would.
    """
    try:
        same = path.exists() and given.exists() and path.samefile(given)
    except OSError:  # a name that no file can have: whoever opens it says so
        same = False
    if same:
        raise OutputError(f"{option} {path} is {what} itself.", "Choose another name for the result.")


def write_whole(path: Path, data: bytes, option: str) -> None:
    """Write a file under a hidden name and rename it: what has its name is complete, or the one before.

    Args:
        path: The file.
        data: All of it.
        option: What asked for it.

    Raises:
        OutputError: It cannot be written.
    """
    partial = Partial(path.parent)
    try:
        partial.make()
        partial.path.write_bytes(data)
        partial.path.rename(path)
    except OSError as error:
        raise refused(f"{option} {path}", error, path.parent) from error
    finally:
        partial.remove()


def refused(what: str, error: OSError, kept: Path) -> OutputError:
    """What is said of a result that the system refuses on the way.

    Args:
        what: The option and its value.
        error: What the system said.
        kept: What should be there and may have been removed.
    """
    if not kept.exists():
        return removed(what)
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return OutputError(
        f"{what} cannot be written: {error.strerror}.", "Check the free space of the disk." if full else None
    )


def removed(what: str) -> OutputError:
    """What is said of a result that somebody removed, or its folder, before it was complete."""
    return OutputError(f"{what} was removed, or its folder was, while it was written.")


class Partial:
    """A temporary file or folder for a result that is not complete: a hidden name, and a lock.

    The lock says that the owner lives: the system releases it when the owner ends, in whatever way.

    Args:
        folder: Where it is.

    Attributes:
        path: Its name, which nothing else has.
    """

    def __init__(self, folder: Path) -> None:
        self.path = _hidden_name(folder)
        self._lock: int | None = None

    def make(self, *, folder: bool = False) -> None:
        """Make an empty file, or a folder, and lock it.

        Raises:
            OSError: It cannot be made.
        """
        if folder:
            self.path.mkdir()
        else:
            self.path.touch(exist_ok=False)
        self._lock = os.open(self.path, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: then nobody can take it for abandoned
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Remove what is there, and let go; safe to call twice."""
        with suppress(OSError):
            if self.path.is_dir():
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                self.path.unlink()
        self.release()

    def release(self) -> None:
        """Let go of the lock: the result has its name, or nothing is left."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _hidden_name(folder: Path) -> Path:
    return folder / f".musetalk-{uuid.uuid4().hex}.partial"


def _remove_abandoned(folder: Path) -> None:
    """Remove what runs left in a folder that were killed: nobody holds its lock."""
    with suppress(OSError):
        for path in folder.iterdir():
            if _HIDDEN.fullmatch(path.name):
                _remove_unless_locked(path)


def _remove_unless_locked(path: Path) -> None:
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        finally:
            os.close(handle)
