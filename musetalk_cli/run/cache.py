"""What `--source` has prepared, under the user's cache: held while it is used, and bounded.

Each entry is an avatar with a hidden lock file beside it, dated to the last use. Whoever uses the avatar
shares the lock, whoever makes or removes it has it alone, so nothing goes away under a program that runs.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from musetalk_cli.avatar.names import find_folder, is_name, validate_name
from musetalk_cli.avatar.store import list_avatars, load_meta
from musetalk_cli.avatar.store import remove as remove_avatar
from musetalk_cli.avatar.workspace import discard_unfinished, list_unfinished
from musetalk_cli.budget import gibibytes, parse_size
from musetalk_cli.errors import AvatarError, MuseTalkError, OutputError

VARIABLE = "MUSETALK_CACHE"
"""The environment variable that says how large the cache may be, like `40G`."""
DEFAULT_BYTES = 20 << 30
POLL_S = 0.2
"""How often it is looked whether another program has let go of what is wanted."""
MOST_NAMES = 5
"""Sources that are named in a line."""

Locked = Literal["yes", "no", "no locks"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One avatar of the cache, or what an interrupted preparation left of one.

    Attributes:
        name: Its name there.
        source: Name of what it was made from; None where that cannot be told.
        bytes: What it takes on the disk.
        used: When it was used last, in seconds since 1970.
        finished: It can be used; else its preparation was interrupted, or goes on.
    """

    name: str
    source: str | None
    bytes: int
    used: float
    finished: bool


def cache_limit() -> int:
    """How many bytes the cache may hold: what `MUSETALK_CACHE` says, else 20 GiB.

    Raises:
        InputError: The variable is no size.
    """
    text = os.environ.get(VARIABLE)
    return parse_size(text, VARIABLE) if text else DEFAULT_BYTES


@contextmanager
def held(cache: Path, name: str, make: Callable[[], object], waits: Callable[[], object]) -> Iterator[None]:
    """Have an avatar of the cache, made where it is not there; nobody removes it meanwhile.

    Args:
        cache: The folder.
        name: Its name there.
        make: Makes it. Who wants the same one meanwhile waits.
        waits: Called now and then while another program makes it.

    Raises:
        OutputError: The cache cannot be written.
    """
    with closing(_Lock(cache, name)) as lock:
        while True:
            lock.take(fcntl.LOCK_SH, waits)
            if find_folder(cache, name) is not None:
                break
            lock.take(fcntl.LOCK_EX, waits)
            if find_folder(cache, name) is None:
                try:
                    make()
                except BaseException:
                    with suppress(OSError, MuseTalkError):  # what went wrong before is told
                        if not _is_there(cache, name):
                            _sweep(cache, name)
                    raise
        lock.touch()
        yield


def entries(cache: Path) -> list[Entry]:
    """All there is, the longest unused first.

    Raises:
        AvatarError: The folder cannot be read.
    """
    finished = list_avatars(cache)
    names = sorted({*finished, *list_unfinished(cache)})
    found = [_entry(cache, name, finished=name in finished) for name in names]
    return sorted(found, key=lambda entry: (entry.used, entry.name))


