"""Which folder an avatar is in: the chosen one, or the embedded one where only that has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from musetalk_cli.avatar.layout import META_FILE
from musetalk_cli.avatar.names import find_folder, same_name, validate_name
from musetalk_cli.avatar.store import list_avatars
from musetalk_cli.errors import AvatarError
from musetalk_cli.nets.embedded import AVATARS, embedded_avatars

Edition = tuple[int, int, int]
"""Device, number and time of a file."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where an avatar is.

    Attributes:
        name: Name of the avatar, in its own spelling.
        avatars_dir: The folder of avatars that holds it.
        folder: Its own folder in there.
        embedded: True where it came with the program.
    """

    name: str
    avatars_dir: Path
    folder: Path
    embedded: bool

    @property
    def edition(self) -> Edition:
        """What tells an avatar from one that is prepared anew in its place: the file that describes it.

        Raises:
            AvatarError: It is not there any more.
        """
        try:
            found = (self.folder / META_FILE).stat()
        except OSError as error:
            raise AvatarError(
                f"Avatar {self.name} cannot be read any more: {error.strerror}.", "Prepare it again."
            ) from error
        return found.st_dev, found.st_ino, found.st_mtime_ns


def find_avatar(avatars_dir: Path, name: str) -> Home:
    """The home of an avatar; one in the chosen folder hides an embedded one of the same name.

    Raises:
        AvatarError: The name is not allowed, or there is no such avatar in the chosen folder or embedded.
    """
    embedded = _embedded()
    own = next((known for known in embedded if same_name(known, name)), None)
    if (folder := find_folder(avatars_dir, name)) is not None:
        spelling = validate_name(folder.name)
        is_embedded = spelling in embedded and avatars_dir.resolve() == embedded[spelling].resolve()
        return Home(spelling, avatars_dir, folder, is_embedded)
    if own is not None:
        return Home(own, embedded[own], embedded[own] / own, True)
    groups = {"There are": list_avatars(avatars_dir), "embedded are": list(embedded)}
    there = "; ".join(f"{words}: {', '.join(names)}" for words, names in groups.items() if names)
    raise AvatarError(
        f"There is no avatar {validate_name(name)} in {avatars_dir}.",
        f"{there}." if there else "There are none; import or prepare one first.",
    )


def find_all(avatars_dir: Path) -> list[Home]:
    """Every avatar that a name reaches: those of the chosen folder and the embedded ones, sorted by name.

    Raises:
        AvatarError: The chosen folder cannot be read.
    """
    names = {*list_avatars(avatars_dir), *_embedded()}
    return [find_avatar(avatars_dir, name) for name in sorted(names)]


def check_removable(avatars_dir: Path, name: str) -> None:
    """Refuse to remove what came with the program.

    Raises:
        AvatarError: There is no such avatar, or it is embedded.
    """
    home = find_avatar(avatars_dir, name)
    if home.embedded:
        raise AvatarError(
            f"Avatar {home.name} came with the program, in {home.avatars_dir}, and is not removed."
        )


def _embedded() -> dict[str, Path]:
    """The folder of avatars that holds each embedded avatar."""
    folder = embedded_avatars()
    return {} if folder is None else {name: folder for name in AVATARS if find_folder(folder, name)}
