"""What a face does in a quiet room, with and without the voice gate.

    python benchmarks/silence.py --output benchmarks/silence.md

The face is the first frame of an embedded avatar, held still, so that only the mouth moves. It hears two
seconds of synthetic noise: that of a room (pink), and a breath of 0.8 s (noise around 1.8 kHz) in a room at
-65 dB. Levels are RMS in dB of full scale, of the breath at its loudest. Movement is the mean absolute
difference from frame to frame at 25 fps, over the part of the frame that can change, in levels: its mean and
its largest value.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from lip_lag import embedded, give, heading, parser_of
from numpy.typing import NDArray

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig, SilenceLevel
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.engine.windows import OFFLINE_HOP
from musetalk_cli.nets.bundle import Bundle
from musetalk_cli.run.job import make_engine
from musetalk_cli.timeline import SAMPLE_RATE
from musetalk_cli.types import Samples

FPS = Fraction(25)
SECONDS = 2
ROOMS = (-70, -60, -50, -46, -40)
BREATHS = (-55, -50, -46, -40, -30)
STILL_AIR = -65
"""Level of the room around a breath."""


def main() -> None:
    """Make the face hear every sound twice, and print a table."""
    args = parser_of(__doc__).parse_args()
    bundle, avatar, speech, rate = embedded(args.avatar)
    sounds = {"digital silence": np.zeros(SECONDS * SAMPLE_RATE, np.float32)}
    sounds |= {f"room, {level} dB": room(level) for level in ROOMS}
    sounds |= {f"breath, {level} dB": breath(level) for level in BREATHS}
    lines = [
        *heading("The voice gate on noise and breath", "silence", args.avatar, bundle, __doc__),
        f"| sound | `--silence off`, mean | largest | `--silence {SilenceLevel()}`, mean | largest |",
        "|---|---|---|---|---|",
    ]
    for name, sound in sounds.items():
        cells = [name]
        for level in (None, SilenceLevel()):
            moved = movement(bundle, avatar, sound[:, None], SAMPLE_RATE, level)
            cells += [f"{moved.mean():.2f}", f"{moved.max():.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    moved = movement(bundle, avatar, speech[: SECONDS * rate], rate, None)
    lines.append(f"| the first {SECONDS} s of the sample | {moved.mean():.2f} | {moved.max():.2f} | | |")
    give(lines, args.output)


def room(level: float) -> Samples:
    """Pink noise."""
    return _scaled(_noise(lambda hertz: 1 / np.sqrt(np.maximum(hertz, 20))), level)


def breath(level: float) -> Samples:
    """Noise that swells and falls within 0.8 s, half a second after the start, in a quiet room."""
    time = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    swell = np.sin(np.pi * np.clip((time - 0.5) / 0.8, 0, 1)) ** 2
    air = _scaled(_noise(lambda hertz: np.exp(-(((hertz - 1800) / 1500) ** 2))), level)
    return (swell * air + room(STILL_AIR)).astype(np.float32)


def _noise(shape) -> NDArray[np.float64]:  # noqa: ANN001 - a function of frequencies in Hz
    random, count = np.random.default_rng(0), SECONDS * SAMPLE_RATE
    hertz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    phases = np.exp(2j * np.pi * random.random(len(hertz)))
    return np.fft.irfft(shape(hertz) * phases, count)


def _scaled(noise: NDArray[np.float64], level: float) -> Samples:
    return (noise * 10 ** (level / 20) / np.sqrt(np.mean(noise**2))).astype(np.float32)


def movement(
    bundle: Bundle, avatar: Avatar, sound: Samples, sample_rate: int, silence: SilenceLevel | None
) -> NDArray[np.float64]:
    """Mean absolute difference of each frame from the one before it, in levels."""
    patch = avatar.patches[0]
    if patch is None:
        raise SystemExit("The first frame of the avatar has no face.")
    engine = make_engine(bundle, JobConfig(chunk=OFFLINE_HOP), MonotonicClock(), live=False)
    options = SessionOptions(silence=silence)
    session = engine.open(avatar, FPS, OFFLINE_HOP, Fraction(0), sample_rate, sound.shape[1], options)
    session.hear(sound, 0.0)
    session.end_sound(0.0)
    frames: list[NDArray[np.float64]] = []
    while engine.step():
        while session.untaken:
            frames.append(session.take().image[patch.box.slices()].astype(np.float64))
    return np.abs(np.diff(np.array(frames), axis=0)).mean(axis=(1, 2, 3))


if __name__ == "__main__":
    main()
