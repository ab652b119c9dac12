"""What a shorter window of the audio encoder costs in the mouth: held-out voices, against the truth.

    python -m benchmarks.encoder_window > benchmarks/encoder_window.md

Each clip is spoken once with each length of window, in hops of 0.5 s as a stream does, and its mouth is
read off the pictures. The judges are those of `python -m training evaluation`; the meter is made of fewer
pictures.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from musetalk_cli.engine.hops import stream_tokens
from musetalk_cli.nets.audio_encoder import AudioEncoder
from musetalk_cli.nets.bundle import Bundle, load_bundle
from musetalk_cli.nets.device import describe_device, resolve_dtype
from musetalk_cli.run.report import versions
from musetalk_cli.timeline import DEFAULT_FPS, ROWS_PER_SECOND, Timeline
from training import evaluate, faces, sounds
from training.meter import Meter
from training.people import PEOPLE

CPU = torch.device("cpu")
COLUMNS = ("opening", "width", "rounding", "wide open", "closed", "silent", "mouth PSNR", "tokens")


def main() -> None:
    """Judge every window and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of the demo bundle")
    parser.add_argument(
        "--windows", nargs="+", type=int, default=[30, 10, 5, 3], help="seconds; the first is beside"
    )
    parser.add_argument("--frames", type=int, default=500, help="of each clip")
    parser.add_argument(
        "--moments", type=int, default=300, help="pictures that the meter is made of, times 4"
    )
    args = parser.parse_args()
    preparing = load_bundle("demo", args.models, CPU, torch.float32)
    dtype = resolve_dtype("auto", CPU, preparing.card.cpu_precision)
    networks = evaluate.Networks(preparing, load_bundle("demo", args.models, CPU, dtype))
    clips = sounds.held_out_clips(seed=2)
    drawn = faces.make(args.moments, np.concatenate([clip.frames for clip in clips]), seed=3)
    meters = [Meter(drawn, number) for number in range(len(PEOPLE))]
    print("# What a shorter window costs in the mouth\n")
    print(f"`python -m benchmarks.encoder_window`, {describe_device(CPU)}, {dtype}.")
    print(", ".join(f"{package} {number}" for package, number in versions().items()) + ".\n")
    print(
        f"Means over {len(clips)} held-out voices, {args.frames} frames each. Opening, width and rounding are"
    )
    print(
        "correlations with the true mouth; wide open is the 95 % quantile of the opening over the true one's;"
    )
    print("closed and silent are the opening where lips meet, and in silence; tokens is the distance from")
    print(f"those of {args.windows[0]} s.\n")
    print("| window s | " + " | ".join(COLUMNS) + " |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    found: dict[int, list[list[float]]] = {window: [] for window in args.windows}
    for number, clip in enumerate(clips):
        scene = evaluate.draw(networks, clip, number, meters, frames=args.frames)
        first = tokens(networks.speaking, clip.samples, args.frames, args.windows[0])
        for window in args.windows:
            given = tokens(networks.speaking, clip.samples, args.frames, window)
            distance = float((given.float() - first.float()).norm() / first.float().norm())
            found[window].append([*judged(networks, scene, given), distance])
    for window, rows in found.items():
        means = np.nanmean(np.array(rows, float), axis=0)
        print(f"| {window} | " + " | ".join(f"{value:.3f}" for value in means) + " |", flush=True)


def tokens(bundle: Bundle, samples: np.ndarray, frames: int, window: int) -> torch.Tensor:
    """Tokens of a clip's first frames with a window of so many seconds."""
    stream = stream_tokens(
        samples,
        AudioEncoder(bundle),
        Timeline(DEFAULT_FPS),
        evaluate.CHUNK,
        window_rows=window * ROWS_PER_SECOND,
    )
    return torch.stack([each.clone() for each in islice(stream, frames)])


def judged(networks: evaluate.Networks, scene: evaluate.Scene, given: torch.Tensor) -> list[float]:
    """The figures of a clip that is spoken from these tokens."""
    generated = evaluate.speak(networks.speaking, scene.latents, given)
    figures = evaluate.measure(networks, "", scene, generated, given)
    values = (figures.opening, figures.width, figures.rounding, figures.wide_open, figures.closed)
    return [
        float("nan") if value is None else value for value in (*values, figures.silent, figures.mouth_psnr)
    ]


if __name__ == "__main__":
    main()
