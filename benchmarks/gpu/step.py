"""A step of the report: a process of its own with a limit of its own, and what became of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAID_LINES, SAID_CHARS = 20, 4000
"""What is kept of what a step said last."""
GRACE_S = 5
"""Seconds that a step has to end after it was asked to."""


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        name: Its name, and that of its file.
        limit_s: Seconds that it may take.
        arguments: Of `musetalk`, or of pytest where it is `tests`; `{json}` is its file, `{folder}` a folder.
    """

    name: str
    limit_s: float
    arguments: tuple[str, ...]


@dataclass
class Done:
    """What became of a step.

    Attributes:
        name: Which.
        status: `ok`, `failed`, `timed out`, or `left out` where no time was left.
        command: What was called.
        limit_s: Seconds that it might take.
        seconds: That it took.
        exit_code: What it ended with; None where it did not by itself.
        said: Its last lines.
        figures: What it wrote, or None.
    """

    name: str
    status: str
    command: str
    limit_s: float
    seconds: float = 0.0
    exit_code: int | None = None
    said: str = ""
    figures: object = None


def run_step(step: Step, launcher: Sequence[str], folder: Path, limit_s: float) -> Done:
    """Do a step, and tell what became of it, whatever that is.

    Args:
        step: The step.
        launcher: What `musetalk` is called by; the tests are called by its Python.
        folder: Where its files go.
        limit_s: Seconds that it may take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result, log = folder / f"{step.name}.json", folder / f"{step.name}.log"
    result.unlink(missing_ok=True)
    places = {"{json}": str(result), "{folder}": str(folder / step.name)}
    filled = [places.get(one, one) for one in step.arguments]
    before = [launcher[0], "-m", "pytest"] if step.name == "tests" else list(launcher)
    done = Done(step.name, "failed", " ".join(filled), step.limit_s)
    begun = time.monotonic()
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*before, *filled],
            cwd=ROOT,
            env=environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            done.exit_code = process.wait(limit_s)
            done.status = "ok" if done.exit_code == 0 else "failed"
        except subprocess.TimeoutExpired:
            done.status = "timed out"
        finally:
            end(process)
    done.seconds = round(time.monotonic() - begun, 1)
    done.said = last_lines(log)
    done.figures = figures(result)
    return done


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, if it has not ended, and all that it started and left."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment() -> dict[str, str]:
    """What a step runs in: this tree's packages first, and nothing is fetched."""
    path = [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1"}


def last_lines(log: Path) -> str:
    """The end of what was said, without what a terminal would obey."""
    text = log.read_bytes()[-SAID_CHARS:].decode(errors="replace")
    clean = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|[^\n\x20-\x7e]", "", text)
    return "\n".join(clean.splitlines()[-SAID_LINES:])


def figures(path: Path) -> object:
    """What a step wrote; None where it wrote nothing that is whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
