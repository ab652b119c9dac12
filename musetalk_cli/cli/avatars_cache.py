"""`musetalk avatars list|remove --cache`: what `--source` has prepared."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from musetalk_cli.budget import gibibytes
from musetalk_cli.cli.options import Common
from musetalk_cli.cli.render import mebibytes, print_json, print_table, put, say
from musetalk_cli.config import cache_folder
from musetalk_cli.errors import AvatarError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from musetalk_cli.run.cache import Entry


def list_cache(common: Common) -> None:
    """List what is in the cache, with what it was made from, its size on the disk, and its last use."""
    from musetalk_cli.run.cache import cache_limit, entries

    folder, limit = cache_folder(), cache_limit()
    found = sorted(entries(folder), key=lambda entry: entry.name)
    told = [_told(folder, entry) for entry in found]
    if common.json:
        print_json(told)
    elif found:
        columns = ["name", "source", "model", "frames", "fps", "on disk", "last used"]
        total = sum(entry.bytes for entry in found)
        title = f"Prepared by --source, in {folder}: {gibibytes(total)} of {gibibytes(limit)}"
        print_table(title, columns, [_row(each, entry) for each, entry in zip(told, found, strict=True)])
    else:
        say(f"Nothing in {folder}. `musetalk generate --source` prepares what it needs there.")


def _told(folder: Path, entry: Entry) -> dict[str, object]:
    from musetalk_cli.avatar.store import load_meta

    used = datetime.fromtimestamp(entry.used, timezone.utc).isoformat(timespec="seconds")
    disk: dict[str, object] = {"bytes": entry.bytes, "used": used}
    if not entry.finished:
        return {"name": entry.name, "unfinished": True} | disk
    try:
        meta = load_meta(folder, entry.name)
    except AvatarError as error:
        return {"name": entry.name, "broken": error.message} | disk
    return {
        "name": entry.name,
        "source": entry.source or "",
        "model": str(meta.model.get("name", meta.model["version"])),
        "frames": meta.frames,
        "fps": float(meta.fps),
    } | disk


def _row(told: dict[str, object], entry: Entry) -> list[str]:
    used = datetime.fromtimestamp(entry.used).astimezone().strftime("%Y-%m-%d %H:%M")
    disk = [mebibytes(entry.bytes), used]
    if "unfinished" in told:
        return [entry.name, "not finished", "", "", "", *disk]
    if "broken" in told:
        return [entry.name, f"broken: {told['broken']}", "", "", "", *disk]
    return [entry.name, *(str(told[key]) for key in ("source", "model", "frames")), f"{told['fps']:g}", *disk]


def clear_cache(common: Common, name: str | None) -> None:
    """Delete one avatar of the cache, or all of them with what was not finished; what is in use stays.

    Raises:
        AvatarError: There is none of that name.
        OutputError: It is in use, or a file cannot be deleted.
    """
    from musetalk_cli.run.cache import remove, remove_all

    folder = cache_folder()
    gone, stay = remove_all(folder) if name is None else ([name], [])
    if name is not None and not remove(folder, name):
        raise OutputError(f"{name} in {folder} is used by a running program.", "Wait for it, or stop it.")
    if common.json:
        print_json({"removed": gone, "in_use": stay})
    else:
        used = f"; {len(stay)} in use stay" if stay else ""
        put(f"Removed {len(gone)} from {folder}{used}.")
