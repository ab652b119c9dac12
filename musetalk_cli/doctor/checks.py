"""All checks, in the order in which they are shown."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from musetalk_cli.config import RunConfig, cache_folder
from musetalk_cli.doctor.findings import Check, Finding
from musetalk_cli.errors import ModelError


def all_checks(run: RunConfig) -> list[Check]:
    """What is looked at for a machine, and for the folders and the model that were chosen."""
    return [
        Check("Python", _python),
        Check("PyTorch", _torch),
        Check("Triton", _triton),
        Check("ffmpeg", _ffmpeg),
        Check("sound", _sound),
        Check("display", _display),
        Check("extras", _extras),
        Check("disk", lambda: _disk(run)),
        Check("memory", _memory),
        Check("cores", _cores),
        Check("models", lambda: _models(run)),
        Check("avatars", lambda: _avatars(run)),
        Check("cache", _cache),
        Check("environment", _environment),
    ]


def _python() -> Iterator[Finding]:
    from musetalk_cli.doctor.computing import check_python

    yield check_python(tuple(sys.version_info[:3]), sys.maxsize.bit_length() + 1)


def _torch() -> Iterator[Finding]:
    from musetalk_cli.doctor.computing import check_torch
    from musetalk_cli.doctor.devices import find_torch

    yield from check_torch(find_torch())


def _triton() -> Iterator[Finding]:
    from musetalk_cli.doctor.computing import check_triton
    from musetalk_cli.doctor.devices import find_triton

    cuda = _cuda_works()
    yield check_triton(cuda, *(find_triton() if cuda else (None, None)))


def _cuda_works() -> bool:
    """PyTorch can use a GPU; that it cannot be imported is told by another check."""
    try:
        import torch
    except Exception:  # a broken installation raises whatever its parts raise
        return False
    return torch.cuda.is_available()


def _ffmpeg() -> Iterator[Finding]:
    from musetalk_cli.doctor.devices import find_gpus
    from musetalk_cli.doctor.media import check_ffmpeg, find_ffmpeg

    yield from check_ffmpeg(find_ffmpeg(), gpu=bool(find_gpus()[0]))


def _sound() -> Iterator[Finding]:
    from musetalk_cli.doctor.extras import installed_version
    from musetalk_cli.doctor.media import check_sound

    yield check_sound(installed_version("sounddevice") is not None)


def _display() -> Iterator[Finding]:
    from musetalk_cli.doctor.media import check_display
    from musetalk_cli.sinks.window import check_screen

    named = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    yield check_display(check_screen, local=named or sys.platform != "linux")


def _extras() -> Iterator[Finding]:
    from musetalk_cli.doctor.extras import check_extras, installed_version, own_requirements

    yield from check_extras(own_requirements(), installed_version)


def _disk(run: RunConfig) -> Iterator[Finding]:
    from musetalk_cli.doctor.data import bytes_to_fetch
    from musetalk_cli.doctor.machine import check_disk, place_of

    places = {
        "models": run.models.path,
        "avatars": run.avatars.path,
        "temporary files": Path(tempfile.gettempdir()),
    }
    try:
        to_fetch = bytes_to_fetch(run.models.path)
    except ModelError:  # a broken record: the check of the models tells of it
        to_fetch = 0
    yield from check_disk({what: place_of(path) for what, path in places.items()}, to_fetch)


def _memory() -> Iterator[Finding]:
    from musetalk_cli.doctor.machine import check_memory, find_memory

    yield check_memory(*find_memory())


def _cores() -> Iterator[Finding]:
    from musetalk_cli.doctor.machine import check_cores, find_cores

    yield check_cores(find_cores())


def _models(run: RunConfig) -> Iterator[Finding]:
    from musetalk_cli.doctor.data import check_models

    yield from check_models(run.models.path, run.model)


def _avatars(run: RunConfig) -> Iterator[Finding]:
    from musetalk_cli.doctor.data import check_avatars

    yield from check_avatars(run.avatars.path, run.models.path)


def _cache() -> Iterator[Finding]:
    from musetalk_cli.doctor.data import check_cache
    from musetalk_cli.run.cache import cache_limit

    yield from check_cache(cache_folder(), cache_limit())


def _environment() -> Iterator[Finding]:
    from musetalk_cli.doctor.devices import find_gpus
    from musetalk_cli.doctor.environment import check_environment
    from musetalk_cli.doctor.machine import find_cores

    yield from check_environment(os.environ, find_cores().allowed, gpu=bool(find_gpus()[0]))
