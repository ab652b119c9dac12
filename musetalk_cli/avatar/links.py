"""Links in an avatar's folder: those that leave it are refused, since it may come from somebody else."""

from __future__ import annotations

import os
from pathlib import Path

from musetalk_cli.errors import AvatarError


def check_inside(folder: Path, path: Path) -> None:
    """Refuse a file whose real place is outside a folder: a link to elsewhere, or one inside such a link.

    Args:
        folder: An avatar's folder; it may be a link itself.
        path: A file or folder in it.

    Raises:
        AvatarError: It is a link, or in one, that leads out of the folder or nowhere.
    """
    root = os.path.realpath(folder)
    try:
        place = os.path.realpath(path, strict=True)
    except FileNotFoundError:
        if not path.is_symlink():
            return
        place = os.path.realpath(path)
    except OSError as error:  # a ring of links
        raise AvatarError(f"{path} is a link that leads nowhere: {error.strerror}.", _HINT) from error
    if place != root and os.path.commonpath([root, place]) != root:
        raise AvatarError(
            f"{path} is a link that leads out of the avatar's folder, and is not followed.", _HINT
        )


_HINT = "Put the file itself there, if it is meant."
