"""The commands put together, and the one place where errors end."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from musetalk_cli import __version__
from musetalk_cli.cli import avatars, bench, generate, models, prepare, realtime
from musetalk_cli.cli.realtime_options import RealtimeCommand
from musetalk_cli.cli.render import show_error
from musetalk_cli.errors import MuseTalkError

app = typer.Typer(
    name="musetalk",
    help="Make a prepared face speak, in real time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("prepare-avatar")(prepare.prepare_avatar)
app.add_typer(avatars.app, name="avatars")
app.command("generate")(generate.generate)
app.command("realtime", cls=RealtimeCommand)(realtime.realtime)
app.add_typer(bench.app, name="bench")
app.add_typer(models.app, name="models")

INTERRUPTED = 130


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"musetalk {__version__}")
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
    if sys.stdout is None:  # closed by whoever started it
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the program runs
    try:
        app(prog_name="musetalk")
    except MuseTalkError as error:
        return _failed(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        failure = MuseTalkError(
            f"Unexpected {type(error).__name__}: {error}.", "Run it again with -v to see where."
        )
        failure.__cause__ = error
        return _failed(failure)
    return 0


def _failed(error: MuseTalkError) -> int:
    show_error(error, trace=logging.getLogger("musetalk_cli").isEnabledFor(logging.DEBUG))
    return 1
