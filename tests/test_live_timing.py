"""When a live stream is shown: the real engine, networks that take no time, and a clock that tests move."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musetalk_cli.bench.simulation import SimulatedClock, Simulation
from musetalk_cli.bench.stand_in import TOKEN_WIDTH, Grey, deaf, stand_in
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig, SilenceLevel
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.engine import Costs, Engine
from musetalk_cli.live.jitter_buffer import CUT_OFF
from musetalk_cli.live.playout import MOST_S
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.types import AudioBlock, Fate

RATE, FPS = 16_000, 25
FRAME_S = 1 / FPS
LOOK_AHEAD_S = 0.12
SOON = 1e-6
BATCHES = (2, 4, 8)
LIVE = StreamPolicy(
    paced=True,
    late_after_s=0.2,
    own_time=True,
    goes_on=True,
    keeps_length=False,
    sinks_are_waited_for=False,
    all_or_nothing=False,
)


@pytest.fixture(scope="module")
def grey_bundle():
    """Networks that make grey faces and take no time."""
    return stand_in()


def listening(requests):
    """Rows that say what sound they are of, and how far their window reaches."""
    found = []
    for request in requests:
        padded = np.append(request.samples, np.zeros(320, np.float32))
        starts = np.minimum(np.array(request.rows) * 320, len(request.samples))
        said = np.stack([padded[starts], np.full(len(starts), request.samples[-1])], axis=1)
        found.append(torch.from_numpy(said)[:, :, None].repeat(1, 1, TOKEN_WIDTH))
    return found


class TakesTime(CpuPath):
    """Image steps of a device that needs so long for a batch, by the clock of the test."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def blend(self, faces, targets):
        self.clock.time += self.seconds(next(size for size in BATCHES if size >= len(faces)))
        return super().blend(faces, targets)


class Live:
    """A live stream, and what was shown of it.

    Args:
        hop_s: Seconds that the device needs to encode a hop.
        frame_s: Seconds that it needs for each frame of a batch, by when it begins.
        encode: What gives the rows of windows.
    """

    def __init__(self, bundle, chunk="0.2", hop_s=0.0, frame_s=lambda _: 0.0, policy=LIVE, encode=deaf):
        self.clock = SimulatedClock()
        job = JobConfig(
            fps=Fraction(FPS), chunk=Fraction(chunk), image_ops="cpu", sharpen=None, batch_sizes=BATCHES
        )

        def takes_time(requests):
            self.clock.time += hop_s
            return encode(requests)

        path = TakesTime(self.clock, lambda frames: frames * frame_s(self.clock.time))
        parts = {"encode": takes_time, "generator": Grey(bundle), "images": path}
        engine = Engine(bundle, job, StageStats(self.clock), live=True, **parts)
        engine.costs = Costs(hop_s, {size: size * frame_s(0.0) for size in BATCHES})
        self.shown = []
        self.live = Simulation(
            engine,
            self.clock,
            synthetic_avatar(96, 72, 40, 3),
            SilenceLevel(),
            policy,
            RATE,
            self.shown.append,
        )

    def run(self, sound, until, interrupts=()):
        self.live.run(sorted(sound, key=lambda each: each[0]), until, interrupts)
        return self

    @property
    def frames(self):
        return [shown.frame for shown in self.shown]

    def audio(self):
        return np.concatenate([frame.request.audio for frame in self.frames])[:, 0]

    def responses(self):
        """Seconds from the arrival of each utterance's first sound to its first speaking frame."""
        found = {}
        for frame, _, at in self.shown:
            spoken = frame.request.utterance
            if spoken is not None and frame.fate.is_made:
                found.setdefault(spoken.number, at - spoken.arrived)
        return list(found.values())

    def delays(self, number):
        """How much later the frames of an utterance are shown than their place in the stream says."""
        return [
            at - float(frame.pts)
            for frame, _, at in self.shown
            if frame.request.utterance is not None and frame.request.utterance.number == number
        ]

    def count(self, fate):
        return sum(frame.fate is fate for frame in self.frames)

    def check_order(self):
        """Every frame once, at its own sound, and never earlier than the one before it."""
        assert [frame.request.index for frame in self.frames] == list(range(len(self.shown)))
        times = [shown.at for shown in self.shown]
        assert times == sorted(times)
        position = 0
        for frame in self.frames:
            assert abs(float(frame.pts) - position / RATE) < 1 / RATE
            position += len(frame.request.audio)


