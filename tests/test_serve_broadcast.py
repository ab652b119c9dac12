"""One session for many viewers: who gets what of which frame, and what is encoded for it."""

import threading
import weakref
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from clocks import FakeClock
from lives import speech

from musetalk_cli.types import Frame, FrameRequest, StreamFormat

av = pytest.importorskip("av", reason="the extra serve is not installed")

from musetalk_cli.serve import broadcast, encoders  # noqa: E402 - needs PyAV
from musetalk_cli.serve.broadcast import KEPT_S, Broadcast, Unit, Wants  # noqa: E402

FPS, RATE, WIDTH, HEIGHT = Fraction(25), 48_000, 96, 64
SOUND = speech(4, RATE)[:, None]


class Recorder:
    """A viewer that keeps what it is shown."""

    def __init__(self, video="h264", sound="opus"):
        self.wants = Wants(video, sound)
        self.units: list[Unit] = []
        self.ends = 0
        self.threads = set()

    def show(self, unit):
        assert not self.ends, "nothing is shown after the end"
        self.threads.add(threading.get_ident())
        self.units.append(unit)

    def end(self):
        self.ends += 1

    @property
    def numbers(self):
        return [unit.frame.request.index for unit in self.units]


class Broken(Recorder):
    def show(self, unit):
        super().show(unit)
        raise ValueError("went away")


def frame(number):
    image = np.full((HEIGHT, WIDTH, 3), (number * 5 % 256, 100, 200 - number), np.uint8)
    image.setflags(write=False)
    audio = SOUND[number * 1920 : number * 1920 + 1920]
    return Frame(FrameRequest(number, None, audio, 0.0, 0.0, 0), image, number / FPS, 0.0)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def made(monkeypatch):
    """Every encoder that is made, as long as it is kept, and how often each encoded."""
    found = {"H264Encoder": [], "OpusEncoder": []}

    def counted(kind):
        class Counted(getattr(encoders, kind)):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options)
                self.times = 0
                found[kind].append(weakref.ref(self))

            def encode(self, *arguments, **options):
                self.times += 1
                return super().encode(*arguments, **options)

        return Counted

    for kind in found:
        monkeypatch.setattr(broadcast, kind, counted(kind))
    return found


@pytest.fixture
def sink(clock, made):
    sink = Broadcast(clock)
    sink.open(StreamFormat(WIDTH, HEIGHT, FPS, RATE, 1))
    return sink


def write(sink, numbers):
    for number in numbers:
        sink.write(frame(number))


def alive(made, kind):
    return [encoder() for encoder in made[kind] if encoder() is not None]


def colours(units):
    """Mean colour of each picture, as a decoder gives it from the first one on."""
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit.picture))]
    return [one.to_ndarray(format="bgr24").mean(axis=(0, 1)) for one in frames + decoder.decode(None)]


def test_all_that_want_the_same_get_the_same_unit_encoded_once(sink, made):
    viewers = [Recorder() for _ in range(3)]
    for viewer in viewers:
        sink.join(viewer)
    write(sink, range(5))
    assert viewers[0].numbers == [0, 1, 2, 3, 4]
    for viewer in viewers[1:]:
        assert all(one is other for one, other in zip(viewer.units, viewers[0].units, strict=True))
    assert [encoder.times for kind in made for encoder in alive(made, kind)] == [5, 5]
    assert sink.viewers == 3


def test_pictures_and_sound_are_those_of_the_frame(sink):
    viewer = Recorder()
    sink.join(viewer)
    write(sink, range(10))
    for number, colour in enumerate(colours(viewer.units)):
        assert np.abs(colour - frame(number).image[0, 0]).max() < 4
    packets = [packet for unit in viewer.units for packet in unit.sound]
    assert len(packets) == 20
    for unit in viewer.units:
        for packet in unit.sound:
            assert abs(packet.pts / RATE - unit.frame.pts) < 1 / FPS


