"""What a stream does that the device does not keep up with: frames are left out, and sound never is."""

from fractions import Fraction

import numpy as np
import pytest
from encoders import deaf
from one_session import HALF, Slow, Stream, kinds, speech

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.types import Fate


@pytest.fixture(scope="module")
def avatar():
    return synthetic_avatar(160, 120, 64, 7)


def simulate(stream, seconds):
    """Sound at its own pace for so long, whatever the engine takes; what waits is fed when it returns."""
    block = speech(0.02)
    end = stream.clock.time + seconds
    fed = getattr(stream, "fed", stream.clock.time)
    while stream.clock.time < end:
        while fed + 0.02 <= stream.clock.time + 1e-9:
            fed += 0.02
            stream.session.hear(block, fed)
        if not stream.engine.step():
            stream.clock.time = max(stream.clock.time, fed + 0.02)
        stream.take()
    stream.fed = fed


def delays(frames):
    return [frame.composited - frame.request.ready for frame in frames]


@pytest.mark.parametrize(
    "chunk", [HALF, *(pytest.param(other, marks=pytest.mark.slow) for other in (Fraction(1, 5), Fraction(1)))]
)
def test_delay_stays_bounded_under_overload_and_is_back_within_a_chunk(tiny_bundle, avatar, chunk):
    """A generator at half the speed that is needed for a minute; then it is fast again."""
    slow = Slow(4 / 25 * 0.5)
    stream = Stream(
        tiny_bundle,
        avatar,
        hop=chunk,
        context=Fraction(0),
        late_after_s=float(chunk),
        encode=deaf(tiny_bundle),
        generator=slow,
    )
    simulate(stream, 5)
    assert kinds(stream.frames) == "S" * len(stream.frames)
    slow.seconds = 4 / 25 * 2
    simulate(stream, 60)
    overloaded = stream.frames[-1400:]
    dropped = kinds(overloaded).count("H")
    assert 0.4 < dropped / len(overloaded) < 0.8
    assert max(delays(overloaded)) < 2 * float(chunk) + 2 * slow.seconds
    slow.seconds = 4 / 25 * 0.5
    recovered = stream.clock.time
    simulate(stream, 5)
    after = [frame for frame in stream.frames if frame.request.ready > recovered + float(chunk)]
    assert max(delays(after)) <= float(chunk) + 1e-6
    assert kinds(after) == "S" * len(after)
    assert [frame.request.index for frame in stream.frames] == list(range(len(stream.frames)))


def test_what_is_left_out_keeps_the_picture_before_and_its_own_sound(tiny_bundle, avatar):
    stream = Stream(
        tiny_bundle,
        avatar,
        context=Fraction(0),
        late_after_s=0.5,
        encode=deaf(tiny_bundle),
        generator=Slow(0.4),
    )
    simulate(stream, 10)
    held = [place for place, frame in enumerate(stream.frames) if frame.fate is Fate.HELD]
    assert held
    for place in held:
        assert stream.frames[place].image is stream.frames[place - 1].image
    heard = np.concatenate([frame.request.audio for frame in stream.frames])
    block = speech(0.02)
    assert np.array_equal(heard, np.tile(block, (len(heard) // len(block) + 1, 1))[: len(heard)])


def test_a_stall_is_not_caught_up_frame_by_frame(tiny_bundle, avatar):
    """A process that stood still for ten seconds goes on with the newest chunk, and encodes no other."""
    stream = Stream(tiny_bundle, avatar, late_after_s=0.5)
    stream.say(speech(1))
    before, shown = stream.encodings(), len(stream.frames)
    stream.session.hear(speech(10), stream.clock.time)
    stream.clock.time += 10
    stream.run()
    missed = stream.frames[shown:]
    assert kinds(missed).count("S") <= 13
    assert stream.encodings() - before <= 1
    assert len(missed) >= 245


def test_waiting_makes_every_frame(tiny_bundle, avatar):
    stream = Stream(tiny_bundle, avatar, context=Fraction(0), encode=deaf(tiny_bundle), generator=Slow(1.0))
    simulate(stream, 20)
    assert set(kinds(stream.frames)) == {"S"}