def speech(seconds, seed=0):
    """Noise at -20 dB without a single zero, float32 `[n, 1]`."""
    noise = np.random.default_rng(seed).standard_normal((round(seconds * RATE), 1))
    return np.where(noise == 0, 0.1, 0.1 * noise).astype(np.float32)


def burst(at, sound, size=800):
    """All of it at once, in blocks of 50 ms as `--listen` gives it."""
    return [(at, AudioBlock(sound[first : first + size], at)) for first in range(0, len(sound), size)]


def spoken(at, sound, size=320, late=lambda _: 0.0, pace=1.0):
    """Each block when its last sample was said, or later."""
    blocks = []
    for number, first in enumerate(range(0, len(sound), size)):
        samples = sound[first : first + size]
        there = at + (first + len(samples)) / RATE * pace + late(number)
        blocks.append((there, AudioBlock(samples, there)))
    return blocks


def without_silence(sound):
    return sound[sound != 0]


def utterances(send, count=5, seconds=2.0, pause=1.5):
    sounds = [speech(seconds, seed) for seed in range(count)]
    starts = [1.003 + number * (seconds + pause + 0.0071) for number in range(count)]
    blocks = [block for at, sound in zip(starts, sounds, strict=True) for block in send(at, sound)]
    return blocks, np.concatenate(sounds)[:, 0], starts[-1] + seconds + pause


@pytest.mark.parametrize("chunk", ["0.1", "0.2", "0.5"])
def test_a_burst_is_answered_within_a_frame_where_nothing_takes_time(grey_bundle, chunk):
    blocks, said, end = utterances(burst)
    live = Live(grey_bundle, chunk).run(blocks, end)
    live.check_order()
    assert len(live.responses()) == 5
    assert max(live.responses()) <= FRAME_S + SOON
    assert live.live.stalls == live.count(Fate.HELD) == 0
    assert np.array_equal(without_silence(live.audio()), said)


@pytest.mark.parametrize("chunk", ["0.1", "0.2", "0.5"])
def test_as_it_is_spoken_a_word_is_seen_a_hop_the_look_ahead_and_a_frame_later(grey_bundle, chunk):
    blocks, said, end = utterances(spoken)
    live = Live(grey_bundle, chunk).run(blocks, end)
    live.check_order()
    assert len(live.responses()) == 5
    assert max(live.responses()) <= float(chunk) + LOOK_AHEAD_S + FRAME_S + SOON
    times = [shown.at for shown in live.shown]
    assert max(np.diff(times)) <= 2 * FRAME_S + SOON, "the face moves on while a word waits for its time"
    assert live.live.stalls == live.count(Fate.HELD) == 0
    assert np.array_equal(without_silence(live.audio()), said)


@pytest.mark.parametrize("send", [burst, spoken])
def test_the_delay_is_held_during_an_utterance(grey_bundle, send):
    """Within it frames follow each other at the frame rate, to what a source's clock may be off."""
    blocks, _, end = utterances(send, seconds=4)
    live = Live(grey_bundle, hop_s=0.02, frame_s=lambda _: 0.015).run(blocks, end)
    assert live.live.stalls == 0
    for number in range(5):
        delays = live.delays(number)[:-10]  # the last ones may have waited for sound that did not come
        assert max(delays) - min(delays) < 0.005


@pytest.mark.slow
def test_what_computing_needs_is_waited_for_from_the_second_utterance_on(grey_bundle):
    """60 ms for a hop and 25 ms for a frame: less than there is, and at first all at once."""
    blocks, _, end = utterances(burst, count=8, seconds=3)
    live = Live(grey_bundle, hop_s=0.06, frame_s=lambda _: 0.025).run(blocks, end)
    live.check_order()
    later = [shown for shown in live.shown if (said := shown.frame.request.utterance) and said.number >= 1]
    middle = [shown for shown in later if shown.frame.fate is Fate.SPEAKING and not shown.frame.request.short]
    assert all(at <= planned + FRAME_S for _, planned, at in middle)
    assert max(live.responses()) <= 0.2 + SOON
    assert live.count(Fate.HELD) == 0


@pytest.mark.parametrize("size", [160, 800, 2400])
def test_sound_that_trickles_faster_than_it_is_spoken_is_shown_at_its_rate(grey_bundle, size):
    """A synthesiser that needs half as long as its sound lasts."""
    sound = speech(6)
    blocks = spoken(2.0, sound, size, pace=0.5)
    live = Live(grey_bundle).run(blocks, 10)
    live.check_order()
    assert live.live.stalls == 0
    delays = live.delays(0)[:-10]
    assert max(delays) - min(delays) < 0.01
    assert np.array_equal(without_silence(live.audio()), sound[:, 0])


