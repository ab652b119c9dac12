"""Utterances with pauses between them, and who sends them to a stream that listens."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.bench.options import Sending
from musetalk_cli.bench.synthetic import synthetic_sound
from musetalk_cli.clock import Clock
from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.voice_gate import VoiceGate
from musetalk_cli.media.audio import SoundReader
from musetalk_cli.media.resample import StreamResampler
from musetalk_cli.nets.embedded import demo_sample
from musetalk_cli.timeline import SAMPLE_RATE, SAMPLES_PER_ROW, rows_in
from musetalk_cli.types import Samples

PACKET_SAMPLES = SAMPLE_RATE // 50
LEAD_IN_S = 1.0
"""Seconds of silence before the first utterance."""
SETTLE_S = 1.0
"""Seconds after the last one."""
REST_ROWS = 3
"""Rows of quiet at which a sound is cut: read speech has little more between its parts."""
SYNTHETIC_S = 2.0
FULL_SCALE = 32768


class Packet(NamedTuple):
    """What is sent at once.

    Attributes:
        at: Seconds after the beginning at which it is there to be sent.
        utterance: Number of the utterance it is of.
        samples: float32 `[n, 1]` at 16 kHz.
    """

    at: float
    utterance: int
    samples: Samples


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """Who says what when.

    Attributes:
        utterances: float32 `[n, 1]` at 16 kHz, exact in 16 bits, each loud from its first row on.
        starts: Seconds after the beginning at which each is begun to be said.
        pause_s: Seconds of silence between them, at the least.
    """

    utterances: Sequence[Samples]
    starts: Sequence[float]
    pause_s: float

    @classmethod
    def of(cls, sounds: Sequence[Samples], count: int, pause: float) -> Script:
        """Say sounds one after the other, again and again, with pauses that begin anywhere in a hop.

        Args:
            sounds: float32 `[n, 1]` at 16 kHz.
            count: How many are said.
            pause: Seconds from the end of one to the start of the next; up to half as much again.
        """
        exact = [(_in_16_bits(sound) / FULL_SCALE).astype(np.float32) for sound in sounds]
        said = [exact[number % len(exact)] for number in range(count)]
        pauses = np.random.default_rng(0).uniform(pause, 1.5 * pause, count)
        steps = [len(sound) / SAMPLE_RATE + float(rest) for sound, rest in zip(said, pauses, strict=True)]
        return cls(said, list(accumulate(steps[:-1], initial=LEAD_IN_S)), pause)

    @property
    def end_s(self) -> float:
        """Seconds after the beginning at which all was said and shown."""
        return self.starts[-1] + len(self.utterances[-1]) / SAMPLE_RATE + SETTLE_S

    def packets(self, sending: Sending) -> Iterator[Packet]:
        """What is sent and when: an utterance at its start, or each packet when its last sample was said."""
        for number, (sound, start) in enumerate(zip(self.utterances, self.starts, strict=True)):
            if sending == "burst":
                yield Packet(start, number, sound)
                continue
            for first in range(0, len(sound), PACKET_SAMPLES):
                samples = sound[first : first + PACKET_SAMPLES]
                yield Packet(start + (first + len(samples)) / SAMPLE_RATE, number, samples)

    def sent(self, sending: Sending) -> list[float]:
        """Seconds after the beginning at which the first sound of each utterance is sent."""
        firsts = {packet.utterance: packet.at for packet in reversed(list(self.packets(sending)))}
        return [firsts[number] for number in range(len(self.utterances))]


def utterances() -> list[Samples]:
    """The embedded sample of speech, cut at its pauses; where there is none, a synthetic sound.

    Returns:
        float32 `[n, 1]` at 16 kHz, each.
    """
    sample = demo_sample()
    return [synthetic_sound(SYNTHETIC_S)] if sample is None else cut_at_pauses(_read(sample))


def cut_at_pauses(sound: Samples) -> list[Samples]:
    """The stretches of float32 `[n]` at 16 kHz that the voice gate is open for, without the quiet after them.

    Returns:
        float32 `[m, 1]`, each.
    """
    level = replace(SilenceLevel(), hang_over_s=REST_ROWS * SAMPLES_PER_ROW / SAMPLE_RATE)
    gate = VoiceGate(level)
    gate.listen(sound)
    stretches: dict[int, list[int]] = {}
    for row in range(rows_in(len(sound))):
        if (onset := gate.onset(row, row + 1)) is not None:
            stretches.setdefault(onset.number, []).append(row)
    bounds = [(rows[0], max(rows[0] + 1, rows[-1] + 1 - REST_ROWS)) for rows in stretches.values()]
    return [sound[first * SAMPLES_PER_ROW : end * SAMPLES_PER_ROW, None] for first, end in bounds]


def _read(path: Path) -> Samples:
    with SoundReader(path) as reader:
        resampler = StreamResampler(reader.sample_rate)
        heard = [resampler.resample(block) for block in reader.blocks(reader.sample_rate)]
    return np.concatenate([*heard, resampler.flush()])


class Sender:
    """A client of a stream that listens, in a thread of its own.

    Args:
        address: `HOST:PORT` that it sends to.
        script: What it says.
        sending: How.
        clock: Where time comes from.
        over: Called once all was said and shown, or nobody listens any more.

    Attributes:
        sent: Monotonic seconds at which the first sound of each utterance was sent, so far.
    """

    def __init__(
        self, address: str, script: Script, sending: Sending, clock: Clock, over: Callable[[], None]
    ) -> None:
        self.sent: list[float] = []
        self._address = address
        self._end_s = script.end_s
        self._packets = [
            (packet, _in_16_bits(packet.samples).tobytes()) for packet in script.packets(sending)
        ]
        self._clock = clock
        self._over = over
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Begin to speak."""
        self._begun.set()

    def end(self) -> None:
        """End, wherever it is; the listener was closed before, so that nothing is waited for."""
        self._ended.set()
        self._begun.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            host, _, port = self._address.rpartition(":")
            with (
                contextlib.suppress(OSError),
                socket.create_connection((host.strip("[]"), int(port))) as line,
            ):
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._begun.wait()
                self._speak(line)
        finally:
            self._over()

    def _speak(self, line: socket.socket) -> None:
        begin = self._clock.now()
        for packet, data in self._packets:
            if self._clock.wait(begin + packet.at - self._clock.now(), self._ended):
                return
            if packet.utterance == len(self.sent):
                self.sent.append(self._clock.now())
            line.sendall(data)
        self._clock.wait(begin + self._end_s - self._clock.now(), self._ended)


def _in_16_bits(samples: Samples) -> NDArray[np.int16]:
    return np.clip(np.round(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype("<i2")
