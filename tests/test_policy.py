import itertools
import math
from fractions import Fraction
from types import SimpleNamespace

import pytest

from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.types import Delivery

CHUNK = Fraction(1, 2)
LATE = 0.5
RECORDED, SENT, PLAYED, LIVE = Delivery

TABLE = {
    # delivery, watched, when_late: paced, late_after_s, sinks_are_waited_for
    (RECORDED, False, "auto"): (False, math.inf, True),
    (RECORDED, False, "wait"): (False, math.inf, True),
    (RECORDED, False, "drop"): (False, LATE, True),
    (RECORDED, True, "auto"): (True, math.inf, True),
    (RECORDED, True, "wait"): (True, math.inf, True),
    (RECORDED, True, "drop"): (True, LATE, True),
    (SENT, False, "auto"): (False, math.inf, True),
    (SENT, False, "wait"): (False, math.inf, True),
    (SENT, False, "drop"): (False, LATE, True),
    (SENT, True, "auto"): (True, math.inf, True),
    (SENT, True, "wait"): (True, math.inf, True),
    (SENT, True, "drop"): (True, LATE, True),
    (PLAYED, False, "auto"): (True, LATE, False),
    (PLAYED, False, "wait"): (True, math.inf, False),
    (PLAYED, False, "drop"): (True, LATE, False),
    (PLAYED, True, "auto"): (True, LATE, False),
    (PLAYED, True, "wait"): (True, math.inf, False),
    (PLAYED, True, "drop"): (True, LATE, False),
    (LIVE, False, "auto"): (True, LATE, False),
    (LIVE, False, "wait"): (True, math.inf, False),
    (LIVE, False, "drop"): (True, LATE, False),
    (LIVE, True, "auto"): (True, LATE, False),
    (LIVE, True, "wait"): (True, math.inf, False),
    (LIVE, True, "drop"): (True, LATE, False),
}


def policy_of(delivery, sinks, when_late):
    source = SimpleNamespace(delivery=delivery)
    return StreamPolicy.of_stream(
        source, [SimpleNamespace(watched=watched) for watched in sinks], when_late, CHUNK
    )


@pytest.mark.parametrize(("asked", "expected"), TABLE.items())
def test_what_a_stream_does_is_a_table(asked, expected):
    delivery, watched, when_late = asked
    policy = policy_of(delivery, [watched], when_late)
    assert (policy.paced, policy.late_after_s, policy.sinks_are_waited_for) == expected
    assert policy.own_time is (delivery is not RECORDED)
    assert policy.goes_on is (delivery is LIVE)
    assert policy.keeps_length is (delivery is PLAYED)
    assert policy == StreamPolicy.of_delivery(delivery, when_late, CHUNK, watched=watched)
    assert policy.all_or_nothing is False


def test_the_table_is_whole():
    assert set(TABLE) == set(itertools.product(Delivery, (False, True), ("auto", "wait", "drop")))


@pytest.mark.parametrize("delivery", Delivery)
def test_one_sink_that_is_watched_paces_all(delivery):
    one, none = policy_of(delivery, [False, True, False], "auto"), policy_of(delivery, [False] * 3, "auto")
    assert one == policy_of(delivery, [True], "auto")
    assert none == policy_of(delivery, [], "auto")


def test_a_recording_waits_for_everybody_and_is_all_or_nothing():
    policy = StreamPolicy.of_recording()
    assert policy == StreamPolicy(
        paced=False,
        late_after_s=math.inf,
        own_time=False,
        goes_on=False,
        keeps_length=False,
        sinks_are_waited_for=True,
        all_or_nothing=True,
    )


@pytest.mark.parametrize("delivery", Delivery)
def test_only_recorded_and_sent_sound_waits(delivery):
    assert delivery.waits is (delivery in {RECORDED, SENT})


@pytest.mark.parametrize(
    ("chunk", "late"),
    [(Fraction(1, 25), 0.2), (Fraction(1, 5), 0.2), (Fraction(1, 4), 0.25), (Fraction(2), 2)],
)
@pytest.mark.parametrize("delivery", Delivery)
def test_a_frame_is_late_after_a_chunk_and_never_before_a_fifth_of_a_second(delivery, chunk, late):
    policy = StreamPolicy.of_delivery(delivery, "drop", chunk, watched=True)
    assert policy.late_after_s == pytest.approx(late)
    for when_late in ("auto", "wait", "drop"):
        other = StreamPolicy.of_delivery(delivery, when_late, CHUNK, watched=True).for_chunk(chunk)
        assert other == StreamPolicy.of_delivery(delivery, when_late, chunk, watched=True)


@pytest.mark.parametrize("fps", [5, 25, Fraction(30000, 1001), 60])
@pytest.mark.parametrize("chunk", [Fraction(1, 25), Fraction(1, 2), Fraction(2)])
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_a_hop_and_a_batch_may_wait_for_their_time_and_a_second_for_a_sink(fps, chunk, batch):
    paced, other = policy_of(LIVE, [True], "auto"), StreamPolicy.of_recording()
    fps, ahead = Fraction(fps), Fraction(7)
    assert other.buffering(fps, chunk, batch, ahead).frames == 2 * batch
    least = math.floor(max(chunk, Fraction(1, 2)) * fps) + batch
    assert paced.buffering(fps, chunk, batch, ahead).frames == max(2 * batch, least)
    assert other.frames_queued(fps) == 4
    assert paced.frames_queued(fps) == max(4, math.floor(fps))


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("delivery", Delivery)
def test_sound_with_a_time_of_its_own_waits_as_long_as_asked_for_and_a_recording_in_its_file(
    delivery, watched
):
    policy = policy_of(delivery, [watched], "auto")
    expected = 2 if delivery is RECORDED else 7.5
    assert policy.buffering(Fraction(25), CHUNK, 4, Fraction(15, 2)).ahead_s == expected
