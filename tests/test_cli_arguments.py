"""Every command and option there is, with what nobody should pass: a sentence, and never a surprise."""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from films import film
from lives import speech, write_sound
from soundcards import PlayingDevice

from musetalk_cli.cli.app import app
from musetalk_cli.errors import InputError

LIMIT_S = 60
SMALL = ["--avatar", "demo", "--device", "cpu", "--sharpen", "off", "--fps", "5", "--batch-size", "1"]
WORKING = {
    "generate": [*SMALL, "--audio", "speech.wav", "--output", "out.mp4"],
    "realtime": [*SMALL, "--audio", "speech.wav", "--no-pace"],
    "batch": ["list.csv", "--device", "cpu"],
    "prepare-avatar": ["clip.avi", "--name", "anna"],
    "avatars show": ["demo"],
    "avatars import": ["folder", "--name", "anna"],
    "avatars verify": ["demo"],
    "avatars remove": ["anna"],
    "models verify": ["demo"],
    "models convert": ["demo"],
}
"""What lets a command do its work in this test's folder; one that is not here is called with nothing."""
FEW = ["", "x" * 100_000, "\udc80\x1b[2J\n"]
STRANGE = [
    *FEW,
    "-1",
    "nan",
    "1e999999999",
    "9" * 4000,
    "y" * 300,
    "1,,2",
    "a:b:c",
    "1/0",
    "٣",
]


def leaves(command, words=()):
    """Every command that does something, with the words that call it."""
    below = getattr(command, "commands", {})
    if not below or command.invoke_without_command:
        yield words, command
    for name, child in below.items():
        yield from leaves(child, (*words, name))


COMMANDS = {" ".join(words): command for words, command in leaves(typer.main.get_command(app)) if words}
SHARED = {"--models-dir", "--avatars-dir", "--model", "--device", "--precision"}
"""One definition for all commands: tried at length with one of them."""
OPTIONS = [
    (name, parameter)
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.param_type_name == "option"
]


LONG = (
    "bench.run.bench",
    "bench.live.bench_live",
    "bench.preparing.bench_preparing",
    "bench.response.bench_response",
    "bench.response.bench_ideal",
    "bench.soak.bench_soak",
    "serve.server.serve",
    "doctor.measure.measure",
    "run.batch.run.run_batch",
)
"""What takes minutes, however small, or has no end."""


def nothing(*arguments, **settings):
    raise InputError("Nothing is computed in this test.")


@pytest.fixture(scope="module")
def inputs(golden, tmp_path_factory):
    """A folder with a sound, a clip and what MuseTalk made."""
    folder = tmp_path_factory.mktemp("inputs")
    write_sound(folder / "speech.wav", speech(0.2))
    film(folder / "clip.avi", [np.full((48, 64, 3), 90, np.uint8)])
    (folder / "list.csv").write_text("avatar,audio,output\ndemo,speech.wav,out.mp4\n")
    (folder / "folder").symlink_to(golden / "avatar")
    return folder


@pytest.fixture(autouse=True)
def place(tiny_installation, inputs, monkeypatch, tmp_path):
    """A folder with a sound, a clip and what MuseTalk made, the demo in tiny, a microphone, no network."""
    monkeypatch.setattr("musetalk_cli.nets.embedded.places", lambda: (tiny_installation,))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nothing answers
    for name in LONG:
        monkeypatch.setattr(f"musetalk_cli.{name}", nothing)
    device = PlayingDevice(lambda rate: speech(0.2, rate), lambda stream: stream.unplug())
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    place = shutil.copytree(inputs, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(place)
    for name in ("MUSETALK_MODELS", "MUSETALK_AVATARS", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Path(os.devnull).open() as empty:
        monkeypatch.setattr(sys, "stdin", empty)
        yield place


@pytest.fixture
def told(musetalk):
    """Runs a command that must end by itself, well or with a sentence."""

    def call(*arguments):
        before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        signal.alarm(LIMIT_S)
        try:
            code, out, err = musetalk(*arguments)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        shown = [word[:60] for word in map(str, arguments)]
        assert code in {0, 1, 2}, (code, shown, err)
        for surprise in ("Unexpected", "\x1b", *(() if "--verbose" in arguments else ("Traceback",))):
            assert surprise not in out + err, (shown, err[-3000:])
        if code == 1:
            assert "error: " in err, shown
        return code, out, err

    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bare_command_is_a_call_or_asks_for_what_is_missing(told, name):
    told(*name.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_no_words_it_does_not_know(told, name):
    for word in ("--nonsense", "--nonsense=1", "-Z"):
        code, out, err = told(*name.split(), *WORKING.get(name, []), word)
        assert (code, out) == (2, ""), (word, err)


@pytest.mark.parametrize("share", [10, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize(
    "number", range(len(OPTIONS)), ids=[f"{name} {option.opts[0]}" for name, option in OPTIONS]
)
def test_an_option_with_a_strange_value_is_a_sentence(told, monkeypatch, number, share):
    """Every value there is, or a tenth of them: the next option gets the next tenth."""
    name, option = OPTIONS[number]
    # What a stream opens, it opens before it loads; `generate` goes all the way.
    monkeypatch.setattr("musetalk_cli.run.realtime.realtime", nothing)
    words = [*name.split(), *WORKING.get(name, [])]
    if option.is_flag:
        told(*words, option.opts[0], option.opts[0])
        assert told(*words, f"{option.opts[0]}=1")[0] == 2
        return
    told(*words, option.opts[-1])
    told(*words, option.opts[0], "1", option.opts[0], "2")
    shared = name != "models verify" and option.opts[0] in SHARED
    for value in (FEW if shared else STRANGE)[number % share :: share]:
        told(*words, f"{option.opts[0]}={value}")


ARGUMENTS = [
    pytest.param(name, id=f"{name} {parameter.name}")
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.param_type_name == "argument"
]
NOWHERE = ["nowhere", "nowhere/clip.avi", "speech.wav/inside", "..", "a/b", "\\", "/dev/null", "~", "数字人"]
"""Names of no avatar and no model, and places where nothing is."""
OTHERS = {
    "prepare-avatar": [".", "empty", "speech.wav", "words.txt", "words"],
    "avatars import": [".", "empty", "clip.avi"],
    "batch": [".", "empty", "clip.avi", "empty.csv"],
}
"""A folder where a file is wanted, the reverse, and files of another kind; elsewhere no path is right."""


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_that_is_none_is_one_sentence(told, place, name):
    for folder in ("empty", "words"):
        (place / folder).mkdir()
    for words in ("words.txt", "words/0.png"):
        (place / words).write_text("words")
    (place / "empty.csv").touch()
    own, *options = WORKING.get(name, ["demo"])
    options += ["--model", "demo"]
    for value in (*STRANGE, *NOWHERE, *OTHERS.get(name, [".", "clip.avi"])):
        code, out, err = told(*name.split(), *options, "--", value)
        assert (code in {1, 2}, out) == (True, ""), (value[:60], out)
        assert len(err) < 2000, value[:60]
        if code == 1:
            said = err[err.index("error: ") :]
            assert {"": "is empty", "a:b:c": "a:b:c"}.get(value, "") in said
            assert re.fullmatch(r"error: [^\n]{10,}\n(hint:  [^\n]+\n)?", said), value[:60]
    assert told(*name.split(), *options, own, own)[0] == 2
