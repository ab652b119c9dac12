"""The scripts of the container, run as the container runs them; nothing here needs Docker."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from dockerfiles import script
from servers import free_port

from musetalk_cli.nets.published import PUBLISHED

LIMIT_S = 120
TOKEN = "a-token-that-is-long-enough"


class Container:
    """What a container has: its environment, its volumes, and a port.

    Args:
        folder: Where the volumes are.
        hub: Where models come from; None is nowhere.
    """

    def __init__(self, folder, hub=None):
        self.models, self.avatars = folder / "models", folder / "avatars"
        for place in (self.models, self.avatars):
            place.mkdir(exist_ok=True)
        self.port = free_port(socket.SOCK_STREAM)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MUSETALK_", "HF_"))
        } | {
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "MUSETALK_MODELS": str(self.models),
            "MUSETALK_AVATARS": str(self.avatars),
            "MUSETALK_MODEL": "v15",
            "MUSETALK_PORT": str(self.port),
            "MUSETALK_TOKEN": TOKEN,
            "HF_HOME": str(folder / "hub"),
            **({"HF_HUB_OFFLINE": "1"} if hub is None else {"HF_ENDPOINT": hub}),
        }

    def set(self, **variables):
        """Change or remove variables."""
        for name, value in variables.items():
            self.environment.pop(name, None)
            if value is not None:
                self.environment[name] = value
        return self

    @contextmanager
    def running(self, *arguments, name="start.py"):
        """A script of the container as a process, ended at the end."""
        process = subprocess.Popen(
            [sys.executable, script(name), *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, *arguments, name="start.py"):
        """Exit code, standard output and standard error."""
        with self.running(*arguments, name=name) as process:
            out, err = process.communicate(timeout=LIMIT_S)
        return process.returncode, out, err


@pytest.fixture
def container(tmp_path):
    return Container(tmp_path)


def place_all(models, name="v15"):
    """Empty files, where those of a published model belong."""
    for part in PUBLISHED[name]:
        path = models / part.folder / part.names[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_hub_that_cannot_be_reached_is_one_sentence_and_what_to_do(container):
    code, out, err = container.run()
    assert (code, out) == (1, "")
    first, *_ = lines = err.splitlines()
    assert first.startswith(f"model v15 is not complete in {container.models}: fetching it")
    assert "MUSETALK_MODEL=demo" in first
    assert any("could not be fetched" in line and "hub" in line for line in lines)
    assert any(line.startswith("hint:") and str(container.models) in line for line in lines)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "token", [None, *(pytest.param(bad, marks=pytest.mark.slow) for bad in ("short", f"{TOKEN}\r"))]
)
def test_nothing_is_fetched_for_a_service_that_is_refused(container, token):
    code, _, err = container.set(MUSETALK_TOKEN=token).run()
    assert code == 2
    assert "--token" in err
    assert "fetching" not in err


def test_help_fetches_nothing(container):
    code, out, err = container.run("--help")
    assert code == 0
    assert "--drain" in out
    assert err == ""


@pytest.fixture
def calls(container, tmp_path):
    """What is called as `musetalk`, line by line, where an echo stands for it."""
    echo = tmp_path / "bin" / "musetalk"
    echo.parent.mkdir()
    echo.write_text('#!/bin/sh\necho "$*"\n')
    echo.chmod(0o755)
    container.set(PATH=os.pathsep.join((str(echo.parent), container.environment["PATH"])))
    return lambda *arguments: container.run(*arguments)[1].splitlines()


def test_a_missing_model_is_fetched_and_then_served(container, calls):
    served = f"serve --host 0.0.0.0 --port {container.port} --log-json --model v15 --linger 60"
    assert calls("--linger", "60") == ["models download v15", served]
    place_all(container.models)
    assert calls("--linger", "60") == [served]
    next(container.models.rglob("unet*")).unlink()
    assert calls("--linger", "60") == ["models download v15", served]


@pytest.mark.parametrize(
    ("model", "option"),
    [("demo", " --model demo"), ("/mine", " --model /mine"), ("auto", ""), ("", ""), (None, "")],
)
def test_nothing_else_is_fetched(container, calls, model, option):
    container.set(MUSETALK_MODEL=model)
    assert calls() == [f"serve --host 0.0.0.0 --port {container.port} --log-json{option}"]


def test_a_host_of_this_machine_needs_no_token(container, calls):
    container.set(MUSETALK_TOKEN=None)
    assert calls("--host", "127.0.0.1")[0] == "models download v15"
    assert len(calls()) == 1  # the command refuses


def test_any_other_command_is_run_as_it_is(container):
    code, out, err = container.set(MUSETALK_TOKEN=None).run("models", "list", "--json")
    assert code == 0
    assert "unet.pth" in out
    assert "fetch" not in err


def test_a_signal_ends_fetching(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as hub:
        hub.settimeout(LIMIT_S)
        container = Container(tmp_path, f"http://127.0.0.1:{hub.getsockname()[1]}")
        with container.running() as process:
            asked, _ = hub.accept()  # the hub never answers
            with asked:
                process.send_signal(signal.SIGTERM)
                assert process.wait(LIMIT_S) == 130


@pytest.mark.slow
def test_it_is_healthy_while_it_serves_and_ends_in_order(container, models, avatars_dir):
    """The whole life of a container, with small networks."""
    container.set(MUSETALK_MODEL=str(models), MUSETALK_AVATARS=str(avatars_dir))
    code, out, _ = container.run(name="healthy.py")
    assert (code, "refused" in out) == (1, True)
    with container.running("--host", "127.0.0.1", "--json", "--drain", "5") as process:
        told = process.stdout.readline()  # once it is ready
        assert str(container.port) in told
        assert container.run(name="healthy.py") == (0, "200\n", "")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, err
    assert container.run(name="healthy.py")[0] == 1