@pytest.mark.parametrize(
    ("video", "sound", "needed"),
    [
        ("none", "none", (0, 0)),
        ("jpeg", "pcm", (0, 0)),
        ("jpeg", "opus", (0, 1)),
        ("none", "opus", (0, 1)),
        ("h264", "pcm", (1, 0)),
    ],
)
def test_only_what_is_wanted_is_encoded(sink, made, video, sound, needed):
    viewer = Recorder(video, sound)
    sink.join(viewer)
    write(sink, range(3))
    assert tuple(len(alive(made, kind)) for kind in made) == needed
    assert viewer.numbers == [0, 1, 2]
    assert [bool(unit.picture) for unit in viewer.units] == [video != "none"] * 3
    assert [len(unit.sound) for unit in viewer.units] == [2 * (sound == "opus")] * 3
    assert [unit.key for unit in viewer.units] == [True, video != "h264", video != "h264"]


def test_of_what_is_passed_over_there_is_sound_and_no_picture(sink, made):
    """One that joins meanwhile begins with the next picture."""
    viewers = [Recorder(video) for video in ("h264", "jpeg", "none")]
    for viewer in viewers:
        sink.join(viewer)
    write(sink, range(2))
    sink.join(late := Recorder())
    for number in range(2, 6):
        sink.write(replace(frame(number), passed_over=True))
    write(sink, range(6, 9))
    for viewer, has_pictures in zip(viewers, (True, True, False), strict=True):
        assert viewer.numbers == list(range(9))
        pictures = [has_pictures and not 2 <= number < 6 for number in range(9)]
        assert [bool(unit.picture) for unit in viewer.units] == pictures
        assert [len(unit.sound) for unit in viewer.units] == [2] * 9
    assert [encoder.times for kind in made for encoder in alive(made, kind)] == [5, 9]
    assert late.numbers == [6, 7, 8]
    shown = [unit for unit in viewers[0].units if unit.picture]
    for unit, colour in zip(shown, colours(shown), strict=True):
        assert np.abs(colour - unit.frame.image[0, 0]).max() < 4


