"""Makes the picture of `musetalk doctor`: what it says of the machine that this runs on.

python docs/doctor.py [--output docs/doctor.svg] [--measure]
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from musetalk_cli.cli.doctor import summary, table
from musetalk_cli.config import RunConfig
from musetalk_cli.doctor.checks import all_checks
from musetalk_cli.doctor.findings import Check, Finding, examine

ROOT = Path(__file__).parents[1]
WIDTH = 100
PLACES = {str(ROOT): "~/musetalk", str(Path.home()): "~"}
"""Folders of whoever makes the picture, and what stands for them in it."""
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Fonts from elsewhere: whoever looks at the picture is told to no other server."""


def main() -> None:
    """Look at this machine, and write what is seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".svg"))
    parser.add_argument("--measure", action="store_true", help="with the figures of --measure")
    given = parser.parse_args()
    run = RunConfig()
    findings = list(examine(all_checks(run)))
    if given.measure:
        findings += examine([Check("speed", lambda: _speed(run))], limit_s=600)
    given.output.write_text(draw([_elsewhere(finding) for finding in findings], measure=given.measure))
    print(f"{given.output}: {given.output.stat().st_size / 1e3:.0f} kB")


def _speed(run: RunConfig) -> list[Finding]:
    from musetalk_cli.doctor.measure import check_speed, measure

    return list(check_speed(measure(run, lambda text: print(text, file=sys.stderr))))


def _elsewhere(finding: Finding) -> Finding:
    detail = finding.detail
    for place, shown in PLACES.items():
        detail = detail.replace(place, shown)
    return replace(finding, detail=detail)


def draw(findings: Sequence[Finding], *, measure: bool = False) -> str:
    """The terminal as SVG."""
    terminal = Console(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        emoji=False,
    )
    terminal.print(f"[bold]$ musetalk doctor{' --measure' if measure else ''}[/]")
    terminal.print(table(findings, coloured=True))
    terminal.print(summary(findings), highlight=False)
    return FONTS.sub("", terminal.export_svg(title="musetalk doctor", unique_id="doctor"))


if __name__ == "__main__":
    main()
