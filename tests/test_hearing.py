"""What a session hears, without the session: sound goes in, and hops with their sound and tokens come out."""

from fractions import Fraction

import numpy as np
import pytest
from encoders import positions
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.hearing import Hearing
from musetalk_cli.engine.hops import HopGrid, HopPlanner
from musetalk_cli.engine.windows import FeatureStream
from musetalk_cli.errors import InputError
from musetalk_cli.timeline import Timeline

FPS = Fraction(25)
RATE = 16_000
FRAME = 640
HALF = Fraction(1, 2)


def make_hearing(*, fps=FPS, hop=HALF, rate=RATE, level=None, context=Fraction(0), live=False):
    """As an engine makes it: of a live stream the first hop of an utterance is as long as its frame needs."""
    timeline = Timeline(fps)
    grid = HopGrid(timeline.wait + 1 / fps if live else hop, hop)
    planner = HopPlanner(timeline, level, grid, restarts=live)
    return Hearing(timeline, FeatureStream(timeline, context), planner, rate, 1)


def noise(frames, level=0.1):
    return (level * np.random.default_rng(0).standard_normal((frames * FRAME, 1))).astype(np.float32)


def take_hops(hearing):
    """All that are due, planned without being made, each with the sound of its frames."""
    found = []
    while (hop := hearing.due()) is not None:
        found.append((hop, hearing.sounds(hop)))
        assert hearing.plan(hop, made=False) == []
    return found


def test_a_sound_shorter_than_a_frame_is_refused():
    hearing = make_hearing()
    hearing.hear(np.zeros((FRAME - 1, 1), np.float32), 0.0)
    with pytest.raises(InputError, match=r"shorter than one frame \(40 ms\)"):
        hearing.end(0.0)


def test_a_hop_is_ready_when_its_last_sample_arrived_and_the_last_one_with_the_end():
    hearing = make_hearing()
    for number in range(40):
        hearing.hear(np.zeros((320, 1), np.float32), arrived=0.02 * (number + 1))
    first = hearing.due()
    assert hearing.ready(first) == pytest.approx(0.5)
    hearing.plan(first, made=False)
    assert hearing.due() is None
    hearing.end(9.0)
    last = hearing.due()
    assert (last.final, hearing.ready(last)) == (True, 9.0)
    assert not hearing.done
    hearing.plan(last, made=False)
    assert hearing.done


