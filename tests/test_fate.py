"""A frame's fate: the whole truth table, and that the frames of a real session carry it."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig, SilenceLevel
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.fate import decide
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.audio_encoder import AudioEncoder
from musetalk_cli.types import Fate

RATE, FPS = 16_000, 25
FRAME = RATE // FPS
CHUNK = Fraction(1, 5)
JOB = JobConfig(fps=Fraction(FPS), chunk=CHUNK, sharpen=None, image_ops="cpu", batch_sizes=(4,))
WEIGHTS = (0.0, 0.25, 0.5, 1.0)


def rule(weight, has_face, late, discarded):
    """The rule in other words: each fate by what it needs."""
    fates = {
        Fate.DISCARDED: discarded,
        Fate.IDLE: not discarded and weight == 0,
        Fate.HELD: not discarded and weight > 0 and late,
        Fate.PASS_THROUGH: not discarded and weight > 0 and not late and not has_face,
        Fate.FADING: not discarded and 0 < weight < 1 and not late and has_face,
        Fate.SPEAKING: not discarded and weight == 1 and not late and has_face,
    }
    (fate,) = [fate for fate, holds in fates.items() if holds]
    return fate


@pytest.mark.parametrize(
    ("weight", "has_face", "late", "discarded"), list(itertools.product(WEIGHTS, *[(False, True)] * 3))
)
def test_the_whole_truth_table(weight, has_face, late, discarded):
    fate = decide(weight, has_face=has_face, late=late, discarded=discarded)
    assert fate is rule(weight, has_face, late, discarded)


def test_every_fate_is_made_or_idle_or_held():
    assert {fate for fate in Fate if fate.is_made} == {Fate.SPEAKING, Fate.FADING}
    assert {fate for fate in Fate if fate.is_idle} == {Fate.IDLE, Fate.PASS_THROUGH, Fate.DISCARDED}
    assert not any(fate.is_made and fate.is_idle for fate in Fate)


class Live:
    """A session on an engine of its own."""

    def __init__(self, bundle, avatar=None, **options):
        self.clock = FakeClock(0.0)
        self.engine = Engine(bundle, JOB, StageStats(self.clock))
        avatar = avatar or synthetic_avatar(160, 120, 64, 3)
        self.session = self.engine.open(
            avatar, JOB.fps, CHUNK, Fraction(0), RATE, 1, SessionOptions(**options)
        )
        self.frames = []

    def say(self, frames, loud=0.1, *, late=0.0):
        sound = np.random.default_rng(3).uniform(-loud, loud, (frames * FRAME, 1)).astype(np.float32)
        self.clock.time += frames / FPS
        self.session.hear(sound, self.clock.time - late)

    def finish(self):
        self.session.end_sound(self.clock.time)
        while self.engine.step() or self.session.untaken:
            while self.session.untaken:
                self.frames.append(self.session.take())
        assert self.session.is_done
        return [frame.fate for frame in self.frames]


def test_a_session_without_silence_speaks(tiny_bundle):
    live = Live(tiny_bundle)
    live.say(7, 0.0)
    assert live.finish() == [Fate.SPEAKING] * 7


def test_a_session_fades_between_idle_and_speaking(tiny_bundle):
    live = Live(tiny_bundle, silence=SilenceLevel())
    live.say(20, 0.0)
    live.say(20)
    live.say(40, 0.0)
    fates = live.finish()
    order = [fate for fate, _ in itertools.groupby(fates)]
    assert order == [Fate.IDLE, Fate.FADING, Fate.SPEAKING, Fate.FADING, Fate.IDLE]
    for frame in live.frames:
        weight = frame.request.weight
        assert frame.fate is rule(weight, has_face=True, late=False, discarded=False)
        assert (frame.request.tokens is not None) is frame.fate.is_made
        if frame.fate is Fate.IDLE:
            assert np.array_equal(frame.image, frame.idle)


def test_a_session_passes_through_what_has_no_face(tiny_bundle):
    avatar = synthetic_avatar(160, 120, 64, 3)
    avatar = replace(avatar, patches=[avatar.patches[0], None, avatar.patches[2]])
    live = Live(tiny_bundle, avatar)
    live.say(12)
    fates = live.finish()
    assert {Fate.PASS_THROUGH, Fate.SPEAKING} == set(fates)
    for frame in live.frames:
        assert (frame.fate is Fate.PASS_THROUGH) is (frame.request.source == 1)
        if frame.fate is Fate.PASS_THROUGH:
            assert np.array_equal(frame.image, avatar.frames[1])


def test_a_session_holds_what_is_late_and_keeps_its_sound(tiny_bundle):
    live = Live(tiny_bundle, late_after_s=0.2)
    live.say(10)
    while live.engine.step():
        pass
    live.say(10, late=5.0)
    fates = live.finish()
    held = [frame for frame in live.frames if frame.fate is Fate.HELD]
    assert set(fates) == {Fate.SPEAKING, Fate.HELD}
    before = live.frames[live.frames.index(held[0]) - 1]
    for frame in held:
        assert frame.image is before.image
        assert np.abs(frame.request.audio).max() > 0
        assert frame.request.tokens is None


def test_silence_is_never_late(tiny_bundle):
    live = Live(tiny_bundle, late_after_s=0.2, silence=SilenceLevel())
    live.say(20, 0.0, late=5.0)
    assert set(live.finish()) == {Fate.IDLE}


def test_an_interrupt_discards_what_waits_in_a_session(tiny_bundle):
    live = Live(tiny_bundle)
    live.say(20)
    live.session.understand(AudioEncoder(tiny_bundle)(live.session.advance(live.clock.now())))
    waiting = live.session.waiting
    assert waiting > 0
    live.session.interrupt()
    fates = live.finish()
    assert fates[:waiting] == [Fate.DISCARDED] * waiting
    for frame in live.frames[:waiting]:
        assert np.array_equal(frame.image, frame.idle)
        assert frame.request.epoch == 0
        assert frame.request.tokens is None


def test_a_late_frame_after_an_interrupt_shows_nothing_of_what_was_said_before(tiny_bundle):
    live = Live(tiny_bundle, late_after_s=0.2)
    session = live.session
    live.say(10)
    session.understand(AudioEncoder(tiny_bundle)(session.advance(live.clock.now())))
    on_their_way = [session.next_request() for _ in range(session.waiting)]
    session.interrupt()
    session.settle()
    for request in on_their_way:
        box = session.avatar.patches[request.source].box
        session.assemble(request, np.full((box.height, box.width, 3), 255, np.uint8), live.clock.now())
    live.clock.time += 1
    live.finish()
    assert live.frames[len(on_their_way) - 1].image[box.slices()].min() == 255
    held = next(frame for frame in live.frames if frame.fate is Fate.HELD)
    assert np.array_equal(held.image, held.idle)
