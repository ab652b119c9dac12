"""Clips of synthesised speech and the mouth that belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import soxr
from numpy.typing import NDArray

from training import visemes
from training.parallel import each
from training.speech import SAMPLE_RATE, Phone, Utterance, espeak, say_flite
from training.texts import HELD_OUT, HELD_OUT_ENGLISH, TRAINING_SENTENCES, WORDS

CLIP_SECONDS = 30
ROWS = 1500
"""Rows of a clip, 50 a second: the encoder's."""
FRAME_RATE = 25
FRAMES = CLIP_SECONDS * FRAME_RATE

ENGLISH = (
    "en-us", "en-us+f1", "en-us+f2", "en-us+f3", "en-us+f4", "en-us+m1", "en-us+m3", "en-us+m4", "en-us+m7",
    "en-us+klatt2", "en-us+klatt4", "en-us+croak", "en-gb-x-rp", "en-gb-x-rp+f2", "en-gb-scotland",
    "en-gb-scotland+f4",
)  # fmt: skip
VARIANTS = ("", "+f2", "+f4", "+m3", "+m7")
RECORDED = ("rms", "kal16", "awb")
HELD_OUT_VOICES = ("flite slt", "pl+m5", "nl+f5", "pt+m8", "sv+m6", "en-us+f5", "en-gb-x-rp+m2")
"""Voices that are never trained on: a recorded speaker, and variants, four of them in untrained languages."""
_SHORT_PAUSES, _LONG_PAUSES = (0.3, 1.5), (0.9, 1.8)
_FAINT = 5e-4
"""RMS of the noise of held-out clips, -66 dB: no recording is silent."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Half a minute of one or more voices.

    Attributes:
        samples: float32 `[480000]` at 16 kHz.
        rows: float32 `[1500, 5]`, the mouth in the middle of each row of 20 ms.
        frames: float32 `[750, 5]`, the mouth in the middle of each frame at 25 a second.
        closures: Seconds at which lips meet, start and end, `[n, 2]`.
    """

    samples: NDArray[np.float32]
    rows: NDArray[np.float32]
    frames: NDArray[np.float32]
    closures: NDArray[np.float32]


def _speak(rng: np.random.Generator, voice: str, text: str) -> Utterance:
    if voice.startswith("flite "):
        return say_flite(text, voice.removeprefix("flite "), stretch=float(rng.uniform(0.85, 1.25)))
    rate, pitch, span = (int(rng.integers(*limits)) for limits in ((125, 205), (20, 80), (25, 75)))
    return espeak().say(text, voice, rate=rate, pitch=pitch, span=span)


def training_utterance(rng: np.random.Generator) -> Utterance:
    """Something said by a voice of the training set, with another length of throat each time."""
    language = "en"
    if rng.random() < 0.25:
        language = str(rng.choice(list(TRAINING_SENTENCES)))
        text = str(rng.choice(TRAINING_SENTENCES[language]))
        voice = language + str(rng.choice(VARIANTS))
    else:
        words = rng.choice(WORDS, int(rng.integers(4, 12)))
        text = " ".join(words) + str(rng.choice([".", "?", "!", ","]))
        recorded = rng.random() < 0.45
        voice = f"flite {rng.choice(RECORDED)}" if recorded else str(rng.choice(ENGLISH))
    return _stretched(_speak(rng, voice, text), float(rng.uniform(0.86, 1.16)))


def _stretched(said: Utterance, factor: float) -> Utterance:
    """The utterance played slower (more than 1) or faster, formants and all."""
    samples = soxr.resample(said.samples, 1000, round(1000 * factor), "HQ")
    factor = round(1000 * factor) / 1000
    phones = tuple(Phone(one.symbol, one.start * factor, one.end * factor) for one in said.phones)
    return Utterance(samples.astype(np.float32), phones)


def held_out_utterance(voice: str, rng: np.random.Generator) -> Utterance:
    """A sentence that is never trained on, by a voice that is not either."""
    language = voice.partition("+")[0]
    return _speak(rng, voice, str(rng.choice(HELD_OUT.get(language, HELD_OUT_ENGLISH))))


