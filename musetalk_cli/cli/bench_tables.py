"""What `musetalk bench` shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from musetalk_cli.cli.bench_options import put_machine
from musetalk_cli.cli.render import print_table, put

if TYPE_CHECKING:
    from musetalk_cli.bench.batch import BatchResult
    from musetalk_cli.bench.compare import Comparison
    from musetalk_cli.bench.measure import Reached
    from musetalk_cli.bench.predict import Prediction
    from musetalk_cli.bench.profiling import Profile
    from musetalk_cli.bench.run import BenchResult
    from musetalk_cli.measure.stages import Percentiles

ARTICLE = {"resize": ("5-10", "1-2"), "sharpen": ("8-15", "2-4"), "blend": ("10-20", "3-5")}
"""Milliseconds a frame of the three image steps, on a CPU and on an A100, as a published article has them."""
NONE = "-"


def show_bench(result: BenchResult) -> None:
    """All tables, those that were asked for among them."""
    _show_batches(result)
    _show_stages(_of_a_chunk(result))
    _show_image_steps(_of_a_chunk(result))
    _show_chunks(result)
    _show_summary(result)
    if result.profile is not None:
        _show_profile(result.profile)
    if result.prediction is not None:
        _show_prediction(result.prediction)
    if result.comparison is not None:
        _show_comparison(result.comparison)


def _of_a_chunk(result: BenchResult) -> BatchResult:
    """The smallest batch that takes the longest chunk, or the largest there is."""
    frames = max((chunk.report.chunk_s * chunk.report.fps for chunk in result.chunks), default=1.0)
    return next((batch for batch in result.batches if batch.size >= frames), result.batches[-1])


def _show_batches(result: BenchResult) -> None:
    rows = []
    for batch in result.batches:
        images = [f"{sum(batch.image_ms[path].values()):.2f}" for path in (batch.device_path, "cpu")]
        published = NONE if batch.published_fps is None else f"{batch.published_fps:.2f}"
        rows.append(
            [
                str(batch.size),
                f"{batch.unet_ms:.1f}",
                f"{batch.vae_ms:.1f}",
                NONE if batch.graph_ms is None else f"{batch.graph_ms:.1f}",
                *images,
                f"{batch.frames_per_s:.2f}",
                str(batch.sessions),
                published,
                f"{batch.roofline_fps:.2f}",
                f"{100 * batch.roofline_share:.0f} %",
            ]
        )
    path = "GPU" if result.batches[0].device_path == "gpu" else "tensor"
    fps = float(result.chunks[-1].report.fps) if result.chunks else 25.0
    columns = ["batch", "UNet ms", "VAE ms", "graphs ms", f"image {path} ms", "image CPU ms", "frames/s"]
    columns += [f"sessions at {fps:g} fps", "published order", "roofline frames/s", "reached"]
    print_table("By batch size", columns, rows)


def _show_stages(batch: BatchResult) -> None:
    rows = [
        [
            stage.name,
            f"{stage.ms:.2f}",
            f"{100 * stage.share:.1f} %",
            f"{stage.gflop:.1f}" if stage.gflop else NONE,
            *_reached(stage.reached),
        ]
        for stage in batch.stages
    ]
    columns = ["stage", "ms", "share", "GFLOP", "reached", "limit", "of the hardware's best"]
    print_table(f"Stages of a batch of {batch.size}", columns, rows)


def _reached(reached: Reached | None) -> tuple[str, str, str]:
    if reached is None:
        return NONE, NONE, NONE
    unit = "TFLOP/s" if reached.bound == "matrix" else "GB/s"
    limit = {"matrix": "arithmetic", "memory": "memory", "link": "way to the host"}[reached.bound]
    return f"{reached.rate:.2f} {unit}", limit, f"{100 * reached.share:.0f} %"


def _show_image_steps(batch: BatchResult) -> None:
    """As in the article's table: milliseconds a frame; what was not measured here is a dash."""

    def figure(path: str, step: str) -> str:
        steps = batch.image_ms.get(path)
        return NONE if steps is None or step not in steps else f"{steps[step] / batch.size:.3f}"

    rows = [
        [step, *(figure(path, step) for path in ("cpu", "tensor", "gpu")), *ARTICLE.get(step, (NONE, NONE))]
        for step in batch.image_ms["cpu"]
    ]
    columns = ["step", "CPU", "tensors on the CPU", "GPU", "the article's CPU", "the article's GPU"]
    print_table(f"Image steps, ms a frame, in batches of {batch.size}", columns, rows)


