"""What tells that a source was prepared before: by it an avatar is found in the cache."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from musetalk_cli import strict_json
from musetalk_cli.config import DEFAULT_MODEL, RunConfig
from musetalk_cli.media.digest import digest_of
from musetalk_cli.media.video import source_files
from musetalk_cli.nets.files import RANDOM, family, resolve
from musetalk_cli.nets.published import DWPOSE, FACE_PARSING, find_dwpose, find_face_parsing, require
from musetalk_cli.preparation.inputs import VERSION
from musetalk_cli.preparation.options import PrepareOptions


def source_key(run: RunConfig, source: Path) -> str:
    """What tells that a source is prepared in the same way: SHA-256 of its content and of all that decides.

    The networks count by their content too, wherever they lie; each file is read once.

    Raises:
        InputError: The source is not there, or cannot be read.
        ModelError: The model is not there.
    """
    model = run.model or DEFAULT_MODEL
    name, version, files = model, model, list[Path]()
    if model != RANDOM:
        found = resolve(model, run.models.path)
        name, version = family(model, found.card), found.version
        files += [found.vae_config, found.vae_weights]
    if find_dwpose(run.models.path) is not None:
        files += require(DWPOSE, run.models.path)
    if find_face_parsing(run.models.path) is not None:
        files += require(FACE_PARSING, run.models.path)
    value = {
        "version": VERSION,
        "source": digest_of(source_files(source)),
        "model": [name, version],
        "precision": run.precision,
        "files": [[path.name, _digest_of_weights(path)] for path in files],
        "options": repr(PrepareOptions()),
    }
    return hashlib.sha256(strict_json.dump(value, sort_keys=True).encode()).hexdigest()


def _digest_of_weights(path: Path) -> str:
    """SHA-256 of a file.

    What a record or the table of published files says of it does not do: that is what it should be, and a
    file is held to it by its size alone until it is read.
    """
    found = path.stat()
    return _digest(path.absolute(), (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))


@functools.lru_cache(maxsize=64)
def _digest(path: Path, _edition: tuple[int, ...]) -> str:
    return digest_of([path])
