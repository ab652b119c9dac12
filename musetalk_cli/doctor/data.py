"""Models and avatars: what is there, what is missing, what cannot be right, told by sizes and manifests."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from musetalk_cli.avatar.lookup import Home, find_all
from musetalk_cli.avatar.names import quoted
from musetalk_cli.avatar.pictures import file_problems
from musetalk_cli.avatar.store import latents_format, load_meta
from musetalk_cli.avatar.workspace import list_unfinished
from musetalk_cli.budget import gibibytes
from musetalk_cli.doctor.findings import Finding
from musetalk_cli.errors import AvatarError, ModelError, first_line
from musetalk_cli.nets.embedded import DEMO
from musetalk_cli.nets.files import MODELS, NO_CARD, RANDOM, BundleFiles, read_card, read_object, resolve
from musetalk_cli.nets.proof import Seen, look
from musetalk_cli.nets.published import DWPOSE, FACE_PARSING, LAYOUTS, PUBLISHED, TAESD, complete
from musetalk_cli.nets.transfer import partial_of
from musetalk_cli.nets.turns import Leftover, Work, is_written_to, leftovers
from musetalk_cli.run.cache import entries
from musetalk_cli.text import counted

MOST_NAMES = 5
"""Names that stand in a line."""
_WITHOUT = {
    "v15": "photographed faces need it",
    FACE_PARSING: "masks follow the outline of the landmarks",
    TAESD: "--vae taesd needs it",
    DWPOSE: "OpenCV's cascade finds faces, from the front only",
}


def check_models(models_dir: Path, model: str | None) -> Iterator[Finding]:
    """What is there of every published model and tool, of the demo, and of a model that was named.

    Args:
        models_dir: The models folder.
        model: The model that was chosen, or None.
    """
    own = read_card(models_dir) != NO_CARD
    for name in PUBLISHED:
        yield from _check_published(name, look(name, models_dir), models_dir, own=own)
    yield _check_named(DEMO, models_dir)
    if model is not None and model not in {DEMO, RANDOM, *PUBLISHED}:
        yield _check_named(model, models_dir)
    yield from check_leftovers(models_dir)


def check_leftovers(models_dir: Path) -> Iterator[Finding]:
    """What downloads and conversions that were ended have left there, how large it is, and what to type."""
    found = leftovers(models_dir)
    if found and is_written_to(models_dir):
        yield Finding("models, unfinished", "ok", f"A program writes to {models_dir} now.")
        return
    for work in get_args(Work):
        if mine := [left for left in found if left.work == work]:
            files = counted(len(mine), "file")
            listed = _listed([str(left.path) for left in mine])
            size = gibibytes(sum(left.bytes for left in mine))
            detail = f"A {work} that was ended has left {files}, {size}: {listed}."
            yield Finding("models, unfinished", "warning", detail, _fix_of(mine))


def _fix_of(found: Sequence[Leftover]) -> str:
    """What goes on with unfinished files, and what removes them."""
    folders = {left.path.parent.name for left in found if left.work == "download"}
    names = [name for name, parts in PUBLISHED.items() if folders & {part.folder for part in parts}]
    remove = f"rm {' '.join(shlex.quote(str(left.path)) for left in found)}"
    return f"musetalk models download {names[0]} goes on with it; {remove} removes it." if names else remove


def _check_published(name: str, files: list[Seen], models_dir: Path, *, own: bool) -> Iterator[Finding]:
    title, fetch = f"model {name}" if name in LAYOUTS else f"tool {name}", f"musetalk models download {name}"
    # what other models have too says nothing of this one
    shared = {part for other, parts in PUBLISHED.items() if other != name for part in parts}
    begun = any(seen.path is not None for seen in files if seen.part not in shared)
    missing = [seen.file for seen in files if seen.look == "missing"]
    others = [seen for seen in files if seen.look == "other size" and not own]
    if not begun and name != "v15" and name in LAYOUTS:
        return
    if others and begun:
        listed = _listed([f"{seen.file} ({seen.size} bytes, not {seen.pin.bytes})" for seen in others])
        fix = f"{fetch} (networks of your own belong into a folder that --model names)"
        yield Finding(title, "problem", f"Not the published files: {listed}.", fix)
    elif missing and begun:
        yield Finding(title, "problem", f"Incomplete in {models_dir}: no {_listed(missing)}.", fetch)
    elif missing:
        without = _WITHOUT.get(name)
        status, said = (
            ("warning", f": {without}") if name in LAYOUTS else ("ok", f": {without}" if without else "")
        )
        yield Finding(title, status, f"Not here{said}.", fetch)  # type: ignore[arg-type]
    else:
        detail = f"Complete in {models_dir}, by size; `musetalk models verify {name}` reads it."
        yield Finding(title, "ok", detail)


def _check_named(name: str, models_dir: Path) -> Finding:
    try:
        files = resolve(name, models_dir)
    except ModelError as error:
        return Finding(f"model {name}", "warning" if name == DEMO else "problem", error.message, error.hint)
    folder = files.unet_config.parents[1]
    damage = _damage_of(files)
    if damage is None:
        return Finding(f"model {name}", "ok", f"Complete in {folder}.")
    fix = (
        "Install the program again: they come with it."
        if name == DEMO
        else f"musetalk models verify {shlex.quote(str(folder))}"
    )
    return Finding(f"model {name}", "problem", damage, fix)


def _damage_of(files: BundleFiles) -> str | None:
    """What is wrong with files of no known sizes, as far as their beginnings tell; else None."""
    try:
        for config in (files.unet_config, files.vae_config, files.whisper_config, files.whisper_preprocessor):
            read_object(config, "a configuration")
    except ModelError as error:
        return error.message
    weights = (files.unet_weights, files.vae_weights, files.whisper_weights)
    return next((damage for path in weights if (damage := _damage_of_weights(path))), None)


def _damage_of_weights(path: Path) -> str | None:
    """What the header of a file of weights tells, or that its end is missing; else None."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np"):
                return None
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        return f"{path} is damaged: its end is missing." if is_zip and not zipfile.is_zipfile(path) else None
    except (SafetensorError, OSError) as error:
        return f"{path} is damaged: {first_line(error)}."


