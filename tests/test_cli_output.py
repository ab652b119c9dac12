"""What commands print, and what becomes of it where it cannot be printed."""

import json
import logging
import os
import subprocess
import sys

import pytest
from clocks import FakeClock

from musetalk_cli.cli import app as edge
from musetalk_cli.cli.render import after_log, end_run, print_json, print_table, show_error
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.errors import MuseTalkError, OutputError
from musetalk_cli.live.latencies import Latencies
from musetalk_cli.live.observe import Outcome
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.run.report import make_report

MUSETALK = (sys.executable, "-m", "musetalk_cli")
ESCAPE = "\x1b]0;owned\x07"


def started(*arguments, **more):
    return subprocess.run([*MUSETALK, *arguments], stderr=subprocess.PIPE, timeout=60, check=False, **more)


@pytest.mark.parametrize(
    "arguments", [pytest.param(("avatars", "list", "--json"), marks=pytest.mark.slow), ("--version",)]
)
def test_a_full_standard_output_is_said_in_one_line(tmp_path, avatars_dir, arguments):
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a descriptor is all that is wanted
        ended = started(*arguments, stdout=full, env=os.environ | {"MUSETALK_AVATARS": str(avatars_dir)})
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines() == [
        "error: Standard output cannot be written: No space left on device.",
        "hint:  Send it elsewhere.",
    ]


def test_every_failure_of_a_run_is_told_with_its_hint_and_kind(tiny_bundle, capsys):
    full = OutputError("a.mp4 is full.", "Free space.")
    gone = OutputError("The viewer is gone.", "Look there.")
    engine = Engine(tiny_bundle, JobConfig(), StageStats(FakeClock(0.0)))
    outcome = Outcome(Latencies(0.5), 16_000, frames=1, failures=[full, KeyError("latents"), gone])
    report = make_report(engine, outcome, 25.0, {"precision": "fp32"})
    with pytest.raises(MuseTalkError) as caught:
        end_run(report, as_json=True)
    assert (caught.value.message, caught.value.hint) == ("The viewer is gone.", "Look there.")
    out, err = capsys.readouterr()
    assert err.index("a.mp4 is full.") < err.index("Free space.") < err.index("KeyError: 'latents'")
    told = json.loads(out)["failures"]
    assert [told[0], told[2]] == [full.message, gone.message]
    assert "KeyError: 'latents'" in told[1]


def test_a_reader_that_has_gone_is_not_spoken_of(avatars_dir):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        ended = started("avatars", "list", "--avatars-dir", avatars_dir, stdout=nobody)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_closed_stderr_leaves_the_exit_code(tmp_path):
    command = f'exec {sys.executable} -m musetalk_cli avatars show nobody --avatars-dir "$0" 2>&-'
    assert subprocess.run(["sh", "-c", command, tmp_path], timeout=60, check=False).returncode == 1


@pytest.mark.parametrize(
    "encoding",
    ["ascii", *(pytest.param(name, marks=pytest.mark.slow) for name in ("latin-1:strict", "utf-8"))],
)
def test_no_character_is_too_much_for_the_output(tmp_path, encoding):
    folder = os.fsencode(tmp_path) + b"/caf\xe9 \xe6\x95\xb0"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    script = """
import sys
from musetalk_cli.cli.app import run
for *command, code in (("list", 0), ("list", "--json", 0), ("show", "nobody", 1)):
    sys.argv[1:] = ["avatars", *command, "--avatars-dir", sys.argv[-1]]
    assert run() == code
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, folder], capture_output=True, env=environment, timeout=60, check=True
    )
    assert b"Unexpected" not in ended.stderr
    assert rb"/caf\udce9" in ended.stderr


def test_nothing_printed_is_obeyed_by_a_terminal(capfd, musetalk, tmp_path):
    print_table(f"T{ESCAPE}", ["a", "b"], [[ESCAPE, "[bold]x"], ["y", "\u202e"]])
    print_json({"a": ESCAPE + "\x7f", "b": float("inf")})
    show_error(MuseTalkError(f"wrong {ESCAPE}", ESCAPE), trace=True)
    out, err = capfd.readouterr()
    _, more_out, more_err = musetalk("avatars", "list", "--avatars-dir", tmp_path / ESCAPE)
    logging.getLogger("musetalk_cli.any").warning("said %s", ESCAPE)
    after_log()
    out, err = out + more_out, err + more_err + capfd.readouterr().err
    assert not set(out + err) & set("\x1b\x07\x7f\u202e")
    assert r"wrong \x1b]0;owned\x07" in err
    assert r"said \x1b]0;owned\x07" in err


def test_what_stands_between_colons_is_no_picture(capfd):
    print_table("a:b:c", [":smile:"], [["a:x:b"]])
    show_error(MuseTalkError("There is nothing at a:b:c.", ":smile:"), trace=False)
    out, err = capfd.readouterr()
    assert all(text in out for text in ("a:b:c", ":smile:", "a:x:b"))
    assert err == "error: There is nothing at a:b:c.\nhint:  :smile:\n"


def test_json_on_stdout_has_no_infinity(capfd):
    print_json({"a": float("inf"), "b": [float("nan"), 1.5]})
    assert json.loads(capfd.readouterr().out) == {"a": None, "b": [None, 1.5]}


@pytest.mark.parametrize(
    "arguments", [(ESCAPE,), ("avatars", ESCAPE), (f"--{ESCAPE}",), ("avatars", "list", "--device", ESCAPE)]
)
def test_a_usage_error_shows_what_was_typed_without_obeying_it(musetalk, arguments):
    code, out, err = musetalk(*arguments)
    assert code == 2
    assert not set(out + err) & set("\x1b\x07")


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("[enforce] DefaultCPUAllocator: no")])
def test_running_out_of_memory_is_said(musetalk, monkeypatch, failure):
    def fail(**_):
        raise failure

    monkeypatch.setattr(edge, "app", fail)
    code, _, err = musetalk("avatars", "list")
    assert code == 1
    assert err.startswith("error: There is not enough memory for this.\nhint:  ")


@pytest.mark.parametrize(
    "output",
    [
        "rtmp://host/app/hunter2",
        "RTMP:/host/hunter2",
        "rtmp:hunter2",
        "rtmp//host/hunter2",
        "rtmp://host:hunter2/app",
        "rmtp://host/app/hunter2",
        "srt://host:90?passphrase=hunter2",
    ],
)
@pytest.mark.parametrize("verbose", [False, True])
def test_no_message_and_no_log_holds_a_stream_key(musetalk, golden, tmp_path, output, verbose):
    """Twice the same, so that every one is refused."""
    more = ["-v"] if verbose else []
    twice = ["--output", output, "--output", output]
    sound = ["--audio", golden / "audio.wav", "--avatar", "x", "--avatars-dir", tmp_path]
    code, out, err = musetalk("realtime", *sound, *twice, *more)
    assert (code, out) == (1, "")
    assert "hunter2" not in err
    code, _, err = musetalk("realtime", *sound, output)
    assert code == 2
    assert "hunter2" not in err
