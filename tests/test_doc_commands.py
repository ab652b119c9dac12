"""Every command line of the documentation runs as it stands there.

The lines are found in the pages, so a new one is tried without a word here. What a test machine lacks has
stand-ins.
"""

import json
import re
import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product, takewhile

import cameras
import cv2
import pytest
import torch
import typer
from batches_here import run_batches_here
from doclines import OTHER_PAGES, OURS, PAGES, ROOT, TYPED, Line, fenced, inline, unmarked
from docreader import OUTPUTS, SPOKEN_S, Reader, Window
from films import film
from hubs import a_hub
from lives import run_ffmpeg, speech, write_sound
from soundcards import PlayingDevice
from test_cli_arguments import COMMANDS
from workers import run_workers_here

from musetalk_cli.bench import live, preparing, response, run, soak
from musetalk_cli.bench.options import AvatarSizes
from musetalk_cli.cli.app import app
from musetalk_cli.doctor import measure
from musetalk_cli.nets import pins, random_v15
from musetalk_cli.nets.published import PUBLISHED

ALL = (*PAGES, *OTHER_PAGES)
SPANS = [span for span in inline(ALL) if span.text.split()[0] in TYPED and " " in span.text]
SYNOPSES = [span for span in SPANS if span.is_synopsis]
LINES = [
    *fenced(PAGES),
    *(line for line in fenced(OTHER_PAGES) if line.text.split()[0] in OURS),
    *(span for span in SPANS if not span.is_synopsis),
]

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def named(lines):
    return [pytest.param(line, id=line.place) for line in lines]


def with_repetitions_slow(lines):
    """A line with no command, place in a pipe or kind of output but those of lines before it is slow.

    So is one of another page than the README whose commands were called before, and one that measures.
    Options are tested elsewhere.
    """
    known, called, cases = set(), set(), []
    for line in lines:
        found = set().union(*map(kinds, line.pipelines()))
        new = found - known
        here = line.place.startswith("README")
        new = {
            kind
            for kind in new
            if kind[2:-1] not in called or (here and (kind[0] > 1 or not kind[-1].startswith("-")))
        }
        known |= found
        called |= {kind[2:-1] for kind in found}
        ours, measures = line.text.startswith("musetalk "), line.text.startswith("musetalk bench")
        is_slow = measures or (ours and not new)
        cases.append(pytest.param(line, id=line.place, marks=[pytest.mark.slow] if is_slow else []))
    return cases


def kinds(pipeline):
    """What the commands of a pipeline are, which options they have, and the kinds of what they write."""
    found = set()
    for at, words in enumerate(pipeline):
        name = next((words[1 : 1 + n] for n in (2, 1) if " ".join(words[1 : 1 + n]) in COMMANDS), words[1:])
        given = {word for word in words if word.startswith("-")}
        given |= {re.sub(r".*?([a-z]+:/|\.\w+$)", r"\1", word) for word in written(words)}
        found |= {(len(pipeline), at, words[0], *name, one) for one in given or {""}}
    return found


def written(words):
    return [word for before, word in pairwise(words) if before in OUTPUTS]


@pytest.fixture(scope="module")
def files(golden, installation, tmp_path_factory):
    """What people bring, small: `any` with the suffix of its kind, or without one a folder of MuseTalk's."""
    folder = tmp_path_factory.mktemp("files")
    faces = [cv2.imread(str(ROOT / f"avatars/demo/full_imgs/{number:08d}.png")) for number in range(3)]
    lossless = film(folder / "face.avi", faces)
    write_sound(folder / "any.wav", speech(SPOKEN_S))
    for source, made in ((lossless, "any.mp4"), (folder / "any.wav", "any.mp3")):
        done = run_ffmpeg("-v", "error", "-i", source, folder / made)
        assert done.returncode == 0, done.stderr
    (folder / "any.csv").write_text("avatar,audio\ndemo,any.wav\n")
    (folder / "any").symlink_to(golden / "avatar")
    shutil.copytree(installation / "avatars" / "demo", folder / "demo")
    shutil.copy(folder / "any.wav", folder / "demo" / "sample.wav")
    return folder


@pytest.fixture
def clone(installation, models, files, tmp_path, monkeypatch):
    """What a clone holds: the demo with tiny networks, its avatars and a short sample."""
    place = tmp_path / "clone"
    for folder in ("models", "avatars", "benchmarks", "run"):
        (place / folder).mkdir(parents=True)
    (place / "models" / "demo").symlink_to(models)
    (place / "avatars" / "demo2").symlink_to(installation / "avatars" / "demo2")
    (place / "avatars" / "demo").symlink_to(files / "demo")
    monkeypatch.setattr("musetalk_cli.nets.embedded.places", lambda: (place,))
    for name in ("MUSETALK_MODELS", "MUSETALK_AVATARS", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="module")