def clip(
    rng: np.random.Generator,
    utter: Callable[[np.random.Generator], Utterance],
    pauses: tuple[float, float] = _SHORT_PAUSES,
) -> Clip:
    """A clip of utterances with pauses between them.

    Args:
        rng: Decides everything.
        utter: Says something.
        pauses: Least and most seconds of every other pause; the rest are shorter than 0.3 s.
    """
    samples = np.zeros(CLIP_SECONDS * SAMPLE_RATE, np.float32)
    rows, frames = (np.tile(visemes.REST, (count, 1)) for count in (ROWS, FRAMES))
    closures: list[tuple[float, float]] = []
    now = float(rng.uniform(0.1, 0.8))
    while True:
        said = utter(rng)
        end = now + said.seconds
        if end > CLIP_SECONDS - 0.1:
            break
        first = int(now * SAMPLE_RATE)
        loudest = float(np.abs(said.samples).max())
        gain = rng.uniform(0.1, 0.9) / max(loudest, 1e-3)
        samples[first : first + len(said.samples)] += said.samples * np.float32(gain)
        shape = visemes.curve(said.phones, said.seconds)
        for values, rate in ((rows, ROWS / CLIP_SECONDS), (frames, FRAME_RATE)):
            numbers = np.arange(int(now * rate), min(int(end * rate) + 1, len(values)))
            values[numbers] = visemes.sample(shape, (numbers + 0.5) / rate - now)
        closures += [
            (now + phone.start, now + phone.end) for phone in said.phones if visemes.closes(phone.symbol)
        ]
        now = end + float(rng.choice([rng.uniform(0.03, 0.3), rng.uniform(*pauses)]))
    return Clip(samples, rows, frames, np.array(closures, np.float32).reshape(-1, 2))


def _worn(samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The sound of a room, a microphone and its noise."""
    spectrum = np.fft.rfft(samples)
    frequency = np.linspace(1, 8000, len(spectrum))
    tilt = (frequency / 1000) ** rng.uniform(-0.35, 0.35)
    low, high = rng.uniform(20, 200), rng.choice([8000, rng.uniform(3400, 8000)])
    band = 1 / (1 + (low / frequency) ** 4) / (1 + (frequency / high) ** 8)
    worn = np.fft.irfft(spectrum * tilt * band, len(samples)).astype(np.float32)
    if rng.random() < 0.4:
        length = int(rng.uniform(0.05, 0.25) * SAMPLE_RATE)
        echo = rng.normal(0, 1, length) * np.exp(-6 * np.arange(length) / length)
        echo *= rng.uniform(0.1, 0.5) / np.sqrt((echo**2).sum())
        size = len(worn) + length
        wet = np.fft.irfft(np.fft.rfft(worn, size) * np.fft.rfft(echo, size), size)[: len(worn)]
        worn = worn + wet.astype(np.float32)
    noise = rng.normal(0, 10 ** rng.uniform(-4.5, -2.2), len(worn)).astype(np.float32)
    heard: NDArray[np.float32] = np.clip(worn + noise, -1, 1)
    return heard


def training_clip(number: int, *, seed: int) -> Clip:
    """Clip `number` of the training set; the same for the same seed in a process that said nothing yet."""
    rng = np.random.default_rng((seed, number))
    made = clip(rng, training_utterance)
    if number % 4 == 0:
        return made
    return Clip(_worn(made.samples, rng), made.rows, made.frames, made.closures)


def _held_out_clip(voice: str, seed: int) -> Clip:
    rng = np.random.default_rng((seed, 77))
    made = clip(rng, partial(held_out_utterance, voice), _LONG_PAUSES)
    noise = rng.normal(0, _FAINT, len(made.samples)).astype(np.float32)
    return Clip(made.samples + noise, made.rows, made.frames, made.closures)


def held_out_clips(*, seed: int) -> list[Clip]:
    """Half a minute of each voice that is never trained on, with long pauses and a faint noise."""
    return list(each(partial(_held_out_clip, seed=seed), HELD_OUT_VOICES, workers=1, fresh=True))


def training_clips(count: int, *, seed: int, workers: int = 2) -> Iterator[Clip]:
    """The training set, in order; espeak-ng's noise goes on from what a process said before."""
    return each(partial(training_clip, seed=seed), range(count), workers=workers, fresh=True)
