"""The figures that the pages show are those of the committed files."""

import json
from pathlib import Path
from statistics import median

import pytest

from benchmarks.page_sync import Sync

ROOT = Path(__file__).parents[1]


def figures(name):
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())


def times(percentiles, *names):
    return " / ".join(f"{percentiles[name]:.0f}" for name in names) + " ms"


def responses():
    for name in ("response-cpu-demo", "response-cpu-demo-ten-minutes"):
        for run in figures(name)["runs"]:
            dropped = f"{run['dropped_frames']} of {run['frames']} frames"
            yield f"| {times(run['response_ms'], 'p50', 'p95')} | {run['stalls']} | {dropped} |"


def first_words():
    """What the README says of the response time before anything else."""
    for run in figures("response-cpu-demo")["runs"]:
        yield f" {times(run['response_ms'], 'p50')} where "


def chunks():
    for run in figures("realtime-chunks-cpu-demo")["runs"]:
        latencies = ("first_frame_ms", "last_frame_ms", "mouth_to_eye_ms")
        cells = [times(run[name], "p50", "p95", "p99") for name in latencies]
        counts = [f"{run['missed_deadlines']}", f"{run['dropped_frames']}", f"{run['real_time_factor']:.2f}"]
        yield f"| {run['chunk_s']:g} s | {' | '.join(cells + counts)} |"


def streams():
    for run in (figures("realtime-cpu-demo"), figures("bench-cpu-demo")["chunks"][0]):
        last = run["last_frame_ms"]
        yield f"| {run['real_time_factor']:.2f} | {times(last, 'p50')} | {times(last, 'p95')} |"


def full_size():
    for batch in figures("bench-cpu-random-v15")["batches"]:
        image = sum(batch["image_ms"]["cpu"].values())
        cells = f"{batch['unet_ms']:.0f} | {batch['vae_ms']:.0f} | {image:.1f} | {batch['frames_per_s']:.2f}"
        yield f"| {batch['size']} | {cells} |"


def preparations():
    runs = figures("prepare-cpu-demo")["runs"]
    for ours, published in zip(runs[::2], runs[1::2], strict=True):
        speeds = " | ".join(f"{run['frames_per_s']:.1f} frames/s" for run in (ours, published))
        peaks = " | ".join(f"{run['beyond_models_bytes'] / (1 << 20):.0f} MiB" for run in (ours, published))
        yield f"| {ours['frames']} | {speeds} | {peaks} |"


def services():
    for path in sorted((ROOT / "benchmarks").glob("serve-*.json")):
        load = figures(path.stem)
        response, share = f"{load['response_p50_ms']:.0f}", f"{load['server_cpu_share']:.2f}"
        several = f"{response} / {load['response_p95_ms']:.0f} ms"
        yield f"| {several if load['responses'] > 1 else f'{response} ms (one utterance)'} | {share} |"


def mouths_beside_sound():
    for name, count, told in (
        ("demo", 10, "{:.0f} ms after the sound (median of ten rounds; {:.0f} to {:.0f} ms;"),
        ("loud", 6, "{:.0f} ms in the six rounds that could be compared (median; {:.0f} to {:.0f} ms)"),
    ):
        rounds = [Sync(**each) for each in figures(f"page-sync-cpu-{name}")]
        apart = [each.mouth_after_sound_ms for each in rounds if each.fits]
        assert len(apart) == count
        yield told.format(median(apart), min(apart), max(apart))


def batches():
    given, seconds = (figures("batch-cpu-demo")[name] for name in ("given", "seconds"))
    for (each,) in seconds.values():
        yield f"| {each:.1f} | {60 * given['jobs'] / each:.1f} |"


TABLES = (
    responses,
    first_words,
    chunks,
    streams,
    full_size,
    preparations,
    services,
    mouths_beside_sound,
)


@pytest.mark.parametrize(
    ("page", "rows"), [*(("README.md", rows) for rows in TABLES), ("docs/batch.md", batches)]
)
def test_a_table_shows_what_was_measured(page, rows):
    text = " ".join((ROOT / page).read_text().split())
    assert [row for row in rows() if row not in text] == []
