"""Weights of a model as `.safetensors`: the same tensors, in a file that is mapped and not unpickled.

The new file is made under a hidden name, the model is loaded from it as strictly as ever, and then it gets
its place beside the old one, which stays. From then on it is the one that is taken.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from musetalk_cli.budget import check_budget
from musetalk_cli.errors import ModelError, OutputError
from musetalk_cli.nets import record
from musetalk_cli.nets.bundle import load_files
from musetalk_cli.nets.device import wait_for
from musetalk_cli.nets.files import BundleFiles, resolve
from musetalk_cli.nets.loading import named_tensors
from musetalk_cli.nets.proof import digest_of
from musetalk_cli.nets.published import LAYOUTS, Part
from musetalk_cli.nets.record import ELSEWHERE, Entry
from musetalk_cli.nets.turns import PARTIAL, Notice, turn


@dataclass(frozen=True, slots=True)
class Converted:
    """What was made.

    Attributes:
        files: The new files.
        before_s: Seconds that loading the model took with the old files.
        after_s: The same with the new ones.
    """

    files: list[Path]
    before_s: float
    after_s: float


def convert(
    model: str,
    models_dir: Path,
    device: torch.device,
    dtype: torch.dtype,
    notice: Notice = lambda _: None,
) -> Converted | None:
    """Write `.safetensors` beside the pickles of a model; None where it has none.

    Args:
        model: `v15`, `v1`, `demo`, or the path of a bundle folder.
        models_dir: The models folder.
        device: Where loading is timed.
        dtype: In which format.
        notice: Told that another program is waited for.

    Raises:
        ModelError: There is no such model, or it cannot be loaded; nothing was written.
        OutputError: A file cannot be written.
    """
    while True:
        files = resolve(model, models_dir)
        olds = {
            role: path
            for role in LAYOUTS[files.version].parts()
            if role.endswith("_weights") and (path := getattr(files, role)).suffix != ".safetensors"
        }
        if not olds:
            return None
        root = next(iter(olds.values())).parents[1]
        with turn(root, notice) as at_once:
            if at_once:
                return _convert(files, olds, root, device, dtype)


def _convert(
    files: BundleFiles, olds: Mapping[str, Path], root: Path, device: torch.device, dtype: torch.dtype
) -> Converted:
    """The same, by whoever has the folder's turn.

    Args:
        files: The model's files.
        olds: Those that are pickles, by their role.
        root: The folder of the bundle.
        device: Where loading is timed.
        dtype: In which format.
    """
    parts = LAYOUTS[files.version].parts()
    before_s = _seconds_to_load(files, device, dtype)
    news = {role: path.with_name(_name(parts[role])) for role, path in olds.items()}
    with ExitStack() as stack:
        hidden = {role: path.with_name(f"{PARTIAL}.{path.name}") for role, path in news.items()}
        for role, path in hidden.items():
            stack.callback(path.unlink, missing_ok=True)
            _write(olds[role], path)
        after_s = _seconds_to_load(_with(files, hidden), device, dtype)
        record.write(root, {_local(news[role]): _entry(olds[role], hidden[role]) for role in olds})
        for role, path in hidden.items():
            _place(path, news[role])
    return Converted(list(news.values()), before_s, after_s)


def _name(part: Part) -> str:
    return next(name for name in part.names if name.endswith(".safetensors"))


def _with(files: BundleFiles, changed: Mapping[str, Path]) -> BundleFiles:
    fields: dict[str, Path] = dict(changed)
    return replace(files, **fields)  # type: ignore[arg-type]


def _seconds_to_load(files: BundleFiles, device: torch.device, dtype: torch.dtype) -> float:
    start = time.perf_counter()
    load_files(files, device, dtype)
    wait_for(device)
    return time.perf_counter() - start


def _write(source: Path, target: Path) -> None:
    """The tensors of a file as safetensors, whole and each on its own.

    Raises:
        ModelError: The file holds anything but tensors.
        OutputError: The new one cannot be written.
    """
    tensors = named_tensors(source)
    check_budget(
        sum(t.numel() * t.element_size() for t in tensors.values()), f"To convert {source}", ModelError
    )
    alone: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.contiguous()
        alone[name] = own.clone() if own.data_ptr() in seen else own  # safetensors has no shared memory
        seen.add(own.data_ptr())
    try:
        save_file(alone, target, metadata={"format": "pt"})
        shutil.copymode(source, target)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OutputError(f"{target.parent} takes no new file: {error}.", "Free some space.") from error


def _local(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _entry(source: Path, made: Path) -> Entry:
    return Entry(made.stat().st_size, digest_of(made), record.MADE, f"made of {_local(source)}")


def _place(hidden: Path, target: Path) -> None:
    try:
        os.replace(hidden, target)  # noqa: PTH105 - replaces on Windows too
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}.", ELSEWHERE) from error