def hub():
    """A hub that publishes words in the place of weights."""
    with a_hub() as hub:
        for part in {part for parts in PUBLISHED.values() for part in parts}:
            for path in part.published:
                hub.publish(part.repository, path, f"{path} of {part.repository}".encode())
        yield hub


@pytest.fixture
def equipment(hub, models, tmp_path, monkeypatch):
    """A microphone, a camera, a window, a GPU, the hub, and tiny networks in place of full-size ones."""
    card = PlayingDevice(lambda rate: speech(SPOKEN_S, rate), lambda stream: None)
    card.infos[0]["name"] = "Built-in Audio"
    devices = tmp_path / "devices"
    devices.mkdir()
    cameras.plug_in(monkeypatch, devices)
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    monkeypatch.setattr(pins, "PINS", {})
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr("musetalk_cli.sinks.DisplaySink", Window)
    monkeypatch.setattr("musetalk_cli.nets.bundle.resolve_device", lambda name: torch.device("cpu"))
    for name, file in (
        ("unet_config", "musetalkV15/musetalk.json"),
        ("vae_config", "sd-vae/config.json"),
        ("encoder_config", "whisper/config.json"),
    ):
        config = json.loads((models / file).read_text())
        monkeypatch.setattr(random_v15, name, lambda config=config: dict(config))


@pytest.fixture
def short(monkeypatch):
    """What is measured is measured for a moment."""

    def shortened(module, name, **less):
        real = getattr(module, name)

        def briefly(*arguments):
            options = next(argument for argument in arguments if hasattr(argument, next(iter(less))))
            return real(*(replace(options, **less) if each is options else each for each in arguments))

        monkeypatch.setattr(module, name, briefly)

    small = AvatarSizes(width=320, height=240, face=96, frames=2)
    few = AvatarSizes(frames=2)
    shortened(run, "bench", seconds=0.2, budget_s=0.0, baseline=False, tolerance=1e9, sizes=small)
    shortened(run, "bench", batch_sizes=(1,))
    shortened(live, "bench_live", seconds=0.5, chunks=(Fraction(1, 5),), sizes=few)
    shortened(soak, "bench_soak", seconds=1.0, sessions=1, sizes=few)
    answered = {"utterances": 1, "pause_s": 0.5, "chunks": (Fraction(1, 5),), "sendings": ("burst",)}
    shortened(response, "bench_response", **answered, sizes=few)
    shortened(preparing, "bench_preparing", frames=(2,))
    monkeypatch.setattr(measure, "UTTERANCES", 1)
    run_workers_here(monkeypatch)
    run_batches_here(monkeypatch)


@pytest.fixture
def reader(clone, equipment, short, files, models, musetalk, watched, monkeypatch):
    return Reader(clone, files, models, musetalk, watched, monkeypatch)


@pytest.mark.parametrize("line", with_repetitions_slow(LINES))
def test_a_line_runs_as_it_stands(reader, line):
    reader.type(line)


@pytest.mark.parametrize("line", named(line for line in LINES if line.text.startswith("musetalk ")))
def test_a_line_is_complete(line):
    for words in (words for pipeline in line.pipelines() for words in pipeline if words[0] == "musetalk"):
        command, rest = typer.main.get_command(app), words[1:]
        while isinstance(command, typer.core.TyperGroup) and rest[:1] and rest[0] in command.commands:
            command, *rest = command.commands[rest[0]], *rest[1:]
        command.make_context(words[0], rest)


@pytest.mark.parametrize(
    "text",
    [
        "musetalk generate --nonsense",
        "musetalk nonsense",
        "musetalk generate --audio speech.wav --output out.mp4 && musetalk avatars show nobody",
        "nonsense | musetalk realtime --audio -",
    ],
)
def test_a_line_that_does_not_work_is_found(reader, text):
    with pytest.raises(AssertionError):
        reader.type(Line("here", text))


@pytest.mark.parametrize("synopsis", named(SYNOPSES))
def test_a_synopsis_names_what_there_is(synopsis):
    words = takewhile(lambda word: re.fullmatch(r"[a-z][a-z|-]+", word), synopsis.text.split()[1:])
    names = [" ".join(parts) for parts in product(*(word.split("|") for word in words))]
    assert set(names) <= set(COMMANDS)
    for option in re.findall(r"--[a-z-]+", synopsis.text):
        assert all(option in options_of(name) for name in names), option


def test_every_option_that_is_spoken_of_is_there():
    above = {option for each in typer.main.get_command(app).params for option in each.opts}
    there = {"--help", *above, *(option for name in COMMANDS for option in options_of(name))}
    for span in inline():
        if span.text.startswith("--"):
            assert set(re.findall(r"--[a-z][a-z-]*", span.text)) <= there, span


def test_no_line_is_passed_over():
    assert unmarked(ALL) == []
    for page in ("README.md", "docs/preparing.md", "docs/streaming.md"):
        assert any(line.place.startswith(page) for line in LINES)


def options_of(name):
    return {option for each in COMMANDS[name].params for option in (*each.opts, *each.secondary_opts)}
