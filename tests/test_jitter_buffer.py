"""The jitter buffer on a clock of its own; when frames are due is in test_playout."""

import math
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock

from musetalk_cli.handoff import HandoffClosed
from musetalk_cli.live.jitter_buffer import CUT_OFF, JitterBuffer
from musetalk_cli.live.playout import PlayoutSchedule
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import Fate, Frame, FrameRequest, Utterance

START, PERIOD = 5000.0, 0.04
FPS = Fraction(25)
SOUND = np.zeros((0, 1), np.float32)
PICTURE = np.zeros((1, 1, 3), np.uint8)


def make_frame(number, composited=START, *, utterance=0, epoch=0, fate=Fate.SPEAKING, short=False):
    spoken = None if utterance is None else Utterance(utterance, START)
    fate = Fate.IDLE if utterance is None else fate
    request = FrameRequest(
        number, None, SOUND, START, START, 0, fate, epoch=epoch, utterance=spoken, short=short
    )
    return Frame(request, PICTURE, Fraction(number) / FPS, composited, fate)


class Buffer:
    """A jitter buffer, its clock, and the frames of which a stall was told."""

    def __init__(self, capacity=100, *, paced=True):
        self.clock, self.stalls = FakeClock(START), []
        schedule = PlayoutSchedule(Timeline(FPS), Fraction(1, 2)) if paced else None
        self.buffer = JitterBuffer(capacity, self.clock, schedule, self.stalls.append)

    def add(self, frames):
        for frame in frames:
            self.buffer.add(frame)


def test_frames_leave_when_they_are_due_and_in_order():
    made, frames = Buffer(), [make_frame(number) for number in range(30)]
    made.add(frames)
    made.buffer.close()
    for number, (frame, (found, due)) in enumerate(zip(frames, made.buffer, strict=True)):
        assert found is frame
        assert made.clock.now() == pytest.approx(due) == pytest.approx(START + number * PERIOD)
    assert made.stalls == []


def test_without_a_schedule_frames_leave_at_once():
    made, frames = Buffer(paced=False), [make_frame(number) for number in range(30)]
    made.add(frames)
    assert made.buffer.next_at == -math.inf
    made.buffer.close()
    assert list(made.buffer) == [(frame, None) for frame in frames]
    assert made.clock.now() == START


def test_an_utterance_that_is_due_passes_over_the_silence_in_front_of_it():
    """Silent frames wait at their own rate; the first word does not wait for them."""
    made = Buffer()
    made.add([make_frame(number, utterance=None) for number in range(10)])
    found = iter(made.buffer)
    before = [next(found)[0] for _ in range(2)]
    assert [frame.request.index for frame in before] == [0, 1]
    assert made.clock.now() == pytest.approx(START + PERIOD)
    word = make_frame(10, START + PERIOD + 0.01)
    made.add([word])
    after = [next(found)[0] for _ in range(9)]
    assert [frame.request.index for frame in after] == list(range(2, 11))
    assert [frame.passed_over for frame in before + after] == [False] * 2 + [True] * 8 + [False]
    assert made.clock.now() == pytest.approx(START + PERIOD + 0.01), "all of them then"
    assert made.stalls == []


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_utterance_passes_over_no_word_unless_an_interrupt_cut_that_off(epoch):
    made = Buffer()
    made.add([make_frame(number, utterance=0 if number < 10 else None) for number in range(15)])
    made.add([make_frame(15, utterance=1, epoch=epoch)])
    made.buffer.close()
    shown = [made.clock.now() for _ in made.buffer]
    assert shown[-1] == pytest.approx(START if epoch else START + 10 * PERIOD)
    if not epoch:
        assert shown[:10] == pytest.approx([START + number * PERIOD for number in range(10)])


def test_the_room_is_bounded_and_comes_back():
    made = Buffer(3, paced=False)
    frames = [make_frame(number) for number in range(5)]
    for frame in frames[:3]:
        assert made.buffer.has_room(0)
        made.buffer.add(frame)
    assert (made.buffer.waiting, made.buffer.has_room(0)) == (3, False)
    assert next(iter(made.buffer)) == (frames[0], None)
    assert (made.buffer.waiting, made.buffer.has_room(0)) == (2, True)


def test_what_an_interrupt_cut_off_takes_no_room_from_what_comes_after_it():
    made = Buffer(3)
    made.add([make_frame(number) for number in range(3)])
    assert made.buffer.has_room(1), "after the interrupt"
    made.add([make_frame(number, epoch=1) for number in range(3, 6)])
    assert not made.buffer.has_room(1)
    for epoch in range(2, 10):
        if not made.buffer.has_room(epoch):
            break
        made.add([make_frame(made.buffer.waiting, epoch=epoch)])
    assert made.buffer.waiting == CUT_OFF * 3, "and interrupts without an end do not fill the memory"


def test_frames_of_an_utterance_are_told_apart_from_silent_ones():
    made = Buffer()
    made.add([make_frame(0, utterance=None), make_frame(1), make_frame(2)])
    assert (made.buffer.waiting, made.buffer.ahead) == (3, 2)


def test_after_a_hurry_nothing_is_waited_for():
    """And nothing is passed over: a recording that was stopped is whole."""
    made = Buffer()
    made.add([make_frame(number, utterance=None if number < 10 else 0) for number in range(30)])
    made.buffer.hurry()
    made.buffer.close()
    assert [frame.passed_over for frame, _ in made.buffer] == [False] * 30
    assert made.clock.now() == START


def test_a_buffer_that_is_closed_with_an_error_gives_nothing_any_more():
    made, error = Buffer(), OSError("gone")
    made.add([make_frame(number) for number in range(3)])
    made.buffer.close(error)
    made.buffer.close(OSError("later"))
    with pytest.raises(OSError, match="gone"):
        list(made.buffer)
    with pytest.raises(OSError, match="gone"):
        made.buffer.add(make_frame(3))


def test_a_buffer_that_is_closed_takes_nothing_any_more():
    made = Buffer()
    made.buffer.close()
    with pytest.raises(HandoffClosed):
        made.buffer.add(make_frame(0))


def test_a_stall_is_told_once_however_many_frames_come_late():
    made = Buffer()
    made.add([make_frame(number) for number in range(30)])
    made.buffer.close()
    for number, _ in enumerate(made.buffer):
        if number in {5, 20}:
            made.clock.time += 0.2
    assert [frame.request.index for frame in made.stalls] == [6, 21]


@pytest.mark.parametrize(
    ("late", "told"),
    [({}, True), ({"fate": Fate.HELD}, True), ({"utterance": None}, False), ({"short": True}, False)],
)
def test_only_speech_that_had_its_sound_stalls(late, told):
    """In silence nobody sees it, and a frame that sound was missing for has nothing to be late for."""
    made = Buffer()
    made.add([make_frame(0), make_frame(1), make_frame(2, **late)])
    for _ in range(2):
        made.buffer.take(made.clock.now())
    made.buffer.take(START + 2 * PERIOD + PERIOD + 0.01)
    assert [frame.request.index for frame in made.stalls] == ([2] if told else [])
