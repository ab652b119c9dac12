"""The benchmark of the response time: what is sent, what a watcher saw, and a device that takes no time."""

import json
import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.bench.ideal import simulate
from musetalk_cli.bench.options import AvatarSizes, ResponseOptions
from musetalk_cli.bench.response import bench_response
from musetalk_cli.bench.screen import Ear, Screen
from musetalk_cli.bench.speech import LEAD_IN_S, Script, cut_at_pauses, utterances
from musetalk_cli.config import DataFolder, JobConfig, RunConfig, SilenceLevel
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.live.intake import PATIENCE_S
from musetalk_cli.types import Fate, Frame, FrameRequest

RATE, FPS = 16_000, 25
FRAME = RATE // FPS
SMALL = "--device cpu --fps 5 --frame-size 128x128 --face-size 64 --avatar-frames 2 --context 0 --sharpen off"

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def tone(seconds):
    return np.full((round(seconds * RATE), 1), 0.1, np.float32)


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=4), st.integers(1, 9), st.floats(0.5, 5.0))
def test_what_is_sent_is_what_is_said_at_its_time(lengths, count, pause):
    script = Script.of([tone(length / RATE) for length in lengths], count, pause)
    assert script.starts[0] == LEAD_IN_S
    ends = [start + len(sound) / RATE for start, sound in zip(script.starts, script.utterances, strict=True)]
    for end, start in zip(ends, script.starts[1:], strict=False):
        assert pause - 1e-9 <= start - end <= 1.5 * pause + 1e-9
    bursts, spoken = list(script.packets("burst")), list(script.packets("spoken"))
    assert [packet.at for packet in bursts] == script.starts
    for packets in (bursts, spoken):
        for number, sound in enumerate(script.utterances):
            own = [packet.samples for packet in packets if packet.utterance == number]
            assert np.array_equal(np.concatenate(own), sound)
            assert np.array_equal(sound * 32768, np.round(sound * 32768))
    said = 0
    for packet, before in zip(spoken, [None, *spoken], strict=False):
        said = 0 if before is None or before.utterance != packet.utterance else said
        said += len(packet.samples)
        assert len(packet.samples) <= RATE / 50
        assert packet.at == pytest.approx(script.starts[packet.utterance] + said / RATE)
    assert script.sent("burst") == script.starts
    assert script.sent("spoken") == [
        next(packet.at for packet in spoken if packet.utterance == number) for number in range(count)
    ]


