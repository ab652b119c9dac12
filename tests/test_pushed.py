import threading

import numpy as np
import pytest
from clocks import FakeClock

from musetalk_cli.handoff import HandoffClosed
from musetalk_cli.sources.pushed import ROOM_S, PushedSource

RATE = 16_000


def block(samples, value=0.5):
    return np.full((samples, 1), value, np.float32)


def test_what_is_pushed_is_given_in_order_with_its_time_and_its_ends():
    clock = FakeClock(10.0)
    source = PushedSource(RATE, 1, clock)
    assert source.offer(block(320, 0.1))
    clock.time = 11.0
    assert source.offer(block(0), ends=True, segment=7)
    assert source.offer(block(160, 0.2))
    source.close()
    given = list(source)
    assert [(len(one.samples), one.arrived, one.ends, one.segment) for one in given] == [
        (320, 10.0, False, None),
        (0, 11.0, True, 7),
        (160, 11.0, False, None),
    ]


def test_there_is_room_for_so_much_and_again_when_it_was_taken():
    source = PushedSource(RATE, 1, FakeClock())
    pushed = 0
    while source.offer(block(1600)):
        pushed += 1600
    assert ROOM_S * RATE <= pushed < ROOM_S * RATE + 1600
    assert not source.offer(block(1))
    taken = iter(source)
    next(taken)
    assert source.offer(block(1))


def test_an_empty_end_takes_room_too():
    source = PushedSource(10, 1, FakeClock())
    assert sum(source.offer(block(0), ends=True) for _ in range(100)) == 10


def test_what_is_discarded_is_not_given():
    source = PushedSource(RATE, 1, FakeClock())
    source.offer(block(320, 0.1))
    source.discard()
    source.offer(block(320, 0.2))
    source.close()
    source.discard()
    assert list(source) == []
    with pytest.raises(HandoffClosed):
        source.offer(block(1))


def test_closing_ends_whoever_waits_for_sound():
    source = PushedSource(RATE, 1, FakeClock())
    ended = threading.Event()
    thread = threading.Thread(target=lambda: (list(source), ended.set()))
    thread.start()
    source.close()
    assert ended.wait(10)
    thread.join()
