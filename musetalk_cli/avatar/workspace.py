"""The folder an avatar is written in, beside its final place, until it is complete."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from musetalk_cli import strict_json
from musetalk_cli.avatar.description import Json
from musetalk_cli.avatar.layout import FRAMES_DIR, MASKS_DIR, META_FILE
from musetalk_cli.avatar.names import find_folder, folders_named, is_name, validate_name
from musetalk_cli.errors import AvatarError, MuseTalkError, OutputError

RESUME_FILE = "resume.json"

_PARTIAL = ".partial"


class Workspace:
    """A folder that becomes an avatar, or goes away.

    Use it in a `with` block. Only `publish` makes the avatar visible; leaving the block otherwise removes
    everything. With a `key` the folder has a fixed name and outlives an interrupt, a full disk, or the end of
    the process: the next workspace with the same key goes on in it, one with another key starts anew. What is
    refused for its input leaves nothing.

    Args:
        avatars_dir: Folder of avatars; made if it is not there.
        name: Name of the new avatar. Where an avatar, or work on one, is there in another spelling of it,
            that spelling stays.
        overwrite: Replace an avatar of that name; it stays in place until the new one is complete.
        key: What the content depends on; None for work that is not worth resuming.

    Attributes:
        resumed: True where an earlier run with the same key left its work here.

    Raises:
        AvatarError: The name is not allowed, or taken without `overwrite`.
        OutputError: The folder cannot be written, or another process is at work on the same avatar.
    """

    def __init__(
        self, avatars_dir: Path, name: str, *, overwrite: bool = False, key: Mapping[str, Json] | None = None
    ) -> None:
        self._target = _spelled(avatars_dir, validate_name(name))
        self._overwrite = overwrite
        self._key = None if key is None else strict_json.dump(key, sort_keys=True)
        self._folder: Path | None = None
        self._lock: int | None = None
        self.resumed = False
        self._check_free()

    @property
    def name(self) -> str:
        """Name of the avatar."""
        return validate_name(self._target.name)

    @property
    def target(self) -> Path:
        """Where the avatar will be."""
        return self._target

    @property
    def folder(self) -> Path:
        """Where the work is."""
        if self._folder is None:
            raise RuntimeError("the workspace is not open")
        return self._folder

    def _check_free(self) -> None:
        if os.path.lexists(self._target) and not self._overwrite:
            raise AvatarError(
                f"There is already an avatar {self._target.name} in {self._target.parent}.",
                "Pass --overwrite to replace it, or choose another name.",
            )
        if os.path.lexists(self._target) and not (self._target / META_FILE).is_file():
            raise AvatarError(
                f"{self._target} is not an avatar and is not replaced.",
                "Choose another name or move it away.",
            )

    def __enter__(self) -> Workspace:
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            if self._key is None:
                self._open_unnamed()
            else:
                self._open_resumable(self._key)
            for place in (FRAMES_DIR, MASKS_DIR):
                (self.folder / place).mkdir(exist_ok=True)
        except OSError as error:
            self._discard()
            raise OutputError(
                f"Avatars cannot be written to {self._target.parent}: {error.strerror}.",
                "Choose another --avatars-dir.",
            ) from error
        except BaseException:
            self._release()
            raise
        return self

    def _open_unnamed(self) -> None:
        parent, prefix = self._target.parent, f".{self._target.name}.new-"
        for folder in parent.glob(f"{prefix}*"):
            _remove_abandoned(folder)
        self._folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._folder.chmod(0o755)
        self._lock = _locked(self._folder)

    def _open_resumable(self, key: str) -> None:
        folder = self._target.parent / f".{self._target.name}{_PARTIAL}"
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise OutputError(f"{folder} is a link, and is not written to.", "Remove it.")
        self._lock = _locked(folder)
        if self._lock is None:
            raise OutputError(
                f"Another process is preparing {self.name} in {self._target.parent}.",
                "Wait for it, or choose another name.",
            )
        self._folder = folder
        note = folder / RESUME_FILE
        self.resumed = note.is_file() and note.read_bytes() == key.encode()
        if not self.resumed:
            # First of all, so that a wipe that is itself interrupted leaves nothing to go on with.
            note.unlink(missing_ok=True)
            for entry in folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            note.write_text(key, encoding="utf-8")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        refused = isinstance(error, MuseTalkError) and not isinstance(error, OutputError)
        if self._key is None or error is None or refused:
            self._discard()
        else:
            self._release()

    def seal(self) -> None:
        """Say that what follows cannot be resumed: an interruption from here on starts anew.

        Raises:
            OSError: The folder cannot be written.
        """
        (self.folder / RESUME_FILE).unlink(missing_ok=True)

    def publish(self, description: str) -> None:
        """Write `avatar.json` and put the folder in the avatar's place.

        Raises:
            AvatarError: The name was taken meanwhile.
            OutputError: It cannot be written.
        """
        folder = self.folder
        try:
            self.seal()
            (folder / META_FILE).write_text(description, encoding="utf-8")
            self._put_in_place(folder)
        except OSError as error:
            raise OutputError(
                f"The avatar cannot be written to {self._target}: {error.strerror}.",
                "Free some space or choose another --avatars-dir.",
            ) from error

    def _put_in_place(self, folder: Path) -> None:
        self._check_free()
        if not os.path.lexists(self._target):
            folder.rename(self._target)
            self._folder = None
            return
        aside = Path(tempfile.mkdtemp(prefix=f".{self._target.name}.old-", dir=self._target.parent))
        old = aside / self._target.name
        try:
            self._target.rename(old)
            try:
                folder.rename(self._target)
            except BaseException:
                old.rename(self._target)
                raise
            self._folder = None
        finally:
            if os.path.lexists(self._target):
                shutil.rmtree(aside, ignore_errors=True)

    def _discard(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        self._folder = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _spelled(avatars_dir: Path, name: str) -> Path:
    """Where an avatar of that name is, is being made, or will be."""
    if (folder := find_folder(avatars_dir, name)) is not None:
        return folder
    partial = next(folders_named(avatars_dir, name, ".", _PARTIAL), None)
    return avatars_dir / (name if partial is None else partial.name[1 : -len(_PARTIAL)])


def list_unfinished(avatars_dir: Path) -> list[str]:
    """Names of the avatars whose preparation was interrupted, or goes on right now; sorted."""
    if not avatars_dir.is_dir():
        return []
    found = (path.name[1 : -len(_PARTIAL)] for path in avatars_dir.glob(f".*{_PARTIAL}") if path.is_dir())
    return sorted(validate_name(name) for name in found if is_name(name))


def discard_unfinished(avatars_dir: Path, name: str) -> bool:
    """Remove what an interrupted preparation left; True where there was something.

    Raises:
        OutputError: It goes on right now, or cannot be removed.
    """
    found = folders_named(avatars_dir, validate_name(name), ".", _PARTIAL)
    folder = next((path for path in found if path.is_dir() and not path.is_symlink()), None)
    if folder is None:
        return False
    handle = _locked(folder)
    if handle is None:
        raise OutputError(f"Another process is preparing {name} in {avatars_dir}.", "Stop it first.")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be removed: {error.strerror}.", "Check its permissions."
        ) from error
    finally:
        os.close(handle)
    return True


def _locked(folder: Path) -> int | None:
    """A handle that holds the folder's lock, or None where a living process holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _remove_abandoned(folder: Path) -> None:
    """Remove a folder whose writer is gone: a living one holds its lock."""
    if folder.is_symlink() or not folder.is_dir():
        return
    handle = _locked(folder)
    if handle is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)
