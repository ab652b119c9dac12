"""A report as a page and a picture; what was not measured is said so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

Plain = Mapping[str, Any]
GOALS = {"H200": 490.0, "H100": 400.0}
"""Frames a second that are asked of a GPU, by a part of its name."""
FIRST_FRAMES = 4
"""Of a live utterance, made before the rest of its chunk."""
FIRST_MS, LAST_MS, IMAGE_MS = 15.0, 40.0, 0.1
"""Of a chunk of 0.5 s at p99, and of the image steps of a frame."""


def markdown(report: Plain, name: str) -> str:
    """The page, whose picture has the same name."""
    machine = report["machine"]
    lines = [f"# {machine['gpu']}", ""]
    if report["dry_run"]:
        lines += ["**A dry run on a pretended GPU: no figure here is one of a GPU.**", ""]
    told = [
        f"driver {machine.get('driver')}",
        f"torch {machine.get('torch')}",
        f"CUDA {machine.get('cuda')}",
        f"Python {machine.get('python')}",
        f"commit {str(machine.get('commit'))[:12]}{' with changes' if machine.get('changed') else ''}",
        f"{report['begun']} UTC",
    ]
    lines += [
        "`make gpu-report`; " + ", ".join(told) + ". [How to read it](../../docs/bench.md).",
        "",
        f"![Frames a second by batch size]({name}.svg)",
        "",
    ]
    bench = figures(report, "bench")
    for part in (
        goals(machine, bench),
        batches(bench),
        stages(bench),
        image_steps(bench),
        precisions(report),
        chunks(bench),
        response(figures(report, "response")),
        soak(figures(report, "soak")),
        operators(figures(report, "profile")),
        steps(report),
    ):
        lines += part
    return "\n".join(lines).rstrip() + "\n"


def figures(report: Plain, step: str) -> Plain | None:
    """What a step measured; None where it did not."""
    found = [done["figures"] for done in report["steps"] if done["name"] == step]
    if not found or not isinstance(found[0], dict) or found[0].get("batches") == []:
        return None
    return found[0]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table with its title, or nothing where it has no rows."""
    if not rows:
        return []
    lines = [f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows]
    return [*lines, ""]


def image_ms(batch: Plain) -> float:
    """Milliseconds of all image steps of a batch, on the fastest path."""
    return min(sum(steps.values()) for steps in batch["image_ms"].values())


def goals(machine: Plain, bench: Plain | None) -> list[str]:
    """What was asked for, beside what was measured."""
    if bench is None:
        return []
    best = max(bench["batches"], key=lambda batch: batch["frames_per_s"])
    goal = next((value for part, value in GOALS.items() if part in str(machine["gpu"])), None)
    rate, each = best["frames_per_s"], image_ms(best) / best["size"]
    rows = [["frames/s", goal or "-", f"{rate:.0f}", verdict(rate, goal, more=True)]]
    rows.append(["image steps, ms a frame", IMAGE_MS, f"{each:.3f}", verdict(each, IMAGE_MS)])
    for chunk in bench["chunks"]:
        if chunk["chunk_s"] == 0.5:
            for which, goal_ms in (("first", FIRST_MS), ("last", LAST_MS)):
                took = chunk[f"{which}_frame_ms"]["p99"]
                name = f"{which} frame p99, chunk of 0.5 s as one batch, ms"
                rows.append([name, goal_ms, f"{took:.1f}", verdict(took, goal_ms)])
    # in those chunks nobody waits for the first frame; where somebody does it comes in a batch of its own
    for batch in bench["batches"]:
        if batch["size"] == FIRST_FRAMES:
            took = bench["features_ms"] + 1e3 * FIRST_FRAMES / batch["frames_per_s"]
            name = f"window and {FIRST_FRAMES} frames, which an utterance begins with, ms"
            rows.append([name, FIRST_MS, f"{took:.1f}", verdict(took, FIRST_MS)])
    return table("Against the goals", ["figure", "goal", "measured", ""], rows)


def verdict(value: float, goal: float | None, *, more: bool = False) -> str:
    """Whether a goal is met, where there is one."""
    if goal is None:
        return ""
    return "met" if (value >= goal if more else value <= goal) else "not met"


