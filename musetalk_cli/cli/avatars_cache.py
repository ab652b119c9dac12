"""`musetalk avatars list|remove --cache`: what `--source` has prepared."""

from __future__ import annotations

from pathlib import Path

from musetalk_cli.cli.options import Common
from musetalk_cli.cli.render import mebibytes, print_json, print_table, put, say
from musetalk_cli.config import cache_folder
from musetalk_cli.errors import AvatarError, OutputError


def list_cache(common: Common) -> None:
    """List what is in the cache, with what it was made from and its size on the disk."""
    from musetalk_cli.avatar.store import list_avatars, load_meta

    folder = cache_folder()
    entries: list[dict[str, object]] = []
    rows: list[list[str]] = []
    for name in list_avatars(folder):
        size = _bytes(folder / name)
        try:
            meta = load_meta(folder, name)
        except AvatarError as error:
            entries.append({"name": name, "broken": error.message, "bytes": size})
            rows.append([name, "broken: " + error.message, "", "", "", mebibytes(size)])
            continue
        source = str(meta.source.get("name", ""))
        model = str(meta.model.get("name", meta.model["version"]))
        entries.append(
            {
                "name": name,
                "source": source,
                "model": model,
                "frames": meta.frames,
                "fps": float(meta.fps),
                "bytes": size,
            }
        )
        rows.append([name, source, model, str(meta.frames), f"{float(meta.fps):g}", mebibytes(size)])
    if common.json:
        print_json(entries)
    elif rows:
        columns = ["name", "source", "model", "frames", "fps", "on disk"]
        print_table(f"Prepared by --source, in {folder}", columns, rows)
    else:
        say(f"Nothing in {folder}. `musetalk generate --source` prepares what it needs there.")


def clear_cache(common: Common, name: str | None) -> None:
    """Delete one avatar of the cache, or all of them with what was not finished.

    Raises:
        AvatarError: There is none of that name.
        OutputError: A file cannot be deleted.
    """
    from musetalk_cli.avatar.store import list_avatars, remove
    from musetalk_cli.avatar.workspace import discard_unfinished, list_unfinished

    folder = cache_folder()
    names = [name] if name is not None else list_avatars(folder)
    unfinished = list_unfinished(folder)
    for each in names:
        if each in list_avatars(folder) or each not in unfinished:
            remove(folder, each)
    for each in unfinished:
        if name in {None, each}:
            discard_unfinished(folder, each)
    _remove_locks(folder, name)
    gone = sorted({*names, *(unfinished if name is None else [])})
    if common.json:
        print_json({"removed": gone})
    else:
        put(f"Removed {len(gone)} from {folder}.")


def _remove_locks(folder: Path, name: str | None) -> None:
    try:
        for path in folder.glob(f".{name or '*'}.lock"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror}.", "Check its permissions."
        ) from error


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
