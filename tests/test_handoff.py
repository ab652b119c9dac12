import itertools
import threading
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.handoff import Handoff, HandoffClosed, ahead, side_by_side


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


def test_items_wait_where_the_sum_of_sizes_has_reached_the_capacity():
    """An item that is larger than all of it goes in too, where there is any room."""
    handoff = Handoff(10, len)
    assert [handoff.offer("a" * size) for size in (4, 5, 20, 1)] == [True, True, True, False]
    assert handoff.waiting == 3
    assert [len(handoff.get()), handoff.offer("b"), len(handoff.get()), handoff.offer("b")] == [
        4,
        False,
        5,
        False,
    ]
    assert len(handoff.get()) == 20
    assert handoff.offer("b")


def test_a_large_item_that_is_taken_makes_room_for_all_who_wait():
    handoff = Handoff(4, len)
    handoff.put("aaaaaaaa")
    producers = [in_thread(lambda: handoff.put("b"))[0] for _ in range(3)]
    assert handoff.get() == "aaaaaaaa"
    for producer in producers:
        producer.join(5)
        assert not producer.is_alive()
    assert handoff.waiting == 3


@given(capacity=st.integers(1, 20), steps=st.lists(st.integers(0, 12), max_size=60))
def test_what_is_held_is_below_the_capacity_where_an_item_goes_in(capacity, steps):
    """Against a list: 0 takes the oldest item, any other number is offered and is its own size."""
    handoff, held = Handoff(capacity, lambda size: size), []
    for step in steps:
        if step:
            fits = sum(held) < capacity
            assert handoff.offer(step) is fits
            held += [step] * fits
        else:
            assert handoff.get(0) == (held.pop(0) if held else None)
        assert handoff.waiting == len(held)


@given(capacity=st.integers(1, 20), sizes=st.lists(st.integers(1, 12), max_size=30))
def test_a_producer_waits_by_the_sizes_and_all_comes_in_order(capacity, sizes):
    handoff, put = Handoff(capacity, lambda item: item[1]), []

    def produce():
        for item in enumerate(sizes):
            handoff.put(item)
            put.append(item[1])
        handoff.close()

    thread, _ = in_thread(produce)
    taken = []
    for item in handoff:
        taken.append(item)
        assert sum(put[:-1]) < sum(size for _, size in taken) + capacity
    thread.join(5)
    assert taken == list(enumerate(sizes))


def test_nothing_within_the_timeout_is_none():
    assert Handoff(1).get(0.0) is None


def test_an_offer_never_waits_and_says_whether_there_was_room():
    handoff = Handoff(2)
    assert [handoff.offer(item) for item in "abc"] == [True, True, False]
    assert handoff.waiting == 2
    assert handoff.get() == "a"
    assert handoff.waiting == 1
    assert handoff.offer("d")
    handoff.close()
    assert list(handoff) == ["b", "d"]
    assert handoff.waiting == 0


@pytest.mark.parametrize("error", [None, ValueError("broken")])
@pytest.mark.parametrize("full", [True, False])
def test_nothing_can_be_offered_after_the_end(error, full):
    handoff = Handoff(1)
    if full:
        handoff.put(0)
    handoff.close(error)
    with pytest.raises(type(error) if error else HandoffClosed):
        handoff.offer(1)


def test_what_is_offered_wakes_who_waits():
    handoff = Handoff(1)
    consumer, consumed = in_thread(handoff.get)
    assert handoff.offer("a")
    consumer.join(5)
    assert consumed == ["a"]


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


class Counted:
    """0, 1, 2, ...: tells how many were begun, and when a number of them was; notes where it was closed."""

    def __init__(self, count=None, fail_at=None):
        self.count, self.fail_at = count, fail_at
        self.begun = 0
        self.changed = threading.Condition()
        self.closed_in = None

    def __iter__(self):
        try:
            for item in itertools.count() if self.count is None else range(self.count):
                with self.changed:
                    self.begun += 1
                    self.changed.notify_all()
                if item == self.fail_at:
                    raise ValueError(f"item {item}")
                yield item
        finally:
            self.closed_in = threading.current_thread()

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: self.begun >= count, 5), self.begun


@pytest.mark.parametrize("capacity", [1, 3])
def test_ahead_keeps_the_order_and_runs_no_further_ahead_than_it_says(capacity):
    items = Counted(50)
    with closing(ahead(items, capacity)) as taken:
        for number, item in enumerate(taken):
            assert item == number
            # Those taken, those that wait, and the one in the making.
            items.wait_for(min(50, number + 1 + capacity + 1))
            assert items.begun <= number + 1 + capacity + 1
    assert number == 49
    assert items.closed_in is not threading.current_thread()


