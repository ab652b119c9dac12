"""What a run took, for machines and for people to read."""

from __future__ import annotations

import platform
import resource
import sys
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import torch

from musetalk_cli import __version__
from musetalk_cli.engine.engine import Engine
from musetalk_cli.errors import MuseTalkError, describe, is_device_lost
from musetalk_cli.live.observe import Outcome
from musetalk_cli.measure.stages import Percentiles, StageSummary
from musetalk_cli.nets.device import describe_device

STAGES = (
    *("audio", "features", "unet", "vae"),
    *("resize", "sharpen", "blend"),  # step by step
    "compose",  # in one launch
    *("download", "paste", "sink"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one run.

    Attributes:
        frames: Frames made.
        fps: Frames per second of the result.
        chunk_s: Seconds of sound per chunk.
        duration_s: Seconds of sound spoken.
        real_time_factor: Seconds of work per second of sound; waiting for a live source is not work.
        throughput_fps: Frames per second of work.
        first_frame_ms: Chunk complete to its first frame composited in host memory.
        last_frame_ms: Chunk complete to its last frame composited in host memory.
        mouth_to_eye_ms: A sample's arrival to the frame it belongs to in the sink, where that is worst among
            the sinks that somebody watches, or among all if none is.
        response_ms: Arrival of an utterance's first sound to its first speaking frame in the sink, of the
            same choice of sinks; one per utterance.
        utterances: Utterances of which a frame was shown: stretches of speech between silences.
        stalls: How often a frame of an utterance came after its time, while the picture before it stood.
        short_frames: Made frames that had less look-ahead than they want.
        late_frames: Made frames that were composited after they were due; 0 where no frame has a time to
            keep, since the source waits and nobody watches.
        dropped_frames: Frames that were late and were shown as the picture before them.
        held_frames: Pictures that a sink was too slow for, over all sinks.
        sound_breaks: How often the sound of a loudspeaker was broken off, since frames or the processor came
            too late.
        idle_frames: Frames that took no model work: nothing was said, or there was no face.
        idle_share: The share of frames so saved, 0..1.
        lost_sound_s: Seconds of sound that came and could not be kept.
        fallbacks: How often the device's image path was given up.
        warm_up_s: Seconds in which everything was done once before the sound began; 0 for a recording.
        batch_halvings: How often the largest batch was halved, since the device had no memory for it: 0 or 1.
        broken_frames: Frames that show the source frame, since the face made for them is not a number.
        remade_frames: Faces that were not a number in the networks' format, and were made again in fp32.
        interrupted: True where the run was stopped early.
        failures: What failed on the way, in order, with causes and hints: sinks that were closed, or what
            ended the run.
        peak_host_bytes: Largest resident size of the process.
        peak_device_bytes: Largest size of tensors on the device, or None on a CPU.
        stages: What each stage took.
        device: The device's name.
        versions: Of the tool and what it computes with.
        settings: What the run was asked for, and what was chosen.
    """

    frames: int
    fps: float
    chunk_s: float
    duration_s: float
    real_time_factor: float
    throughput_fps: float
    first_frame_ms: Percentiles
    last_frame_ms: Percentiles
    mouth_to_eye_ms: Percentiles
    response_ms: Percentiles
    utterances: int
    stalls: int
    short_frames: int
    late_frames: int
    dropped_frames: int
    held_frames: int
    sound_breaks: int
    idle_frames: int
    idle_share: float
    lost_sound_s: float
    fallbacks: int
    warm_up_s: float
    batch_halvings: int
    broken_frames: int
    remade_frames: int
    interrupted: bool
    failures: list[MuseTalkError]
    peak_host_bytes: int
    peak_device_bytes: int | None
    stages: dict[str, StageSummary]
    device: str
    versions: dict[str, str]
    settings: dict[str, str | float | bool | None]

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values, with the stages flat."""
        plain = asdict(replace(self, failures=[]))
        plain["failures"] = [failure.message for failure in self.failures]
        plain["stages"] = {
            name: {
                "count": stage.count,
                "p50_ms": stage.times.p50,
                "p95_ms": stage.times.p95,
                "p99_ms": stage.times.p99,
                "total_ms": stage.total_ms,
            }
            for name, stage in self.stages.items()
        }
        return plain


def make_report(
    engine: Engine, outcome: Outcome, fps: float, settings: dict[str, str | float | bool | None]
) -> Report:
    """Put the figures of a finished run together."""
    duration_s = outcome.samples / outcome.sample_rate
    work = max(outcome.wall_s - outcome.waiting_s, 1e-9)
    latencies = outcome.latencies
    peak_device_bytes, device = device_facts(engine.bundle.device)
    return Report(
        frames=outcome.frames,
        fps=fps,
        chunk_s=latencies.chunk_s,
        duration_s=duration_s,
        real_time_factor=work / duration_s if duration_s else 0.0,
        throughput_fps=outcome.frames / work,
        first_frame_ms=latencies.first_frame.percentiles(),
        last_frame_ms=latencies.last_frame.percentiles(),
        mouth_to_eye_ms=latencies.worst_mouth_to_eye(),
        response_ms=latencies.worst_response(),
        utterances=outcome.utterances,
        stalls=outcome.stalls,
        short_frames=outcome.short,
        late_frames=latencies.late,
        dropped_frames=outcome.dropped,
        held_frames=outcome.held,
        sound_breaks=outcome.breaks,
        idle_frames=outcome.idle,
        idle_share=outcome.idle / outcome.frames if outcome.frames else 0.0,
        lost_sound_s=outcome.lost_samples / outcome.sample_rate,
        fallbacks=engine.images.fallbacks,
        warm_up_s=engine.warm_up_s,
        batch_halvings=engine.faces.halvings,
        broken_frames=outcome.broken,
        remade_frames=engine.repair.remade,
        interrupted=outcome.interrupted,
        failures=[_told(failure) for failure in outcome.failures],
        peak_host_bytes=peak_host_bytes(),
        peak_device_bytes=peak_device_bytes,
        stages=engine.stats.summary(STAGES),
        device=device,
        versions=versions(),
        settings=settings,
    )


def _told(failure: BaseException) -> MuseTalkError:
    """A failure as it is told; one that is not ours keeps its kind, and stays as the cause."""
    if isinstance(failure, MuseTalkError):
        return failure
    told = MuseTalkError(f"Unforeseen: {describe(failure)}.")
    told.__cause__ = failure
    return told


def device_facts(device: torch.device) -> tuple[int | None, str]:
    """Largest size of tensors on a device, None on a CPU, and its name; one that has failed tells neither."""
    if device.type != "cuda":
        return None, describe_device(device)
    try:
        return torch.cuda.max_memory_allocated(device), describe_device(device)
    except RuntimeError as error:
        if not is_device_lost(error):
            raise
        return None, f"{device} (failed)"


def peak_host_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    """Versions of the tool, Python, and the libraries that compute."""
    found = {"musetalk": __version__, "python": platform.python_version(), "torch": torch.__version__}
    for name in ("diffusers", "transformers", "opencv-python", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found
