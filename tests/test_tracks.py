"""Who speaks, where several people are seen: told by faces whose true owner the test knows."""

import numpy as np
import pytest
from face_graphs import face_points
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.errors import InputError
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.face.settings import check_choice
from musetalk_cli.face.tracks import choose, shots
from musetalk_cli.types import Box

WIDTH = 1280


def face(x, y=300.0, size=100.0, owner="a"):
    """A face `size` pixels wide, whose owner is written into its confidence."""
    points = face_points((x, y), size / 1.8)
    return FaceLandmarks(points, Box(0, 0, 10, 10), np.full(68, ord(owner), np.float32))


def owners(chosen):
    return "".join("." if f is None else chr(int(f.confidence[0])) for f in chosen.faces)


def two(count, *, left=300.0, right=900.0):
    """Two people, the left one 100 pixels wide and the right one 160, in turn first."""
    clip = []
    for n in range(count):
        there = [face(left + n % 3, owner="a"), face(right - n % 4, size=160, owner="b")]
        clip.append(there if n % 2 else there[::-1])
    return clip


@pytest.mark.parametrize(
    ("choice", "who"), [("left", "a"), ("right", "b"), ("largest", "b"), ("1", "a"), ("2", "b")]
)
def test_each_of_two_can_be_chosen(choice, who):
    chosen = choose(two(30), [], choice, WIDTH)
    assert owners(chosen) == who * 30
    assert chosen.people == 2


@pytest.mark.parametrize(("width", "who"), [(700, "a"), (1280, "b"), (1900, "b")])
def test_center_is_nearest_to_the_middle_of_the_frame(width, who):
    assert owners(choose(two(20), [], "center", width)) == who * 20


@pytest.mark.parametrize("choice", ["", "0", "-1", "100", "largest ", "Left", "1.5", "one", "middle"])
def test_other_choices_are_refused(choice):
    for call in (lambda: check_choice(choice), lambda: choose(two(3), [], choice, WIDTH)):
        with pytest.raises(InputError, match="is not understood") as caught:
            call()
        assert "largest" in caught.value.hint


@pytest.mark.parametrize(("count", "said"), [(1, "1 person was seen"), (2, "2 people were seen")])
def test_a_number_that_is_not_there_is_refused(count, said):
    clip = [faces[:count] for faces in two(20)]
    clip = clip if count == 2 else [[face(300)] for _ in clip]
    with pytest.raises(InputError, match=f"--face 3 is not there: {said}"):
        choose(clip, [], "3", WIDTH)


def test_where_nobody_is_seen_nobody_is_chosen():
    for choice in ("largest", "left", "2"):
        chosen = choose([[]] * 5, [2], choice, WIDTH)
        assert chosen.faces == [None] * 5
        assert chosen.people == 0
    assert choose([], [], "largest", WIDTH).faces == []


@settings(max_examples=30, deadline=None)
@given(
    seen=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=30, max_size=60),
    choice=st.sampled_from(["left", "right", "largest"]),
    seed=st.integers(0, 99),
)
def test_faces_that_are_missed_now_and_then(seen, choice, seed):
    """Each is seen in two thirds of the frames and moves by up to 6 pixels a frame."""
    rng = np.random.default_rng(seed)
    steps = rng.uniform(-6, 6, (len(seen), 2)).cumsum(axis=0)
    people = [
        [face(300 + a, owner="a"), face(1000 + b, size=150, owner="b")] for a, b in np.clip(steps, -150, 150)
    ]
    clip = [
        [f for f, luck in zip(there, chance, strict=True) if luck < 0.67 or n < 3]
        for n, (there, chance) in enumerate(zip(people, seen, strict=True))
    ]
    who = "a" if choice == "left" else "b"
    expected = "".join(who if any(chr(int(f.confidence[0])) == who for f in there) else "." for there in clip)
    assert owners(choose(clip, [], choice, WIDTH)) == expected


@pytest.mark.parametrize("choice", ["left", "right"])
@pytest.mark.parametrize("who", ["a", "b"])
def test_one_hidden_for_a_second_stays_the_same_person(choice, who):
    clip = two(100)
    for n in range(40, 65):
        clip[n] = [f for f in clip[n] if chr(int(f.confidence[0])) != who]
    chosen = choose(clip, [], choice, WIDTH)
    mine = "a" if choice == "left" else "b"
    hidden = "." if mine == who else mine
    assert owners(chosen) == mine * 40 + hidden * 25 + mine * 35
    assert chosen.people == 2


def crossing(speed, *, hidden, count=120):
    """Two equally large people who change sides; `b` is hidden behind `a` while they overlap.

    Args:
        speed: Pixels a frame of each.
        hidden: How near, in widths of a face, the other one must be.
    """
    clip = []
    for n in range(count):
        a, b = 640 + speed * (n - count / 2 + 0.3), 640 - speed * (n - count / 2 + 0.3)
        there = [face(a, owner="a"), face(b, 306, owner="b")]
        clip.append(there[:1] if abs(a - b) < hidden * 100 else there)
    return clip