def trim(cache: Path, limit: int) -> None:
    """Remove the longest unused until the rest is within a limit, and say so.

    What is in use stays, and so does what cannot be removed, which is said.

    Raises:
        AvatarError: The cache cannot be read.
    """
    gone = list[Entry]()
    with _alone(cache):
        found = entries(cache)
        total = sum(entry.bytes for entry in found)
        for entry in found:
            if total <= limit:
                break
            try:
                if not _is_there(cache, entry.name):  # somebody has removed it meanwhile
                    total -= entry.bytes
                elif remove(cache, entry.name, only_sure=True):
                    gone.append(entry)
                    total -= entry.bytes
            except MuseTalkError as error:
                log.warning("%s", error.message)
    if gone:
        named = ", ".join(entry.source or entry.name for entry in gone[:MOST_NAMES])
        more = f" and {len(gone) - MOST_NAMES} more" if len(gone) > MOST_NAMES else ""
        log.warning(
            "Removed from the cache of prepared faces, as the longest unused: %s%s (%s). It may hold %s; "
            "%s says another size.",
            *(named, more, gibibytes(sum(entry.bytes for entry in gone)), gibibytes(limit), VARIABLE),
        )


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Be the only one who trims: two that count the same would remove twice as much."""
    with ExitStack() as stack:
        with suppress(OSError):  # a file system without locks
            lock = os.open(cache, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove(cache: Path, name: str, *, only_sure: bool = False) -> bool:
    """Remove one avatar, and what an interrupted preparation left of it; False where it is in use.

    Args:
        cache: The folder.
        name: Its name there.
        only_sure: Where the file system has no locks, so that nobody knows whether it is in use, it stays.

    Raises:
        AvatarError: There is none of that name.
        OutputError: It cannot be removed.
    """
    if not _is_there(cache, validate_name(name)):
        remove_avatar(cache, name)  # which says what there is
    with closing(_Lock(cache, name)) as lock:
        locked = lock.attempt(fcntl.LOCK_EX)
        if locked == "no" or (only_sure and locked == "no locks"):
            return False
        discard_unfinished(cache, name)
        if name in list_avatars(cache):
            remove_avatar(cache, name)
        _sweep(cache, name)
    return True


def remove_all(cache: Path) -> tuple[list[str], list[str]]:
    """Remove everything; the names of what is gone, and of what is in use and stays.

    Raises:
        AvatarError: The cache cannot be read.
        OutputError: Something in it cannot be removed.
    """
    names = sorted(entry.name for entry in entries(cache))
    gone = [name for name in names if not _is_there(cache, name) or remove(cache, name)]
    _remove_lone_locks(cache)
    return gone, [name for name in names if name not in gone]


def _is_there(cache: Path, name: str) -> bool:
    return name in {*list_avatars(cache), *list_unfinished(cache)}


def _entry(cache: Path, name: str, *, finished: bool) -> Entry:
    partial = cache / f".{name}.partial"
    places = [cache / name, partial, *cache.glob(f".{name}.old-*")]
    source = None
    if finished:
        with suppress(AvatarError):
            source = str(load_meta(cache, name).source.get("name", "")) or None
    dates = [_date(place) for place in (_lock_file(cache, name), cache / name, partial)]
    return Entry(name, source, sum(map(_bytes, places)), next(filter(None, dates), 0.0), finished)


def _bytes(folder: Path) -> int:
    """What is in a folder; what goes away meanwhile is nothing."""
    count = 0
    for at, folders, files in os.walk(folder):  # which passes over what it cannot look into
        for name in (*folders, *files):
            with suppress(OSError):
                count += Path(at, name).lstat().st_size
    return count


def _date(path: Path) -> float | None:
    with suppress(OSError):
        return path.stat().st_mtime
    return None


def _lock_file(cache: Path, name: str) -> Path:
    return cache / f".{name}.lock"


def _unwritable(cache: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{cache} cannot be written: {error.strerror}.", "Set XDG_CACHE_HOME to a folder that can."
    )


class _Lock:
    """The lock file of one name, open; made where it is not there.

    Raises:
        OutputError: It cannot be made.
    """

    def __init__(self, cache: Path, name: str) -> None:
        self._cache, self._path = cache, _lock_file(cache, name)
        self._file = self._open()

    def attempt(self, kind: int) -> Locked:
        """Take it if that can be done at once; what was taken before may be lost else."""
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return "no"
        except OSError:  # a file system without locks
            return "no locks"
        return "yes"

    def take(self, kind: int, waits: Callable[[], object]) -> None:
        """Wait for it; where somebody has removed the file meanwhile, for the new one."""
        while True:
            while self.attempt(kind) == "no":
                waits()
                time.sleep(POLL_S)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file), self._path.stat()):
                    return
            before, self._file = self._file, self._open()
            os.close(before)

    def touch(self) -> None:
        """Say that what it stands for is used now."""
        os.utime(self._file)

    def close(self) -> None:
        """Let it go."""
        os.close(self._file)

    def _open(self) -> int:
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _unwritable(self._cache, error) from error


def _sweep(cache: Path, name: str) -> None:
    """Remove what a removal that was ended has left, and the lock file, by whoever holds the lock."""
    try:
        for left in cache.glob(f".{name}.old-*"):
            shutil.rmtree(left)
        _lock_file(cache, name).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(cache, error) from error


def _remove_lone_locks(cache: Path) -> None:
    """Remove lock files beside which nothing is."""
    names = {path.name[1 : -len(".lock")] for path in cache.glob(".*.lock")}
    for name in filter(is_name, names - {entry.name for entry in entries(cache)}):
        with closing(_Lock(cache, name)) as lock:
            if lock.attempt(fcntl.LOCK_EX) != "no":
                _sweep(cache, name)
