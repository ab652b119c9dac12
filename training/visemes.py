"""From phonemes to the shape of a mouth over time.

A phoneme asks for five values; neighbours blend by how much each insists on its own (dominance, after
Cohen and Massaro's model of coarticulation), and the lips really meet on m, b and p.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.speech import Phone

OPENING, WIDTH, ROUNDING, TEETH, TONGUE = range(5)
NAMES = ("opening", "width", "rounding", "teeth", "tongue")
REST = np.array([0.0, 0.5, 0.0, 0.0, 0.0], np.float32)
REST.flags.writeable = False
"""The mouth in silence: `[5]`, never written."""

CURVE_RATE = 200
"""Values of a curve per second."""
SPREAD = 0.035
"""Seconds, the sigma with which phonemes blend."""
CLOSING = 0.055
"""Seconds in which the lips come together before, and part after, a closure."""

_REST_DOMINANCE = 0.9
_SILENT = frozenset("_ ː:ˈˌʲʰ̩̃ʷ̪̊ʱ̯̝̞˞‿.?;-")
"""Pauses, and marks that change a sound's length or colour but not the lips."""
_TABLE: dict[str, tuple[float, ...]] = {}
_CLOSURES = frozenset("mbp")


def _shape(symbols: str, *values: float) -> None:
    for symbol in symbols.split():
        _TABLE[symbol] = values


# opening, width, rounding, teeth, tongue, dominance
_shape("a ɑ ɐ", 0.95, 0.5, 0.0, 0.35, 0.1, 1.0)
_shape("æ", 0.75, 0.78, 0.0, 0.6, 0.15, 1.0)
_shape("ʌ ɜ ə ɚ ɝ ɘ ɵ ᵻ", 0.42, 0.5, 0.1, 0.4, 0.2, 0.7)
_shape("ɛ e", 0.55, 0.74, 0.0, 0.6, 0.25, 1.0)
_shape("i ɪ ɨ", 0.27, 0.95, 0.0, 0.75, 0.3, 1.0)
_shape("ɔ ɒ", 0.7, 0.3, 0.6, 0.1, 0.1, 1.0)
_shape("o", 0.52, 0.22, 0.85, 0.05, 0.1, 1.1)
_shape("u ʊ y ø œ ʏ ɯ ʉ", 0.25, 0.1, 1.0, 0.05, 0.1, 1.1)
_shape("m b p", 0.0, 0.5, 0.0, 0.0, 0.0, 3.5)
_shape("f v β ɸ ʋ", 0.12, 0.55, 0.0, 0.95, 0.0, 2.5)
_shape("θ ð", 0.24, 0.55, 0.0, 0.6, 1.0, 1.5)
_shape("s z ʑ ɕ", 0.14, 0.7, 0.0, 0.95, 0.3, 1.3)
_shape("t d n ɲ ʔ", 0.2, 0.6, 0.0, 0.75, 0.6, 0.8)
_shape("l ɾ ʎ ɫ ɭ", 0.33, 0.6, 0.0, 0.55, 0.95, 0.9)
_shape("ʃ ʒ", 0.2, 0.25, 0.75, 0.9, 0.3, 1.5)
_shape("r ɹ ʀ ʁ", 0.24, 0.35, 0.55, 0.3, 0.4, 0.9)
_shape("w ɥ ʍ", 0.12, 0.08, 1.0, 0.0, 0.0, 2.0)
_shape("j ʝ", 0.22, 0.85, 0.0, 0.7, 0.4, 0.8)
_shape("k g ɡ ŋ x ç ɣ q", 0.3, 0.55, 0.0, 0.4, 0.2, 0.6)
_shape("h ħ", 0.35, 0.5, 0.0, 0.3, 0.1, 0.2)


def _sounds(symbol: str) -> list[tuple[float, ...]]:
    """The first and the last shape a symbol passes through; none for a pause.

    Raises:
        KeyError: A letter of it is not known.
    """
    shapes = [_TABLE[letter] for letter in symbol if letter not in _SILENT]
    return [shapes[0], shapes[-1]] if shapes else []


def closes(symbol: str) -> bool:
    """Whether the lips meet for it."""
    return symbol[:1] in _CLOSURES


def curve(phones: Sequence[Phone], seconds: float) -> NDArray[np.float32]:
    """The mouth over time.

    Args:
        phones: What is heard when.
        seconds: How long the curve shall be.

    Returns:
        float32 `[ceil(seconds * 200) + 1, 5]`: opening, width, rounding, teeth, tongue, each in 0..1, at
        multiples of 5 ms.
    """
    count = int(np.ceil(seconds * CURVE_RATE)) + 1
    target = np.tile(np.array([*REST, _REST_DOMINANCE], np.float32), (count, 1))
    for phone in phones:
        shapes = _sounds(phone.symbol)
        first = int(phone.start * CURVE_RATE)
        last = min(max(first + 1, int(phone.end * CURVE_RATE)), count)
        if not shapes or first >= count:
            continue
        part = np.linspace(0, 1, last - first, dtype=np.float32)[:, None]
        target[first:last] = (
            np.array(shapes[0], np.float32) * (1 - part) + np.array(shapes[-1], np.float32) * part
        )
    reach = int(4 * SPREAD * CURVE_RATE)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (SPREAD * CURVE_RATE)) ** 2)
    padded = np.pad(target, ((reach, reach), (0, 0)), "edge")
    weight = np.convolve(padded[:, 5], kernel, "valid")
    result = np.stack(
        [np.convolve(padded[:, n] * padded[:, 5], kernel, "valid") / weight for n in range(5)], 1
    )
    times = np.arange(count) / CURVE_RATE
    for phone in phones:
        if closes(phone.symbol):
            away = np.maximum(phone.start - times, times - phone.end).clip(0)
            result[:, OPENING] = np.minimum(result[:, OPENING], away / CLOSING)
    return result.clip(0, 1).astype(np.float32)


def sample(values: NDArray[np.float32], times: NDArray[np.floating]) -> NDArray[np.float32]:
    """Values of a curve at some times in seconds, `[n, 5]`, in between linearly; at rest outside."""
    grid = np.arange(len(values)) / CURVE_RATE
    columns = [
        np.interp(times, grid, values[:, number], left=rest, right=rest) for number, rest in enumerate(REST)
    ]
    return np.stack(columns, 1).astype(np.float32)