def batches(bench: Plain | None) -> list[str]:
    """By batch size."""
    rows = [
        [
            batch["size"],
            f"{batch['unet_ms']:.2f}",
            f"{batch['vae_ms']:.2f}",
            "-" if batch["graph_ms"] is None else f"{batch['graph_ms']:.2f}",
            f"{image_ms(batch):.3f}",
            f"{batch['frames_per_s']:.1f}",
            batch["sessions"],
            "-" if batch["published_fps"] is None else f"{batch['published_fps']:.1f}",
            f"{batch['roofline_fps']:.1f}",
            f"{100 * batch['roofline_share']:.0f} %",
        ]
        for batch in (bench or {"batches": ()})["batches"]
    ]
    columns = ["batch", "UNet ms", "VAE ms", "graphs ms", "image ms", "frames/s", "sessions"]
    return table("By batch size, fp16", [*columns, "published order", "roofline frames/s", "reached"], rows)


def stages(bench: Plain | None) -> list[str]:
    """Of the batch that holds a chunk of 0.5 s at 25 frames a second, or the largest."""
    if bench is None:
        return []
    batch = next((one for one in bench["batches"] if one["size"] >= 13), bench["batches"][-1])
    rows = []
    for stage in batch["stages"]:
        reached = stage["reached"]
        unit = "TFLOP/s" if reached and reached["bound"] == "matrix" else "GB/s"
        told = [f"{reached['rate']:.1f} {unit}", f"{100 * reached['share']:.0f} %"] if reached else ["-", "-"]
        rows.append([stage["name"], f"{stage['ms']:.3f}", f"{100 * stage['share']:.1f} %", *told])
    columns = ["stage", "ms", "share", "reached", "of the best of this run"]
    return table(f"Stages of a batch of {batch['size']}, fp16", columns, rows)


def image_steps(bench: Plain | None) -> list[str]:
    """The three steps of the article, and what there is besides."""
    if bench is None:
        return []
    batch = next((one for one in bench["batches"] if one["size"] >= 13), bench["batches"][-1])
    by_path, size = batch["image_ms"], batch["size"]
    names = dict.fromkeys(step for steps in by_path.values() for step in steps)

    def cell(path: str, step: str) -> str:
        return f"{by_path[path][step] / size:.4f}" if step in by_path[path] else "-"

    rows = [[step, *(cell(path, step) for path in by_path)] for step in names]
    return table("Image steps, ms a frame", ["step", *by_path], rows)


def precisions(report: Plain) -> list[str]:
    """The same networks in other number formats, and another decoder."""
    rows = []
    for step in ("bench", "bf16", "fp32", "taesd"):
        found = figures(report, step)
        for batch in () if found is None else found["batches"]:
            if batch["size"] in {13, 16}:
                told = (f"{batch[name]:.2f}" for name in ("unet_ms", "vae_ms"))
                label = "fp16" if step == "bench" else "fp16, --vae taesd" if step == "taesd" else step
                rows.append([label, batch["size"], *told, f"{batch['frames_per_s']:.1f}"])
    return table("By number format", ["format", "batch", "UNet ms", "VAE ms", "frames/s"], rows)


def chunks(bench: Plain | None) -> list[str]:
    """From a complete chunk to its frames."""
    rows = []
    for chunk in (bench or {"chunks": ()})["chunks"]:
        published = chunk["published"] or {}
        names = ("first_frame_ms", "last_frame_ms")
        each = [*(chunk[name] for name in names), *(published.get(name) for name in names)]
        rows.append([f"{chunk['chunk_s']:g} s", *map(times, each)])
    columns = ["chunk", "first frame", "last frame", "published first", "published last"]
    return table("Chunks, p50 / p95 / p99 in ms", columns, rows)


def times(each: Plain | None) -> str:
    """Three percentiles."""
    return "-" if each is None else f"{each['p50']:.1f} / {each['p95']:.1f} / {each['p99']:.1f}"


def response(found: Plain | None) -> list[str]:
    """How soon a live stream answers."""
    rows = []
    for run in (found or {"runs": ()})["runs"]:
        told = (run["sending"], times(run["response_ms"]), run["stalls"], run["dropped_frames"])
        rows.append([f"{run['chunk_s']:g} s", *told])
    columns = ["chunk", "sound", "response", "stalls", "left out"]
    return table("Response, p50 / p95 / p99 in ms", columns, rows)


