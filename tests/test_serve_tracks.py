"""From the sink's thread to the loop: what waits is bounded, and one that falls behind goes on at an IDR."""

import asyncio
import threading
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from lives import LIMIT_S

pytest.importorskip("aiortc", reason="the extra serve is not installed")

from aiortc.mediastreams import MediaStreamError

from musetalk_cli.serve import tracks
from musetalk_cli.serve.broadcast import Unit, Wants
from musetalk_cli.serve.encoders import Packet
from musetalk_cli.serve.tracks import OFF_S, PacketQueue, PictureTrack, Screen, SoundTrack

FPS = Fraction(25)


def unit(number, *, key=False, sounds=2, utterance=0):
    packets = tuple(Packet(number * 1920 + 960 * n - 312, b"sound") for n in range(sounds))
    frame = SimpleNamespace(pts=number / FPS, request=SimpleNamespace(utterance=utterance))
    return Unit(frame, b"%d" % number, key, packets)


def screen(wants=Wants(), ended=lambda: None):  # noqa: B008 - frozen
    return Screen(wants, FPS, asyncio.get_running_loop(), ended)


async def take(queue, count):
    return [await asyncio.wait_for(queue.get(), LIMIT_S) for _ in range(count)]


def test_what_a_thread_puts_a_coroutine_gets_in_order():
    async def scenario():
        queue = PacketQueue(1000, asyncio.get_running_loop())
        thread = threading.Thread(target=lambda: [queue.put(number) for number in range(500)])
        thread.start()
        assert await take(queue, 500) == list(range(500))
        thread.join()

    asyncio.run(scenario())


def test_a_queue_is_bounded_and_a_closed_one_ends_who_waits():
    async def scenario():
        queue = PacketQueue(2, asyncio.get_running_loop())
        assert [queue.put(number) for number in range(3)] == [True, True, False]
        assert await take(queue, 1) == [0]
        assert queue.put(3)
        queue.clear()
        waiting = asyncio.create_task(queue.get())
        await asyncio.to_thread(queue.close)
        with pytest.raises(MediaStreamError):
            await asyncio.wait_for(waiting, LIMIT_S)

    asyncio.run(scenario())


def test_one_whose_loop_is_gone_is_no_harm():
    made = []

    async def scenario():
        made.append(screen())

    asyncio.run(scenario())
    made[0].show(unit(0, key=True))
    made[0].end()
    made[0].close()


def test_times_are_those_of_the_frame():
    async def scenario():
        shown = screen()
        shown.show(unit(50, key=True))
        picture = await PictureTrack(shown).recv()
        assert (picture.pts, picture.time_base) == (180_000, Fraction(1, 90_000))
        assert bytes(picture) == b"50"
        track = SoundTrack(shown)
        packets = [await track.recv() for _ in range(2)]
        assert [packet.pts for packet in packets] == [95_688, 96_648]
        assert packets[0].time_base == Fraction(1, 48_000)

    asyncio.run(scenario())


def test_sound_is_not_sent_before_its_place_in_the_frame():
    async def scenario():
        shown = screen()
        before = time.monotonic()
        shown.show(unit(0, key=True))
        after = time.monotonic()
        dues = [sound.due for sound in await take(shown.sounds, 2)]
        for due, place in zip(dues, (-312 / 48_000, 648 / 48_000), strict=True):
            assert before <= due - place <= after
        shown.show(unit(1))
        track = SoundTrack(shown)
        start = time.monotonic()
        await track.recv()
        await track.recv()
        assert time.monotonic() - start >= 648 / 48_000 - 0.002

    asyncio.run(scenario())


