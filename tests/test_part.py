"""Parts of a recording: made one by one they are the whole, to the last bit."""

import threading
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from clocks import FakeClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lives import speech
from runs import OFFLINE

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig, SilenceLevel
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.part import WHOLE, Part
from musetalk_cli.live.ends import Ends
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.audio_encoder import AudioEncoder
from musetalk_cli.run.job import run_session
from musetalk_cli.sinks import NullSink
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import AudioBlock, Delivery

RATE, FPS = 22_050, 20
BATCH = 3
HOP = Fraction(3)
JOB = JobConfig(
    fps=Fraction(FPS), chunk=HOP, context=Fraction(0), window=HOP, image_ops="cpu", batch_sizes=(1, BATCH)
)
"""As a recording is made, but with windows of 3 s, so that several cost little; and two shapes of batches."""


@pytest.fixture(scope="module")
def avatar():
    """With frames at rest, where the clip turns by what is said, and one without a face."""
    made = synthetic_avatar(64, 48, 24, 9)
    patches = [*made.patches[:4], None, *made.patches[5:]]
    return replace(made, patches=patches, meta=replace(made.meta, rest_frames=(2, 3, 4, 5, 6)))


@pytest.fixture(scope="module")
def sound():
    """Nine seconds with silences, one of them over the end of a window; two channels."""
    parts = [(2.3, 0.4), (1.2, 0), (1.9, 0.3), (0.4, 0), (0.7, 0.2), (0.9, 0), (1.63, 0.5)]
    pieces = [level * speech(seconds, RATE, n) for n, (seconds, level) in enumerate(parts)]
    mono = np.concatenate(pieces).astype(np.float32)
    return np.stack([mono, 0.3 * mono], axis=1)


class Recording:
    """A sound in blocks of a length of its own."""

    sample_rate, channels, lost_samples, delivery = RATE, 2, 0, Delivery.RECORDED

    def __init__(self, sound, block):
        self.sound, self.block, self.given = sound, block, 0

    def __iter__(self):
        for begin in range(0, len(self.sound), self.block):
            self.given = begin
            yield AudioBlock(self.sound[begin : begin + self.block], 0.0)

    def discard(self):
        pass

    def close(self):
        pass


class Kept(NullSink):
    def __init__(self):
        super().__init__()
        self.frames = []

    def write(self, frame):
        self.frames.append(frame)


class Made:
    """What an engine has made: frames, and the company of each in its batch."""

    def __init__(self, bundle, avatar, sound, silence, part=WHOLE, block=4000, job=JOB):
        engine = Engine(bundle, job, StageStats(FakeClock()), encode=self.encode)
        self.encoder, self.encoded, self.batches = AudioEncoder(bundle), 0, []
        make = engine.faces.make

        def noted(tokens, latents):
            self.batches.append(len(tokens))
            return make(tokens, latents)

        engine.faces.make = noted
        sink, self.source = Kept(), Recording(sound, block)
        self.outcome = run_session(
            engine, avatar, silence, None, OFFLINE, Ends(self.source, [sink], threading.Event()), part=part
        )
        self.frames = sink.frames

    def encode(self, requests):
        self.encoded += len(requests)
        return self.encoder(requests)


def assert_same(ours, whole):
    assert len(ours) == len(whole)
    for mine, theirs in zip(ours, whole, strict=True):
        one, other = mine.request, theirs.request
        assert (one.index, one.source, one.weight, mine.fate) == (
            other.index,
            other.source,
            other.weight,
            theirs.fate,
        )
        assert mine.pts == theirs.pts
        assert np.array_equal(one.audio, other.audio)
        if theirs.fate.is_made:
            assert np.array_equal(one.tokens, other.tokens)
        assert np.array_equal(mine.image, theirs.image)


GATED, ALWAYS = SilenceLevel(), None


@pytest.fixture(scope="module", params=[GATED, pytest.param(ALWAYS, marks=pytest.mark.slow)])
def whole(request, tiny_bundle, avatar, sound):
    return request.param, Made(tiny_bundle, avatar, sound, request.param)


