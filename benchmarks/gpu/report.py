"""Everything that needs a real GPU, in one command of at most 9 minutes: `make gpu-report`.

    python benchmarks/gpu/report.py [--steps bench,soak,...] [--out DIR] [--minutes 9]

Writes NAME.json, NAME.md and NAME.svg beside this file, with the GPU's name. Needs no network, no weights,
and of packages torch, diffusers, transformers, numpy, opencv-python(-headless), pillow, safetensors,
huggingface-hub, soxr, platformdirs, typer and rich; for the tests pytest, hypothesis and soundfile too. Every
step is a process of its own with its own limit: one that fails, finds no memory or loses the GPU is written
down as such, and the next one begins. What is known is written after each step.

`--dry-run` does the same with tiny networks on the pretended GPU of `tests/pretended`: it tries this script.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu.render import markdown, plot
from benchmarks.gpu.step import GRACE_S, ROOT, Done, Step, environment, run_step

HERE = Path(__file__).parent
MINUTES = 9
FACTS = """
import json, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": None}
if torch.cuda.is_available():
    properties = torch.cuda.get_device_properties(0)
    found |= {"gpu": properties.name, "memory_bytes": properties.total_memory}
    found |= {"capability": f"{properties.major}.{properties.minor}", "cudnn": torch.backends.cudnn.version()}
    found |= {"multiprocessors": properties.multi_processor_count}
print(json.dumps(found))
"""
"""Asked of a process that ends: a context that stayed here would take memory of the GPU."""


@dataclass
class Report:
    """All of it.

    Attributes:
        machine: The GPU, its driver and what computes with it.
        dry_run: True where no GPU was measured.
        begun: Time of day in UTC.
        steps: What became of each.
    """

    machine: dict[str, object]
    dry_run: bool
    begun: str
    steps: list[Done] = field(default_factory=list)


def steps(model: str) -> list[Step]:
    """What is done, the most important first: what the first four may take together is there.

    Each warms up anew, where cuDNN measures its convolutions for every size of batch.

    Args:
        model: The networks.
    """
    common = ("--device", "cuda", "--model", model, "--json", "{json}")
    quick = ("bench", "--no-baseline", "--chunk", "0.5", "--seconds", "3", "--budget", "0.3")
    sizes = ("--batch-size", "13,16")
    return [
        Step("bench", 190, ("bench", "--precision", "fp16", "--seconds", "8", "--budget", "0.5", *common)),
        Step("soak", 130, ("bench", "soak", "--chunk", "0.5", "--seconds", "60", *common)),
        Step("tests", 120, ("-m", "gpu", "-q", "tests/gpu")),
        Step("profile", 70, (*quick, *sizes, "--profile", "{folder}", *common)),
        Step(
            "response",
            100,
            ("bench", "response", "--sound", "burst", "--utterances", "6", "--pause", "0.5", *common),
        ),
        Step("bf16", 50, (*quick, *sizes, "--precision", "bf16", *common)),
        Step("taesd", 50, (*quick, *sizes, "--vae", "taesd", *common)),
        Step("fp32", 60, (*quick, "--batch-size", "13", "--precision", "fp32", *common)),
    ]


def machine(python: str) -> dict[str, object]:
    """The GPU, its driver, and what computes with it; without a GPU its name is None."""
    asked = subprocess.run(
        [python, "-c", FACTS], capture_output=True, text=True, check=False, env=environment()
    )
    lines = asked.stdout.splitlines()
    found: dict[str, object] = json.loads(lines[-1]) if asked.returncode == 0 and lines else {"gpu": None}
    if asked.returncode != 0:
        found["said"] = (asked.stderr.splitlines() or ["nothing"])[-1]
    return found | {
        "driver": told("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "commit": os.environ.get("MUSETALK_COMMIT") or told("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        "changed": bool(told("git", "-C", str(ROOT), "status", "--porcelain")),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
    }


def told(*command: str) -> str | None:
    """The first line that a program prints; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout.splitlines() or [None])[0] if done.returncode == 0 else None