class Times:
    """Stands for the module `time`."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(
            tracks, "time", SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now + 1e9)
        )


@pytest.mark.parametrize("pace", [1.0, 1.25, 5.0, 1e9, 0.8])
@pytest.mark.parametrize("fps", [10, 25])
def test_in_silence_time_is_put_back_to_the_clock_and_speech_keeps_its_own(monkeypatch, pace, fps):
    """Speech, silence at another pace, speech: what a receiver is told of time stays with the clock."""
    times = Times(monkeypatch)
    count, first, again = 100, 30, 70

    async def scenario():
        shown = Screen(Wants(), Fraction(fps), asyncio.get_running_loop(), lambda: None)
        begun, sent, places = times.now, [], {0: set(), 1: set()}

        waiting = []

        async def send_what_is_due():
            """As the sender does, which has taken the packet that is due next."""
            while waiting or shown.sounds.waiting:
                waiting[:] = waiting or await take(shown.sounds, 1)
                if waiting[0].due > times.now + 1e-6:
                    return
                sent.append(waiting.pop().pts)

        for number in range(count):
            utterance = None if first <= number < again else number // again
            packets = tuple(
                Packet(round(number * 48_000 / fps) + 960 * n, b"sound") for n in range(50 // fps)
            )
            frame = SimpleNamespace(pts=Fraction(number, fps), request=SimpleNamespace(utterance=utterance))
            await send_what_is_due()
            shown.show(Unit(frame, b"picture", number == 0, packets))
            (picture,) = await take(shown.pictures, 1)
            if utterance is not None:
                off = picture.pts / 90_000 - (times.now - begun)
                assert abs(off) <= OFF_S + 0.021, (number, off)
                places[utterance].add(off)
            period = 1 / fps
            times.now += period if utterance is not None else period / pace
        for place in places.values():
            assert np.ptp([*place]) < 0.001, (
                "within speech nothing moves, but for pictures in quick succession"
            )
        assert sent == sorted(set(sent)), "nothing twice, and in order"
        steps = {after - one for one, after in pairwise(sent)}
        assert steps == {960} if pace >= 1 else min(steps) == 960
        assert sent[-1] / 48_000 == pytest.approx(times.now - begun, abs=0.3)

    asyncio.run(scenario())


def test_one_that_falls_behind_goes_on_at_the_next_idr_with_sound_that_is_new():
    async def scenario():
        shown = screen()
        for number in range(40):
            shown.show(unit(number, key=number in {0, 35}))
        pictures = await take(shown.pictures, 5)
        assert [picture.data for picture in pictures] == [b"35", b"36", b"37", b"38", b"39"]
        sounds = await take(shown.sounds, 30)
        assert sounds[-1].pts == 39 * 1920 + 960 - 312
        assert {after.pts - one.pts for one, after in pairwise(sounds)} == {960}

    asyncio.run(scenario())


def test_an_idr_that_finds_no_room_is_where_it_goes_on():
    async def scenario():
        shown = screen()
        for number in range(26):
            shown.show(unit(number, key=number in {0, 25}))
        assert (await take(shown.pictures, 1))[0].data == b"25"
        shown.show(unit(26))
        assert (await take(shown.pictures, 1))[0].data == b"26"

    asyncio.run(scenario())


def test_where_there_is_no_picture_none_is_sent_and_the_sound_is():
    async def scenario():
        shown = screen()
        for number in range(3):
            shown.show(replace(unit(number, key=number == 0), **({"picture": b""} if number == 1 else {})))
        assert [picture.data for picture in await take(shown.pictures, 2)] == [b"0", b"2"]
        assert len(await take(shown.sounds, 6)) == 6

    asyncio.run(scenario())


def test_one_that_wants_no_pictures_gets_none():
    async def scenario():
        shown = screen(Wants("none", "opus"))
        for number in range(60):
            shown.show(unit(number, key=True))
            await take(shown.sounds, 2)
        assert shown.pictures.put("room")

    asyncio.run(scenario())


def test_the_end_is_told_on_the_loop():
    async def scenario():
        told = asyncio.Event()
        threads = []
        shown = screen(ended=lambda: (threads.append(threading.get_ident()), told.set()))
        await asyncio.to_thread(shown.end)
        await asyncio.wait_for(told.wait(), LIMIT_S)
        assert threads == [threading.get_ident()]

    asyncio.run(scenario())