def check_avatars(avatars_dir: Path, models_dir: Path) -> Iterator[Finding]:
    """What is there, what is broken by its description and the files it names, and what has no model."""
    sound: list[str] = []
    for home in find_all(avatars_dir):
        try:
            wrong = _wrong_with(home, models_dir)
        except AvatarError as error:
            fix = error.hint or f"musetalk avatars verify {quoted(home.name)}"
            wrong = Finding(f"avatar {home.name}", "problem", error.message, fix)
        if wrong is None:
            sound.append(home.name)
        else:
            yield wrong
    if unfinished := list_unfinished(avatars_dir):
        fix = "The same prepare-avatar command goes on; `musetalk avatars remove NAME` deletes it."
        yield Finding("avatars", "warning", f"Not finished: {_listed(unfinished)}.", fix)
    if sound:
        yield Finding("avatars", "ok", f"{len(sound)} can speak: {_listed(sound)}.")
    else:
        fix = "musetalk prepare-avatar clip.mp4 --name anna"
        yield Finding("avatars", "warning", f"None in {avatars_dir} can speak.", fix)


def _wrong_with(home: Home, models_dir: Path) -> Finding | None:
    """What is wrong with an avatar, as far as one can see without decoding its pictures.

    Raises:
        AvatarError: Its description or its latents are broken.
    """
    title = f"avatar {home.name}"
    meta = load_meta(home.avatars_dir, home.name)
    latents_format(home.avatars_dir, home.name)
    problem = next(file_problems(home.folder, meta), None)
    if problem is not None:
        fix = f"Prepare or import it again; musetalk avatars verify {quoted(home.name)} says more."
        return Finding(title, "problem", problem, fix)
    version, family = str(meta.model["version"]), meta.model.get("name")
    if family in {None, version} and version in MODELS and version not in complete(models_dir):
        detail = f"It was made for {version}, which is not complete in {models_dir}."
        return Finding(title, "warning", detail, f"musetalk models download {version}")
    return None


def check_cache(cache: Path, limit: int) -> Iterator[Finding]:
    """What `--source` has prepared: how much it is, and what was not finished.

    Args:
        cache: The folder.
        limit: Bytes that it may hold.
    """
    found = entries(cache)
    if not found:
        return
    size = f"{gibibytes(sum(entry.bytes for entry in found))} of {gibibytes(limit)}"
    unfinished = [entry for entry in found if not entry.finished]
    detail = f"{counted(len(found) - len(unfinished), 'face')} prepared by --source, {size} in {cache}"
    if not unfinished:
        yield Finding("cache", "ok", f"{detail}.")
        return
    fix = "The same command goes on; musetalk avatars remove --cache deletes all that nobody uses."
    yield Finding("cache", "warning", f"{detail}; {len(unfinished)} not finished.", fix)


def bytes_to_fetch(models_dir: Path, name: str = "v15") -> int:
    """Bytes of a published model that are not there yet, as far as they are known; what came counts."""
    wanted = [seen for seen in look(name, models_dir) if seen.look != "here"]
    return sum(max(0, (seen.pin.bytes or 0) - _came(models_dir, seen)) for seen in wanted)


def _came(models_dir: Path, seen: Seen) -> int:
    """Bytes of a file that an earlier download has left."""
    partial = partial_of(models_dir / seen.file, seen.pin.sha256 or "")
    return partial.stat().st_size if seen.pin.sha256 and partial.is_file() else 0


def _listed(names: list[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