def test_jpegs_are_the_frames(sink):
    viewer = Recorder("jpeg", "pcm")
    sink.join(viewer)
    write(sink, range(2))
    for number, unit in enumerate(viewer.units):
        shown = cv2.imdecode(np.frombuffer(unit.picture, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(shown.astype(int) - frame(number).image).max() < 5
        np.testing.assert_array_equal(unit.frame.request.audio, frame(number).request.audio)


def test_one_that_joins_begins_with_an_idr_and_nobody_else_misses_a_frame(sink, made):
    first, second = Recorder(), Recorder()
    sink.join(first)
    write(sink, range(7))
    sink.join(second)
    write(sink, range(7, 12))
    assert [unit.key for unit in first.units] == [number in {0, 7} for number in range(12)]
    assert first.numbers == list(range(12))
    assert second.numbers == list(range(7, 12))
    assert second.units[0].key
    assert len(made["H264Encoder"]) == 1
    for viewer, start in ((first, 0), (second, 7)):
        for number, colour in enumerate(colours(viewer.units)):
            assert np.abs(colour - frame(start + number).image[0, 0]).max() < 4


def test_one_that_wants_no_h264_asks_for_no_idr(sink):
    first = Recorder()
    sink.join(first)
    write(sink, range(3))
    sink.join(Recorder("jpeg", "pcm"))
    write(sink, range(3, 6))
    assert [unit.key for unit in first.units] == [True] + [False] * 5


def test_sound_that_nobody_wanted_is_left_out_and_what_follows_is_at_its_time(sink):
    early, late = Recorder(), Recorder()
    sink.join(early)
    write(sink, range(4))
    sink.leave(early)
    write(sink, range(4, 9))
    sink.join(late)
    write(sink, range(9, 12))
    starts = [packet.pts for viewer in (early, late) for packet in viewer.units[0].sound]
    assert starts[2:] == [start + 9 * 1920 for start in starts[:2]]


def test_frames_of_rates_that_do_not_divide_the_sound_start_where_they_do(clock, made):
    sink, viewer = Broadcast(clock), Recorder("none")
    sink.open(StreamFormat(WIDTH, HEIGHT, Fraction(30000, 1001), 44_100, 1))
    pts = Fraction(7 * 1001, 30000)
    begins = -(-pts * 44_100 // 1)
    sink.join(viewer)
    audio = np.zeros((1471, 1), np.float32)
    request = FrameRequest(7, None, audio, 0.0, 0.0, 0)
    for _ in range(2):
        sink.write(Frame(request, frame(7).image, pts, 0.0))
    packet = next(packet for unit in viewer.units for packet in unit.sound)
    assert abs(packet.pts + 312 - begins / 44_100 * RATE) <= 1


def test_encoders_are_let_go_when_nobody_has_wanted_them_for_a_while_and_made_again(sink, made, clock):
    viewer = Recorder()
    sink.join(viewer)
    write(sink, range(2))
    sink.leave(viewer)
    clock.time += KEPT_S - 1
    write(sink, [2])
    assert [len(alive(made, kind)) for kind in made] == [1, 0]
    clock.time += 2
    write(sink, [3])
    assert [len(alive(made, kind)) for kind in made] == [0, 0]
    again = Recorder()
    sink.join(again)
    write(sink, [4])
    assert again.units[0].key
    assert [len(alive(made, kind)) for kind in made] == [1, 1]


def test_one_that_fails_is_removed_and_the_others_go_on(sink, caplog):
    broken, sound = Broken(), Recorder()
    sink.join(broken)
    sink.join(sound)
    write(sink, range(4))
    assert broken.numbers == [0]
    assert sound.numbers == [0, 1, 2, 3]
    assert sink.viewers == 1
    assert "A viewer failed and gets nothing more: ValueError: went away" in caplog.text


def test_every_frame_is_told_of_also_without_a_viewer(sink, made):
    told = []
    sink.on_shown = told.append
    write(sink, range(2))
    sink.join(viewer := Recorder())
    write(sink, range(2, 4))
    assert [one.request.index for one in told] == [0, 1, 2, 3]
    assert viewer.numbers == [2, 3]
    assert len(made["H264Encoder"]) == 1


@pytest.mark.parametrize("way", ["finish", "abort"])
def test_the_end_is_told_once_to_each_also_to_one_that_joins_later(sink, way):
    viewers = [Recorder(), Broken(), Recorder("jpeg", "none")]
    gone = Recorder()
    for viewer in (*viewers, gone):
        sink.join(viewer)
    write(sink, [0])
    sink.leave(gone)
    getattr(sink, way)()
    sink.abort()
    late = Recorder()
    sink.join(late)
    write(sink, [1])
    assert [viewer.ends for viewer in (*viewers, gone, late)] == [1, 0, 1, 0, 1]
    assert viewers[0].numbers == [0]
    assert sink.viewers == 0


def test_one_whose_end_fails_does_not_keep_it_from_the_others(sink):
    class Bad(Recorder):
        def end(self):
            super().end()
            raise ValueError

    viewers = [Bad(), Recorder()]
    for viewer in viewers:
        sink.join(viewer)
    sink.finish()
    assert [viewer.ends for viewer in viewers] == [1, 1]


def test_a_broadcast_that_never_opened_ends_too(clock):
    sink, viewer = Broadcast(clock), Recorder()
    sink.join(viewer)
    sink.abort()
    assert viewer.ends == 1


def test_viewers_come_and_go_from_other_threads_while_frames_are_shown(sink):
    """Whoever was there got a run of frames that begins with an IDR, and nothing after the end."""
    seen = []

    def visit():
        for number in range(30):
            viewer = Recorder()
            sink.join(viewer)
            seen.append(viewer)
            if number % 2:
                sink.leave(viewer)

    threads = [threading.Thread(target=visit) for _ in range(3)]
    threads.insert(2, threading.Thread(target=sink.abort))
    for number, thread in enumerate(threads):
        thread.start()
        write(sink, range(5 * number, 5 * number + 5))
    for thread in threads:
        thread.join()
    assert len(seen) == 90
    assert sink.viewers == 0
    for viewer in seen:
        assert viewer.ends <= 1
        if viewer.numbers:
            assert viewer.units[0].key
            assert viewer.numbers == list(range(viewer.numbers[0], viewer.numbers[-1] + 1))
