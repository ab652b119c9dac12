"""Options shared by the commands: one definition each."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from musetalk_cli.config import (
    BATCH_SIZES,
    DEFAULT_MODEL,
    DataFolder,
    DeviceName,
    ImageOpsName,
    JobConfig,
    PrecisionName,
    RunConfig,
    Sharpen,
    default_folder,
)
from musetalk_cli.errors import InputError
from musetalk_cli.text import PROGRESS, printable, redacted
from musetalk_cli.timeline import FPS_LIMITS, Alignment, seconds_text

log = logging.getLogger("musetalk_cli")


_common = functools.partial(typer.Option, rich_help_panel="Common options")
_DECIDED_LATER = {"model", "avatar", "audio"}
"""Options that, where they are left out, are decided and told by `musetalk_cli.run.defaults`."""

ModelsDir = Annotated[
    Path | None, _common("--models-dir", envvar="MUSETALK_MODELS", help="Folder of model weights.")
]
AvatarsDir = Annotated[
    Path | None, _common("--avatars-dir", envvar="MUSETALK_AVATARS", help="Folder of avatars.")
]
DeviceOption = Annotated[DeviceName, _common("--device", help="Where to compute.")]
PrecisionOption = Annotated[PrecisionName, _common("--precision", help="Number format of the networks.")]
Json = Annotated[bool, _common("--json", help="Print the result as one JSON object.")]
Verbose = Annotated[
    bool, _common("--verbose", "-v", help="Say where every setting came from; show tracebacks.")
]

Fps = Annotated[
    str,
    typer.Option("--fps", metavar="NUMBER", help=f"Frames per second, {FPS_LIMITS}, like 25 or 30000/1001."),
]
AlignmentOption = Annotated[
    Alignment,
    typer.Option(
        "--alignment",
        help="Which sound a frame hears: that around its start, or what the published code takes. "
        "At 25 fps both are the same.",
    ),
]
SharpenOption = Annotated[
    str,
    typer.Option(
        "--sharpen", metavar="on|off|AMOUNT[,SIGMA[,THRESHOLD]]", help="Unsharp mask of the resized face."
    ),
]
SilenceOption = Annotated[
    str,
    typer.Option(
        "--silence",
        metavar="LEVEL|off",
        help="Sound below this level is silence, in which the face rests; off makes every frame.",
    ),
]
ImageOpsOption = Annotated[
    ImageOpsName, typer.Option("--image-ops", help="Where resize, sharpen and blend run.")
]
BatchSize = Annotated[
    str, typer.Option("--batch-size", metavar="auto|N[,N...]", help="Sizes that a batch of frames may have.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an avatar of that name.")]


JOB = JobConfig()
"""What is taken where an option is left out; below it what has another form on the command line."""
FPS = str(JOB.fps)
CHUNK = seconds_text(JOB.chunk)
CONTEXT = "max" if JOB.context is None else seconds_text(JOB.context)
WINDOW = None if JOB.window is None else seconds_text(JOB.window)
SILENCE = "off" if JOB.silence is None else str(JOB.silence)
SHARPEN = "off" if JOB.sharpen is None else "on" if JOB.sharpen == Sharpen() else str(JOB.sharpen)
BATCH_SIZE = "auto" if JOB.batch_sizes is None else ",".join(map(str, JOB.batch_sizes))
_RUN = RunConfig(DataFolder(Path("models"), "default"), DataFolder(Path("avatars"), "default"))
"""Both folders are looked for when a command runs."""


@dataclass(frozen=True)
class Common:
    """The common options of one call.

    Attributes:
        run: Where things are and what computes.
        json: Print one JSON object in place of tables.
    """

    run: RunConfig = field(default_factory=RunConfig)
    json: bool = False


def common_options(
    *, json: bool = True, model: str = f"what the avatar was made for, else {DEFAULT_MODEL}"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the common options; it receives them as its first argument, a `Common`.

    Args:
        json: The command has the flag `--json`.
        model: What the help says is taken without `--model`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        @functools.wraps(command)
        def wrapper(ctx: typer.Context, **values: Any) -> None:  # noqa: ANN401 - typer passes each option's own type
            shared = {name: values.pop(name) for name in options if name in values}
            command(_common_of(ctx, shared), **values)

        options = {
            "models_dir": (ModelsDir, None),
            "avatars_dir": (AvatarsDir, None),
            "model": (_model_option(model), None),
            "device": (DeviceOption, _RUN.device),
            "precision": (PrecisionOption, _RUN.precision),
            **({"as_json": (Json, False)} if json else {}),
            "verbose": (Verbose, False),
        }
        keyword = inspect.Parameter.KEYWORD_ONLY
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        added = [
            inspect.Parameter(name, keyword, default=default, annotation=kind)
            for name, (kind, default) in options.items()
        ]
        parameters = [context, *(parameter.replace(kind=keyword) for parameter in own), *added]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def _model_option(default: str) -> object:
    """The option `--model`, whose default depends on the command and is told in words."""
    return Annotated[
        str | None,
        _common(
            "--model",
            metavar="v15|v1|demo|PATH",
            help="Networks to use; random-v15 is for measuring only.",
            show_default=default,
        ),
    ]


def _common_of(ctx: typer.Context, values: dict[str, Any]) -> Common:
    set_up_log(verbose=values["verbose"])
    run = RunConfig(
        models=_place(ctx, "models_dir", values["models_dir"], "models"),
        avatars=_place(ctx, "avatars_dir", values["avatars_dir"], "avatars"),
        model=values["model"],
        device=values["device"],
        precision=values["precision"],
    )
    log.debug("models: %s (%s)", run.models.path, run.models.origin)
    log.debug("avatars: %s (%s)", run.avatars.path, run.avatars.origin)
    for name, value in sorted(ctx.params.items()):
        left_open = value is None and name in _DECIDED_LATER
        if name not in {"models_dir", "avatars_dir"} and not left_open:
            log.debug("%s: %s (%s)", name, value, _origin(ctx, name))
    return Common(run, values.get("as_json", False))


def _place(ctx: typer.Context, option: str, given: Path | None, name: str) -> DataFolder:
    return default_folder(name) if given is None else DataFolder(given, _origin(ctx, option))


def _origin(ctx: typer.Context, option: str) -> str:
    source = ctx.get_parameter_source(option)
    return {"COMMANDLINE": "flag", "ENVIRONMENT": "environment"}.get(source.name if source else "", "default")


class _Printable(logging.Formatter):
    """Log lines in which nothing is obeyed by a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(printable(super().format(record), keep="\n"))


def set_up_log(*, verbose: bool) -> None:
    """Logs go to stderr: progress and warnings always, what was decided with -v."""
    logging.addLevelName(PROGRESS, "PROGRESS")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(levelname)s: %(message)s" if verbose else "%(message)s"))
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.DEBUG if verbose else PROGRESS)


def parse_batch_sizes(text: str) -> tuple[int, ...] | None:
    """Read `1,4,8` as ascending sizes; `auto`, what suits the device, is None.

    Raises:
        InputError: A size is not a whole number in 1..256.
    """
    if text == "auto":
        return None
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise InputError(f"--batch-size {text} is not understood.", "Write it like 1,4,8.") from None
    least, most = BATCH_SIZES
    if not least <= sizes[0] <= sizes[-1] <= most:
        raise InputError(f"--batch-size {text} is outside {least}..{most}.", "Write it like 1,4,8.")
    return tuple(sizes)
