"""One measured preparation in a process of its own: a task as JSON in, figures or an error as JSON out."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from musetalk_cli import strict_json
from musetalk_cli.bench.memory import forget_peak, peak_bytes, resident_bytes
from musetalk_cli.bench.one_by_one import prepare_one_by_one
from musetalk_cli.bench.task import OURS, Measured, Task
from musetalk_cli.config import DataFolder, RunConfig
from musetalk_cli.errors import MuseTalkError
from musetalk_cli.face.boxes import crop_box
from musetalk_cli.measure.throughput import StageRates
from musetalk_cli.media.video import Selection, read_frames
from musetalk_cli.nets.bundle import FaceNetwork
from musetalk_cli.preparation.imaging import crop_image
from musetalk_cli.preparation.inputs import FaceNetworks, PictureSource
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.plan import Plan
from musetalk_cli.preparation.run import Step, prepare_avatar
from musetalk_cli.run.face_networks import load_face_networks
from musetalk_cli.types import FACE_SIZE, Box

ORIGIN = "flag"


def measure(task: Task) -> Measured:
    """Prepare once, and tell what it took.

    Raises:
        MuseTalkError: The networks cannot be loaded, or the source cannot be prepared.
    """
    folder = Path(task.folder)
    run = RunConfig(
        DataFolder(Path(task.models), ORIGIN),
        DataFolder(folder, ORIGIN),
        task.model,
        task.device,
        task.precision,
    )
    networks, bundle = load_face_networks(run, task.detector, task.parser)
    forget_peak()
    loaded = resident_bytes()
    source = PictureSource(Path(task.source), Selection(max_frames=task.frames))
    options = PrepareOptions(batch_size=task.batch_size)
    faces_at_once = (task.batch_size or networks.batch_size) if task.order == OURS else 1
    _warm_up(networks, source, faces_at_once)
    on_cuda = bundle.device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(bundle.device)
    forget_peak()
    ready = resident_bytes()
    started = time.perf_counter()
    work = _ours if task.order == OURS else _one_by_one
    plan, rates = work(source, folder, networks, options, bundle)
    seconds = time.perf_counter() - started
    return Measured(
        order=task.order,
        frames=len(plan.faces),
        faces=len(plan.animated),
        seconds=seconds,
        stages=dict(rates),
        models_bytes=loaded,
        ready_bytes=ready,
        peak_bytes=max(peak_bytes(), ready),
        peak_device_bytes=torch.cuda.max_memory_allocated(bundle.device) if on_cuda else None,
        detector=networks.finder.name if networks.finder else "",
        parsed=networks.parse is not None,
        batch_size=faces_at_once,
        precision=str(bundle.dtype).removeprefix("torch."),
        boxes=[None if face is None else list(face.box) for face in plan.faces],
    )


def _warm_up(networks: FaceNetworks, source: PictureSource, faces: int) -> None:
    """Use every tool once, so that what it makes at its first use is not taken for the work's."""
    with read_frames(source.path, source.selection) as video:
        frame = next(iter(video))
    if networks.finder is not None:
        networks.finder.find([frame], [])
    networks.encode(np.zeros((faces, FACE_SIZE, FACE_SIZE, 3), np.uint8))
    if networks.parse is not None:
        whole = crop_box(Box(0, 0, frame.shape[1], frame.shape[0]))
        networks.parse([crop_image(frame, whole)] * faces)


def _ours(
    source: PictureSource, folder: Path, networks: FaceNetworks, options: PrepareOptions, bundle: FaceNetwork
) -> tuple[Plan, Mapping[str, float]]:
    steps: list[Step] = []

    def keep_last(step: Step) -> None:
        steps[:] = [step]

    model = {"version": bundle.version, "name": bundle.family}
    prepared = prepare_avatar(
        source, folder, "measured", networks=networks, options=options, model=model, progress=keep_last
    )
    return prepared.plan, steps[0].rates


def _one_by_one(
    source: PictureSource, folder: Path, networks: FaceNetworks, options: PrepareOptions, bundle: FaceNetwork
) -> tuple[Plan, Mapping[str, float]]:
    rates = StageRates()
    plan = prepare_one_by_one(source, folder / "measured", networks, options, bundle.version, rates)
    return plan, rates.rates()


def main() -> int:
    """Measure the task in the only argument; the last line on stdout is the answer."""
    logging.getLogger("musetalk_cli").addHandler(logging.NullHandler())
    try:
        answer, code = asdict(measure(Task(**strict_json.parse(sys.argv[1])))), 0
    except MuseTalkError as error:
        answer, code = {"message": error.message, "hint": error.hint}, 1
    sys.stdout.write(strict_json.dump(strict_json.finite(answer)) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
