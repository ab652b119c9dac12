"""`musetalk avatars list|show|import|verify|remove`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musetalk_cli.cli.avatars_cache import clear_cache, list_cache
from musetalk_cli.cli.options import Common, Overwrite, common_options
from musetalk_cli.cli.render import mebibytes, print_json, print_table, put, say
from musetalk_cli.errors import AvatarError
from musetalk_cli.nets.embedded import DEMO
from musetalk_cli.timeline import DEFAULT_FPS, FPS_LIMITS, parse_fps

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import AvatarMemory
    from musetalk_cli.avatar.description import AvatarMeta, Json
    from musetalk_cli.avatar.lookup import Home

LISTED = 5
"""Entries of a list of the report that are shown."""
MAX_DEPTH = 4
"""Nesting of the report that is shown."""

app = typer.Typer(help="See and manage prepared avatars.", no_args_is_help=True)

Cache = Annotated[
    bool,
    typer.Option("--cache", help="Take those that `generate --source` has prepared, in the user's cache."),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the avatar.")]


@app.command("list")
@common_options()
def list_(common: Common, cache: Cache = False) -> None:
    """List the avatars: those of the folder, and those that came with the program."""
    if cache:
        list_cache(common)
        return
    from musetalk_cli.avatar.lookup import find_all
    from musetalk_cli.avatar.store import load_meta
    from musetalk_cli.avatar.workspace import list_unfinished

    folder = common.run.avatars.path
    found: list[tuple[Home, AvatarMeta | AvatarError]] = []
    for home in find_all(folder):
        try:
            found.append((home, load_meta(home.avatars_dir, home.name)))
        except AvatarError as error:
            found.append((home, error))
    if common.json:
        print_json([_entry(home, meta) for home, meta in found])
    elif found:
        columns = ["name", "model", "size", "frames", "fps", "face scale", "where"]
        print_table(f"Avatars in {folder}", columns, [_row(home, meta) for home, meta in found])
    else:
        say(f"No avatars in {folder}. `musetalk prepare-avatar` makes one.")
    if unfinished := list_unfinished(folder):
        say(
            f"Not finished: {', '.join(unfinished)}. "
            "The same prepare-avatar command goes on; `avatars remove` deletes it, with a finished avatar of "
            "that name."
        )


def _row(home: Home, meta: AvatarMeta | AvatarError) -> list[str]:
    where = "embedded" if home.embedded else "in the folder"
    if isinstance(meta, AvatarError):
        return [home.name, "broken: " + meta.message, "", "", "", "", where]
    return [
        home.name,
        str(meta.model["name"] if meta.model.get("name") == DEMO else meta.model["version"]),
        f"{meta.width}x{meta.height}",
        str(meta.frames),
        f"{float(meta.fps):g}",
        f"{meta.face_scale:.2f}",
        where,
    ]


def _entry(home: Home, meta: AvatarMeta | AvatarError) -> dict[str, object]:
    if isinstance(meta, AvatarError):
        return {"name": home.name, "broken": meta.message} | _place(home)
    return _description(meta) | _place(home)


def _place(home: Home) -> dict[str, object]:
    return {"folder": str(home.folder), "embedded": home.embedded}


def _description(meta: AvatarMeta) -> dict[str, object]:
    return {
        "name": meta.name,
        "model": dict(meta.model),
        "width": meta.width,
        "height": meta.height,
        "frames": meta.frames,
        "fps": float(meta.fps),
        "face_scale": meta.face_scale,
    }


@app.command()
@common_options()
def show(common: Common, name: Name) -> None:
    """Show an avatar: its size, how it was prepared, and the memory it will take."""
    from musetalk_cli.avatar.lookup import find_avatar
    from musetalk_cli.avatar.store import latents_format, load_meta, measure

    home = find_avatar(common.run.avatars.path, name)
    name = home.name
    meta = load_meta(home.avatars_dir, name)
    memory = measure(home.avatars_dir, name)
    latents = latents_format(home.avatars_dir, name)
    if common.json:
        print_json(_description(meta) | _place(home) | {"latents": latents} | _details(meta, memory))
        return
    rows = [
        ["model", _told("model", meta.model)],
        ["frames", f"{meta.frames} of {meta.width}x{meta.height} at {float(meta.fps):g} fps"],
        ["loop", f"{2 * meta.frames / float(meta.fps):.2f} s, forward and backward"],
        ["latents", latents],
        ["face scale", f"{meta.face_scale:.2f} (box height / 256)"],
        ["device memory", mebibytes(memory.device_bytes)],
        ["host memory", mebibytes(memory.host_bytes)],
        ["pass-through frames", f"{len(meta.passthrough_frames)}, shown as they are"],
        ["rest frames", str(len(meta.rest_frames))],
        ["idle frames", str(meta.idle_frames)],
        ["parameters", _told("parameters", meta.parameters)],
        ["source", _told("source", meta.source)],
        ["folder", f"{home.folder}{', embedded' if home.embedded else ''}"],
    ]
    print_table(f"Avatar {name}", ["property", "value"], rows)
    if meta.report:
        found = [[_label(key), _told(key, value)] for key, value in meta.report.items()]
        print_table("What preparation found", ["property", "value"], found)


def _details(meta: AvatarMeta, memory: AvatarMemory) -> dict[str, object]:
    return {
        "device_bytes": memory.device_bytes,
        "host_bytes": memory.host_bytes,
        "passthrough_frames": list(meta.passthrough_frames),
        "rest_frames": list(meta.rest_frames),
        "idle_frames": meta.idle_frames,
        "parameters": dict(meta.parameters),
        "source": dict(meta.source),
        "report": dict(meta.report),
    }


_UNITS = {
    "px": "px",
    "bbox_shift": "rows",
    "extra_margin": "rows",
    "cheek_width": "columns",
    "max_gap": "s",
    "time": "s",
    "times": "s",
    "fps": "fps",
}
"""Unit of a figure by the end of its key."""
_RANGES = {"kept", "passthrough_times"}
"""Keys whose two numbers are where something begins and ends; any other two are two figures."""


def _label(key: str) -> str:
    return key.removesuffix("_bytes").removesuffix("_px").replace("_", " ")


def _unit(key: str) -> str:
    return next((f" {unit}" for end, unit in _UNITS.items() if key == end or key.endswith(f"_{end}")), "")


def _told(key: str, value: Json, depth: int = 0) -> str:
    """A value of the report for people, whatever preparation put there: its key's ending tells the unit."""
    if value is None or isinstance(value, str | int | float):
        return _plain(key, value)
    if not value:
        return "none"
    if depth == MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        unit = "_px" if key.endswith("_px") else ""
        return ", ".join(
            f"{_label(name)} {_told(name + unit, part, depth + 1)}" for name, part in value.items()
        )
    return _listed(key, value, depth + 1)


