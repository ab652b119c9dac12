"""How far streaming features are from whole-file features, by context and hop.

    python benchmarks/feature_distance.py --model PATH --audio FILE

Distance is |streaming - offline| / |offline| over all tokens of a layer's rows (Euclidean norms), for the
last hidden state, and for all of them. Offline segments begin afresh every 30 s, so sounds up to 30 s compare
a stream that has not heard the future with a whole that has.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from musetalk_cli.engine.hops import stream_tokens
from musetalk_cli.engine.windows import OFFLINE_HOP
from musetalk_cli.media.audio import SoundReader
from musetalk_cli.media.resample import StreamResampler
from musetalk_cli.nets.audio_encoder import AudioEncoder
from musetalk_cli.nets.bundle import Bundle, load_bundle
from musetalk_cli.nets.device import describe_device
from musetalk_cli.run.report import versions
from musetalk_cli.timeline import ROWS_PER_FRAME, Timeline

HOPS = ("0.1", "0.2", "0.5", "1", "2")
CONTEXTS = ("0.5", "1", "2", "5", "10", "max")


def main() -> None:
    """Measure every pair of hop and context, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="bundle folder, v15 or random-v15")
    parser.add_argument("--audio", required=True, type=Path, help="sound file")
    parser.add_argument("--seconds", type=float, default=15.0, help="how much of it")
    parser.add_argument("--hops", nargs="+", default=HOPS, help="seconds")
    parser.add_argument("--contexts", nargs="+", default=CONTEXTS, help="seconds, or max")
    args = parser.parse_args()
    bundle = load_bundle(args.model, Path("models"), torch.device("cpu"), torch.float32)
    sound = read(args.audio, args.seconds)
    encode = AudioEncoder(bundle)
    offline = tokens(encode, sound, OFFLINE_HOP, Fraction(0))
    print(f"{len(sound) / 16_000:.1f} s, {len(offline)} frames at 25 fps, {describe_device(bundle.device)}")
    print(", ".join(f"{name} {number}" for name, number in versions().items()))
    print("last layer / all layers, relative")
    print("| hop s | " + " | ".join(f"context {context}" for context in args.contexts) + " |")
    print("| --- " * (len(args.contexts) + 1) + "|")
    for hop in args.hops:
        cells = []
        for context in args.contexts:
            past = None if context == "max" else Fraction(context)
            cells.append(distances(bundle, tokens(encode, sound, Fraction(hop), past), offline))
        print(f"| {hop} | " + " | ".join(cells) + " |", flush=True)


def read(path: Path, seconds: float) -> np.ndarray:
    """The start of a sound at 16 kHz."""
    with SoundReader(path) as reader:
        resampler = StreamResampler(reader.sample_rate)
        blocks = [resampler.resample(block) for block in reader.blocks(reader.sample_rate)]
    return np.concatenate([*blocks, resampler.flush()])[: int(seconds * 16_000)]


def tokens(encode: AudioEncoder, sound: np.ndarray, hop: Fraction, context: Fraction | None) -> torch.Tensor:
    """Tokens of every frame, `[frames, tokens, width]`."""
    return torch.stack(list(stream_tokens(sound, encode, Timeline(Fraction(25)), hop, context)))


def distances(bundle: Bundle, stream: torch.Tensor, offline: torch.Tensor) -> str:
    """Relative distance of the last layer, and of all layers."""
    shape = (len(stream), ROWS_PER_FRAME, bundle.layers, bundle.token_width)
    one, other = stream.reshape(shape), offline.reshape(shape)
    last = (one - other)[:, :, -1].norm() / other[:, :, -1].norm()
    every = (one - other).norm() / other.norm()
    return f"{last:.3f} / {every:.3f}"


if __name__ == "__main__":
    main()