def soak(found: Plain | None) -> list[str]:
    """Many sessions at once."""
    if found is None:
        return []
    told = [str(found["sessions"]), str(found["capacity"]), f"{found['seconds']:g} s"]
    told += [times(found[f"{name}_ms"]) for name in ("first_frame", "last_frame", "mouth_to_eye")]
    told += [f"{found['missed_deadlines']} of {found['frames']}", f"{100 * found['busy_share']:.0f} %"]
    told += [f"{found['grown_bytes'] / 2**20:.0f} MiB"]
    columns = ["sessions", "sustained", "time", "first frame", "last frame", "mouth to eye", "missed"]
    columns += ["device busy", "memory grew"]
    return table("Sessions at once, of the worst p50 / p95 / p99 in ms", columns, [told])


def operators(found: Plain | None) -> list[str]:
    """Those that take most."""
    profile = (found or {}).get("profile")
    if profile is None:
        return []
    rows = [
        [f"`{one['name'][:70]}`", one["calls"], f"{one['ms']:.2f}", f"{100 * one['share']:.1f} %"]
        for one in profile["operators"]
    ]
    title = f"Operators of {profile['batches']} batches of {profile['size']}"
    return table(title, ["operator", "calls", "ms", "share"], rows)


def steps(report: Plain) -> list[str]:
    """What was done; of what failed, its last line."""
    rows = []
    for done in report["steps"]:
        speaks = done["status"] != "ok" or done["name"] == "tests"
        said = what_matters(done["said"])[:200] if speaks else ""
        rows.append([done["name"], done["status"], f"{done['seconds']:g} of {done['limit_s']:g} s", said])
    return table("Steps", ["step", "result", "time", "said"], rows)


def what_matters(said: str) -> str:
    """The line of an error, where there is one, else the last line."""
    lines = said.splitlines() or [""]
    return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1])


# -- the picture ---------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 360, 60, 50, 40
OURS, PUBLISHED, BEST = "#1f6f8b", "#c9a227", "#8b1e3f"


def plot(report: Plain) -> str:
    """Frames a second by batch size as SVG: ours, the published order, and what the best would be."""
    bench = figures(report, "bench")
    nothing = _text(WIDTH / 2, HEIGHT / 2, "not measured", "middle")
    body = "".join(_bars(bench["batches"])) if bench else nothing
    title = _text(LEFT, 20, f"Frames a second by batch size: {report['machine']['gpu']}", "start")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{title}{body}</svg>\n'
    )


def _bars(found: Sequence[Plain]) -> Iterator[str]:
    most = max(max(batch["frames_per_s"], batch["roofline_fps"]) for batch in found) or 1.0
    high, step = HEIGHT - TOP - BOTTOM, (WIDTH - LEFT - 20) / len(found)
    base = HEIGHT - BOTTOM
    for number, batch in enumerate(found):
        x, wide = LEFT + number * step, step * 0.3
        for place, (name, colour) in enumerate((("frames_per_s", OURS), ("published_fps", PUBLISHED))):
            if batch[name] is None:
                continue
            tall, left = high * batch[name] / most, x + step * (0.15 + 0.35 * place)
            yield (
                f'<rect x="{left:.1f}" y="{base - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}" '
                f'fill="{colour}"/>'
            )
            yield _text(left + wide / 2, base - tall - 4, f"{batch[name]:.3g}", "middle")
        y = base - high * batch["roofline_fps"] / most
        yield (
            f'<line x1="{x + step * 0.1:.1f}" x2="{x + step * 0.9:.1f}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{BEST}" stroke-width="2"/>'
        )
        yield _text(x + step / 2, base + 16, str(batch["size"]), "middle")
    yield f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{base}" y2="{base}" stroke="black"/>'
    names = ("ours", "published order", "UNet and VAE at the hardware's best")
    for place, (name, colour) in enumerate(zip(names, (OURS, PUBLISHED, BEST), strict=True)):
        x = LEFT + 170 * place
        yield f'<rect x="{x}" y="{HEIGHT - 22}" width="12" height="12" fill="{colour}"/>'
        yield _text(x + 18, HEIGHT - 12, name, "start")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
