"""Any list of arguments is a call, or a usage error that names what is wrong."""

from __future__ import annotations

import contextlib

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.cli.app import app
from musetalk_cli.errors import MuseTalkError

ROOT = typer.main.get_command(app)
USAGE_ERROR = typer.BadParameter.__base__
NAMES = sorted(ROOT.commands)


def words_of(command):
    """Every option and command below `command`."""
    own = [word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts)]
    below = getattr(command, "commands", {})
    return own + [word for name, child in below.items() for word in (name, *words_of(child))]


ARGUMENTS = st.lists(
    st.sampled_from(sorted(set(words_of(ROOT)))) | st.sampled_from(["", "-", "--", "-1", "a=b"]) | st.text(),
    max_size=6,
)


@pytest.mark.parametrize("name", NAMES)
@given(arguments=ARGUMENTS)
def test_arguments_are_parsed_or_refused(name, arguments):
    command = ROOT.commands[name]
    with contextlib.suppress(USAGE_ERROR, typer.Exit, MuseTalkError):
        command.make_context(name, list(arguments))
