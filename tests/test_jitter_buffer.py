"""Hours of a stream on paper: a source on its own clock, a machine that computes, and what is shown when.

Nothing here waits. A frame is shown when it is due, or when it is there, if that is later.
"""

import tracemalloc
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from clocks import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.live.jitter_buffer import CATCH_UP, PAST_S, JitterBuffer, MinimumFilter, PlayoutSchedule
from musetalk_cli.timeline import SAMPLE_RATE, Timeline
from musetalk_cli.types import Frame, FrameRequest

START = 5000.0
HALF = Fraction(1, 2)
JITTER_S = 0.08
BATCH = 4
BATCH_S = 0.03
"""Seconds for a batch: 5 times as fast as its frames at 25 fps."""


class Stream:
    """A run on paper.

    Attributes:
        said: When each frame's sound began at the source, by the wall clock.
        composited: When each frame was finished.
        shown: When each was shown.
        ready: When the chunk of each was complete.
    """

    def __init__(
        self,
        seconds,
        *,
        fps=25,
        chunk=HALF,
        ppm=0.0,
        jitter=JITTER_S,
        stalls=(),
        computing=lambda _: BATCH_S,
        seed=0,
    ):
        self.timeline, self.chunk = Timeline(Fraction(fps)), chunk
        self.wait = float(self.timeline.wait)
        random = np.random.default_rng(seed)
        hops = int(seconds / chunk)
        pace = 1 + ppm * 1e-6
        ends = np.arange(1, hops + 1) * float(chunk)
        delivered = START + ends * pace + random.uniform(0, jitter, hops)
        for at, length in stalls:
            delivered[ends > at] += length
        self._ends = (np.arange(1, hops + 1) * chunk * SAMPLE_RATE).astype(int).tolist()
        self.composited, self.shown, self.ready, said = [], [], [], []
        playout = PlayoutSchedule(self.timeline, chunk)
        free, last = START, 0.0
        for hop, frames in self._frames():
            ready = float(delivered[hop])
            for place, number in enumerate(frames):
                if place % BATCH == 0:
                    free = max(free, ready) + computing(ready - START)
                due = playout.due(_frame(number, ready, hop, free, self.timeline))
                last = max(due, free, last)
                self.composited.append(free)
                self.shown.append(last)
                self.ready.append(ready)
                said.append(number)
        starts = np.array(said) / float(fps)
        self.said = START + starts * pace + sum(length * (starts > at) for at, length in stalls)
        self.delay = np.array(self.shown) - self.said
        self.intervals = np.diff(self.shown) * float(fps)

    def _frames(self):
        """The frames that each chunk makes computable; what a second of frames needs repeats every second."""
        fps = self.timeline.fps
        needed = [self.timeline.needed(frame) for frame in range(fps.numerator)]
        number = 0
        for hop, end in enumerate(self._ends):
            first = number
            while (
                needed[number % fps.numerator] + number // fps.numerator * SAMPLE_RATE * fps.denominator
                <= end
            ):
                number += 1
            yield hop, range(first, number)

    def after(self, seconds):
        """The delays of frames that were shown this late or later."""
        return self.delay[np.array(self.shown) >= START + seconds]


def _frame(number, ready, hop, composited, timeline):
    request = FrameRequest(number, None, SOUND, ready, ready, hop)
    return Frame(request, PICTURE, timeline.pts(number), composited)


SOUND = np.zeros((0, 1), np.float32)
PICTURE = np.zeros((1, 1, 3), np.uint8)


def longest(stream):
    """The longest delay where all goes well: the wait, the jitter, and the batches before a frame's own."""
    return float(stream.chunk) + stream.wait + JITTER_S + 2 * BATCH_S


