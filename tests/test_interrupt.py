"""Signals while commands load, run and end. The signal comes out of a step of the work itself."""

import os
import signal
import sys

import pytest
from lives import speech, write_sound

from musetalk_cli import __main__
from musetalk_cli.avatar import store
from musetalk_cli.cli.interrupt import end_on_signals, stop_on_signals
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.nets import fetching, loading

KINDS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
USUAL = [*KINDS[:2], pytest.param(KINDS[2], marks=pytest.mark.slow)]
"""Where a command is called for each, one is repetition: they are handled alike."""


@pytest.fixture
def main(monkeypatch, capfd, own_log):
    """Runs the program as its entry point does, in this process; gives exit code, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["musetalk", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            __main__.main()
        return (end.value.code, *capfd.readouterr())

    return call


def signal_in(monkeypatch, module, name, kind, calls=2):
    """Send a signal out of a function's call of that number; gives how often it was called."""
    count = []
    original = getattr(module, name)

    def counted(*arguments, **named):
        count.append(name)
        if len(count) == calls:
            os.kill(os.getpid(), kind)
        return original(*arguments, **named)

    monkeypatch.setattr(module, name, counted)
    return count


def assert_ended(result):
    code, out, err = result
    assert code == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "error" not in err


@pytest.mark.parametrize("kind", USUAL)
@pytest.mark.parametrize(
    ("command", "module", "name", "calls"),
    [
        ("generate", store, "read_latents", 1),
        ("generate", loading, "_convert", 2),
        ("realtime", store, "read_latents", 1),
        ("realtime", loading, "_convert", 2),
        ("realtime", CpuPath, "resize", 1),
    ],
)
def test_a_stream_that_is_being_loaded_ends_at_once_and_leaves_nothing(
    main, monkeypatch, models, avatars_dir, tmp_path, kind, command, module, name, calls
):
    """While the avatar is read, between two weights, and in the warm-up of a live stream."""
    steps = signal_in(monkeypatch, module, name, kind, calls)
    sound = write_sound(tmp_path / "in.wav", speech(1))
    chosen = ["--avatar", "synthetic", "--avatars-dir", avatars_dir, "--model", models, "--device", "cpu"]
    result = main(command, *chosen, "--audio", sound, "--output", tmp_path / "out.mp4")
    assert_ended(result)
    assert len(steps) == calls, "nothing more was loaded"
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


@pytest.mark.parametrize("kind", USUAL)
@pytest.mark.parametrize(
    "command",
    [
        ["bench", "--frame-size", "160x120", "--face-size", "64", "--avatar-frames", "2"],
        ["bench", "realtime", "--frame-size", "160x120", "--face-size", "64", "--avatar-frames", "2"],
        ["models", "verify"],
    ],
    ids=lambda command: "-".join(command[:2]),
)
def test_every_command_that_loads_ends_at_once(main, monkeypatch, models, kind, command):
    steps = signal_in(monkeypatch, loading, "_convert", kind)
    model = [models] if command[0] == "models" else ["--model", models]
    assert_ended(main(*command, *model, "--device", "cpu"))
    assert len(steps) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_preparation_that_is_being_loaded_ends_at_once(main, monkeypatch, models, golden, tmp_path, kind):
    steps = signal_in(monkeypatch, loading, "_convert", kind)
    picture = golden / "avatar" / "full_imgs" / "00000000.png"
    chosen = ["--model", models, "--avatars-dir", tmp_path / "avatars", "--device", "cpu"]
    code, out, err = main("prepare-avatar", picture, "--name", "anna", *chosen)
    assert (code, out) == (130, "")
    assert "The same command goes on from here" in err
    assert len(steps) == 2
    assert not list(tmp_path.glob("avatars/*"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_download_ends_at_once(main, monkeypatch, tmp_path, kind):
    steps = signal_in(monkeypatch, fetching, "hub_of_environment", kind, 1)
    monkeypatch.setattr("musetalk_cli.nets.hub.Hub.look", lambda *_, **__: pytest.fail("it went on"))
    code, out, err = main("models", "download", "--models-dir", tmp_path)
    assert (code, out, len(steps)) == (130, "", 1)
    assert "Traceback" not in err


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_signal_asks_a_stream_that_runs_and_the_second_one_ends(kind):
    before = signal.getsignal(kind)
    with stop_on_signals() as handle:
        handle.bind(object())
        signal.raise_signal(kind)
        assert handle.stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(kind)
    assert signal.getsignal(kind) is before


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_does_not_run_yet_is_ended_by_the_first_and_does_not_begin(kind):
    """Even where something on the way takes the exception for its own."""
    with stop_on_signals() as handle:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(kind)
        assert handle.stop.is_set()


def test_a_hang_up_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with end_on_signals(), stop_on_signals() as handle:
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert not handle.stop.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
