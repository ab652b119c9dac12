"""`musetalk serve` as it is typed: what it refuses, how it begins and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from lives import speech
from serving import TIMEOUT_S, Client


class Server:
    """The program, with its output in pipes."""

    def __init__(self, models, avatars, *options, token=None):
        command = [sys.executable, "-m", "musetalk_cli", "serve", "--port", "0", "--json", "--device", "cpu"]
        command += ["--models-dir", models, "--avatars-dir", avatars, "--model", models, *options]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MUSETALK_")}
        self.process = subprocess.Popen(
            [*map(str, command)],
            env=environment | {"OMP_NUM_THREADS": "1"} | ({"MUSETALK_TOKEN": token} if token else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self):
        """Until sessions can be had."""
        self.told = json.loads(self.process.stdout.readline())
        self.client = Client(self.told["url"])
        return self

    def end(self, *signals):
        for number in signals:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        assert out == ""
        assert "Traceback" not in err
        return self.process.returncode, err


@pytest.fixture
def server(models, coloured_avatars):
    servers = []

    def start(*options, **more):
        servers.append(Server(models, coloured_avatars, *options, **more))
        return servers[-1].wait()

    yield start
    for each in servers:
        each.process.kill()
        each.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "ends_with"), [(signal.SIGTERM, 0), (signal.SIGHUP, 130)], ids=["ended", "terminal gone"]
)
def test_it_tells_where_it_is_once_it_is_ready_and_drains_when_it_is_ended(server, number, ends_with):
    running = server("--fps", "10", "--drain", "20", "--log-json", "-v")
    assert running.told["speakers"] >= 1
    assert 1 <= running.told["sessions"] <= 4 * running.told["speakers"]
    assert running.client.ask("GET", "/readyz").status == 200
    with running.client.program("red", video="none") as program:
        program.say(speech(0.8))
        program.tell("end")
        program.until("speaking")
        running.process.send_signal(number)
        assert program.until("segment_finished")["segment"] == 0
        assert program.until("closed")["error"] is None
        name = program.first["session"]
    code, err = running.end()
    assert code == ends_with
    lines = [json.loads(line) for line in err.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert any("may speak at once" in line["message"] for line in lines)
    assert {"debug", "info"} <= {line["level"] for line in lines}
    assert any(running.client.address in line["message"] for line in lines)
    told = [line for line in lines if line.get("session") == name[:8]]
    assert [line["message"].rsplit(" ", 1)[-1] for line in told][-1] == "ended"
    assert name not in err, "who knows it may use the session"


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_a_second_one_at_once(server):
    running = server("--drain", "600")
    with running.client.program("red", video="none") as program:
        program.say(speech(30))
        program.until("speaking")
        code, _ = running.end(signal.SIGINT, signal.SIGINT)
    assert code == 130


@pytest.mark.slow
def test_the_token_comes_from_the_environment_and_is_in_no_log(server):
    token = "a-token-that-is-long-enough"
    running = server("-v", token=token)
    assert running.client.ask("GET", "/v1/service").status == 401
    assert running.client.ask("GET", "/v1/service", authorization=f"Bearer {token}").status == 200
    code, err = running.end(signal.SIGTERM)
    assert code == 0
    assert token not in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "can be reached by others: pass --token"),
        (["--host", "192.0.2.7"], "can be reached by others: pass --token"),
        (["--token", "short"], "at least 16"),
        (["--token", "a-token-that-is-long-enough\r"], r"--token holds '\r'"),
        (["--token", " a-token-that-is-long-enough"], "--token begins or ends with a space"),
        (["--token", "a-tökén-that-is-long-enough"], "--token holds 'ö'"),
        (["--port", "70000"], "less than or equal to 65535"),
        (["--max-sessions", "0"], "greater than or equal to 1"),
    ],
)
def test_a_wrong_use_ends_with_2(musetalk, embedded, options, said):
    code, out, err = musetalk("serve", *options)
    assert (code, out) == (2, "")
    assert said in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ice-server", "http://example.com"], "--ice-server http:... is not understood"),
        (["--ice-server", "turn:me@host"], "--ice-server turn:... is not understood"),
        (["--origin", "example.com"], "--origin example.com is no page's origin"),
        (["--host", "192.0.2.7", "--token", "a-token-that-is-long-enough"], "cannot be listened at"),
        (["--host", "no.such.host.invalid", "--token", "a-token-that-is-long-enough"], "cannot be found"),
    ],
)
def test_what_cannot_be_used_ends_with_1_and_a_sentence(musetalk, embedded, options, said):
    code, out, err = musetalk("serve", *options)
    assert (code, out) == (1, "")
    assert said in err
    assert "Traceback" not in err


def test_a_port_that_is_taken_is_said(musetalk, embedded):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = musetalk("serve", "--port", port)
    assert code == 1
    assert f"Port {port} of 127.0.0.1 is in use by another program." in err


def test_without_an_avatar_that_fits_it_ends_and_says_so(musetalk, models, tmp_path):
    (tmp_path / "none").mkdir()
    code, out, err = musetalk(
        "serve", "--port", "0", "--models-dir", models, "--model", models, "--avatars-dir", tmp_path / "none"
    )
    assert (code, out) == (1, "")
    assert "was made for model" in err


def test_without_the_extra_it_says_what_to_install(musetalk, embedded, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("musetalk_cli.serve.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, out, err = musetalk("serve")
    assert (code, out) == (1, "")
    assert "musetalk serve needs uvicorn, which is not installed." in err
    assert "pip install 'musetalk-cli[serve]'" in err
