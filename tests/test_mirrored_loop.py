"""Forward, backward and at rest: a clip is walked at its own speed, whatever rate is shown; nothing jumps."""

from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

from hypothesis import given
from hypothesis import strategies as st
from test_timeline import RATES

from musetalk_cli.engine.mirrored_loop import MirroredLoop
from musetalk_cli.timeline import Timeline


def walk(loop, resting):
    return [loop.next(resting=rests) for rests in resting]


def loop_of(frames, rest=(), shortest=2, *, source_fps=Fraction(25), fps=Fraction(25)):
    return MirroredLoop(frames, Timeline(fps), source_fps, rest, shortest)


def played(frames, fps, source_fps, length):
    """What a player that starts with the output shows of the clip, forward and backward, at each frame."""
    both = [*range(frames), *reversed(range(frames))]
    return [both[floor(frame / fps * source_fps) % len(both)] for frame in range(length)]


RESTS = st.sets(st.integers(0, 39))


RESTING = st.lists(st.booleans(), max_size=200)


@given(st.integers(1, 40), RESTING, RESTS, RATES, RATES)
def test_the_loop_never_jumps_and_speech_follows_the_mirrored_clip(frames, resting, rest, fps, source_fps):
    """Between neighbours lie no more frames of the source than begin in the time of one."""
    numbers = sorted(number for number in rest if number < frames)
    rates = {"fps": fps, "source_fps": source_fps}
    shown = walk(loop_of(frames, numbers, **rates), resting)
    assert all(abs(one - other) <= ceil(source_fps / fps) for one, other in pairwise(shown))
    speech = walk(loop_of(frames, numbers, **rates), [False] * 100)
    assert speech == played(frames, fps, source_fps, 100)
    assert walk(loop_of(frames, **rates), resting) == played(frames, fps, source_fps, len(resting))


@given(st.integers(1, 40), RESTING, RESTS, st.integers(1, 8), RATES)
def test_at_another_rate_the_loop_is_the_same_walk_seen_more_or_less_often(frames, resting, rest, times, fps):
    """Rests and turns included: seen `times` less often, every so many frames of the walk at equal rates."""
    numbers = sorted(number for number in rest if number < frames)
    seldom = walk(loop_of(frames, numbers, fps=fps, source_fps=times * fps), resting)
    # The first frame is shown at once; whether it rests does not matter there, and it decides until the next.
    ahead = [resting[0], *(rests for rests in resting[1:] for _ in range(times))] if resting else []
    assert seldom == walk(loop_of(frames, numbers), ahead)[::times]
    often = walk(
        loop_of(frames, numbers, fps=times * fps, source_fps=fps), [r for r in resting for _ in range(times)]
    )
    assert often[::times] == walk(loop_of(frames, numbers), resting)
    assert all(often[number] == often[number - number % times] for number in range(len(often)))


def test_clips_of_60_and_of_10_fps_keep_their_speed_at_25():
    fast = loop_of(1000, source_fps=Fraction(60))
    assert walk(fast, [False] * 6) == [0, 2, 4, 7, 9, 12]
    slow = loop_of(1000, source_fps=Fraction(10))
    assert walk(slow, [False] * 8) == [0, 0, 0, 1, 1, 2, 2, 2]


def test_rests_last_as_long_at_any_rate():
    """A run of ten frames of a clip of 50 fps is walked in a fifth of a second, whatever is shown."""
    for fps in (10, 25, 30, 120):
        loop = loop_of(100, range(20, 30), source_fps=Fraction(50), fps=Fraction(fps))
        shown = walk(loop, [True] * (4 * fps))
        assert set(shown[fps:]) <= set(range(20, 30))
        assert shown[2 * fps :: 2 * fps // 5][:5] == [shown[2 * fps]] * 5


def test_silence_stays_in_the_nearest_frames_at_rest():
    loop = loop_of(20, [3, 4, 5, 6, 9, 15, 16, 17], shortest=3)
    assert walk(loop, [False] * 9) == list(range(9))
    assert walk(loop, [True] * 12) == [8, 7, 6, 5, 4, 3, 3, 4, 5, 6, 6, 5]
    assert walk(loop, [False] * 3) == [4, 3, 2]
    assert walk(loop, [True] * 6) == [2, 3, 4, 5, 6, 6]
    assert walk(loop_of(5, [2], shortest=2), [True] * 7) == [0, 1, 2, 3, 4, 4, 3]