def test_the_whole_has_what_parts_could_break(whole, sound):
    silence, made = whole
    assert len(made.frames) == len(sound) * FPS // RATE
    fates = {frame.fate.name for frame in made.frames}
    assert fates == {"SPEAKING", "PASS_THROUGH", *(("FADING", "IDLE") if silence else ())}
    assert made.encoded == 4
    assert set(made.batches[:-1]) == {BATCH}, "all are full but the last"


@pytest.mark.parametrize("cuts", [(0, 59, 61, 130, 180)])
def test_parts_in_a_row_are_the_whole(whole, tiny_bundle, avatar, sound, cuts):
    """Cut in speech, before and behind the end of a window, and in silence."""
    silence, made = whole
    parts = [Made(tiny_bundle, avatar, sound, silence, Part(*part)) for part in pairwise(cuts)]
    assert_same([frame for part in parts for frame in part.frames], made.frames)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_parts_cut_anywhere_are_the_whole(whole, tiny_bundle, avatar, sound, data):
    """Whatever the frame, and however the sound comes: in speech, a fade, silence, the middle of a batch."""
    silence, made = whole
    count = len(made.frames)
    # near the end of a window as well: its frames hear two
    place = st.one_of(st.integers(1, count - 1), st.integers(56, 64), st.integers(116, 124))
    first, stop = sorted(data.draw(st.tuples(place, st.one_of(place, st.just(count))), label="part"))
    stop = max(stop, first + 1)
    block = data.draw(st.sampled_from((777, 4000, 90_000)), label="block")
    part = Made(tiny_bundle, avatar, sound, silence, Part(first, stop), block)
    assert_same(part.frames, made.frames[first:stop])


def test_a_part_computes_what_it_needs_and_ends_with_it(tiny_bundle, avatar, sound):
    """Of an hour in eight parts each must cost an eighth."""
    part = Made(tiny_bundle, avatar, sound, ALWAYS, Part(85, 95))
    assert part.encoded == 1
    assert sum(part.batches) <= 10 + 2 * (BATCH - 1)
    assert part.source.given < len(sound), "the rest of the sound is not read"
    assert part.outcome.frames == 10


class Lecture(Recording):
    """Minutes of a sound that nobody holds: it is made as it is taken."""

    def __init__(self, sound, minutes):
        super().__init__(sound, 4000)
        self.times = int(minutes * 60 * RATE / len(sound)) + 1

    def __iter__(self):
        for _ in range(self.times):
            yield from super().__iter__()


@pytest.mark.slow
def test_a_part_holds_no_more_of_what_is_before_it_than_a_window(tiny_bundle, avatar, sound):
    """Three minutes are 32 MB of samples, and a window of 3 s is half of one."""
    source, sink = Lecture(sound, 3), Kept()
    first = 3 * 60 * FPS
    engine = Engine(tiny_bundle, JOB, StageStats(FakeClock()))
    tracemalloc.start()
    try:
        ends = Ends(source, [sink], threading.Event())
        run_session(engine, avatar, GATED, None, OFFLINE, ends, part=Part(first, first + 5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(sink.frames) == 5
    assert peak < 5e6


@pytest.mark.parametrize("alignment", ["frame", "published"])
@pytest.mark.parametrize("fps", [Fraction(2), Fraction(25), Fraction(30_000, 1001)])
def test_a_part_hears_every_window_that_its_frames_need(fps, alignment):
    timeline = Timeline(fps, alignment)
    for first in (0, 60, 749, 750, 751):
        for hop_stop in range(1500, 6000, 1500):
            frames = range(int((hop_stop - 1500) * fps / 50), int(hop_stop * fps / 50))
            needed = max(0, timeline.first_row(first)) < hop_stop and frames.start < first + 10
            assert Part(first, first + 10).hears(frames, hop_stop, timeline, 0) == needed
