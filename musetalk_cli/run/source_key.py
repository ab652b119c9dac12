"""What tells that a source was prepared before: by it an avatar is found in the cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

from musetalk_cli import strict_json
from musetalk_cli.config import DEFAULT_MODEL, RunConfig
from musetalk_cli.media.digest import digest_of
from musetalk_cli.media.video import source_files
from musetalk_cli.nets.files import RANDOM, resolve
from musetalk_cli.nets.published import DWPOSE, FACE_PARSING, find_dwpose, find_face_parsing, require
from musetalk_cli.preparation.inputs import VERSION
from musetalk_cli.preparation.options import PrepareOptions


def source_key(run: RunConfig, source: Path) -> str:
    """What tells that a source is prepared in the same way: SHA-256 of its content and of all that decides.

    The networks count by the name, size and date of their files.

    Raises:
        InputError: The source is not there, or cannot be read.
        ModelError: The model is not there.
    """
    model = run.model or DEFAULT_MODEL
    files: list[Path] = []
    if model != RANDOM:
        found = resolve(model, run.models.path)
        files += [found.vae_config, found.vae_weights]
    if find_dwpose(run.models.path) is not None:
        files += require(DWPOSE, run.models.path)
    if find_face_parsing(run.models.path) is not None:
        files += require(FACE_PARSING, run.models.path)
    stats = [(path.name, path.stat()) for path in files]
    value = {
        "version": VERSION,
        "source": digest_of(source_files(source)),
        "model": model,
        "precision": run.precision,
        "files": [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats],
        "options": repr(PrepareOptions()),
    }
    return hashlib.sha256(strict_json.dump(value, sort_keys=True).encode()).hexdigest()
