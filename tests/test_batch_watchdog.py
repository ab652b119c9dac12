"""A worker that hangs is noticed, and one that is slow is not taken for it."""

import json
import math

import pytest

from musetalk_cli.errors import InputError
from musetalk_cli.run.batch.speaker import Speaker
from musetalk_cli.run.batch.watchdog import HANG_S, WITHOUT_FRAMES, Watchdog, parse_hang


def test_a_worker_that_makes_no_new_frame_hangs():
    dog = Watchdog(10)
    dog.begin(3, 100)
    dog.advance(3, 1, 99, 101)
    assert dog.take_hanging(111) == {}
    assert dog.take_hanging(111.1) == {3: "hung: nothing came from it for 10 s."}
    assert dog.take_hanging(1000) == {}, "it is told once"


def test_the_same_frames_again_are_no_progress_and_new_ones_are():
    dog = Watchdog(10)
    dog.begin(0, 0)
    for now in range(1, 9):
        dog.advance(0, 5, 99, now)
    assert dog.take_hanging(11) == {}
    assert list(dog.take_hanging(11.5)) == [0]
    dog.begin(0, 20)
    for frames in range(1, 50):
        dog.advance(0, frames, 99, 20 + 9 * frames)
        assert dog.take_hanging(20 + 9 * frames + 9) == {}


def test_a_long_first_load_is_not_taken_for_hanging():
    """Nor are zero frames, which a run tells while it loads."""
    dog = Watchdog(10)
    dog.begin(0, 0)
    dog.advance(0, 0, 99, 1)
    assert dog.take_hanging(10 * WITHOUT_FRAMES) == {}
    assert dog.take_hanging(10 * WITHOUT_FRAMES + 1) == {0: "hung: nothing came from it for 60 s."}


def test_a_long_video_that_is_completed_is_not_taken_for_hanging():
    """Its index is put in front, which writes all of it once more, and its digest reads it."""
    dog = Watchdog(10)
    dog.begin(0, 0)
    dog.advance(0, 98, 99, 1)
    assert list(dog.take_hanging(12)) == [0]
    dog.begin(0, 20)
    dog.advance(0, 98, 99, 21)
    dog.advance(0, 99, 99, 22)
    assert dog.take_hanging(22 + 60) == {}
    assert dog.take_hanging(22 + 61) == {0: "hung: nothing came from it for 60 s."}


def test_preparing_a_face_may_take_hours():
    dog = Watchdog(10)
    dog.begin(0, 0)
    for now in range(0, 10_000, 50):
        dog.prepares(0, now)
        assert dog.take_hanging(now + 49) == {}
    assert dog.take_hanging(9950 + 59) == {}, "after it networks are loaded"
    assert list(dog.take_hanging(9950 + 61)) == [0]


def test_who_has_no_job_does_not_hang():
    dog = Watchdog(10)
    dog.begin(0, 0)
    dog.end(0)
    dog.advance(0, 3, 99, 1)
    dog.prepares(0, 1)
    assert dog.take_hanging(1e9) == {}
    dog.begin(1, 0)
    dog.begin(2, 1e9 - 1)
    assert list(dog.take_hanging(1e9)) == [1], "each on its own"


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, HANG_S), ("off", math.inf), ("1", 1), ("2.5", 2.5), ("86400", 86_400)]
)
def test_how_long_is_read(text, seconds):
    assert parse_hang(text) == seconds
    dog = Watchdog(parse_hang("off"))
    dog.begin(0, 0)
    assert dog.take_hanging(1e12) == {}


@pytest.mark.parametrize("text", ["0", "0.5", "86401", "-1", "nan", "never", ""])
def test_what_is_no_time_is_one_sentence(text):
    with pytest.raises(InputError, match="--hang-after") as refused:
        parse_hang(text)
    assert refused.value.hint == "Write seconds, like 600, or off for never."


def test_an_actor_tells_how_far_its_job_is_while_it_does_it(monkeypatch):
    """What is asked of an earlier job, or of one to come, is nothing."""
    told = []

    def do_job(data, kept, progress, prepares):
        prepares()
        told.append(json.loads(speaker.how_far(7)))
        progress(3, 9)
        told.append(json.loads(speaker.how_far(7)))
        told.append(json.loads(speaker.how_far(6)))
        return {"state": "done"}

    monkeypatch.setattr("musetalk_cli.run.batch.work.do_job", do_job)
    speaker = Speaker(1)
    assert json.loads(speaker.how_far(7)) == {}
    assert json.loads(speaker.do(7, "{}")) == {"state": "done", "said": []}
    assert told == [{"frames": 0, "total": 0, "signs": 1}, {"frames": 3, "total": 9, "signs": 1}, {}]