def test_ahead_does_not_begin_before_it_is_asked():
    items = Counted()
    taken = ahead(items, 3)
    assert items.begun == 0
    taken.close()
    assert items.begun == 0


def test_ahead_of_nothing_is_nothing():
    assert list(ahead([], 1)) == []
    assert list(ahead(iter("ab"), 1)) == ["a", "b"]


@given(count=st.integers(0, 12), fail_at=st.integers(0, 15), capacity=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_a_failure_ahead_is_raised_in_its_place(count, fail_at, capacity):
    seen, failed = [], False
    try:
        for item in ahead(Counted(count, fail_at), capacity):
            seen.append(item)
    except ValueError as error:
        failed = str(error) == f"item {fail_at}"
    assert seen == list(range(min(count, fail_at)))
    assert failed == (fail_at < count)


@pytest.mark.parametrize("takes", [1, 4])
def test_closing_ends_the_thread_and_closes_what_it_runs(takes):
    before = threading.active_count()
    items = Counted()
    taken = ahead(iter(items), 2)
    assert [next(taken) for _ in range(takes)] == list(range(takes))
    assert threading.active_count() == before + 1
    taken.close()
    assert threading.active_count() == before
    assert items.closed_in is not None
    assert items.closed_in is not threading.current_thread()
    assert items.begun <= takes + 3


def test_two_ahead_of_each_other_close_whatever_they_wait_for():
    before = threading.active_count()
    items = Counted()
    first = ahead(items, 1)
    second = ahead((item * 2 for item in first), 1)
    assert [next(second) for _ in range(3)] == [0, 2, 4]
    second.close()
    first.close()
    assert threading.active_count() == before
    assert items.closed_in is not None


def test_a_consumer_that_fails_ends_the_thread():
    before = threading.active_count()
    with pytest.raises(KeyError), closing(ahead(Counted(), 2)) as taken:
        for _ in taken:
            raise KeyError
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_side_by_side_keeps_the_order_where_the_later_ones_are_done_first(workers):
    """Of every group, each waits until all that were begun with it are done."""
    done = [threading.Event() for _ in range(12)]

    def work(item):
        last = min(len(done), item // workers * workers + workers)
        assert all(event.wait(5) for event in done[item + 1 : last])
        done[item].set()
        return item, threading.current_thread()

    results = list(side_by_side(work, range(12), workers))
    assert [item for item, _ in results] == list(range(12))
    assert len({thread for _, thread in results}) == workers
    assert threading.current_thread() not in {thread for _, thread in results}


@pytest.mark.parametrize("workers", [1, 2])
def test_side_by_side_takes_no_more_than_two_for_each_worker(workers):
    items, finished = Counted(30), 0
    for number, item in enumerate(side_by_side(lambda item: item, items, workers)):
        assert item == number
        finished += 1
        assert items.begun <= finished + 2 * workers - 1
    assert finished == 30


def test_side_by_side_runs_no_more_at_once_than_it_has_workers():
    lock, running, most = threading.Lock(), [], []

    def work(item):
        with lock:
            running.append(item)
            most.append(len(running))
        with lock:
            running.remove(item)

    list(side_by_side(work, range(200), 3))
    assert max(most) <= 3


@given(count=st.integers(0, 10), bad=st.integers(0, 12), broken=st.integers(0, 12), workers=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_the_first_failure_is_raised_in_its_place(count, bad, broken, workers):
    """Of the function at `bad`, or of the iterable at `broken`: whatever came before is there."""

    def work(item):
        if item == bad:
            raise KeyError(item)
        return item

    results, failed = [], None
    try:
        for result in side_by_side(work, Counted(count, broken), workers):
            results.append(result)
    except (KeyError, ValueError) as error:
        failed = type(error)
    first = min(count, bad, broken)
    assert results == list(range(first))
    expected = None if first == count else ValueError if broken == first else KeyError
    assert failed is expected


def test_closing_waits_for_what_runs_and_leaves_out_the_rest():
    before = threading.active_count()
    items = Counted()
    results = side_by_side(lambda item: item, items, 2)
    assert next(results) == 0
    results.close()
    assert threading.active_count() == before
    assert items.begun == 4
    with pytest.raises(StopIteration):
        next(results)
