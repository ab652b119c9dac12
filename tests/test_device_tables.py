"""Tables that several threads look up."""

import threading

from musetalk_cli.ops.device_tables import cached


def test_who_looks_up_what_is_there_does_not_wait_for_what_another_makes():
    making, done = threading.Event(), threading.Event()

    def make(key):
        if key == "slow":
            making.set()
            assert done.wait(60)
        return [key]

    look_up = cached(make)
    there = look_up("there")
    maker = threading.Thread(target=look_up, args=("slow",), daemon=True)
    maker.start()
    assert making.wait(60)
    found = []
    reader = threading.Thread(target=lambda: found.append(look_up("there")), daemon=True)
    reader.start()
    reader.join(20)
    done.set()
    maker.join(60)
    assert found == [there]
    assert look_up("slow") is look_up("slow")


def test_of_a_table_that_two_make_at_once_one_is_kept():
    both = threading.Barrier(2)

    def make(key):
        both.wait(60)
        return [key]

    look_up, found = cached(make), []
    threads = [threading.Thread(target=lambda: found.append(look_up("one"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found[0] is found[1]
