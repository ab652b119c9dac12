"""What the features of a hop cost: the library's forward, and the needed rows of windows of several lengths.

    python benchmarks/features.py > benchmarks/features.md

A hop brings as many rows as its sound gives, and its frames need ten more of the sound before. The library
gives all 1500 rows of a window of 30 s. All ways take turns, so what else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from turns import medians

from musetalk_cli.nets import modules, random_v15
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest, LogMel
from musetalk_cli.nets.bundle import Bundle, load_bundle
from musetalk_cli.nets.device import describe_device, resolve_dtype
from musetalk_cli.run.report import versions
from musetalk_cli.timeline import ROWS_PER_FRAME, ROWS_PER_SECOND, ROWS_PER_WINDOW, SAMPLES_PER_ROW

CPU = torch.device("cpu")
HOPS = (0.1, 0.5)
WINDOWS = (30, 10, 5, 3)
COMPANY = 4
"""Sessions whose hops are due at once."""


def main() -> None:
    """Measure both networks and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of the demo bundle")
    parser.add_argument("--rounds", type=int, default=30, help="how often each way is timed")
    args = parser.parse_args()
    demo = load_bundle("demo", args.models, CPU, torch.float32)
    fast = resolve_dtype("auto", CPU, demo.card.cpu_precision)
    pool = random_v15.Pool(CPU, torch.float32)
    tiny = pool.fill(lambda: modules.build_encoder(random_v15.encoder_config(), random_v15.NOWHERE))
    bundles = {
        f"demo, {name(fast)}": load_bundle("demo", args.models, CPU, fast),
        f"whisper-tiny, {name(torch.float32)}": replace(demo, audio_encoder=tiny),
    }
    print("# What the features of a hop cost\n")
    print(f"`python benchmarks/features.py`, {describe_device(CPU)}.")
    print(", ".join(f"{package} {number}" for package, number in versions().items()) + ".\n")
    print(f"Medians of {args.rounds} rounds in which all ways take turns, milliseconds; whisper-tiny has the")
    print("published size and random weights.\n")
    one_hop(bundles, args.rounds)
    several(bundles, args.rounds)


def one_hop(bundles: dict[str, Bundle], rounds: int) -> None:
    """The features of one hop."""
    ways = ["library, 30 s, all rows", *(f"needed rows, {window} s" for window in WINDOWS)]
    print("| encoder | hop s | " + " | ".join(ways) + " |")
    print("| --- " * (len(ways) + 2) + "|")
    for title, bundle in bundles.items():
        for hop in HOPS:
            works = [library(bundle), *(needed(bundle, window, hop) for window in WINDOWS)]
            cells = " | ".join(f"{1e3 * seconds:.1f}" for seconds in medians(works, rounds))
            print(f"| {title} | {hop} | {cells} |", flush=True)


def several(bundles: dict[str, Bundle], rounds: int) -> None:
    """The features of hops of several sessions that are due at once."""
    print(f"\nHops of 0.5 s of {COMPANY} sessions in one call: windows one after the other, and together.\n")
    ways = [f"{how}, {window} s" for window in WINDOWS for how in ("one by one", "together")]
    print("| encoder | " + " | ".join(ways) + " | same bits |")
    print("| --- " * (len(ways) + 2) + "|")
    for title, bundle in bundles.items():
        works, same = [], []
        for window in WINDOWS:
            asked = [request(window, 0.5, seed) for seed in range(COMPANY)]
            alone, together = AudioEncoder(bundle, at_once=1), AudioEncoder(bundle, at_once=COMPANY)
            works += [lambda e=alone, a=asked: e(a), lambda e=together, a=asked: e(a)]
            pairs = zip(alone(asked), together(asked), strict=True)
            same.append(all(torch.equal(one, other) for one, other in pairs))
        cells = " | ".join(f"{1e3 * seconds:.1f}" for seconds in medians(works, rounds))
        alike = ", ".join(
            f"{window} s {'yes' if equal else 'no'}" for window, equal in zip(WINDOWS, same, strict=True)
        )
        print(f"| {title} | {cells} | {alike} |", flush=True)


def name(dtype: torch.dtype) -> str:
    """A number format in words."""
    return str(dtype).removeprefix("torch.")


def sound(seconds: float, seed: int) -> np.ndarray:
    """Noise, float32 at 16 kHz."""
    samples = int(seconds * ROWS_PER_SECOND) * SAMPLES_PER_ROW
    return (np.random.default_rng(seed).standard_normal(samples) / 8).astype(np.float32)


def request(window: float, hop: float, seed: int = 0) -> EncodeRequest:
    """The hop at the end of a full window."""
    rows = int(window * ROWS_PER_SECOND)
    fresh = int(hop * ROWS_PER_SECOND) + ROWS_PER_FRAME
    return EncodeRequest(sound(window, seed), range(rows - fresh, rows), rows)


def needed(bundle: Bundle, window: float, hop: float) -> Callable[[], object]:
    """What the program does."""
    encode, asked = AudioEncoder(bundle), [request(window, hop)]
    return lambda: encode(asked)


def library(bundle: Bundle) -> Callable[[], object]:
    """All hidden states of all rows, by the library's own forward and record."""
    mel, samples = LogMel(bundle.feature_extractor, CPU), [sound(ROWS_PER_WINDOW / ROWS_PER_SECOND, 0)]

    def work() -> torch.Tensor:
        with torch.inference_mode():
            found = bundle.audio_encoder(
                mel(samples).to(bundle.dtype), output_hidden_states=True, return_dict=True
            )
            return torch.stack(found.hidden_states, dim=2)[0].float()

    return work


if __name__ == "__main__":
    main()