def test_a_sound_is_cut_at_its_pauses():
    quiet = np.zeros((RATE // 2, 1), np.float32)
    sound = np.concatenate([quiet, tone(0.4), quiet[:320], tone(0.2), quiet, tone(1.0), quiet])
    first, second = cut_at_pauses(sound[:, 0])
    assert np.array_equal(first, sound[RATE // 2 : RATE // 2 + round(0.62 * RATE)])
    assert np.array_equal(second, tone(1.0))


def test_the_embedded_sample_gives_utterances_that_begin_aloud():
    said = utterances()
    assert len(said) >= 3
    for sound in said:
        assert 0.3 < len(sound) / RATE < 4
        assert 20 * np.log10(np.sqrt(np.mean(np.square(sound[:320], dtype=np.float64)))) > -45


def show(screen, clock, index, at, audio, fate=Fate.SPEAKING):
    clock.time = at
    request = FrameRequest(index, None, audio, 0.0, 0.0, 0)
    screen.write(Frame(request, np.zeros((1, 1, 3), np.uint8), Fraction(index, FPS), at, fate))


def test_a_screen_finds_utterances_by_their_sound_and_says_how_late_they_were_shown():
    """Two utterances, sent at 10 and 20 s; they lie at 0.51 and 1.6 s of the stream.

    The first face speaks at 10.3 s, ahead of its sound; of the second the first frame is held.
    """
    clock = FakeClock(0.0)
    said = [tone(0.4), tone(0.2)]
    screen = Screen(clock, Script(said, [0.0, 0.0], 0.5))
    sound = np.zeros((60 * FRAME, 1), np.float32)
    for begin, each in zip((0.51, 1.6), said, strict=True):
        sound[round(begin * RATE) :][: len(each)] = each
    for index in range(60):
        at = 10.3 + (index - 10) / FPS if index < 30 else 20.7 + (index - 40) / FPS
        fate = Fate.SPEAKING if index in {*range(10, 25), *range(41, 46)} else Fate.IDLE
        fate = Fate.HELD if index == 40 else fate
        show(screen, clock, index, at, sound[index * FRAME : (index + 1) * FRAME], fate)
    assert screen.ear.onsets == pytest.approx([0.51, 1.6])
    assert screen.answers([10.0, 20.0]) == pytest.approx([0.3, 0.74])
    assert screen.answers([10.0]) == pytest.approx([0.3])
    assert screen.delays([10.0, 20.0]) == pytest.approx([0.41] * 10 + [0.7] * 5)


@settings(deadline=None)
@given(st.data())
def test_an_ear_tells_what_was_cut_repeated_or_broken_by_silence(data):
    """Four utterances, the second and the third spoiled; the pauses are of any length that they may have."""
    noise = np.random.default_rng(0).uniform(-1, 1, (4, RATE // 4, 1)).astype(np.float32)
    script = Script.of(list(noise), 4, 0.5)
    heard = [sound[:, 0] for sound in script.utterances]
    place = data.draw(st.integers(1, len(heard[1]) - 1))
    silence = np.zeros(data.draw(st.integers(1, RATE // 8)), np.float32)
    for number in (1, 2):
        before, after = heard[number][:place], heard[number][place:]
        spoiled = [[before, silence, after], [before, before[-1:], after], [before[:-1], after]]
        heard[number] = np.concatenate(data.draw(st.sampled_from(spoiled)))
    pauses = [np.zeros(RATE // 2 + data.draw(st.integers(0, RATE)), np.float32) for _ in heard]
    parts = [part for pair in zip(pauses, heard, strict=True) for part in pair]
    ear, whole = Ear(script), np.concatenate(parts)
    size = data.draw(st.integers(100, RATE // 5))
    for block in np.split(whole, range(size, len(whole), size)):
        ear.hear(block)
    assert ear.whole == 2
    ends = np.cumsum([len(part) for part in parts])
    assert ear.onsets == pytest.approx([ends[2 * number] / RATE for number in range(4)], abs=2 / RATE)


@pytest.mark.parametrize("sending", ["burst", "spoken"])
def test_a_device_that_takes_no_time_gives_the_same_figures_again(sending):
    script = Script.of(utterances(), 2, 1.0)
    job = JobConfig(chunk=Fraction(1, 5))
    runs = [simulate(job, script, sending) for _ in range(2)]
    (_, sent, screen), (again, _, other) = runs
    assert screen.shown == other.shown
    assert len(screen.answers(sent)) == len(screen.ear.onsets) == again.utterances == 2
    assert (again.stalls, again.dropped) == (0, 0)
    assert 0 < again.short <= 2 * 10, "behind the last word nothing comes"
    assert screen.ear.whole == 2
    assert screen.samples == again.samples >= sum(len(said) for said in script.utterances)
    assert np.median(screen.answers(sent)) == pytest.approx(
        again.latencies.worst_response().p50 / 1e3, abs=0.02
    )


@pytest.mark.parametrize("chunk", [Fraction(1, 10), Fraction(1, 5)])
def test_without_compute_a_spoken_sound_is_seen_a_chunk_the_look_ahead_and_a_frame_later(chunk):
    script = Script.of(utterances(), 3, 1.0)
    _, sent, screen = simulate(JobConfig(chunk=chunk), script, "spoken")
    delays = screen.delays(sent)
    assert len(delays) >= sum(len(sound) // FRAME for sound in script.utterances)
    usual = float(chunk) + 0.12 + 1 / FPS
    assert 0 < min(delays) <= usual
    late = [delay for delay in delays if delay > usual]
    assert len(late) <= 3, "the last frame of each, which waits for the rest of its sound"
    assert max(delays) <= usual + PATIENCE_S


def test_a_longer_chunk_answers_later_and_every_frame_is_made_without_a_gate():
    script = Script.of(utterances(), 2, 1.0)
    responses = []
    for chunk in (Fraction(1, 10), Fraction(1)):
        outcome, *_ = simulate(JobConfig(chunk=chunk, silence=SilenceLevel()), script, "spoken")
        responses.append(outcome.latencies.worst_response().p50)
    assert responses[0] < responses[1]
    outcome, *_ = simulate(replace(JobConfig(chunk=Fraction(1)), silence=None), script, "spoken")
    assert (outcome.utterances, outcome.idle) == (1, 0)


@pytest.fixture
def small(models):
    return ["bench", "response", "--model", models, *SMALL.split()]


def test_an_utterance_is_sent_over_tcp_and_its_answer_measured(musetalk, small, tmp_path):
    path = tmp_path / "response.json"
    code, out, err = musetalk(
        *small, "--utterances", 1, "--pause", 0.5, "--chunk", "0.2", "--sound", "burst", "--json", path
    )
    assert code == 0, err
    assert err.splitlines()[-1] == "utterances in bursts: 1, in chunks of 0.2 s, 3 s"
    figures = json.loads(path.read_text())
    assert figures["command"].startswith("musetalk bench response --model")
    assert (figures["ideal"], figures["pause_s"]) == (False, 0.5)
    (run,) = figures["runs"]
    assert (run["sending"], run["sent"], run["whole"], run["utterances"]) == ("burst", 1, 1, 1)
    assert (run["chunk_s"], run["failures"], run["interrupted"]) == (0.2, [], False)
    assert run["response_ms"]["p50"] == run["response_ms"]["p95"] > 0
    assert run["sent_to_shown_ms"]["p50"] == pytest.approx(run["response_ms"]["p50"], abs=150)
    assert run["delay_ms"]["p50"] > 0
    assert 0 < run["idle_frames"] < run["frames"]
    for words in ("response", "p50 / p95 / p99", "sent to shown", "0.2 s, burst", "1 of 1", "float32"):
        assert words in out


@pytest.mark.slow
def test_the_floor_of_the_design_needs_no_model(musetalk, nothing_embedded):
    arguments = ["--ideal", "--utterances", 2, "--chunk", "0.1,0.2", "--pause", 1]
    code, out, err = musetalk("bench", "response", *arguments)
    assert code == 0, err
    assert "a device that takes no time" in out
    code, out, err = musetalk("bench", "response", *arguments, "--json", "-")
    assert code == 0, err
    figures = json.loads(out)
    told = [(run["chunk_s"], run["sending"], run["utterances"]) for run in figures["runs"]]
    assert told == [(0.1, "burst", 2), (0.1, "spoken", 2), (0.2, "burst", 2), (0.2, "spoken", 2)]
    assert figures["ideal"] is True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--chunk", "0.2,3"], "--chunk 3"),
        (["--chunk", "auto,"], "--chunk  is not"),
        (["--sound", "loud"], "--sound loud"),
        (["--sound", "burst,"], "--sound burst,"),
        (["--ideal"], "--ideal has no networks"),
        (["--face-size", "4000"], "does not fit"),
        (["--json", "nowhere/live.json"], "folder of --json"),
    ],
)
def test_bad_values_are_one_sentence(musetalk, small, options, words):
    code, out, err = musetalk(*small, *options)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert words in err
    assert len(err.splitlines()) <= 2


def test_the_floor_of_the_design_has_no_machine_to_measure(musetalk):
    code, out, err = musetalk("bench", "response", "--ideal", "--chunk", "auto")
    assert (code, out) == (1, "")
    assert "sustains any --chunk" in err


def test_a_stop_ends_the_run_and_leaves_out_the_rest(models):
    stop, said = threading.Event(), []

    def notice(text):
        said.append(text)
        if "utterances" in text:
            stop.set()

    run = RunConfig(DataFolder(models, "flag"), DataFolder(models, "flag"), str(models), "cpu", "fp32")
    job = JobConfig(fps=Fraction(5), context=Fraction(0), sharpen=None)
    sizes = AvatarSizes(width=128, height=128, face=64)
    options = ResponseOptions((Fraction(1, 5),), utterances=1000, sizes=sizes)
    result = bench_response(run, job, options, notice, ControlHandle(stop))
    assert len(result.runs) == 1
    assert result.runs[0].report.interrupted
    assert said[0] == "loading the networks"
    assert len(said) == 2
