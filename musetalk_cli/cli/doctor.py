"""`musetalk doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import console, print_json, put, say, writing
from musetalk_cli.errors import MuseTalkError
from musetalk_cli.text import counted, printable

if TYPE_CHECKING:
    from musetalk_cli.doctor.findings import Finding

MEASURE_S = 600.0
"""How long measuring may take: full-size networks on a CPU need minutes to load and to warm up."""
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}

Measure = Annotated[
    bool,
    typer.Option("--measure", help="Measure some seconds too: speed, response time, how many may speak."),
]


@common_options(model="the published weights, else demo")
def doctor(common: Common, measure: Measure = False) -> None:
    """Look at this machine and at what is installed, and say what to type; ends with 1 on a problem."""
    from musetalk_cli.doctor.checks import all_checks
    from musetalk_cli.doctor.findings import Check, examine

    checks = all_checks(common.run)
    findings = list(examine(checks))
    if measure:
        findings += examine([Check("speed", lambda: _speed(common))], limit_s=MEASURE_S)
    if common.json:
        print_json([finding.as_json() for finding in findings])
    else:
        _show(findings)
    problems = [finding.name for finding in findings if finding.status == "problem"]
    if problems:
        count = "is 1 problem" if len(problems) == 1 else f"are {len(problems)} problems"
        raise MuseTalkError(f"There {count}: {', '.join(problems)}.", "What to do stands beside each.")


def _speed(common: Common) -> Sequence[Finding]:
    from musetalk_cli.doctor.measure import check_speed, measure

    return list(check_speed(measure(common.run, say)))


def _show(findings: Sequence[Finding]) -> None:
    target = console()
    with writing():
        target.print(table(findings, coloured=target.is_terminal))
    put(summary(findings))


def summary(findings: Sequence[Finding]) -> str:
    """How many there are of each status."""
    ok, warnings, problems = (sum(each.status == status for each in findings) for status in _COLOURS)
    return f"{ok} ok, {counted(warnings, 'warning')}, {counted(problems, 'problem')}."


def table(findings: Sequence[Finding], *, coloured: bool) -> Table:
    """Findings as they are shown: what to type stands under what was found."""
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("status", "name", "detail"):
        shown.add_column(column, overflow="fold", no_wrap=column == "status")
    for finding in findings:
        status = f"[{_COLOURS[finding.status]}]{finding.status}[/]" if coloured else finding.status
        detail = escape(printable(finding.detail))
        if finding.fix is not None:
            fix = escape(printable(finding.fix))
            detail += f"\n[cyan]{fix}[/]" if coloured else f"\n-> {fix}"
        shown.add_row(status, escape(printable(finding.name)), detail)
    return shown
