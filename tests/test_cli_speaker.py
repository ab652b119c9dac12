"""`musetalk realtime` with a loudspeaker: what is heard, when, and beside which pictures."""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from lives import LIMIT_S, at_the_latest, delay_of, level, read_back, speech, write_sound
from soundcards import PlayingDevice
from soundservers import RATE as SERVED_RATE
from soundservers import Monitor, sound_server

from musetalk_cli.sinks import NullSink

FPS = 25
FRAME_S = 1 / FPS
CARD_RATE = 48_000
WORD_S = 0.4
BEFORE_S = 2
"""A null sink that had nothing to play may take that long to begin."""
AT_REST = ["--silence=-10dB"]
"""The face rests, so that nothing is computed: what is heard and when does not depend on the machine."""

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture
def job(models, avatars_dir):
    """A job whose frames take milliseconds."""
    options = f"--model {models} --device cpu --sharpen off --fps {FPS} --chunk 0.2 --context 0 --no-live"
    return ["--avatar", "synthetic", "--avatars-dir", avatars_dir, *options.split()]


@pytest.fixture
def card(monkeypatch):
    """Sound cards that play and record at their own speed."""
    card = PlayingDevice(lambda rate: speech(0.6, rate), lambda stream: stream.unplug())
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    return card


class Window(NullSink):
    """Stands for the window: keeps when each frame was shown."""

    made = None

    def __init__(self, *arguments):
        super().__init__()
        self.name, self.watched, self.shown = "window", True, []
        type(self).made = self

    def write(self, frame):
        self.shown.append(time.perf_counter())


@pytest.fixture
def window(monkeypatch):
    monkeypatch.setattr("musetalk_cli.sinks.DisplaySink", Window)
    monkeypatch.setattr(Window, "made", None)
    return Window


def words(seconds, rate=16_000, before_s=0):
    """After silence, words of noise below 500 Hz with pauses between them, float32 `[n]`."""
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, round(seconds * 1000) + 2)
    time = np.arange(round(seconds * rate)) / rate
    sound = np.interp(time * 1000, np.arange(len(noise)), noise) * (time % WORD_S < WORD_S / 2)
    sound[: round(before_s * rate)] = 0
    return sound.astype(np.float32)


def heard_by(stream):
    """What a stand-in card played, float32 `[n]`, and when it began to."""
    return np.concatenate([block[:, 0] for _, block in stream.heard]), stream.heard[0][0]


def assert_in_step(sound, heard, began, shown, rate=CARD_RATE, before_s=0):
    """A word is heard when the frame that it begins with is shown, but for a frame's length.

    On a busy machine sound is broken off now and then, and it takes some words until what was late is in
    step again: most words must be found, a quarter of them in step.
    """
    apart, alike = [], []
    for first in range(round(before_s * FPS), len(shown), round(WORD_S * FPS)):
        begin = round(first * FRAME_S * rate)
        at, like = delay_of(sound[begin : begin + round(WORD_S / 2 * rate)], heard, rate)
        apart.append(began + at - shown[first])
        alike.append(like)
    found = [gap for gap, like in zip(apart, alike, strict=True) if like > 0.8]
    assert len(found) > 0.5 * len(apart), alike
    assert np.quantile(np.abs(found), 0.25) < FRAME_S + 0.005, apart


def test_the_sound_of_a_file_is_heard_with_its_pictures(musetalk, job, card, window, tmp_path):
    sound = write_sound(tmp_path / "in.wav", words(3))
    code, out, err = musetalk(
        "realtime", *job, "--audio", sound, *AT_REST, "--display", "--speaker", "--json"
    )
    assert code == 0, err
    (stream,) = card.streams
    assert (stream.device, stream.samplerate, stream.closed) == (2, CARD_RATE, True)
    heard, began = heard_by(stream)
    assert_in_step(words(3, CARD_RATE), heard, began, window.made.shown)
    assert json.loads(out)["sound_breaks"] >= 0
    assert "no output" not in err


@pytest.mark.slow
def test_without_an_output_window_and_loudspeaker_are_taken(musetalk, job, card, window, tmp_path):
    sound = write_sound(tmp_path / "in.wav", speech(0.6))
    code, out, err = musetalk("realtime", *job, "--audio", sound)
    assert code == 0, err
    said = "a window shows the frames and the loudspeaker HDMI 0 (hw:0,3) plays their sound"
    assert f"no output is named: {said}\n" in err
    assert len(window.made.shown) == 15
    assert re.search(r"sound lost 0\.00 s, broken off \d+ times", out)


@pytest.mark.slow
def test_a_microphone_is_not_played_unless_that_is_asked_for(musetalk, job, card, window):
    code, _, err = musetalk("realtime", *job)
    assert code == 1
    assert "no output is named: a window shows the frames\n" in err
    assert [type(stream).__name__ for stream in card.streams] == ["PlayingStream"]
    code, _, err = musetalk("realtime", *job, "--mic", "--speaker")
    assert "no output" not in err
    assert sorted(type(stream).__name__ for stream in card.streams[1:]) == ["PlayedStream", "PlayingStream"]