def _listed(key: str, values: Sequence[Json], depth: int) -> str:
    """Texts on a line each, two numbers in one breath, and the first of anything else."""
    texts = [_told(key, value, depth) for value in values]
    if all(isinstance(value, str) for value in values):
        return "\n".join(texts)
    if len(values) == 2 and all(isinstance(value, int | float) for value in values):
        return (".." if key in _RANGES else ", ").join(texts)
    more = len(texts) - LISTED
    return "; ".join(texts[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _plain(key: str, value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if key.endswith("_bytes"):
        return mebibytes(int(value))
    if key.endswith("_share"):
        return f"{100 * value:.1f} %"
    figure = str(value) if isinstance(value, int) else f"{value:.4g}"
    return figure + _unit(key)


@app.command("import")
@common_options()
def import_(
    common: Common,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Avatar folder of MuseTalk or LiveTalking.")],
    name: Annotated[str, typer.Option("--name", help="Name of the new avatar.")],
    fps: Annotated[
        str | None,
        typer.Option(
            "--fps",
            metavar="NUMBER",
            help=f"Frames per second of its source, {FPS_LIMITS}; these folders do not say it.",
            show_default=str(DEFAULT_FPS),
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Import an avatar folder of MuseTalk or LiveTalking."""
    from musetalk_cli.avatar.upstream import import_avatar

    rate = None if fps is None else parse_fps(fps)
    meta = import_avatar(folder, common.run.avatars.path, name, fps=rate, overwrite=overwrite)
    if common.json:
        print_json(_description(meta))
    else:
        put(f"Imported {meta.name}: {meta.frames} frames of {meta.width}x{meta.height}.")


@app.command()
@common_options()
def verify(common: Common, name: Name) -> None:
    """Check every file of an avatar."""
    from musetalk_cli.avatar.lookup import find_avatar
    from musetalk_cli.avatar.store import verify as find_problems

    home = find_avatar(common.run.avatars.path, name)
    name = home.name
    problems = find_problems(home.avatars_dir, name)
    if common.json:
        print_json({"name": name, "problems": problems})
    elif not problems:
        put(f"{name} is complete.")
    if problems:
        raise AvatarError(f"Avatar {name} is broken: {' '.join(problems)}", "Prepare or import it again.")


@app.command()
@common_options()
def remove(
    common: Common,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name of the avatar; with --cache all without it.")
    ] = None,
    cache: Cache = False,
) -> None:
    """Delete an avatar and what an interrupted preparation left of it; the program's own are kept."""
    if cache:
        clear_cache(common, name)
        return
    if name is None:
        raise typer.BadParameter("NAME is missing.")
    from musetalk_cli.avatar.lookup import check_removable
    from musetalk_cli.avatar.names import find_folder
    from musetalk_cli.avatar.store import remove as delete
    from musetalk_cli.avatar.workspace import discard_unfinished

    folder = common.run.avatars.path
    if not discard_unfinished(folder, name) or find_folder(folder, name) is not None:
        check_removable(folder, name)
        delete(folder, name)
    if common.json:
        print_json({"removed": name})
    else:
        put(f"Removed {name}.")