def test_a_short_gap_inside_a_word_holds_the_picture_and_a_long_one_is_silence(grey_bundle):
    """A tenth of a second is waited for; nothing that was said is lost, repeated or moved on its way."""
    for gap, silence in ((0.06, False), (0.5, True)):
        sound = speech(2)
        blocks = burst(2.0, sound[:RATE]) + burst(2.0 + 1.0 + gap, sound[RATE:])
        live = Live(grey_bundle).run(blocks, 6)
        live.check_order()
        audio = live.audio()
        assert np.array_equal(without_silence(audio), sound[:, 0])
        inside = np.flatnonzero(audio)
        put_in = inside[-1] - inside[0] + 1 - len(inside)
        assert (put_in > 0) == silence
        assert put_in <= (gap + 0.1) * RATE
        numbers = {frame.request.utterance.number for frame in live.frames if frame.request.utterance}
        assert numbers == ({0, 1} if silence else {0})


def test_the_end_of_an_utterance_that_is_told_is_not_waited_for(grey_bundle):
    """With it its last frames are made at once, and silence follows without a held picture."""
    sound = speech(1)
    blocks = burst(2.0, sound)
    at, last = blocks[-1]
    blocks[-1] = at, replace(last, ends=True)
    told, untold = Live(grey_bundle).run(blocks, 5), Live(grey_bundle).run(burst(2.0, sound), 5)
    gaps = []
    for live in (told, untold):
        live.check_order()
        times = [shown.at for shown in live.shown]
        gaps.append(max(np.diff(times)))
    assert gaps[0] <= FRAME_S + SOON < gaps[1] <= FRAME_S + 0.1 + SOON


def test_frames_without_their_look_ahead_are_counted(grey_bundle):
    """Behind the last word of a burst nothing comes: the last three frames, and they say so."""
    live = Live(grey_bundle).run(burst(2.0, speech(1)), 5)
    short = [
        frame.request.index for frame in live.frames if frame.request.short and frame.fate is Fate.SPEAKING
    ]
    last = max(frame.request.index for frame in live.frames if frame.fate is Fate.SPEAKING)
    assert short == list(range(short[0], last + 1))
    assert {last, last - 1, last - 2} <= set(short)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 6000), min_size=1, max_size=8), st.floats(0, 0.03))
def test_what_a_frame_hears_does_not_depend_on_how_its_sound_was_cut(grey_bundle, sizes, spread):
    """Hops are functions of the sound: tokens are the same but where a frame had to do with less."""
    sound = speech(2, 7)
    cuts = np.cumsum(sizes) % len(sound)
    blocks = [
        (2.0 + number * spread, AudioBlock(part, 2.0 + number * spread))
        for number, part in enumerate(np.split(sound, np.sort(cuts)))
    ]
    whole = Live(grey_bundle, encode=listening).run(burst(2.0, sound), 5)
    cut = Live(grey_bundle, encode=listening).run(blocks, 5)
    compared = 0
    for one, other in zip(whole.frames, cut.frames, strict=False):
        ours, theirs = one.request, other.request
        if not np.array_equal(ours.audio, theirs.audio):
            break  # silence was put in where sound came too late: from here on they are others
        if ours.fate.is_made and not ours.short and not theirs.short:
            assert torch.equal(ours.tokens, theirs.tokens)
            compared += 1
    assert compared > 20 or spread > 0.002


@pytest.mark.parametrize("phase", [0.0, 0.02, 0.1, 0.3, 0.9, 1.6, 1.99, 2.2])
@pytest.mark.parametrize("send", [burst, spoken])
def test_an_interrupt_at_any_phase_is_seen_within_two_frames_and_leaves_the_next_utterance_fast(
    grey_bundle, send, phase
):
    first, second = speech(2, 1), speech(1, 2)
    cut = 2.003 + phase
    blocks = [block for block in send(2.003, first) if send is burst or block[0] < cut - SOON]
    live = Live(grey_bundle).run(blocks + send(cut + 0.4, second), cut + 4, [cut])
    live.check_order()
    epochs = [frame.request.epoch for frame in live.frames]
    assert epochs == sorted(epochs)
    answered = live.responses()
    assert 1 <= len(answered) <= 2
    assert answered[-1] <= (FRAME_S if send is burst else 0.2 + LOOK_AHEAD_S + FRAME_S) + SOON
    queued = [frame for frame, _, at in live.shown if frame.request.epoch == 0 and at > cut]
    assert len(queued) <= 12 + 8 + 3 * 8, (
        "what the jitter buffer holds, half a second and a batch, and the engine"
    )
    assert all(frame.idle is not None for frame in queued)
    after = without_silence(live.audio())
    assert np.array_equal(after[-len(second) :], second[:, 0])


