"""Figures beside those of an earlier run: what became slower, and whether both may be compared at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musetalk_cli import strict_json
from musetalk_cli.errors import InputError, MuseTalkError

FORMAT = 2
"""Of the figures as JSON; no other is compared."""
TOLERANCE = 0.1
"""Part by which a figure may be worse and count as the same."""
MOST_BYTES = 16 << 20
_FPS, _MS = "frames/s", "ms"
"""What the name of a figure ends with: more of the one is better, and less of the other."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier run measured.

    Attributes:
        path: The file.
        conditions: Under which: hardware, model and settings, by name.
        figures: By name, each ending with its unit.
    """

    path: Path
    conditions: dict[str, str]
    figures: dict[str, float]

    def check(self, conditions: Mapping[str, str]) -> None:
        """Make sure that it may be compared with a run under these conditions.

        Raises:
            InputError: Hardware, model or settings are others.
        """
        names = [*conditions, *(name for name in self.conditions if name not in conditions)]
        for name in names:
            before, after = self.conditions.get(name, "not told"), conditions.get(name, "not told")
            if before != after:
                raise InputError(
                    f"--compare {self.path} was measured with another {name}, {before}, and this run has "
                    f"{after}: they say nothing about each other.",
                    "Measure both with the same hardware, model and settings.",
                )


@dataclass(frozen=True, slots=True)
class Row:
    """One figure in both runs.

    Attributes:
        name: Which, ending with its unit.
        before: In the earlier run.
        after: In this one.
    """

    name: str
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """This run's over the earlier one's."""
        return self.after / self.before

    def is_worse(self, tolerance: float) -> bool:
        """True where it became worse by more than a part."""
        slower = 1 / self.ratio if self.name.endswith(_FPS) else self.ratio
        return slower > 1 + tolerance


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs.

    Attributes:
        path: The earlier run's file.
        tolerance: Part by which a figure may be worse.
        rows: Every figure that both have.
    """

    path: Path
    tolerance: float
    rows: list[Row]

    @property
    def worse(self) -> list[Row]:
        """Figures that became worse by more than the tolerance."""
        return [row for row in self.rows if row.is_worse(self.tolerance)]

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values."""
        rows = [
            dataclasses.asdict(row) | {"ratio": row.ratio, "worse": row.is_worse(self.tolerance)}
            for row in self.rows
        ]
        return {"with": str(self.path), "tolerance": self.tolerance, "rows": rows}

    def check(self) -> None:
        """Make sure that nothing became worse.

        Raises:
            MuseTalkError: Something did, by more than the tolerance.
        """
        if not (worse := self.worse):
            return
        worst = max(worse, key=lambda row: max(row.ratio, 1 / row.ratio))
        raise MuseTalkError(
            f"{len(worse)} of {len(self.rows)} figures are worse than in {self.path} by more than "
            f"{100 * self.tolerance:g} %, most of all {worst.name}: {worst.before:.4g} before, "
            f"{worst.after:.4g} now.",
            "Measure again with nothing else at work; if it stays, something became slower.",
        )


def read_earlier(path: Path) -> Earlier:
    """Read what `musetalk bench --json` wrote.

    Raises:
        InputError: It cannot be read, or is something else.
    """
    try:
        value = strict_json.read(path, MOST_BYTES)
    except OSError as error:
        raise InputError(f"--compare {path} cannot be read: {error.strerror}.") from error
    except strict_json.JsonError as error:
        raise InputError(f"--compare {path} {error}.") from None
    again = "Measure it again: musetalk bench --json FILE."
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise InputError(f"--compare {path} does not hold figures of this version's musetalk bench.", again)
    conditions: Any = value.get("conditions")
    figures: Any = value.get("figures")
    if not (_is_table(conditions, str) and _is_table(figures, (int, float))):
        raise InputError(f"--compare {path} lacks the conditions or the figures of a run.", again)
    return Earlier(path, conditions, {name: float(figure) for name, figure in figures.items() if figure > 0})


def _is_table(value: Any, kind: type | tuple[type, ...]) -> bool:  # noqa: ANN401 - any value that JSON has
    return isinstance(value, dict) and all(
        isinstance(entry, kind) and not isinstance(entry, bool) for entry in value.values()
    )


def compare(earlier: Earlier, figures: Mapping[str, float], tolerance: float) -> Comparison:
    """Put every figure beside the earlier one of its name.

    Raises:
        InputError: The two have none in common.
    """
    rows = [
        Row(name, earlier.figures[name], after)
        for name, after in figures.items()
        if name in earlier.figures and after > 0
    ]
    if not rows:
        raise InputError(
            f"--compare {earlier.path} has no figure in common with this run.",
            "Measure the same --batch-size and --chunk.",
        )
    return Comparison(earlier.path, tolerance, rows)
