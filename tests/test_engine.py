"""Sessions, continuous batching, order, fairness and the way out when the device fails."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from clocks import FakeClock
from lives import is_same_picture, take_all

from musetalk_cli.bench.synthetic import synthetic_avatar, synthetic_sound
from musetalk_cli.config import JobConfig, Sharpen
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.scheduler import BATCHES_FINISHED
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.audio_encoder import AudioEncoder
from musetalk_cli.nets.files import Card
from musetalk_cli.ops import device_tables, torch_ops

JOB = JobConfig(batch_sizes=(4,), image_ops="cpu")
HALF = Fraction(1, 2)
FPS = Fraction(25)


@pytest.fixture(scope="module")
def other_avatar():
    return synthetic_avatar(320, 240, 96, 5)


def make_engine(bundle, job=JOB, **parts):
    return Engine(bundle, job, StageStats(FakeClock()), **parts)


def open_session(engine, avatar, fps=FPS, hop=HALF, rate=16_000, channels=1):
    return engine.open(avatar, fps, hop, None, rate, channels)


def say_all(sessions, seconds):
    """Give every session all of its sound at once."""
    for session in sessions:
        session.hear(synthetic_sound(seconds), 0.0)
        session.end_sound(0.0)


def take(sessions, taken):
    for session, frames in zip(sessions, taken, strict=True):
        while session.untaken:
            frames.append(session.take())


def run_dry(engine, *sessions, taken=None):
    taken = taken or [[] for _ in sessions]
    while engine.step():
        take(sessions, taken)
    assert all(session.is_done for session in sessions)
    return taken


def speak_alone(bundle, job, avatar, fps, sound, rate):
    engine = make_engine(bundle, job)
    session = open_session(engine, avatar, fps, rate=rate, channels=sound.shape[1])
    session.hear(sound, 0.0)
    session.end_sound(0.0)
    return run_dry(engine, session)[0]


def assert_same_frames(ours, expected):
    assert [frame.request.index for frame in ours] == list(range(len(expected)))
    for mine, theirs in zip(ours, expected, strict=True):
        assert torch.equal(mine.request.tokens, theirs.request.tokens)
        assert is_same_picture(mine.image, theirs.image)
        assert np.array_equal(mine.request.audio, theirs.request.audio)
        assert mine.pts == theirs.pts


@pytest.mark.all_threads
def test_three_sessions_at_random_equal_each_alone(tiny_bundle, golden_avatar, other_avatar, golden_sound):
    stereo = np.repeat(synthetic_sound(0.6), 2, axis=1) * [1, 0.5]
    jobs = [
        (golden_avatar, Fraction(25), golden_sound[:9_000, None], 16_000),
        (other_avatar, Fraction(30), synthetic_sound(0.6), 16_000),
        (golden_avatar, Fraction(30000, 1001), stereo.astype(np.float32), 22_050),
    ]
    alone = [speak_alone(tiny_bundle, JOB, *job) for job in jobs]
    random = np.random.default_rng(5)
    engine = make_engine(tiny_bundle)
    sessions = [open_session(engine, a, f, rate=r, channels=s.shape[1]) for a, f, s, r in jobs]
    left = [list(np.array_split(job[2], 9)) for job in jobs]
    taken = [[] for _ in jobs]
    while any(left):
        number = random.choice([index for index, rest in enumerate(left) if rest])
        sessions[number].hear(left[number].pop(0), engine.stats.clock.now())
        if not left[number]:
            sessions[number].end_sound(engine.stats.clock.now())
        for _ in range(random.integers(0, 3)):
            engine.step()
        take(sessions, taken)
        engine.stats.clock.time += random.random() / 10
    for ours, expected in zip(run_dry(engine, *sessions, taken=taken), alone, strict=True):
        assert len(expected) > 12
        assert_same_frames(ours, expected)


def test_frames_do_not_depend_on_the_batch_size(tiny_bundle, golden_avatar, golden_sound):
    results = []
    for size in (1, 7):
        job = replace(JOB, batch_sizes=(size,), sharpen=None)
        results.append(speak_alone(tiny_bundle, job, golden_avatar, FPS, golden_sound[:4800, None], 16_000))
    for one, other in zip(*results, strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1


def test_slices_of_sound_partition_it(tiny_bundle, golden_avatar):
    sound = np.random.default_rng(0).standard_normal((33_333, 2)).astype(np.float32) / 8
    frames = speak_alone(tiny_bundle, JOB, golden_avatar, Fraction(12), sound, 44_100)
    assert np.array_equal(np.concatenate([frame.request.audio for frame in frames]), sound)


def test_no_session_starves(tiny_bundle, golden_avatar, other_avatar):
    """A session far ahead, and one that comes late with much to do, both go on getting frames."""
    engine = make_engine(tiny_bundle)
    first, second = open_session(engine, golden_avatar), open_session(engine, other_avatar)
    first.hear(synthetic_sound(3), 0.0)
    first.end_sound(0.0)
    ahead, early, late = [], [], []
    for _ in range(6):
        engine.step()
        take([first], [ahead])
    second.hear(synthetic_sound(1.5), 0.0)
    second.end_sound(0.0)
    for _ in range(8):
        engine.step()
        take([first, second], [early, late])
    assert len(ahead) > 20
    assert len(late) >= 12, "the late session gets its share from the first step on"
    assert len(early) >= 12, "and does not get more for having come late"


def test_a_faster_session_gets_its_share(tiny_bundle, golden_avatar, other_avatar):
    engine = make_engine(tiny_bundle)
    slow = open_session(engine, golden_avatar, Fraction(10))
    fast = open_session(engine, other_avatar, Fraction(30))
    say_all([slow, fast], 4)
    taken = [[], []]
    for _ in range(8):
        engine.step()
        take([slow, fast], taken)
    assert len(taken[1]) == pytest.approx(3 * len(taken[0]), abs=4)


def test_frames_nobody_takes_do_not_hold_up_others(tiny_bundle, golden_avatar, other_avatar):
    engine = make_engine(tiny_bundle)
    stuck, taken = open_session(engine, golden_avatar), open_session(engine, other_avatar)
    say_all([stuck, taken], 2)
    count = 0
    while engine.step():
        count += len(take_all(taken))
    assert count == 50
    bound = BATCHES_FINISHED * 4
    assert bound <= stuck.untaken < bound + 4, "bounded"


def test_hops_of_many_sessions_are_encoded_in_one_call(tiny_bundle, golden_avatar):
    calls = []

    def encode(requests):
        calls.append(len(requests))
        return AudioEncoder(tiny_bundle)(requests)

    engine = make_engine(tiny_bundle, replace(JOB, batch_sizes=(8,)), encode=encode)
    sessions = [open_session(engine, golden_avatar, hop=Fraction(1, 10)) for _ in range(4)]
    for session in sessions:
        session.hear(synthetic_sound(0.3), 0.0)
    engine.step()
    assert calls == [3], "as many as fill a batch of 8, 3 frames each"


def test_short_hops_of_many_sessions_fill_the_batches(tiny_bundle, golden_avatar):
    engine = make_engine(tiny_bundle, replace(JOB, batch_sizes=(8,)))
    sessions = [open_session(engine, golden_avatar, hop=Fraction(1, 10)) for _ in range(8)]
    for session in sessions:
        session.hear(synthetic_sound(0.5), 0.0)
    engine.step()
    assert sum(session.untaken for session in sessions) == 8
    assert max(session.untaken for session in sessions) <= 3, "one hop of each, none ahead"


@pytest.mark.slow
def test_a_session_that_was_held_up_gets_no_more_than_its_share(tiny_bundle, golden_avatar, other_avatar):
    engine = make_engine(tiny_bundle)
    held, other = open_session(engine, golden_avatar), open_session(engine, other_avatar)
    say_all([held, other], 3)
    taken = [[], []]
    for _ in range(10):
        engine.step()
        take([other], taken[1:])
    bound = BATCHES_FINISHED * 4
    assert bound <= held.untaken < bound + 4
    assert len(taken[1]) > 18
    take_all(held)
    taken = [[], []]
    for _ in range(4):
        engine.step()
        take([held, other], taken)
    assert [len(frames) for frames in taken] == [pytest.approx(8, abs=2)] * 2


def test_a_long_backlog_does_not_keep_the_features_from_a_new_session(
    tiny_bundle, golden_avatar, other_avatar
):
    engine = make_engine(tiny_bundle)
    offline = open_session(engine, golden_avatar, hop=Fraction(30))
    offline.hear(synthetic_sound(8), 0.0)
    offline.end_sound(0.0)
    engine.step()
    assert offline.waiting > 150
    live = open_session(engine, other_avatar)
    live.hear(synthetic_sound(0.5), 0.0)
    taken = [[], []]
    for _ in range(5):
        engine.step()
        take([offline, live], taken)
    assert len(taken[1]) >= 8


def test_both_image_paths_give_the_same_frames(tiny_bundle, golden_avatar, golden_sound):
    results = []
    for ops in ("cpu", "gpu"):
        job = replace(JOB, image_ops=ops)
        results.append(speak_alone(tiny_bundle, job, golden_avatar, FPS, golden_sound[:4800, None], 16_000))
    for one, other in zip(*results, strict=True):
        difference = np.abs(one.image.astype(int) - other.image)
        assert (difference > 1).mean() < 1e-5, "but for ties at the sharpening's threshold"


def test_sharpening_off_is_the_unsharpened_path(tiny_bundle, golden_avatar, golden_sound):
    sound = golden_sound[:4800, None]
    off, nothing, on = (
        speak_alone(tiny_bundle, replace(JOB, sharpen=sharpen), golden_avatar, FPS, sound, 16_000)
        for sharpen in (None, Sharpen(amount=0), Sharpen(threshold=0))
    )
    assert_same_frames(off, nothing)
    assert not np.array_equal(off[3].image, on[3].image)


@pytest.mark.parametrize(
    ("card", "job", "rows"),
    [(Card(), JOB, 1500), (Card(window_s=Fraction(5)), JOB, 250),
     (Card(window_s=Fraction(5)), replace(JOB, window=Fraction(10)), 500)],
)  # fmt: skip
def test_the_window_is_the_jobs_or_the_cards(tiny_bundle, golden_avatar, golden_sound, card, job, rows):
    asked = []

    def encode(requests):
        asked.extend(requests)
        return AudioEncoder(tiny_bundle)(requests)

    engine = make_engine(replace(tiny_bundle, card=card), job, encode=encode)
    engine.warm_up(golden_avatar)
    session = open_session(engine, golden_avatar)
    session.hear(golden_sound[:9600, None], 0.0)
    session.end_sound(0.0)
    run_dry(engine, session)
    assert len(asked) > 2, "warming up, and the stream"
    assert {request.length for request in asked} == {rows}


def test_closing_a_session_frees_its_avatar(tiny_bundle, golden_avatar, golden_sound):
    engine = make_engine(tiny_bundle)
    one, two = open_session(engine, golden_avatar), open_session(engine, golden_avatar)
    for session in (one, two):
        session.hear(golden_sound[:, None], 0.0)
    engine.step()
    engine.close(one)
    assert engine.images.holds(golden_avatar)
    engine.close(two)
    assert not engine.images.holds(golden_avatar)


def test_the_device_holds_an_avatar_before_its_session_takes_part(tiny_bundle, golden_avatar, monkeypatch):
    """Once it does, another thread may step it at once, and a step copies nothing of an avatar."""
    engine = make_engine(tiny_bundle)
    hold, took_part = engine.images.hold, []
    monkeypatch.setattr(engine.images, "hold", lambda each: took_part.append(engine.sessions) or hold(each))
    session = open_session(engine, golden_avatar)
    assert (took_part, engine.sessions) == ([()], (session,))


def test_a_warm_up_leaves_no_trace(tiny_bundle, golden_avatar, golden_sound):
    engine = make_engine(tiny_bundle, replace(JOB, batch_sizes=(1, 2)))
    engine.warm_up(golden_avatar)
    assert engine.stats.summary(()) == {}
    assert engine.images.fallbacks == 0


@pytest.mark.parametrize(
    "sharpen",
    [
        Sharpen(),
        *(
            pytest.param(other, marks=pytest.mark.slow)
            for other in (Sharpen(sigma=2.3), Sharpen(sigma=0.37), None)
        ),
    ],
)
def test_no_table_is_made_while_frames_are_made(tiny_bundle, sharpen, monkeypatch):
    """A table that is copied to a device waits for the batch before it. 73 is a size of this test alone."""
    avatar = synthetic_avatar(160, 120, 73, 3)
    engine = make_engine(tiny_bundle, replace(JOB, image_ops="gpu", sharpen=sharpen))
    session = open_session(engine, avatar)
    made = []

    def counted(name, make):
        return lambda *arguments: made.append(name) or make(*arguments)

    for name in ("linear_taps", "nearest_taps", "reflected"):
        monkeypatch.setattr(torch_ops, name, counted(name, getattr(torch_ops, name)))
    say_all([session], 0.4)
    assert len(run_dry(engine, session)[0]) == 10
    assert made == []


def test_the_tables_of_an_avatar_stay_as_long_as_it_is_held(tiny_bundle, monkeypatch):
    """Though others use more tables than are kept for nobody. 77 and 79 are sizes of this test alone."""
    monkeypatch.setattr(device_tables, "TABLES", 1)
    avatar, other = synthetic_avatar(160, 120, 77, 2), synthetic_avatar(160, 120, 79, 2)
    engine = make_engine(tiny_bundle, replace(JOB, image_ops="gpu", sharpen=Sharpen(sigma=1.7)))
    first, second = open_session(engine, avatar), open_session(engine, other)
    made = []
    for name in ("linear_taps", "reflected"):
        make = getattr(torch_ops, name)
        monkeypatch.setattr(torch_ops, name, lambda *given, make=make: made.append(given) or make(*given))
    say_all([first, second], 0.4)
    run_dry(engine, first, second)
    assert made == []
    engine.close(first)
    engine.close(second)
    open_session(engine, avatar)
    assert made, "they went with it"
