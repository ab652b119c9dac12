"""The voice gate, beside a plain reference that sees the whole sound at once."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.voice_gate import Fade, Onset, VoiceGate
from musetalk_cli.timeline import Timeline

RATE = 16_000
ROW = 320
LEVEL = SilenceLevel()
RATES = [Fraction(n) for n in (1, 10, 24, 25, 30, 50, 60, 120)] + [Fraction(30000, 1001)]


def tone(db, samples):
    """A sound whose every row has this level: a square wave."""
    return (10 ** (db / 20) * np.where(np.arange(samples) % 2, 1, -1)).astype(np.float32)


def spoken(*parts):
    """Levels in dB and seconds, one after the other."""
    return np.concatenate([tone(db, round(seconds * RATE)) for db, seconds in parts])


def open_rows(sound, level=LEVEL):
    """Which whole rows are open, by counting quiet rows."""
    rows, speaking, quiet = [], False, 0
    for start in range(0, len(sound) - ROW + 1, ROW):
        power = math.fsum(float(sample) ** 2 for sample in sound[start : start + ROW]) / ROW
        db = 10 * math.log10(power) if power else -math.inf
        if speaking:
            quiet = quiet + 1 if db < level.opens_db - level.hysteresis_db else 0
            speaking = quiet <= round(level.hang_over_s * 50)
        elif db >= level.opens_db:
            speaking, quiet = True, 0
        rows.append(speaking)
    return rows


def expected_weights(sound, fps, frames, level=LEVEL):
    """Weights by the rule: own sound and the rows that tokens need anyway, then one step a frame."""
    rows, steps, step, weights = open_rows(sound, level), max(1, math.floor(fps * 12 / 100)), 0, []
    for frame in range(frames):
        begin, end = frame / fps, (frame + 1) / fps
        first = math.ceil(begin * RATE) // ROW
        last = math.floor(frame * 50 / fps) + 6
        last = max(last, math.ceil(Fraction(math.ceil(end * RATE), ROW)))
        step = min(step + 1, steps) if any(rows[first:last]) else max(step - 1, 0)
        weights.append(step / steps)
    return weights


def weights_of(sound, fps, cuts=(), level=LEVEL):
    """Feed in blocks and ask after each for the frames that can be computed, as a session does."""
    timeline = Timeline(fps)
    fade, frame, heard, weights = Fade(timeline, level), 0, 0, []
    for block in np.split(sound, sorted(cuts)):
        fade.listen(block)
        heard += len(block)
        first = frame
        while timeline.complete(frame, heard):
            frame += 1
        weights += [fade.speech(each).weight for each in range(first, frame)]
    return weights + [fade.speech(each).weight for each in range(frame, timeline.frames_in(len(sound)))]


@settings(deadline=None, max_examples=60)
@given(
    fps=st.sampled_from(RATES),
    parts=st.lists(
        st.tuples(st.sampled_from([-90, -52, -50, -46, -44, -20]), st.floats(0.01, 0.9)),
        min_size=1,
        max_size=8,
    ),
    data=st.data(),
)
def test_weights_follow_from_the_sound_alone(fps, parts, data):
    """Whatever the cuts, they are those of the reference, and no step is left out."""
    sound = spoken(*parts)
    cuts = data.draw(st.lists(st.integers(0, len(sound)), max_size=12))
    weights = weights_of(sound, fps, cuts)
    assert weights == expected_weights(sound, fps, Timeline(fps).frames_in(len(sound)))
    step = 1 / max(1, math.floor(fps * 12 / 100))
    assert all(
        abs(after - before) <= step + 1e-9 for before, after in zip([0, *weights], weights, strict=False)
    )


def onsets(rows):
    """Row by row, which utterance it is of, by where a closed row goes before an open one."""
    found, onset = [], Onset(-1, 0)
    for row, is_open in enumerate(rows):
        if is_open and not (row and rows[row - 1]):
            onset = Onset(onset.number + 1, row)
        found.append(onset if is_open else None)
    return found


@settings(deadline=None, max_examples=40)
@given(
    fps=st.sampled_from(RATES),
    parts=st.lists(st.tuples(st.sampled_from([-90, -20]), st.floats(0.01, 0.9)), min_size=1, max_size=12),
)
def test_a_frame_is_of_the_first_utterance_that_it_hears_to_the_end_of_its_fade(fps, parts):
    sound = spoken(*parts)
    found, timeline = onsets(open_rows(sound)), Timeline(fps)
    fade, last = Fade(timeline, LEVEL), None
    fade.listen(sound)
    for frame in range(timeline.frames_in(len(sound))):
        first = timeline.frame_start(frame) // ROW
        end = max(timeline.last_row(frame), math.ceil(timeline.frame_start(frame + 1) / ROW))
        last = next(filter(None, found[first:end]), last)
        weight, onset = fade.speech(frame)
        assert onset == (last if weight else None)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.data())
def test_noise_gives_the_same_weights_whatever_the_cuts(seed, data):
    """Levels that lie close to both thresholds: a sum in another order would show."""
    random = np.random.default_rng(seed)
    levels = np.repeat(10 ** (random.uniform(-53, -43, 60) / 20), 640)
    sound = (levels * random.standard_normal(len(levels))).astype(np.float32)
    cuts = data.draw(st.lists(st.integers(0, len(sound)), max_size=30))
    assert weights_of(sound, Fraction(25), cuts) == weights_of(sound, Fraction(25))


@pytest.mark.parametrize("fps", [25, 30])
def test_the_face_is_there_with_the_first_frame_of_a_word(fps):
    """A word that begins anywhere in a second, on the start of a row or a frame or on no start at all."""
    for start in [*range(2 * RATE, 3 * RATE, 97), 2 * RATE + 639, 2 * RATE + 640, 2 * RATE + 1067]:
        sound = np.concatenate([np.zeros(start, np.float32), tone(-10, RATE)])
        weights = weights_of(sound, Fraction(fps))
        first = start * fps // RATE
        assert weights[first] == 1, start
        assert set(weights[: first - 5]) == {0}, start


@pytest.mark.parametrize("fps", [25, 30])
@pytest.mark.parametrize("hang_over", [0.0, 0.3, 1.0])
def test_the_face_goes_back_only_after_the_hang_over(fps, hang_over):
    level = SilenceLevel(hang_over_s=hang_over)
    weights = weights_of(spoken((-20, 2), (-90, 3)), Fraction(fps), level=level)
    last = math.ceil((2 + hang_over) * fps)
    assert set(weights[3:last]) == {1}
    assert weights[last : last + 3] == pytest.approx([2 / 3, 1 / 3, 0])
    assert set(weights[last + 3 :]) == {0}


def test_a_pause_within_the_hang_over_changes_nothing_and_a_longer_one_does():
    words = [(-20, 0.4), (-90, 0.3)] * 4
    weights = weights_of(spoken(*words, (-20, 0.4)), Fraction(25))
    assert set(weights[3:]) == {1}
    weights = weights_of(spoken((-20, 0.4), (-90, 1), (-20, 0.4)), Fraction(25))
    assert 0 in weights[10:]


def test_speech_begins_at_one_level_and_ends_at_another():
    between = [(-48, 2)]
    assert set(weights_of(spoken(*between), Fraction(25))) == {0}
    assert set(weights_of(spoken((-40, 0.5), *between, *between), Fraction(25))[3:]) == {1}
    assert weights_of(spoken((-40, 0.5), (-52, 2)), Fraction(25))[-1] == 0


@pytest.mark.parametrize(("db", "speaks"), [(-45.1, False), (-44.9, True), (-math.inf, False), (0, True)])
def test_the_level_is_rms_in_db_of_full_scale(db, speaks):
    gate = VoiceGate(LEVEL)
    gate.listen(tone(db, 10 * ROW))
    assert (gate.onset(0, 10) is not None) is speaks


def test_the_gate_says_which_rows():
    gate = VoiceGate(SilenceLevel(hang_over_s=0.04))
    gate.listen(spoken((-90, 0.1), (-20, 0.02), (-90, 0.2)))
    assert [row for row in range(16) if gate.onset(row, row + 1)] == [5, 6, 7]
    assert gate.onset(16, 99) is None, "what was never heard"
    gate.listen(tone(-20, 100 * ROW))
    assert gate.onset(16, 17)


def test_without_a_level_everything_is_speech():
    fade = Fade(Timeline(Fraction(25)), None)
    fade.listen(np.zeros(RATE, np.float32))
    assert [fade.speech(frame).weight for frame in range(20)] == [1] * 20
    assert fade.speech(20).onset == Onset(0, 0)
    fade.mute()
    assert [fade.speech(frame).weight for frame in range(20, 24)] == pytest.approx([1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("fed", [RATE, RATE + 319])
def test_silence_forgets_what_was_heard(fed):
    """Neither rows that were heard, nor part of one, nor the hang-over open anything; the next word does."""
    timeline = Timeline(Fraction(25))
    fade = Fade(timeline, LEVEL)
    fade.listen(tone(-10, fed))
    assert [fade.speech(frame).weight for frame in range(10)][-1] == 1
    fade.mute()
    fade.listen(np.zeros(3 * RATE - fed, np.float32))
    assert [fade.speech(frame).weight for frame in range(10, 70)] == [0] * 60
    fade.listen(tone(-10, RATE))
    weights = [fade.speech(frame).weight for frame in range(70, 90)]
    assert weights[2:6] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert fade.speech(90).onset == Onset(1, 150), "an utterance of its own"


def test_silence_keeps_time():
    """Rows go on where they were: a gate that was silenced has the rows of one that heard nothing."""
    silenced, quiet = VoiceGate(LEVEL), VoiceGate(LEVEL)
    silenced.listen(tone(-10, 10 * ROW + 100))
    quiet.listen(np.zeros(10 * ROW + 100, np.float32))
    silenced.mute()
    quiet.mute()
    for gate in (silenced, quiet):
        gate.listen(spoken((-90, 0.05), (-10, 0.1)))
    rows = [[row for row in range(17) if gate.onset(row, row + 1)] for gate in (silenced, quiet)]
    assert rows[0] == rows[1] != []


def test_memory_is_bounded_over_hours():
    """An hour of talk and pauses; a gate that kept its rows would hold a megabyte of the last ten minutes."""
    fade, frame = Fade(Timeline(Fraction(25)), LEVEL), 0
    blocks = [tone(-20, 8000), tone(-90, 8000)]
    for hop in range(3600 * 2):
        if hop == 3000 * 2:
            tracemalloc.start()
        fade.listen(blocks[hop % 3 == 0])
        while (frame + 4) * 640 <= (hop + 1) * 8000:
            fade.speech(frame)
            frame += 1
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 100_000, "bytes"
