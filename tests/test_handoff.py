import threading

import pytest

from musetalk_cli.handoff import Handoff, HandoffClosed


def in_thread(work):
    """Run `work` in a thread; returns the thread and the list its result or failure goes into."""
    result = []

    def run():
        try:
            result.append(work())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, result


def test_items_come_out_in_order():
    handoff = Handoff(3)
    for item in "abc":
        handoff.put(item)
    handoff.close()
    assert list(handoff) == ["a", "b", "c"]


def test_a_full_one_makes_the_producer_wait():
    handoff = Handoff(2)
    put = []

    def produce():
        for item in range(20):
            handoff.put(item)
            put.append(item)
        handoff.close()

    thread, _ = in_thread(produce)
    for taken, item in enumerate(handoff):
        assert item == taken
        assert len(put) <= taken + 1 + 2
    thread.join(5)
    assert not thread.is_alive()
    assert taken == 19


def test_nothing_within_the_timeout_is_none():
    assert Handoff(1).get(0.0) is None


def test_closed_is_an_ending_for_both_sides_after_the_rest_was_taken():
    handoff = Handoff(2)
    handoff.put(1)
    handoff.close()
    with pytest.raises(HandoffClosed):
        handoff.put(2)
    assert handoff.get() == 1
    with pytest.raises(HandoffClosed):
        handoff.get()


def test_an_error_reaches_both_sides_at_once_and_the_first_one_stays():
    handoff = Handoff(2)
    handoff.put(1)
    first = ValueError("first")
    handoff.close(first)
    handoff.close(KeyError("second"))
    for call in (handoff.get, lambda: handoff.put(2), handoff.raise_error, lambda: list(handoff)):
        with pytest.raises(ValueError, match="first"):
            call()


def test_an_error_after_an_ending_is_kept():
    handoff = Handoff(1)
    handoff.close()
    handoff.close(ValueError("late"))
    with pytest.raises(ValueError, match="late"):
        handoff.raise_error()


@pytest.mark.parametrize("error", [None, ValueError("broken")])
def test_closing_wakes_a_waiting_producer_and_a_waiting_consumer(error):
    full, empty = Handoff(1), Handoff(1)
    full.put(0)
    producer, produced = in_thread(lambda: full.put(1))
    consumer, consumed = in_thread(empty.get)
    full.close(error)
    empty.close(error)
    producer.join(5)
    consumer.join(5)
    assert [type(item) for item in produced + consumed] == [type(error) if error else HandoffClosed] * 2
