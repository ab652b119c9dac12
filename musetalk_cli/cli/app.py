"""The commands put together, and the one place where errors end."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from musetalk_cli import __version__
from musetalk_cli.budget import is_out_of_memory, out_of_memory
from musetalk_cli.cli import avatars, batch, bench, doctor, generate, models, prepare, realtime, serve
from musetalk_cli.cli.interrupt import INTERRUPTED
from musetalk_cli.cli.realtime_options import RealtimeCommand
from musetalk_cli.cli.render import after_log, put, show_error, unwritten
from musetalk_cli.errors import InputError, MuseTalkError
from musetalk_cli.text import printable, redacted, shortened

_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)


LONGEST_ARGUMENT = 4096
"""Characters, as many as a path may have."""


class _Commands(TyperGroup):
    """The commands; in a usage error nothing of what was typed is obeyed by the terminal."""

    def make_context(self, info_name: Any, args: list[str], *rest: Any, **extra: Any) -> Any:  # noqa: ANN401
        with _printable_usage():
            _check(args)
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - passed on as it is
        with _printable_usage():
            return super().invoke(ctx)


def _check(args: list[str]) -> None:
    """Refuse what is no value of any option: no path, name or number is empty, or that long."""
    for before, arg in itertools.pairwise(["musetalk", *args]):
        if not arg:
            raise InputError(f"The argument after {before} is empty.", "Give it a value.")
        if re.fullmatch(r"--[a-z-]+=", arg):
            raise InputError(f"{arg[:-1]} is empty.", "Give it a value.")
        if len(arg) > LONGEST_ARGUMENT:
            raise _UsageError(
                f"An argument has {len(arg)} characters, at most {LONGEST_ARGUMENT} are taken: {arg[:40]}..."
            )


@contextlib.contextmanager
def _printable_usage() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        error.message = shortened(redacted(printable(error.message, keep="\n")))
        raise


app = typer.Typer(
    name="musetalk",
    cls=_Commands,
    help="Make a prepared face speak, in real time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("prepare-avatar")(prepare.prepare_avatar)
app.add_typer(avatars.app, name="avatars")
app.command("generate")(generate.generate)
app.command("batch")(batch.batch)
app.command("realtime", cls=RealtimeCommand)(realtime.realtime)
app.command("serve")(serve.serve)
app.command("doctor")(doctor.doctor)
app.add_typer(bench.app, name="bench")
app.add_typer(models.app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        put(f"musetalk {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def run() -> int:
    """Run the command that was asked for; returns the exit code."""
    _open_streams()
    code = _run()
    after_log()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return code or 1
    except OSError as error:
        _forget_stdout()
        return code or _failed(unwritten(error))
    return code


def _run() -> int:
    try:
        app(prog_name="musetalk")
    except MuseTalkError as error:
        return _failed(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        failure = _failure(error)
        failure.__cause__ = error
        return _failed(failure)
    return 0


def _open_streams() -> None:
    """Open what the caller closed, and let no character be too much for a stream."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as the program runs
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _forget_stdout() -> None:
    """Let what is left in a standard output that cannot be written go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failure(error: Exception) -> MuseTalkError:
    if is_out_of_memory(error):
        return out_of_memory()
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, (str, bytes)):
        return MuseTalkError(f"{os.fsdecode(error.filename)}: {error.strerror}.")
    return _unexpected(error)


def _unexpected(error: Exception) -> MuseTalkError:
    return MuseTalkError(f"Unexpected {type(error).__name__}: {error}.", "Run it again with -v to see where.")


def _failed(error: MuseTalkError) -> int:
    show_error(error, trace=logging.getLogger("musetalk_cli").isEnabledFor(logging.DEBUG))
    return 1