@pytest.mark.parametrize("hours", [2, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ppm", [-200, 200])
def test_delay_does_not_grow_over_hours_on_a_clock_that_is_off(ppm, hours):
    """In six hours a clock that is off by 200 ppm is 4.3 s away from where it began."""
    stream = Stream(hours * 3600, ppm=ppm)
    assert len(stream.shown) == pytest.approx(hours * 3600 * 25, abs=20)
    assert stream.intervals.min() >= 1 - CATCH_UP - 1e-6
    ten = np.array(stream.shown)[::250]
    assert np.abs(np.diff(ten) / 10 - 1).max() < 0.02
    assert (np.array(stream.shown) >= np.array(stream.composited)).all()
    assert stream.delay.max() <= longest(stream)
    means = [hour.mean() for hour in np.array_split(stream.delay, hours)]
    assert max(means) - min(means) < 0.005


@settings(deadline=None, max_examples=40)
@given(
    fps=st.sampled_from([24, 25, 30, 50]),
    chunk=st.integers(150, 2000).map(lambda ms: Fraction(ms, 1000)),
    ppm=st.floats(-200, 200),
    jitter=st.floats(0, JITTER_S),
    seed=st.integers(0, 1000),
)
def test_frames_come_at_their_rate_and_in_time(fps, chunk, ppm, jitter, seed):
    """Any frame rate, chunk and clock: even, when they are there, and no later than they must be."""
    stream = Stream(30, fps=fps, chunk=chunk, ppm=ppm, jitter=jitter, computing=lambda _: 0.02, seed=seed)
    assert stream.intervals.min() >= 1 - CATCH_UP - 1e-6
    assert (np.array(stream.shown) >= np.array(stream.composited)).all()
    assert stream.delay.max() <= longest(stream)
    assert stream.delay.min() >= stream.wait
    settled = np.array(stream.shown)[len(stream.shown) // 2 :]
    assert (len(settled) - 1) / (settled[-1] - settled[0]) == pytest.approx(fps, rel=0.021)


@pytest.mark.parametrize("chunk", [Fraction(1, 5), HALF, Fraction(1)])
@pytest.mark.parametrize("length", [0.6, 0.8, 0.95, 3.0, 8.0])
def test_a_source_that_stood_still_is_got_over_within_two_chunks(chunk, length):
    """Sound that is later by so much for good: the delay is what it was, and nothing comes in a burst."""
    if length <= chunk / 2:
        pytest.skip("half a chunk or less is lateness, which is made up for more slowly")
    stream = Stream(60, chunk=chunk, stalls=[(30, length)], seed=3)
    spoken = np.arange(len(stream.said)) / 25
    after = spoken > 30 + 2 * float(chunk)
    assert stream.delay[after].max() <= longest(stream)
    assert stream.intervals.min() >= 1 - CATCH_UP - 1e-6
    assert np.count_nonzero(stream.intervals[20 * 25 :] > 2) == 1, "the stall itself"


@pytest.mark.parametrize("extra", [0.1, 0.3, 1.0, 4.0])
def test_computing_that_is_late_for_a_while_adds_a_chunk_at_most(extra):
    """One batch takes longer. What is late beyond a chunk is shown late, and in the end all is as before."""
    late = [extra]

    def computing(at):
        return BATCH_S + (late.pop() if late and at >= 30 else 0.0)

    stream, even = Stream(90, computing=computing), Stream(90)
    assert np.array_equal(stream.delay[: 29 * 25], even.delay[: 29 * 25])
    on_time = np.array(stream.shown) > np.array(stream.composited)
    usual = even.delay.max()
    assert stream.delay[on_time].max() <= usual + float(HALF) + 1e-6
    assert stream.delay.max() > usual + min(extra, 0.5) - 0.2
    back = 30.6 + extra + PAST_S + float(HALF) / CATCH_UP
    assert stream.after(back).max() <= usual + 1e-6
    held = stream.after(30.6 + extra + 1)[: 25 * 5]
    assert held.min() > usual, "the delay that was needed stays for a while, so that the next time is smooth"


def test_lateness_that_stays_is_shown_late_and_never_becomes_delay():
    """Computing falls many seconds behind, as where nothing is left out; then it is quick again."""
    stream = Stream(120, computing=lambda at: BATCH_S + (3.0 if 20 <= at < 20.1 or 30 <= at < 30.6 else 0.0))
    even = Stream(120)
    back = 60 + PAST_S + float(HALF) / CATCH_UP
    assert stream.delay.max() > 3
    assert stream.after(back).max() <= even.delay.max() + 1e-6


def test_sound_that_comes_faster_than_it_is_spoken_is_shown_a_little_faster_than_its_rate():
    """A pipe with all the sound at once: from the second chunk on frames come 2 % closer, not in a burst."""
    timeline, playout, due = Timeline(Fraction(25)), PlayoutSchedule(Timeline(Fraction(25)), HALF), []
    for number in range(500):
        due.append(playout.due(_frame(number, START, number * 2 // 25, START + 0.01, timeline)))
    between = [after - before for before, after in pairwise(due)]
    assert between == pytest.approx([0.04] * 12 + [0.04 * (1 - CATCH_UP)] * 487)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 3)), min_size=1, max_size=200), st.floats(0.1, 20))
def test_the_smallest_of_the_past_is_that(steps, past):
    smallest, at, values = MinimumFilter(past), 0.0, []
    for value, later in steps:
        at += later
        values.append((at, value))
        assert smallest.add(value, at) == min(v for when, v in values if when >= at - past)


def test_the_past_is_bounded():
    """Rising values are the worst case: each can still become the smallest."""
    smallest = MinimumFilter()
    for number in range(1000):
        smallest.add(float(number), number / 25)
    tracemalloc.start()
    for number in range(1000, 20_000):
        smallest.add(float(number), number / 25)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 400 * (PAST_S * 25), "a few hundred bytes a value, of those that can become the smallest"
    smallest.clear()
    assert smallest.add(7.0, 1e6) == 7.0


class Buffer:
    """A jitter buffer on a clock of its own, and how often a stall was told."""

    def __init__(self, capacity=100, *, paced=True, chunk=HALF):
        self.clock, self.stalls = FakeClock(START), []
        self.timeline = Timeline(Fraction(25))
        schedule = PlayoutSchedule(self.timeline, chunk) if paced else None
        self.buffer = JitterBuffer(capacity, self.clock, schedule, self.stalls.append)

    def frame(self, number):
        """A frame of the first hop, or of the one that its number is in, composited at once."""
        hop = int(number / 25 / HALF)
        ready = START + float((hop + 1) * HALF)
        return _frame(number, ready, hop, ready, self.timeline)


def test_frames_leave_when_they_are_due_and_in_order():
    made = Buffer()
    frames = [made.frame(number) for number in range(30)]
    assert all(made.buffer.offer(frame) for frame in frames)
    made.buffer.close()
    schedule = PlayoutSchedule(made.timeline, HALF)
    for frame, (found, due) in zip(frames, made.buffer, strict=True):
        assert found is frame
        assert made.clock.now() == due == pytest.approx(schedule.due(frame))
    assert made.stalls == []


def test_without_a_schedule_frames_leave_at_once():
    made = Buffer(paced=False)
    frames = [made.frame(number) for number in range(30)]
    for frame in frames:
        made.buffer.offer(frame)
    made.buffer.close()
    assert list(made.buffer) == [(frame, None) for frame in frames]
    assert made.clock.now() == START


def test_the_room_is_bounded_and_comes_back():
    made = Buffer(3, paced=False)
    frames = [made.frame(number) for number in range(5)]
    assert [made.buffer.offer(frame) for frame in frames] == [True, True, True, False, False]
    assert (made.buffer.waiting, made.buffer.has_room) == (3, False)
    assert next(iter(made.buffer)) == (frames[0], None)
    assert (made.buffer.waiting, made.buffer.has_room) == (2, True)
    assert made.buffer.offer(frames[3])


def test_after_a_hurry_nothing_is_waited_for():
    made = Buffer()
    for number in range(30):
        made.buffer.offer(made.frame(number))
    made.buffer.hurry()
    made.buffer.close()
    assert len(list(made.buffer)) == 30
    assert made.clock.now() == START


def test_a_buffer_that_is_closed_with_an_error_gives_nothing_any_more():
    made, error = Buffer(), OSError("gone")
    for number in range(3):
        made.buffer.offer(made.frame(number))
    made.buffer.close(error)
    with pytest.raises(OSError, match="gone"):
        list(made.buffer)
    with pytest.raises(OSError, match="gone"):
        made.buffer.offer(made.frame(3))


def test_a_stall_is_told_once_however_many_frames_come_late():
    made = Buffer()
    for number in range(30):
        made.buffer.offer(made.frame(number))
    made.buffer.close()
    for number, _ in enumerate(made.buffer):
        if number in {5, 20}:
            made.clock.time += 0.2
    assert [frame.request.index for frame in made.stalls] == [6, 21]