@settings(deadline=None, max_examples=60)
@given(
    fps=st.sampled_from(
        [Fraction(n) for n in (1, 10, 24, 25, 30, 50, 60, 120)] + [Fraction(30000, 1001), Fraction("29.97")]
    ),
    chunk=st.integers(40, 2000).map(lambda ms: Fraction(ms, 1000)),
    rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    seconds=st.floats(1.0, 6.0),
    data=st.data(),
)
def test_the_frames_sound_partitions_the_input(fps, chunk, rate, seconds, data):
    """No frame twice, none missing, and their slices put together are the sound, whatever the cuts."""
    length = max(int(seconds * rate), int(rate / fps) + 1)
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=10)))
    sound = np.arange(length, dtype=np.float32)[:, None]
    hearing, hops = make_hearing(fps=fps, hop=chunk, rate=rate), []
    for block in np.split(sound, cuts):
        hearing.hear(block, 0.0)
        hops += take_hops(hearing)
    hearing.end(0.0)
    hops += take_hops(hearing)
    assert hearing.done
    frames = [frame for hop, _ in hops for frame in hop.frames]
    assert frames == list(range(Timeline(fps).frames_in(-(-length * RATE // rate))))
    assert np.array_equal(np.concatenate([one.samples for _, sounds in hops for one in sounds]), sound)


@pytest.mark.parametrize("context", [Fraction(0), Fraction(1, 10), Fraction(1), None])
def test_an_encoded_hop_hears_all_its_frames_need_after_silence(context):
    """Rows of hops that were skipped are there when frames need them, and say where they are from."""
    timeline, hearing = Timeline(FPS), make_hearing(context=context)
    hearing.hear(np.arange(1, 8000 * 12 + 1, dtype=np.float32)[:, None], 0.0)
    for number in range(11):
        hop = hearing.due()
        made = number not in {0, 1, 2, 5, 6, 9}
        asked = hearing.plan(hop, made=made)
        assert bool(asked) is made
        if not made:
            continue
        assert max(len(request.samples) for request in asked) <= 8000 * 11
        for frame, tokens in zip(hop.frames, hearing.tokens(positions(asked)), strict=True):
            rows = np.arange(timeline.first_row(frame), timeline.last_row(frame))
            expected = np.where(rows >= 0, rows * 320 + 1, 0)
            assert np.array_equal(tokens.reshape(10, 2)[:, 0].numpy(), expected)


def test_an_utterance_is_one_and_arrived_with_the_block_of_its_first_row():
    """Blocks of a frame; the third and all that come from the ninth on are loud."""
    hearing = make_hearing(level=SilenceLevel(), live=True)
    loud, quiet = noise(1), noise(1, 1e-4)
    said = []
    for number in range(30):
        hearing.hear(loud if number == 2 or number >= 8 else quiet, 10.0 + number)
        while (hop := hearing.due()) is not None:
            said.append((hop.is_silent, hearing.utterance(hop.speech[0].onset)))
            hearing.sounds(hop)
            hearing.plan(hop, made=False)
        assert hearing.in_utterance is (bool(said) and not said[-1][0])
    spoken = [utterance for silent, utterance in said if not silent]
    assert all((utterance is None) is silent for silent, utterance in said)
    assert len(spoken) > 2
    assert {(one.number, one.arrived) for one in spoken} == {(0, 12.0)}, "the pause is within the hang-over"
    assert all(one is spoken[0] for one in spoken)


def test_what_is_muted_is_silence_of_the_same_length_and_the_next_word_another_utterance():
    hearing = make_hearing(level=SilenceLevel(), live=True)
    hearing.hear(noise(3), 1.0)
    hearing.mute()
    assert not hearing.is_speaking
    hearing.hear(noise(20), 2.0)
    hops, numbers = [], []
    while (hop := hearing.due()) is not None:
        hops += hearing.sounds(hop)
        numbers.append(hearing.utterance(hop.speech[0].onset))
        hearing.plan(hop, made=False)
    heard = np.concatenate([one.samples for one in hops])
    assert not heard[: 3 * FRAME].any()
    assert np.array_equal(heard[3 * FRAME :], noise(20)[: len(heard) - 3 * FRAME])
    assert {one.arrived for one in numbers if one is not None} == {2.0}


def test_what_is_missing_of_a_frame_is_put_in_as_silence_and_frames_need_not_wait():
    hearing = make_hearing(level=SilenceLevel(), live=True)
    hearing.hear(noise(4)[:-100], 1.0)
    assert [hearing.missing(frame) for frame in (2, 3, 4)] == [0, 100, 100 + FRAME]
    hearing.wait_no_longer(2)
    [(hop, _)] = take_hops(hearing)
    assert (hop.frames, hop.short, hearing.next_frame) == (range(3), True, 3)
    assert hearing.is_speaking
    hearing.put_in_silence(hearing.missing(3), 2.0)
    assert not hearing.is_speaking, "however short it is, the utterance is over"
    assert hearing.missing(3) == 0
    hearing.wait_no_longer()
    [(hop, [sound])] = take_hops(hearing)
    assert hop.frames == range(3, 4)
    assert np.array_equal(sound.samples, np.concatenate([noise(4)[3 * FRAME : -100], np.zeros((100, 1))]))


@pytest.mark.parametrize("ends", [False, True])
def test_the_end_of_a_segment_is_told_by_a_frame_of_its_own_where_all_others_went(ends):
    """Frames that did not wait were planned up to the last; then the segment ends, with no sound left."""
    hearing = make_hearing(level=SilenceLevel(), live=True)
    hearing.hear(noise(3), 1.0)
    hearing.wait_no_longer()
    take_hops(hearing)
    hearing.hear(np.zeros((0, 1), np.float32), 2.0, ends=ends, segment=7)
    hearing.end(2.0)
    told = [sound.ends for _, sounds in take_hops(hearing) for sound in sounds]
    assert told == ([(7,)] if ends else [])
    assert hearing.done
