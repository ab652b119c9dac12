"""Command lines of Docker in the documentation: that they fit this project is seen without Docker."""

import re

from dockerfiles import arguments, compose, environment, exec_form, only
from test_cli_arguments import COMMANDS

ALONE = {"--detach", "--follow", "--pull", "--rm"}
"""Options of Docker's that no value follows."""


def check_docker(words):
    """What a line names in this project is there."""
    verb, *rest = words[1:]
    if verb == "compose":
        _, (verb, *rest) = _split(rest)
        assert verb in {"up", "logs", "ps", "stop", "build", "run"}
        options, operands = _split(rest)
        if operands:
            assert verb == "run"
            assert operands[0] in compose()["services"]
    else:
        assert verb in {"build", "tag", "push", "run"}
        options, operands = _split(rest)
    if verb == "build" and words[1] == "build":
        assert operands == ["."]
    if verb == "run":
        _check_ours(operands[1:])
    for name, value in options:
        if name == "--build-arg":
            assert value.partition("=")[0] in arguments(), value
        elif name == "--env":
            assert value.partition("=")[0] in {*environment(), "MUSETALK_TOKEN"}, value
        elif name == "--volume":
            where = value.split(":")[1]
            assert where in exec_form(only("VOLUME")) or where in operands, value


def _split(words):
    """Docker's own options, and what follows them."""
    options, words = [], list(words)
    while words and words[0].startswith("--"):
        name = words.pop(0)
        options.append((name, "" if name in ALONE else words.pop(0)))
    return options, words


def _check_ours(words):
    """Options of `musetalk serve`, or another command with its own."""
    names = [name for name in COMMANDS if words[: len(name.split())] == name.split()]
    command = COMMANDS[max(names, key=len)] if names else COMMANDS["serve"]
    assert names or all(word.startswith("-") for word in words[:1])
    there = {option for each in command.params for option in each.opts}
    assert {word for word in words if re.match("--", word)} <= there