@pytest.mark.slow
def test_a_device_that_becomes_slow_holds_frames_and_is_on_time_again(grey_bundle):
    """Half the speed that is needed, in an utterance: the delay grows only so far, and goes again."""
    slow = lambda now: 0.08 if 1.5 < now < 4 else 0.01  # noqa: E731
    blocks, said, end = utterances(spoken, count=8, seconds=3)
    live = Live(grey_bundle, frame_s=slow).run(blocks, end)
    normal = Live(grey_bundle, frame_s=lambda _: 0.01).run(blocks, end)
    live.check_order()
    assert live.count(Fate.HELD) > 0
    assert np.array_equal(without_silence(live.audio()), said)
    assert max(live.delays(0)) <= max(normal.delays(0)) + MOST_S + LIVE.late_after_s + 8 * 0.08
    assert live.responses()[1] <= normal.responses()[1] + MOST_S
    assert live.responses()[-1] <= normal.responses()[-1] + SOON


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [-200, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("hours", [0.1, pytest.param(1, marks=pytest.mark.slow)])
def test_a_source_whose_clock_is_off_is_followed(grey_bundle, ppm, hours):
    """A microphone that is never silent for long: delay, queues, picture and sound stay where they are."""
    live = Live(grey_bundle)
    random = np.random.default_rng(0)
    loud, quiet = speech(0.1), (0.001 * speech(0.1, 3)).astype(np.float32)
    pace = 1 + ppm * 1e-6

    def microphone():
        last = 0.0
        for number in range(int(hours * 36_000)):
            last = max(last, 1 + (number + 1) * 0.1 * pace + random.uniform(0, 0.03))
            yield last, AudioBlock(loud if number % 30 < 10 else quiet, last)

    parts, largest, stalls, position = 6, [], [], 0
    sound, end = microphone(), 1 + hours * 3600 * pace
    coming = next(sound)
    for part in range(parts):
        until, blocks = end * (part + 1) / parts, []
        while coming is not None and coming[0] <= until:
            blocks.append(coming)
            coming = next(sound, None)
        live.live.run(blocks, until)
        largest.append(max(at - float(frame.pts) * pace for frame, _, at in live.shown))
        for frame in live.frames:
            assert abs(float(frame.pts) - position / RATE) < 1 / RATE
            position += len(frame.request.audio)
        stalls.append(live.live.stalls)
        live.shown.clear()
    assert max(largest[1:]) - min(largest[1:]) < FRAME_S
    assert stalls[-1] == stalls[0]
    assert live.live.deepest <= 5 + 8


@pytest.mark.slow
@pytest.mark.parametrize("hours", [0.02, pytest.param(1, marks=pytest.mark.slow)])
def test_sound_and_picture_stay_together_over_bursts_pauses_and_interrupts(grey_bundle, hours):
    """Whatever comes: every frame once, at its own sound to the sample, and nothing piles up."""
    live, random = Live(grey_bundle), np.random.default_rng(4)
    at, place, index, said = 1.0, 0, 0, 0
    while at < hours * 3600:
        sound = speech(random.uniform(0.1, 4), int(random.integers(1 << 30)))
        send, seconds = (burst, spoken)[random.integers(2)], len(sound) / RATE
        cuts = [at + random.uniform(0, seconds)] if random.random() < 0.3 else []
        after = at + seconds + random.uniform(0.05, 2)
        live.run(send(at, sound), after, cuts)
        for frame in live.frames:
            assert frame.request.index == index
            assert abs(float(frame.pts) - place / RATE) < 1 / RATE
            place += len(frame.request.audio)
            index += 1
        said += len(sound)
        live.shown.clear()
        at = after
    assert live.live.deepest <= CUT_OFF * 2 * BATCHES[-1]
    assert place > 0.8 * at * RATE, "time goes on"
