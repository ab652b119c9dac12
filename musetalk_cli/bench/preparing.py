"""The benchmark of preparation: every stage, the whole and the memory, beside the published order of work."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from musetalk_cli import strict_json
from musetalk_cli.bench.clip import write_clip
from musetalk_cli.bench.options import PreparingOptions
from musetalk_cli.bench.run import Notice
from musetalk_cli.bench.task import OURS, UPSTREAM, Measured, Order, Task
from musetalk_cli.config import RunConfig
from musetalk_cli.errors import MuseTalkError
from musetalk_cli.nets.device import describe_device, resolve_device
from musetalk_cli.run.defaults import settle_alone
from musetalk_cli.run.report import versions
from musetalk_cli.threads import usable_cores

STAGES = ("decode", "detect", "write", "read", "parse", "encode", "mask")


@dataclass(frozen=True, slots=True)
class PreparingResult:
    """Everything that was measured.

    Attributes:
        options: What was asked for.
        model: The networks.
        device: The device's name.
        processor: The processor's name, and how many threads compute.
        cores: Processor cores that may be used.
        load: Processes that were at work or wanted to be, in the minute before the first run.
        versions: Of the tool and what it computes with.
        runs: One entry per order and length.
    """

    options: PreparingOptions
    model: str
    device: str
    processor: str
    cores: int
    load: float
    versions: dict[str, str]
    runs: list[Measured]

    def of(self, order: Order) -> list[Measured]:
        """The runs in one order of work, by length."""
        return sorted((run for run in self.runs if run.order == order), key=lambda run: run.frames)

    def growth_bytes(self, order: Order) -> float | None:
        """Peak memory that each further frame adds; None where there is one length only."""
        runs = self.of(order)
        if len(runs) < 2:
            return None
        added = runs[-1].beyond_models_bytes - runs[0].beyond_models_bytes
        return added / (runs[-1].frames - runs[0].frames)

    def speed_ups(self) -> dict[int, float]:
        """How many times as fast as the published order of work, by length."""
        pairs = zip(self.of(OURS), self.of(UPSTREAM), strict=False)
        return {ours.frames: ours.frames_per_s / theirs.frames_per_s for ours, theirs in pairs}

    def box_difference(self) -> int | None:
        """How far apart a box's side is in both orders, at most, in pixels; None without the other order."""
        pairs = list(zip(self.of(OURS), self.of(UPSTREAM), strict=False))
        apart = [_apart(ours.boxes, theirs.boxes) for ours, theirs in pairs]
        return max(apart, default=None)

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values."""
        runs = []
        for run in self.runs:
            plain = dataclasses.asdict(run)
            del plain["boxes"]
            runs.append(
                plain | {"frames_per_s": run.frames_per_s, "beyond_models_bytes": run.beyond_models_bytes}
            )
        growth = {order: self.growth_bytes(order) for order in (OURS, UPSTREAM) if self.of(order)}
        return {
            "options": dataclasses.asdict(self.options),
            "runs": runs,
            "growth_bytes_per_frame": growth,
            "speed_up": {str(frames): ratio for frames, ratio in self.speed_ups().items()},
            "box_difference_px": self.box_difference(),
            "model": self.model,
            "device": self.device,
            "processor": self.processor,
            "cores": self.cores,
            "load": self.load,
            "versions": self.versions,
        }


def bench_preparing(run: RunConfig, options: PreparingOptions, notice: Notice) -> PreparingResult:
    """Measure preparation, every run in a process of its own.

    Args:
        run: Which networks, on which device; without a model the published one that is there, else the demo.
        options: How long and large the clip is, and what prepares it.
        notice: Told what comes next, and how fast it was.

    Raises:
        MuseTalkError: The device is not there, the networks or the embedded avatar cannot be loaded, the face
            is not found in frames of this size, or a run failed.
    """
    device = resolve_device(run.device)
    run, taken = settle_alone(run, "measuring")
    if taken is not None:
        notice(taken)
    lengths = sorted(set(options.frames))
    load = os.getloadavg()[0]
    measured = []
    with tempfile.TemporaryDirectory(prefix="musetalk-bench-") as scratch:
        clip = Path(scratch) / "clip.mp4"
        notice(f"making a clip of {lengths[-1]} frames of {options.width}x{options.height}")
        write_clip(clip, lengths[-1], (options.width, options.height))
        for frames in lengths:
            for order in (OURS, UPSTREAM) if options.baseline else (OURS,):
                notice(f"preparing {frames} frames, {name_of(order)}")
                measured.append(_measure(_task(order, clip, frames, run, options)))
                notice(f"{measured[-1].frames_per_s:.2f} frames/s")
    return PreparingResult(
        options,
        str(run.model),
        describe_device(device),
        describe_device(torch.device("cpu")),
        usable_cores(),
        load,
        versions(),
        measured,
    )


def name_of(order: Order) -> str:
    """An order of work for people."""
    return "ours" if order == OURS else "published order"


def _task(order: Order, clip: Path, frames: int, run: RunConfig, options: PreparingOptions) -> Task:
    return Task(
        order=order,
        source=str(clip),
        frames=frames,
        folder="",
        models=str(run.models.path.absolute()),
        model=run.model,
        device=run.device,
        precision=run.precision,
        detector=options.detector,
        parser=options.parser,
        batch_size=options.batch_size,
    )


def _measure(task: Task) -> Measured:
    """Run a task in a folder that goes away with what was written."""
    with tempfile.TemporaryDirectory(dir=Path(task.source).parent) as folder:
        return _in_own_process(dataclasses.replace(task, folder=folder))


def _in_own_process(task: Task) -> Measured:
    """Run a task in a fresh process, so that its memory is its own."""
    argument = strict_json.dump(dataclasses.asdict(task))
    done = subprocess.run(
        [sys.executable, "-m", "musetalk_cli.bench.worker", argument],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return Measured(**strict_json.parse(lines[-1]))
    if done.returncode == 1 and lines and lines[-1].startswith("{"):
        raise MuseTalkError(**strict_json.parse(lines[-1]))
    last = (done.stderr.splitlines() or ["it gave no reason"])[-1]
    raise MuseTalkError(
        f"Preparing {task.frames} frames, {name_of(task.order)}, ended with code {done.returncode}: {last}.",
        "Check the free memory, or measure fewer --frames.",
    )


def _apart(ours: Sequence[Sequence[int] | None], theirs: Sequence[Sequence[int] | None]) -> int:
    """The largest difference of a side, over frames whose face both saw."""
    both = [(one, other) for one, other in zip(ours, theirs, strict=True) if one and other]
    return max((abs(a - b) for one, other in both for a, b in zip(one, other, strict=True)), default=0)
