"""Options and output that the benchmarks share."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from musetalk_cli import strict_json
from musetalk_cli.bench.options import SIDES, AvatarSizes, PreparingOptions
from musetalk_cli.cli.interrupt import stop_on_signals
from musetalk_cli.cli.render import mebibytes, print_json, put
from musetalk_cli.errors import InputError, OutputError

if TYPE_CHECKING:
    from musetalk_cli.live.control import ControlHandle
    from musetalk_cli.measure.stages import Percentiles
    from musetalk_cli.run.report import Report

JsonFile = Annotated[
    str | None, typer.Option("--json", metavar="FILE|-", help="Write the figures to this file.")
]
FrameSize = Annotated[str, typer.Option("--frame-size", metavar="WxH", help="Size of the synthetic frame.")]
FaceSize = Annotated[int, typer.Option("--face-size", help="Rows of the synthetic face's box.")]
AvatarFrames = Annotated[
    int, typer.Option("--avatar-frames", min=1, max=2000, help="Forward frames of the synthetic avatar.")
]
Baseline = Annotated[
    bool,
    typer.Option("--baseline/--no-baseline", help="Measure the published order of work too, to compare."),
]


class Figures(Protocol):
    """What a benchmark found."""

    def as_json(self) -> Mapping[str, object]:
        """All of it, for a machine."""


F = TypeVar("F", bound=Figures)


def run_live(measure: Callable[[ControlHandle], F], show: Callable[[F], None], json: str | None) -> None:
    """Measure live streams, and show and write the figures.

    Args:
        measure: Does it; a signal ends its streams by the handle.
        show: Prints tables; left out where the JSON takes stdout.
        json: As for `write_json`.

    Raises:
        KeyboardInterrupt: A signal came; what was measured until then is shown and written.
    """
    with stop_on_signals() as handle:
        result = measure(handle)
        interrupted = handle.stop.is_set()
    if json != "-":
        show(result)
    write_json(json, result.as_json())
    if interrupted:
        raise KeyboardInterrupt


def spread(times: Percentiles) -> str:
    """Percentiles in a cell of a table."""
    return f"{times.p50:.0f} / {times.p95:.0f} / {times.p99:.0f}"


def put_machine(report: Report) -> None:
    """Print what computed a stream, and the memory that took."""
    put(
        f"{report.device}, {report.settings['precision']}, model {report.settings['model']}; peak memory "
        f"{mebibytes(report.peak_host_bytes)} host, {mebibytes(report.peak_device_bytes)} device"
    )


def size_text(options: AvatarSizes | PreparingOptions) -> str:
    """The size of a frame as `--frame-size` takes it."""
    return f"{options.width}x{options.height}"


_SIZES = AvatarSizes()
_SIZE_OPTIONS = {
    "frame_size": (FrameSize, size_text(_SIZES)),
    "face_size": (FaceSize, _SIZES.face),
    "avatar_frames": (AvatarFrames, _SIZES.frames),
}


def takes_sizes(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in the place of its argument `sizes`, the options that make one.

    Raises:
        InputError: The size of a frame is not understood; raised by the command.
    """
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def wrapper(
        *arguments: Any,  # noqa: ANN401 - the command's own
        frame_size: str,
        face_size: int,
        avatar_frames: int,
        **values: Any,  # noqa: ANN401
    ) -> None:
        width, height = parse_size(frame_size)
        sizes = AvatarSizes(width=width, height=height, face=face_size, frames=avatar_frames)
        command(*arguments, sizes=sizes, **values)

    made = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _SIZE_OPTIONS.items()
    ]
    own = signature.parameters.values()
    parameters = [one for each in own for one in (made if each.name == "sizes" else [each])]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapper


def parse_size(text: str) -> tuple[int, int]:
    """Read `1280x720` as columns and rows, each in 32..8192.

    Raises:
        InputError: It is something else.
    """
    parts, (low, high) = text.lower().split("x"), SIDES
    if len(parts) != 2 or not all(part.isdecimal() and low <= int(part) <= high for part in parts):
        raise InputError(f"--frame-size {text} is not a size in {low}..{high}.", "Write it like 1280x720.")
    return int(parts[0]), int(parts[1])


def check_json(target: str | None) -> None:
    """Refuse a file that cannot be written, before any work.

    Raises:
        OutputError: Its folder is not there or takes no file.
    """
    if target not in {None, "-"}:
        from musetalk_cli.sinks.checks import check_parent

        check_parent(Path(str(target)), "--json")


def write_json(target: str | None, figures: Mapping[str, object]) -> None:
    """Write figures and the command that gave them to a file, to stdout for `-`, or nowhere.

    Raises:
        OutputError: The file cannot be written.
    """
    if target is None:
        return
    command = " ".join(["musetalk", *sys.argv[1:]])
    value = {"command": command, **figures}
    if target == "-":
        print_json(value)
        return
    try:
        Path(target).write_text(strict_json.dump(strict_json.finite(value), indent=2) + "\n")
    except OSError as error:
        raise OutputError(
            f"--json {target} cannot be written: {error.strerror}.", "Choose another file."
        ) from error
