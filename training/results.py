"""What an evaluation is shown as: a table of figures, and contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.evaluate import Figures, Shown

COLUMNS = 8
STEP = 11
"""Frames from one column to the next; no multiple of a beat of speech."""
FIRST = 30


def write_sheet(path: Path, shown: Shown) -> None:
    """Write every eleventh frame: the truth above, the truth through the VAE, and what was generated."""
    numbers = [min(FIRST + STEP * column, len(shown.truth) - 1) for column in range(COLUMNS)]
    rows = [
        np.hstack([images[number] for number in numbers])
        for images in (shown.truth, shown.again, shown.generated)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(rows))


def model_card(
    card: Mapping[str, Any],
    precision: str,
    figures: Sequence[Figures],
    recordings: Mapping[str, Mapping[str, float]],
) -> str:
    """The card of a bundle for people, in Markdown.

    Args:
        card: What `bundle.json` holds.
        precision: The number format that was judged.
        figures: Of the judged clips.
        recordings: `correlation` and `lag` on recordings of real voices, by their names; may be empty.
    """
    recipe = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in card["recipe"].items())
    lines = [
        "# The demo bundle\n",
        f"**It knows {card['knows']}.** Licence: {card['license']}.\n",
        f"Trained on {card['trained_on']}, by `make demo-model`: {recipe}.\n",
        f"Judged in {precision} and in chunks of 0.5 s, on sentences, voices and head motion that it was "
        "never trained on, by `python -m training evaluation`. What each figure is stands in "
        "`training/evaluate.py`.\n",
        table(figures),
    ]
    if recordings:
        lines.append("Opening against log energy on recordings of real voices:\n")
        lines += [
            f"- {name}: correlation {found['correlation']:.2f}, best lag {found['lag']} frames"
            for name, found in recordings.items()
        ]
    return "\n".join(lines).rstrip() + "\n"


def table(figures: Sequence[Figures]) -> str:
    """The figures as a table in Markdown, with their means and the worst of those that have a better end."""
    names = [name for name in asdict(figures[0]) if name not in ("voice", "person")]
    lines = ["| voice | person | " + " | ".join(name.replace("_", " ") for name in names) + " |"]
    lines.append("|" + " --- |" * (len(names) + 2))
    for one in figures:
        shown = [_cell(getattr(one, name)) for name in names]
        lines.append(f"| {one.voice} | {one.person} | " + " | ".join(shown) + " |")
    columns = {
        name: [value for one in figures if (value := getattr(one, name)) is not None] for name in names
    }
    means = [_cell(float(np.mean(np.abs(columns[name])))) if columns[name] else "" for name in names]
    lines.append("| **mean** (of sizes) | | " + " | ".join(means) + " |")
    worst = [_cell(_worst(name, columns[name])) for name in names]
    lines.append("| **worst** | | " + " | ".join(worst) + " |")
    return "\n".join(lines) + "\n"


def _known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _worst(name: str, values: list[float]) -> float | None:
    if not values or name in ("loudness", "quiet", "rest_psnr"):
        return None
    if name in ("lag", "closed", "silent", "flicker"):
        return max(values, key=abs)
    return max(values, key=lambda value: abs(value - 1)) if name == "wide_open" else min(values)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
