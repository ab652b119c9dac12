"""What a job's result depends on, as digests: by them it is known again when a batch goes on."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from musetalk_cli import strict_json
from musetalk_cli.avatar.lookup import find_avatar
from musetalk_cli.config import RunConfig
from musetalk_cli.errors import InputError
from musetalk_cli.media.digest import digest_of
from musetalk_cli.nets.files import RANDOM, resolve
from musetalk_cli.nets.published import require
from musetalk_cli.run.batch.job import BatchJob
from musetalk_cli.run.source_key import source_key

_VERSION = 1
"""Raised where the same inputs and settings give another video."""


SETTLED_S = 3.0
"""How long ago a file was written whose dates tell that it is the same: some systems date to two seconds."""


class Fingerprints:
    """Digests of jobs, SHA-256 in hexadecimal.

    Each avatar and each model is read once, and so is a sound as long as its dates are the same.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], str] = {}
        self._sounds: dict[tuple[int, ...], str] = {}

    def inputs(self, job: BatchJob) -> dict[str, str]:
        """The digests of what a job reads: `audio`, `avatar`, `model`.

        Raises:
            MuseTalkError: One of them cannot be read.
        """
        audio = self._of_sound(job.audio)
        # what a source becomes depends on the networks that prepare it
        avatar_key = job.group[1:] if job.source is None else job.group
        model_key = ("model", job.group[0], str(job.run.models.path))
        if avatar_key not in self._known:
            self._known[avatar_key] = _of_face(job)
        if model_key not in self._known:
            self._known[model_key] = _of_model(job.run)
        return {"audio": audio, "avatar": self._known[avatar_key], "model": self._known[model_key]}

    def _of_sound(self, path: Path) -> str:
        try:
            with path.open("rb") as file:  # where several machines share files, opening asks for the dates
                found = os.fstat(file.fileno())
        except OSError:  # which is told by who reads it
            return digest_of([path])
        edition = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if edition in self._sounds:
            return self._sounds[edition]
        digest = digest_of([path])
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > SETTLED_S * 1e9:
            self._sounds[edition] = digest
        return digest

    def key(self, job: BatchJob, inputs: dict[str, str]) -> str:
        """One digest of a job's inputs and settings."""
        return _of({"version": _VERSION, "inputs": inputs, "settings": job.settings()})


def _of(value: object) -> str:
    return hashlib.sha256(strict_json.dump(value, sort_keys=True).encode()).hexdigest()


def _of_face(job: BatchJob) -> str:
    """Of an avatar's files, or of a source and of how it is prepared."""
    if job.source is not None:
        return source_key(job.run, job.source)
    return _of_folder(find_avatar(job.run.avatars.path, job.avatar).folder)


def _of_folder(folder: Path) -> str:
    """Of the names and the contents of all files of a folder, also behind links.

    Raises:
        InputError: One cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    try:
        # not `Path.rglob`, which leaves out what a link leads to
        below = os.walk(folder, onerror=fail, followlinks=True)
        files = sorted(path for at, _, names in below for name in names if (path := Path(at, name)).is_file())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from error
    return _of([[path.relative_to(folder).as_posix(), digest_of([path])] for path in files])


def _of_model(run: RunConfig) -> str:
    """Of the contents of all files of a model."""
    model = str(run.model)
    if model == RANDOM:
        return model
    found = resolve(model, run.models.path)
    files = [found.unet_config, found.unet_weights, found.vae_config, found.vae_weights]
    files += [] if run.vae == "own" else require(run.vae, run.models.path)
    files += [found.whisper_config, found.whisper_preprocessor, found.whisper_weights]
    return _of([repr(found.card), *(digest_of([path]) for path in files)])
