"""Options shared by the commands: one definition each."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from musetalk_cli.cli import job_options
from musetalk_cli.cli.log_lines import LogLines
from musetalk_cli.config import (
    DEFAULT_MODEL,
    DataFolder,
    DeviceName,
    PrecisionName,
    RunConfig,
    VaeName,
    default_folder,
)
from musetalk_cli.strict_json import dump
from musetalk_cli.text import PROGRESS, printable, redacted

log = logging.getLogger("musetalk_cli")


_common = functools.partial(typer.Option, rich_help_panel="Common options")
_SECRET = {"token", "ice_server"}
"""Options that hold a password."""
_DECIDED_LATER = {"model", "avatar", "audio"}
"""Options that, where they are left out, are decided and told by `musetalk_cli.run.defaults`."""

ModelsDir = Annotated[
    Path | None, _common("--models-dir", envvar="MUSETALK_MODELS", help="Folder of model weights.")
]
AvatarsDir = Annotated[
    Path | None, _common("--avatars-dir", envvar="MUSETALK_AVATARS", help="Folder of avatars.")
]
DeviceOption = Annotated[
    DeviceName, _common("--device", help="Where to compute; mps, the GPU of a Mac, is untried so far.")
]
PrecisionOption = Annotated[PrecisionName, _common("--precision", help="Number format of the networks.")]
VaeOption = Annotated[
    VaeName,
    _common(
        "--vae",
        help="What makes the pictures of faces: the model's own VAE, or taesd, which takes a small part of "
        "the time and makes a softer mouth.",
    ),
]
Json = Annotated[bool, _common("--json", help="Print the result as one JSON object.")]
Verbose = Annotated[
    bool, _common("--verbose", "-v", help="Say where every setting came from; show tracebacks.")
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an avatar of that name.")]


_RUN = RunConfig(DataFolder(Path("models"), "default"), DataFolder(Path("avatars"), "default"))
"""Both folders are looked for when a command runs."""


@dataclass(frozen=True)
class Common:
    """The common options of one call.

    Attributes:
        run: Where things are and what computes.
        json: Print one JSON object in place of tables.
        given: Names of the arguments that somebody chose, on the command line or in the environment.
    """

    run: RunConfig = field(default_factory=RunConfig)
    json: bool = False
    given: frozenset[str] = frozenset()


def common_options(
    *,
    json: bool = True,
    model: str = f"what the avatar was made for, else {DEFAULT_MODEL}",
    job: Sequence[str] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the common options; it receives them as its first argument, a `Common`.

    In the place of an argument `job`, a `JobConfig`, it gets the options that make one.

    Args:
        json: The command has the flag `--json`.
        model: What the help says is taken without `--model`.
        job: Names of these options, as in `job_options.OPTIONS`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        @functools.wraps(command)
        def wrapper(ctx: typer.Context, **values: Any) -> None:  # noqa: ANN401 - typer passes each option's own type
            shared = {name: values.pop(name) for name in options if name in values}
            common = _common_of(ctx, shared)
            if job:
                values["job"] = job_options.read({name: values.pop(name) for name in job})
            command(common, **values)

        options = {
            "models_dir": (ModelsDir, None),
            "avatars_dir": (AvatarsDir, None),
            "model": (_model_option(model), None),
            "device": (DeviceOption, _RUN.device),
            "precision": (PrecisionOption, _RUN.precision),
            **({"vae": (VaeOption, _RUN.vae)} if job else {}),
            **({"as_json": (Json, False)} if json else {}),
            "verbose": (Verbose, False),
        }
        keyword = inspect.Parameter.KEYWORD_ONLY
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        added = [
            inspect.Parameter(name, keyword, default=default, annotation=kind)
            for name, (kind, default) in options.items()
        ]
        parameters = [context]
        for parameter in own:
            made = job_options.parameters(job) if parameter.name == "job" else [parameter]
            parameters += [one.replace(kind=keyword) for one in made]
        parameters += added
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
    set_up_log(verbose=values["verbose"], as_json=ctx.params.get("log_json", False))
    run = RunConfig(
        models=_place(ctx, "models_dir", values["models_dir"], "models"),
        avatars=_place(ctx, "avatars_dir", values["avatars_dir"], "avatars"),
        model=values["model"],
        device=values["device"],
        precision=values["precision"],
        vae=values.get("vae", _RUN.vae),
    )
    log.debug("models: %s (%s)", run.models.path, run.models.origin)
    log.debug("avatars: %s (%s)", run.avatars.path, run.avatars.origin)
    for name, value in sorted(ctx.params.items()):
        if name in _SECRET and value is not None:
            value = "not shown"  # noqa: PLW2901 - no log holds it
        left_open = value is None and name in _DECIDED_LATER
        if name not in {"models_dir", "avatars_dir"} and not left_open:
            log.debug("%s: %s (%s)", name, value, _origin(ctx, name))
    given = frozenset(name for name in ctx.params if _origin(ctx, name) != "default")
    return Common(run, values.get("as_json", False), given)


def _place(ctx: typer.Context, option: str, given: Path | None, name: str) -> DataFolder:
    return default_folder(name) if given is None else DataFolder(given, _origin(ctx, option))


def _origin(ctx: typer.Context, option: str) -> str:
    source = ctx.get_parameter_source(option)
    return {"COMMANDLINE": "flag", "ENVIRONMENT": "environment"}.get(source.name if source else "", "default")


class _Printable(logging.Formatter):
    """Log lines in which nothing is obeyed by a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(printable(super().format(record), keep="\n"))


class _JsonLines(logging.Formatter):
    """One JSON object a line, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        told = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(printable(message, keep="\n")),
        }
        session = getattr(record, "session", None)
        return dump(told if session is None else told | {"session": session}, compact=True)


def set_up_log(*, verbose: bool, as_json: bool = False) -> None:
    """Logs go to stderr: progress and warnings always, what was decided with -v."""
    logging.addLevelName(PROGRESS, "PROGRESS")
    handler = LogLines(sys.stderr)
    text = _Printable("%(levelname)s: %(message)s" if verbose else "%(message)s")
    handler.setFormatter(_JsonLines() if as_json else text)
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.DEBUG if verbose else PROGRESS)
