"""Whether files are the published ones: at a glance by their sizes, and for certain by their digests."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from musetalk_cli.errors import ModelError
from musetalk_cli.nets import record
from musetalk_cli.nets.pins import Pin
from musetalk_cli.nets.published import PUBLISHED, Part
from musetalk_cli.nets.record import Entry

Progress = Callable[[int, int], None]
"""Told how many bytes of how many are done."""
Look = Literal["here", "missing", "other size"]
State = Literal["proven", "unknown", "other"]

BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Seen:
    """A file of a model, as it looks without being read.

    Attributes:
        part: Which it is.
        path: Where it is, or None.
        size: Its bytes, or None where it is not there.
        pin: What it has to be; empty where nothing is known of it.
        look: `other size`: it cannot be the published one.
        recorded: What it has to be stands in the record of the models folder, and not in the table.
    """

    part: Part
    path: Path | None
    size: int | None
    pin: Pin
    look: Look
    recorded: bool = False

    @property
    def file(self) -> str:
        """Its path under the models folder, with `/`; of a missing one, where it would be fetched to."""
        name = self.part.sources()[0].name if self.path is None else self.path.name
        return f"{self.part.folder}/{name}"


@dataclass(frozen=True, slots=True)
class Proof:
    """A file of a model that was read.

    Attributes:
        seen: How it looked.
        sha256: Its digest in hexadecimal.
    """

    seen: Seen
    sha256: str

    @property
    def state(self) -> State:
        """`proven` as published or as recorded; `unknown` where no digest is known; else another file."""
        if self.seen.pin.sha256 is None:
            return "unknown"
        return "proven" if self.sha256 == self.seen.pin.sha256 else "other"


def pin_of(part: Part, name: str, entries: Mapping[str, Entry]) -> Pin:
    """What a file of a part has to be; an empty pin where nothing is known.

    It is what the record says if the file was made here, else what is published, else what the record says.

    Args:
        part: Which part.
        name: The file's name.
        entries: The record of the models folder.
    """
    entry = _entry_of(part, name, entries)
    return _published(part, name) if entry is None else entry.pin


def _published(part: Part, name: str) -> Pin:
    return next((source.pin for source in part.sources() if source.name == name), Pin())


def _entry_of(part: Part, name: str, entries: Mapping[str, Entry]) -> Entry | None:
    """What the record says of a file, where that counts."""
    entry = entries.get(f"{part.folder}/{name}")
    # nothing else is ever made here: a record does not vouch for a pickle in the published one's place
    made_here = entry is not None and entry.revision == record.MADE and name.endswith(".safetensors")
    return entry if made_here or _published(part, name).sha256 is None else None


def look(name: str, models_dir: Path) -> list[Seen]:
    """Every file of a published model or tool, by its size alone.

    Raises:
        ModelError: Nothing of that name is published, or the record of the models folder is broken.
    """
    if name not in PUBLISHED:
        raise ModelError(f"No model {name} is published.", f"Choose one of {', '.join(PUBLISHED)}.")
    return look_at(PUBLISHED[name], models_dir)


def look_at(parts: Sequence[Part], models_dir: Path) -> list[Seen]:
    """The same for parts of a bundle in any folder."""
    entries = record.read(models_dir)
    return [_look(part, models_dir, entries) for part in parts]


def _look(part: Part, models_dir: Path, entries: Mapping[str, Entry]) -> Seen:
    path = part.find(models_dir)
    if path is None:
        return Seen(part, None, None, pin_of(part, part.sources()[0].name, entries), "missing")
    size, pin = path.stat().st_size, pin_of(part, path.name, entries)
    recorded = _entry_of(part, path.name, entries) is not None
    return Seen(part, path, size, pin, "here" if pin.bytes in {None, size} else "other size", recorded)


def prove(files: Sequence[Seen], told: Progress | None = None) -> list[Proof]:
    """Read every file that is there and compute its digest.

    Raises:
        ModelError: One cannot be read.
    """
    total, before, proofs = sum(seen.size or 0 for seen in files), 0, []
    for seen in files:
        if seen.path is not None:
            digest = digest_of(seen.path, functools.partial(advance, told, before, total))
            proofs.append(Proof(seen, digest))
            before += seen.size or 0
    return proofs


def advance(told: Progress | None, before: int, total: int, done: int) -> None:
    """Tell of a file's bytes that those of the files before it are done too."""
    if told is not None:
        told(before + done, total)


def digest_of(path: Path, told: Callable[[int], object] = lambda _: None) -> str:
    """SHA-256 of a file in hexadecimal.

    Args:
        path: The file.
        told: Told how many bytes are done.

    Raises:
        ModelError: It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                told(file.tell())
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    return digest.hexdigest()


def refuse_others(name: str, proofs: Sequence[Proof], *, published: bool) -> None:
    """Refuse files that are not what they have to be.

    Args:
        name: The model or tool.
        proofs: Its files.
        published: It was asked for by the name it is published under. A folder that was named may hold other
            networks, but nothing that changed since it was recorded.

    Raises:
        ModelError: One is another file; the message names each.
    """
    others = [proof for proof in proofs if proof.state == "other" and (published or proof.seen.recorded)]
    if not others:
        return
    named = "; ".join(f"{proof.seen.path} has SHA-256 {proof.sha256[:16]}..." for proof in others)
    if published:
        raise ModelError(
            f"{name} is damaged, or holds another file than the published one: {named}.",
            f"`musetalk models download {name}` fetches it again. Networks of your own belong into another "
            "folder, which --model names.",
        )
    raise ModelError(
        f"{name} is damaged: {named}, which is not what was recorded when it was made.",
        f"Delete it; where the .pth or .bin is there, `musetalk models convert {name}` makes it again.",
    )