@pytest.mark.parametrize("options", [[], pytest.param(["--output", "null"], marks=pytest.mark.slow)])
def test_where_nothing_can_be_shown_a_line_says_so(musetalk, job, tmp_path, options):
    sound = write_sound(tmp_path / "in.wav", speech(0.4))
    code, _, err = musetalk("realtime", *job, "--audio", sound, *options)
    assert code == 0, err
    assert ("no output is named: nothing is shown or kept\n" in err) == (not options)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("hdmi", None),
        ("9", "--speaker 9 is no loudspeaker"),
        ("u", "--speaker u fits more than one loudspeaker"),
    ],
)
def test_a_loudspeaker_is_chosen_by_number_or_name(musetalk, job, card, tmp_path, device, message):
    sound = write_sound(tmp_path / "in.wav", speech(0.4))
    code, _, err = musetalk("realtime", *job, "--audio", sound, "--speaker", device)
    assert code == (0 if message is None else 1), err
    assert (message or "chunks of") in err
    assert [stream.device for stream in card.streams] == ([2] if message is None else [])


def test_without_sounddevice_a_sentence_says_what_to_install(musetalk, job, tmp_path):
    sound = write_sound(tmp_path / "in.wav", speech(0.4))
    code, out, err = musetalk("realtime", *job, "--audio", sound, "--speaker")
    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"error: A loudspeaker needs sounddevice, [^\n]+\nhint:  [^\n]+'musetalk-cli\[sound\]'\n", err
    )


@pytest.mark.slow
def test_a_loudspeaker_that_goes_away_leaves_the_file_complete(musetalk, job, card, watched, tmp_path):
    sound = write_sound(tmp_path / "in.wav", speech(2))
    watched.when = lambda now: now.frames >= 15

    def unplug():
        card.streams[0].unplug()

    watched.then = unplug
    arguments = ["--audio", sound, "--speaker", "--output", tmp_path / "out.mp4", "--json"]
    code, out, err = musetalk("realtime", *job, *arguments)
    assert code == 1
    assert "loudspeaker failed and was closed: The loudspeaker HDMI 0 (hw:0,3) ended by itself.\n" in err
    report = json.loads(out)
    assert report["failures"] == ["The loudspeaker HDMI 0 (hw:0,3) ended by itself."]
    assert report["frames"] == 50
    assert len(read_back(tmp_path / "out.mp4").times) == 50


def test_an_interrupt_is_heard_within_two_frames(musetalk, job, card, watched, tmp_path):
    read_end, write_end = os.pipe()
    told = []
    with os.fdopen(write_end, "wb", buffering=0) as writer, os.fdopen(read_end, "rb"):

        def interrupt():
            told.append(time.perf_counter())
            writer.write(b"interrupt\n")

        watched.when = lambda now: now.frames >= 30
        watched.then = interrupt
        sound = write_sound(tmp_path / "in.wav", speech(4))
        with at_the_latest(lambda: writer.write(b"stop\n")):
            arguments = ["--control", read_end, "--audio", sound, "--speaker", *AT_REST, "--json"]
            code, _, err = musetalk("realtime", *job, *arguments)
    assert code == 0, err
    heard, began = heard_by(card.streams[0])
    after = heard[round((told[0] - began) * CARD_RATE) :]
    blocks = np.array([level(block) for block in np.split(after[: CARD_RATE // 2], 50)])
    assert np.argmax(blocks < -60) <= 2 * FRAME_S * 100 + 2
    assert np.argmax(blocks < -60) > 0


RUN = """
import json, sys, time
import musetalk_cli.sinks
from musetalk_cli.cli.app import run

shown = []

class Window(musetalk_cli.sinks.NullSink):
    def __init__(self, *arguments):
        super().__init__()
        self.name, self.watched = "window", True

    def write(self, frame):
        shown.append(time.perf_counter())

musetalk_cli.sinks.DisplaySink = Window
code = run()
print(json.dumps(shown), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
def test_what_a_sound_server_plays_is_the_sound_in_step_with_the_pictures(job, tmp_path):
    """PulseAudio plays into its null sink, whose monitor is recorded."""
    sound = write_sound(tmp_path / "in.wav", words(6, before_s=BEFORE_S))
    arguments = map(str, ["realtime", *job, "--audio", sound, *AT_REST, "--json"])
    with sound_server(tmp_path / "server") as environment, Monitor(environment) as monitor:
        done = subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    assert done.returncode == 0, done.stderr
    assert "the loudspeaker default plays their sound" in done.stderr
    shown = json.loads(done.stderr.splitlines()[-1])
    assert len(shown) == 6 * FPS
    spoken = words(6, SERVED_RATE, BEFORE_S)
    assert_in_step(spoken, monitor.sound[:, 0], monitor.began, shown, SERVED_RATE, BEFORE_S)