@pytest.mark.parametrize("speed", [1.5, 3, 5])
@pytest.mark.parametrize("hidden", [0.4, 0.7, 1.0])
def test_people_who_pass_each_other_stay_who_they_are(speed, hidden):
    clip = crossing(speed, hidden=hidden)
    clip[0] = [face(640 - speed * 60, size=104, owner="a"), clip[0][1]]
    by_owner = {}
    for choice in ("left", "right"):
        # Who is left over the whole clip is a draw, so that the answer may be either; it must be one of them.
        seen = owners(choose(clip, [], choice, WIDTH))
        assert set(seen) - {"."} in ({"a"}, {"b"})
        by_owner[choice] = seen
    assert {next(iter(set(seen) - {"."})) for seen in by_owner.values()} == {"a", "b"}


def test_the_smaller_one_who_passes_in_front_is_not_the_largest():
    clip = [
        [face(200 + 7 * n, size=90, owner="a")] + [face(640, size=160, owner="b")] * (not 55 < n < 72)
        for n in range(120)
    ]
    assert set(owners(choose(clip, [], "largest", WIDTH))) == {"b", "."}


def test_a_face_of_quite_another_size_is_somebody_else():
    """The large one is hidden, and a small one, seen before far away, comes to where it was."""
    small = [face(200 + 4.2 * min(n, 100), size=60, owner="a") for n in range(150)]
    clip = [[one] + [face(640, size=150, owner="b")] * (not 80 < n < 120) for n, one in enumerate(small)]
    clip[90:95] = [[]] * 5
    assert set(owners(choose(clip, [], "largest", WIDTH))) == {"b", "."}


@pytest.mark.parametrize("choice", ["left", "right", "largest"])
def test_false_alarms_are_no_people(choice):
    clip = two(60)
    for n, x in ((7, 20), (23, 1200), (24, 600), (41, 40)):
        clip[n] = [*clip[n], face(x, 500, size=240, owner="x")]
    chosen = choose(clip, [], choice, WIDTH)
    assert set(owners(chosen)) == {"a" if choice == "left" else "b"}
    assert chosen.people == 2


def test_many_false_alarms_of_a_long_clip_do_not_become_a_person():
    rng = np.random.default_rng(0)
    clip = []
    for n in range(2000):
        clip.append([face(640 + rng.normal(), owner="a")])
        if n % 5 == 0:
            size = np.exp(rng.uniform(3.5, 5.5))
            clip[-1].append(face(rng.uniform(0, WIDTH), rng.uniform(0, 720), size, "x"))
    for choice in ("left", "largest"):
        chosen = choose(clip, [], choice, WIDTH)
        assert chosen.people == 1
        assert owners(chosen).count("a") > 1990


def test_a_false_alarm_far_away_does_not_take_a_person_along():
    """Somebody is hidden for ten seconds, and in the middle of that something else is seen for a frame."""
    clip = two(500)
    for n in range(100, 350):
        clip[n] = [f for f in clip[n] if f.confidence[0] == ord("a")]
    clip[225] = [*clip[225], face(600, 650, size=150, owner="x")]
    assert owners(choose(clip, [], "right", WIDTH)) == "b" * 100 + "." * 250 + "b" * 150


def test_who_is_alone_and_comes_back_elsewhere_is_the_same():
    clip = [[face(200)] for _ in range(40)] + [[]] * 30 + [[face(1000, 500)] for _ in range(50)]
    for choice in ("left", "right", "largest", "1"):
        chosen = choose(clip, [], choice, WIDTH)
        assert owners(chosen) == "a" * 40 + "." * 30 + "a" * 50
        assert chosen.people == 1


def test_every_shot_is_chosen_for_itself():
    clip = two(20) + [[face(800, owner="c")] for _ in range(20)] + two(20, left=950, right=200)
    chosen = choose(clip, [20, 40], "left", WIDTH)
    assert owners(chosen) == "a" * 20 + "c" * 20 + "b" * 20
    assert chosen.people == 2
    assert owners(choose(clip, [20, 40], "2", WIDTH)) == "b" * 20 + "." * 20 + "a" * 20


@given(st.lists(st.integers(-5, 25), max_size=8), st.integers(0, 20))
def test_shots_part_the_clip_at_the_cuts(cuts, count):
    found = shots(cuts, count)
    assert [number for start, end in found for number in range(start, end)] == list(range(count))
    assert all(end > start for start, end in found)
    assert [start for start, _ in found[1:]] == sorted({cut for cut in cuts if 0 < cut < count})