def _show_chunks(result: BenchResult) -> None:
    rows = []
    for chunk in result.chunks:
        report, published = chunk.report, chunk.published
        rows.append(
            [
                f"{report.chunk_s:g} s",
                _times(report.first_frame_ms),
                _times(report.last_frame_ms),
                *(
                    (NONE, NONE)
                    if published is None
                    else (_times(published.first_frame_ms), _times(published.last_frame_ms))
                ),
                f"{report.throughput_fps:.1f}",
                f"{report.real_time_factor:.3f}",
            ]
        )
    columns = ["chunk", "first frame", "last frame", "published first", "published last"]
    title = "Chunks, p50 / p95 / p99 in ms from a complete chunk to a frame in host memory"
    print_table(title, [*columns, "frames/s", "real-time factor"], rows)


def _times(times: Percentiles) -> str:
    return f"{times.p50:.1f} / {times.p95:.1f} / {times.p99:.1f}"


def _show_summary(result: BenchResult) -> None:
    roofline = result.roofline
    put("; ".join(_peaks(result)))
    last = result.chunks[-1].report if result.chunks else None
    if last is not None:
        put_machine(last)
    if roofline.link_gbytes_per_s is None:
        put("No GPU was measured.")


def _peaks(result: BenchResult) -> Iterator[str]:
    roofline = result.roofline
    yield f"{result.gflop_per_frame:.1f} GFLOP a frame"
    yield f"one large matrix product {roofline.tflops:.2f} TFLOP/s"
    yield f"one copy {roofline.gbytes_per_s:.1f} GB/s"
    if roofline.link_gbytes_per_s is not None:
        yield f"to the host {roofline.link_gbytes_per_s:.1f} GB/s"
    yield f"features {result.features_ms:.1f} ms a window"


def _show_profile(profile: Profile) -> None:
    rows = [
        [one.name, str(one.calls), f"{one.ms:.2f}", f"{100 * one.share:.1f} %"] for one in profile.operators
    ]
    title = f"Operators of {profile.batches} batches of {profile.size}, without what they call"
    print_table(title, ["operator", "calls", "ms", "share"], rows)
    put(f"trace: {profile.trace}")


def _show_prediction(prediction: Prediction) -> None:
    model = prediction.model
    rows = [
        [
            str(batch.size),
            f"{batch.unet_ms:.1f}",
            f"{batch.vae_ms:.1f}",
            f"{batch.image_ms:.2f}",
            str(batch.kernels),
            f"{batch.frames_per_s:.0f}",
        ]
        for batch in prediction.batches
    ]
    columns = ["batch", "UNet ms", "VAE ms", "image ms", "kernels", "frames/s"]
    print_table(f"PREDICTED, not measured: {model.sheet.name}", columns, rows)
    put(
        f"assumed: {model.launch_s * 1e6:g} us a kernel, {100 * model.matrix_share:g} % of "
        f"{model.sheet.tflops:g} TFLOP/s and {100 * model.memory_share:g} % of {model.sheet.gbytes_per_s:g} "
        f"GB/s ({model.sheet.source})"
    )


def _show_comparison(comparison: Comparison) -> None:
    rows = [
        [
            row.name,
            f"{row.before:.4g}",
            f"{row.after:.4g}",
            f"{row.ratio:.2f}",
            "worse" if row.is_worse(comparison.tolerance) else "",
        ]
        for row in comparison.rows
    ]
    columns = ["figure", "before", "after", "after / before", ""]
    print_table(f"Beside {comparison.path}, tolerance {100 * comparison.tolerance:g} %", columns, rows)
