"""Environment variables that are read, and whether what they say can be."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from musetalk_cli.budget import VARIABLE, parse_size
from musetalk_cli.doctor.findings import Finding
from musetalk_cli.errors import InputError
from musetalk_cli.nets.hub_settings import checked_endpoint, checked_token
from musetalk_cli.run.cache import VARIABLE as CACHE

KNOWN = (
    "MUSETALK_MODELS",
    "MUSETALK_AVATARS",
    "MUSETALK_MEMORY",
    "MUSETALK_CACHE",
    "MUSETALK_TOKEN",
    "MUSETALK_MODEL",
    "MUSETALK_PORT",
    "MUSETALK_IMAGE",
    "MUSETALK_TEST_DATA",
    "MUSETALK_RENEW_LAUNCHES",
)
"""What the program, its container and its tests read; of others of that beginning nothing is read."""


def check_environment(variables: Mapping[str, str], cores: int, *, gpu: bool) -> Iterator[Finding]:
    """Which variables are wrong; one line where none is.

    Args:
        variables: The environment.
        cores: Cores that this process may run on.
        gpu: There is an NVIDIA GPU.
    """
    found = [finding for name in sorted(variables) if (finding := _check(name, variables[name], cores, gpu))]
    yield from found
    if not found:
        ours = [name for name in sorted(variables) if name in KNOWN or name in _RULES]
        detail = f"{', '.join(ours)} can be used." if ours else "No variable of this program is set."
        yield Finding("environment", "ok", detail)


def _check(name: str, value: str, cores: int, gpu: bool) -> Finding | None:
    title = f"environment {name}"
    if name in _RULES:
        try:
            _RULES[name](value)
        except InputError as error:
            return Finding(title, "problem", error.message, error.hint)
        return None
    if name.startswith("MUSETALK_") and name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, 1)
        fix = f"Is {near[0]} meant?" if near else f"Known are {', '.join(KNOWN[:5])}."
        return Finding(title, "warning", "Nothing reads this variable.", fix)
    if name == "OMP_NUM_THREADS" and value:
        return _threads(title, value, cores)
    return _in_the_way(title, name, value, gpu)


def _in_the_way(title: str, name: str, value: str, gpu: bool) -> Finding | None:
    """What can be meant, and is often forgotten."""
    if name == "CUDA_VISIBLE_DEVICES" and gpu and value.strip() in {"", "-1", "none"}:
        return Finding(title, "warning", "It hides the GPU, so the CPU computes.", f"unset {name}")
    if name == "HF_HUB_OFFLINE" and value.upper() in {"1", "ON", "YES", "TRUE"}:
        return Finding(title, "warning", "It is set, so no weights are fetched.", f"unset {name}")
    return None


def _threads(title: str, value: str, cores: int) -> Finding | None:
    if not value.isascii() or not value.isdigit() or int(value) == 0:
        fix = "Leave it out: each command takes what suits."
        return Finding(title, "problem", f"{value[:40]!r} is no number of threads.", fix)
    if int(value) > cores:
        detail = f"{value} threads on {cores} cores wait for each other."
        return Finding(title, "warning", detail, "Leave it out: each command takes what suits.")
    return None


def _folder(name: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value and not Path(value).is_dir():
            raise InputError(f"{value} is no folder that is there.", f"mkdir -p {value}, or unset {name}")

    return check


def _ffmpeg(value: str) -> None:
    if value and not Path(value).is_file() and shutil.which(value) is None:
        raise InputError(f"{value} is no file that is there.", "unset IMAGEIO_FFMPEG_EXE")


_RULES: dict[str, Callable[[str], object]] = {
    "MUSETALK_MODELS": _folder("MUSETALK_MODELS"),
    "MUSETALK_AVATARS": _folder("MUSETALK_AVATARS"),
    VARIABLE: lambda value: value and parse_size(value, VARIABLE),
    CACHE: lambda value: value and parse_size(value, CACHE),
    "IMAGEIO_FFMPEG_EXE": _ffmpeg,
    "HF_ENDPOINT": lambda value: value and checked_endpoint(value),
    "HF_TOKEN": checked_token,
}
"""What raises an `InputError` where a variable cannot be used."""
