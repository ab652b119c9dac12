"""Hours of one stream on a clock of its own: picture and sound stay together, and nothing grows."""

from collections import deque
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from encoders import deaf

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.session import Session, SessionOptions
from musetalk_cli.engine.windows import FeatureStream
from musetalk_cli.live.jitter_buffer import PlayoutSchedule
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import Frame, StreamFormat

RATE = 16_000
CHUNK = Fraction(2)
HOUR = 3600
JITTER_S = 0.08
COMPUTING_S = 0.3
"""What the simulated device needs for a chunk."""


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Day:
    """A source whose clock is off and whose delivery is late at random, a device, and presentation.

    Attributes:
        offset: Largest distance between a frame's PTS and the sound handed over before it, in seconds.
        delays: Seconds from a frame's first sample, on the source's own clock, to its being shown: the least
            and the most, by part of the run.
        deepest: Most frames that waited for their time at once.
    """

    def __init__(self, fps, ppm, part_s):
        self.part = int(part_s / CHUNK)
        self.fps = fps
        self.timeline = Timeline(fps)
        self.random = np.random.default_rng(0)
        self.second = 1 + ppm * 1e-6
        features = FeatureStream(deaf(), self.timeline, CHUNK, Fraction(1))
        stream = StreamFormat(160, 120, fps, RATE, 1)
        options = SessionOptions(SilenceLevel(), late_after_s=float(CHUNK))
        self.session = Session(synthetic_avatar(160, 120, 64, 3), features, self.timeline, stream, options)
        self.playout = PlayoutSchedule(self.timeline, CHUNK)
        noise = self.random.standard_normal((int(CHUNK * RATE), 1)).astype(np.float32)
        self.blocks = [noise * 0.1, noise * 0.0001, noise * 0.1, noise * 0.0001, noise * 0.0001]
        self.samples = self.frames = self.made = self.deepest = 0
        self.offset = 0.0
        self.delays = []
        self.last = 0.0
        self.waiting = deque()

    def run(self, parts):
        for number in range(parts * self.part):
            if number % self.part == 0:
                self.delays.append([9.0, 0.0])
            arrived = float((number + 1) * CHUNK) * self.second + self.random.uniform(0, JITTER_S)
            self.session.hear(self.blocks[number % len(self.blocks)], arrived)
            while self.session.hop_ready() is not None:
                self.session.hold_late(arrived)
                self.session.advance(arrived)
            self.show(arrived)

    def show(self, arrived):
        made = 0
        while self.session.waiting:
            request = self.session.next_request()
            made += request.tokens is not None
            composited = arrived + COMPUTING_S * made / 60
            frame = Frame(request, None, self.timeline.pts(request.index), composited, request.fate)
            due = max(self.playout.due(frame), composited)
            assert due >= self.last
            self.last = due
            self.check(frame, due)
        self.made += made

    def check(self, frame, due):
        begins = float(frame.pts)
        self.offset = max(self.offset, abs(begins - self.samples / RATE))
        self.samples += len(frame.request.audio)
        self.frames += 1
        delay = due - begins * self.second
        part = self.delays[-1]
        part[0], part[1] = min(part[0], delay), max(part[1], delay)
        while self.waiting and self.waiting[0] <= frame.composited:
            self.waiting.popleft()
        self.waiting.append(due)
        self.deepest = max(self.deepest, len(self.waiting))


@pytest.mark.parametrize(
    ("fps", "ppm"), [(Fraction(25), 200), (Fraction("29.97"), -200), (Fraction(30), 200)]
)
@pytest.mark.parametrize(
    ("parts", "part_s"),
    [(4, HOUR // 8), pytest.param(24, HOUR, marks=pytest.mark.slow)],
    ids=["half-an-hour", "day"],
)
def test_hours(fps, ppm, parts, part_s):
    day = Day(fps, ppm, part_s)
    day.run(1)
    before = resident_bytes()
    first_part = list(day.delays)
    day = Day(fps, ppm, part_s)
    day.run(parts)
    assert resident_bytes() - before < 16 << 20
    assert day.timeline.complete(day.frames - 1, parts * part_s * RATE)
    assert not day.timeline.complete(day.frames, parts * part_s * RATE)
    assert 0.35 < day.made / day.frames < 0.6
    assert day.offset < 1 / RATE
    smallest, largest = (np.array(day.delays)[:, side] for side in (0, 1))
    assert smallest.min() > float(CHUNK)
    assert largest.max() < float(2 * CHUNK + day.timeline.wait)
    assert np.ptp(largest) < 1 / fps
    assert largest[-1] < first_part[0][1] + 1 / fps
    assert day.deepest <= int((CHUNK + Fraction(1, 2)) * fps)