def write(report: Report, out: Path) -> Path:
    """Write all that is known so far; returns the JSON's path."""
    name = re.sub(r"[^a-z0-9]+", "-", str(report.machine["gpu"]).lower()).strip("-")
    out.mkdir(parents=True, exist_ok=True)
    plain = asdict(report)
    makers = {
        "json": lambda: json.dumps(plain, indent=1) + "\n",
        "md": lambda: markdown(plain, name),
        "svg": lambda: plot(plain),
    }
    for suffix, make in makers.items():
        try:
            text = make()
        except (KeyError, TypeError, ValueError, IndexError) as error:  # a step wrote something else
            print(f"{name}.{suffix} cannot be made of what was measured: {error!r}", file=sys.stderr)
            continue
        partial = out / f".{name}.{suffix}"
        partial.write_text(text)
        partial.rename(out / f"{name}.{suffix}")
    return out / f"{name}.json"


def run(
    report: Report, chosen: Sequence[Step], launcher: Sequence[str], folder: Path, out: Path, seconds: float
) -> Path:
    """Do steps until the time is over; what is known is written after each."""
    ends = time.monotonic() + seconds
    written = write(report, out)
    for step in chosen:
        left = ends - time.monotonic() - 2 * GRACE_S
        if left < GRACE_S:
            report.steps.append(Done(step.name, "left out", " ".join(step.arguments), step.limit_s))
        else:
            print(f"{step.name}: at most {min(step.limit_s, left):.0f} s", file=sys.stderr, flush=True)
            done = run_step(step, launcher, folder, min(step.limit_s, left))
            print(f"{step.name}: {done.status} after {done.seconds:g} s", file=sys.stderr, flush=True)
            report.steps.append(done)
        written = write(report, out)
    return written


def main() -> int:
    """Measure and write; returns the exit code: 1 without a GPU, 3 where a step failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", help="only these, by name, joined by commas")
    parser.add_argument("--out", type=Path, help="where the results go; beside this script if left out")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--model", help="random-v15 if left out, and small networks in a dry run")
    parser.add_argument("--dry-run", action="store_true", help="tiny networks on the pretended GPU")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a step that is under way ends too
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    launcher, everything = [sys.executable, "-m", "musetalk_cli"], steps(given.model or "random-v15")
    found = machine(sys.executable)
    if given.dry_run:
        launcher, everything = (
            [sys.executable, "-m", "pretended.command"],
            made_small(steps(given.model or SMALL_MODEL)),
        )
        found |= {"gpu": "dry run", "driver": None}
        given.out = given.out or ROOT / "build" / "gpu-report"
        given.minutes = max(given.minutes, len(everything) * SLOW_S / 60)
    elif found["gpu"] is None:
        why = f"PyTorch {found['torch']} finds no NVIDIA GPU" if "torch" in found else found["said"]
        print(f"error: Nothing can be measured here: {why}.", file=sys.stderr)
        return 1
    names = given.steps.split(",") if given.steps else [step.name for step in everything]
    if unknown := set(names) - {step.name for step in everything}:
        known = ", ".join(step.name for step in everything)
        parser.error(f"--steps: there is no {', '.join(sorted(unknown))}; there are {known}")
    chosen = [step for step in everything if step.name in names]
    report = Report(found, given.dry_run, begun)
    folder = ROOT / "build" / "gpu-report" / "steps"
    written = run(report, chosen, launcher, folder, given.out or HERE, given.minutes * 60)
    print(written)
    return 0 if all(step.status == "ok" for step in report.steps) else 3


SMALL_MODEL = "tests/data/golden/models"
SLOW_S = 600
"""What a step may take on the pretended GPU, which is some hundred times slower than one."""
SMALL = ("--frame-size", "128x96", "--face-size", "48", "--avatar-frames", "2", "--sharpen", "off")
SMALL += ("--fps", "5", "--batch-size", "1,2")
SMALL_BENCH = ("--budget", "0", "--seconds", "0.4", "--chunk", "0.2")


def made_small(everything: Sequence[Step]) -> list[Step]:
    """The same steps, cheap enough for the pretended GPU: of an option given twice the last counts."""
    less = {
        "tests": ("-k", "nothing_waits"),
        "soak": (*SMALL, "--seconds", "1", "--sessions", "1", "--chunk", "0.4"),
        "response": (*SMALL, "--utterances", "1", "--chunk", "0.4"),
    }
    return [
        replace(
            step,
            limit_s=SLOW_S,
            arguments=(*step.arguments, *less.get(step.name, (*SMALL, *SMALL_BENCH))),
        )
        for step in everything
    ]


if __name__ == "__main__":
    sys.exit(main())
