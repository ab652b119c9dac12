"""What a stream does in silence and after an interrupt; with real networks, narrow ones."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import floor

import numpy as np
import pytest
from encoders import deaf
from handmade import passed_through
from one_session import FPS, HALF, RATE, Slow, Stream, kinds, quiet, speech

from musetalk_cli.bench.synthetic import synthetic_avatar, synthetic_sound
from musetalk_cli.config import SilenceLevel
from musetalk_cli.timeline import mirrored
from musetalk_cli.types import Clip, Fate


@pytest.fixture(scope="module")
def avatar():
    return synthetic_avatar(160, 120, 64, 7)


def utterances(frames):
    return sorted({frame.request.utterance for frame in frames} - {None})


def test_silence_is_shown_without_model_work(tiny_bundle, avatar):
    stream = Stream(tiny_bundle, avatar, silence=SilenceLevel())
    stream.say(quiet(4))
    frames = stream.end()
    assert len(frames) == 100
    assert kinds(frames) == "I" * 100
    for frame in frames:
        assert np.array_equal(frame.image, avatar.frames[mirrored(frame.request.index, 7)])
    stages = stream.engine.stats.summary(())
    assert not {"features", "unet", "vae", "resize", "blend"} & set(stages)


@pytest.mark.parametrize(
    "fps",
    [
        Fraction(8),
        Fraction(30000, 1001),
        *(pytest.param(other, marks=pytest.mark.slow) for other in (FPS, Fraction(60))),
    ],
)
def test_a_whole_file_rests_where_a_stream_of_it_does(tiny_bundle, avatar, monkeypatch, fps):
    """The same weights and source frames, with rests, whether a hop is a chunk or a window of the encoder.

    Levels lie close to both thresholds, and the sound ends in the middle of a frame, and of a row.
    """
    decibels = np.array([-70, -44, -50, -52, -70, -70, -46, -20, -50, -70, -44, -70])
    levels = np.repeat(10 ** (decibels / 20), RATE // 2)
    noise = np.random.default_rng(5).standard_normal(len(levels))
    sound = (levels * noise).astype(np.float32)[:-777, None]
    resting = replace(avatar, meta=replace(avatar.meta, fps=Fraction(12), rest_frames=(1, 2, 3, 4, 5)))
    seen = []
    for hop, context in ((Fraction(30), Fraction(0)), (HALF, None), (Fraction(1, 10), Fraction(1))):
        stream = Stream(
            tiny_bundle,
            resting,
            hop=hop,
            context=context,
            fps=fps,
            silence=SilenceLevel(),
            encode=deaf(tiny_bundle),
            generator=Slow(),
        )
        stream.say(sound)
        requests = [frame.request for frame in stream.end()]
        seen.append([(request.index, request.weight, request.source) for request in requests])
    assert seen[0] == seen[1] == seen[2]
    assert {0.0, 1.0} <= {weight for _, weight, _ in seen[0]}


def test_speech_is_made_and_fades_on_both_sides(tiny_bundle, avatar):
    """Quiet, speech from 3.0 to 5.0 s, quiet: the face is there from 3.0 s to the end of the hang-over."""
    stream = Stream(tiny_bundle, avatar, silence=SilenceLevel(), encode=deaf(tiny_bundle))
    stream.say(np.concatenate([quiet(3), speech(2), quiet(2)]))
    frames = stream.end()
    weights = [frame.request.weight for frame in frames]
    assert weights[:73] == [0] * 73
    assert weights[73:76] == pytest.approx([1 / 3, 2 / 3, 1])
    assert set(weights[75:133]) == {1}
    assert weights[-30:] == [0] * 30
    for before, after in pairwise(weights):
        assert abs(after - before) <= 1 / 3 + 1e-9


@pytest.mark.parametrize("rate", [8000, RATE, 44_100])
def test_a_frame_says_of_which_utterance_it_is_and_when_that_arrived(tiny_bundle, avatar, rate):
    """As spoken, in blocks of 20 ms: an utterance arrived with the block in which its first sound lies."""
    stream = Stream(
        tiny_bundle, avatar, rate=rate, silence=SilenceLevel(), encode=deaf(tiny_bundle), generator=Slow()
    )
    stream.say(np.concatenate([quiet(1.03, rate), speech(0.5, rate), quiet(1, rate), speech(1, rate)]))
    stream.say(quiet(1, rate))
    spoken = [frame.request.utterance for frame in stream.end()]
    frames = {number: [] for number in (0, 1)}
    for index, utterance in enumerate(spoken):
        if utterance is not None:
            frames[utterance.number].append(index)
    assert [(indices[0], indices[-1]) for indices in frames.values()] == [(23, 47), (61, 97)]
    arrived = {utterance.number: utterance.arrived for utterance in spoken if utterance is not None}
    # quiet and speech share the row of 20 ms that 1.03 s lies in: it is loud enough to open the gate
    assert arrived == {0: pytest.approx(1.04), 1: pytest.approx(2.54)}
    for frame in stream.frames:
        assert (frame.request.utterance is None) == (frame.request.weight == 0)


def test_sound_that_comes_in_a_burst_arrived_at_once(tiny_bundle, avatar):
    stream = Stream(tiny_bundle, avatar, silence=SilenceLevel(), encode=deaf(tiny_bundle), generator=Slow())
    stream.say(quiet(1))
    stream.session.hear(np.concatenate([speech(1), quiet(1), speech(1)]), stream.clock.time)
    stream.clock.time += 3
    stream.say(quiet(1))
    assert utterances(stream.end()) == [(0, pytest.approx(1.0)), (1, pytest.approx(1.0))]


def test_without_a_gate_the_whole_stream_is_one_utterance(tiny_bundle, avatar):
    stream = Stream(tiny_bundle, avatar, encode=deaf(tiny_bundle), generator=Slow())
    stream.say(np.concatenate([speech(1), quiet(1)]))
    stream.session.interrupt()
    stream.say(speech(1))
    frames = stream.end()
    assert all(frame.fate is Fate.DISCARDED or frame.request.utterance for frame in frames)
    assert utterances(frames) == [(0, pytest.approx(0.02))]


def test_an_interrupt_ends_an_utterance(tiny_bundle, avatar):
    """What is discarded is of none, and the next sound begins another, without a pause between."""
    stream = Stream(tiny_bundle, avatar, silence=SilenceLevel(), encode=deaf(tiny_bundle), generator=Slow())
    stream.say(speech(2))
    stream.session.interrupt()
    stream.say(speech(2))
    frames = stream.end()
    assert all((frame.request.utterance is None) == (not frame.fate.is_made) for frame in frames)
    assert utterances(frames) == [(0, pytest.approx(0.02)), (1, pytest.approx(2.02))]


def test_the_fade_is_inside_the_patch_and_between_both_pictures(tiny_bundle, avatar):
    """Each faded frame is held to the same frame of a stream that makes every frame of the same sound."""
    sound = np.concatenate([quiet(0.4), speech(0.6), quiet(0.8)])
    gated = Stream(tiny_bundle, avatar, silence=SilenceLevel(), encode=deaf(tiny_bundle))
    always = Stream(tiny_bundle, avatar, encode=deaf(tiny_bundle))
    gated.say(sound), always.say(sound)
    faded = 0
    for frame, made in zip(gated.end(), always.end(), strict=True):
        weight = frame.request.weight
        number = mirrored(frame.request.index, 7)
        source, patch = avatar.frames[number].astype(float), avatar.patches[number].box.slices()
        outside = np.ones(source.shape[:2], bool)
        outside[patch] = False
        assert np.array_equal(frame.image[outside], avatar.frames[number][outside])
        expected = weight * made.image[patch] + (1 - weight) * source[patch]
        assert np.abs(frame.image[patch] - expected).max() <= 1
        faded += 0 < weight < 1
    assert faded == 4


def test_an_idle_clip_is_shown_in_silence_and_faded_as_a_whole(tiny_bundle, avatar):
    clip = [np.full((120, 160, 3), level, np.uint8) for level in (10, 20, 30)]
    stream = Stream(tiny_bundle, avatar, silence=SilenceLevel(), idle=Clip(clip, FPS))
    stream.say(np.concatenate([quiet(1), speech(1)]))
    frames = stream.end()
    idle = [frame for frame in frames if frame.fate is Fate.IDLE]
    assert len(idle) == 23
    for frame in idle:
        assert np.array_equal(frame.image, clip[mirrored(frame.request.index, 3)])
    first = frames[23]
    assert 0 < first.request.weight < 1
    source = avatar.frames[mirrored(23, 7)].astype(float)
    mixed = source / 3 + clip[mirrored(23, 3)].astype(float) * 2 / 3
    corner = slice(0, 10), slice(0, 10)
    assert np.abs(first.image[corner] - mixed[corner]).max() <= 1


def test_an_interrupt_discards_what_was_said(tiny_bundle, avatar):
    """Nothing of the sound before it is in a frame after it, and no time is lost or won."""
    stream = Stream(tiny_bundle, avatar, silence=SilenceLevel())
    said = speech(1.2)
    stream.say(said)
    shown = len(stream.frames)
    stream.session.interrupt()
    stream.say(quiet(1))
    frames = stream.end()
    after = frames[shown:]
    assert [frame.request.index for frame in frames] == list(range(55))
    assert kinds(after) == "I" * len(after)
    heard = np.concatenate([frame.request.audio for frame in after])
    rest = len(said) - sum(len(frame.request.audio) for frame in frames[:shown])
    assert rest > 0
    assert not heard[:rest].any()
    assert np.array_equal(heard[rest:], quiet(1))


def test_speech_after_an_interrupt_is_that_of_a_new_stream(tiny_bundle, avatar):
    """Frames after it equal those of a stream that heard silence before: the old words are forgotten."""
    interrupted = Stream(tiny_bundle, avatar, silence=SilenceLevel())
    silent = Stream(tiny_bundle, avatar, silence=SilenceLevel())
    interrupted.say(speech(1))
    interrupted.session.interrupt()
    silent.say(np.zeros((RATE, 1), np.float32))
    for stream in (interrupted, silent):
        stream.say(np.concatenate([np.zeros((RATE * 3 // 5, 1), np.float32), speech(0.6)]))
    ours, theirs = interrupted.end(), silent.end()
    assert len(ours) == 55
    for mine, other in zip(ours[30:], theirs[30:], strict=True):
        assert mine.request.weight == other.request.weight
        assert np.array_equal(mine.image, other.image)


def test_requests_that_wait_are_not_made_after_an_interrupt(tiny_bundle, avatar):
    stream = Stream(tiny_bundle, avatar)
    stream.session.hear(speech(2), 0.0)
    stream.engine.step()
    made = stream.engine.stats.summary(())["unet"].count
    waiting = stream.session.waiting
    assert waiting
    stream.session.interrupt()
    for _ in range(waiting):
        stream.engine.step()
    stream.take()
    old = [frame for frame in stream.frames if frame.request.epoch == 0]
    assert kinds(old[-waiting:]) == "D" * waiting
    assert made == 1


@pytest.mark.parametrize(
    ("source_fps", "fps"),
    [(10, 25), (60, 25), (Fraction(24000, 1001), Fraction(30000, 1001)), (25, 10), (30, 50), (25, 25)],
)
def test_picture_and_idle_clip_run_at_their_own_speed(tiny_bundle, avatar, monkeypatch, source_fps, fps):
    """Speech, silence with an idle clip of another rate, an interrupt, frames left out: time goes on.

    Beside what two players show that start with the stream; frame 3 has no face and passes at its time.
    """
    clip = Clip([np.full((120, 160, 3), level, np.uint8) for level in (10, 20, 30, 40)], Fraction(15))
    source_fps, fps = Fraction(source_fps), Fraction(fps)
    own = replace(passed_through(avatar, {3}), meta=replace(avatar.meta, fps=source_fps))
    stream = Stream(
        tiny_bundle,
        own,
        fps=fps,
        silence=SilenceLevel(),
        idle=clip,
        late_after_s=0.5,
        context=Fraction(0),
        encode=deaf(tiny_bundle),
        generator=Slow(),
    )
    stream.say(np.concatenate([speech(0.8), quiet(1.2)]))
    stream.session.interrupt()
    stream.session.hear(speech(2), stream.clock.time)
    stream.clock.time += 2
    stream.run()
    stream.say(np.concatenate([speech(1), quiet(1)]))
    frames = stream.end()
    assert len(frames) == int(6 * fps)
    assert all(frame.fate.is_made or frame.fate.is_idle or frame.fate is Fate.HELD for frame in frames)
    assert {Fate.SPEAKING, Fate.IDLE, Fate.HELD} <= {frame.fate for frame in frames}
    both = [0, 1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1, 0]
    levels = [10, 20, 30, 40, 40, 30, 20, 10]
    corner = slice(0, 10), slice(0, 10)
    for frame in frames:
        number = both[floor(frame.pts * source_fps) % 14]
        assert frame.request.source == number
        assert (frame.idle == levels[floor(frame.pts * 15) % 8]).all()
        if frame.fate is Fate.SPEAKING and frame.request.weight == 1:
            assert np.array_equal(frame.image[corner], avatar.frames[number][corner])


def test_half_a_second_at_25_fps_gives_12_and_13_frames_in_turn(tiny_bundle, avatar):
    stream = Stream(tiny_bundle, avatar, encode=deaf(tiny_bundle))
    stream.say(synthetic_sound(2))
    by_hop = [sum(frame.request.hop == hop for frame in stream.frames) for hop in range(4)]
    assert by_hop[0] == 10
    assert by_hop[1:] == [13, 12, 13]
