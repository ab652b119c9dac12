"""Sound on its way from frames, which come at their time, to a sound card, which takes it at its own.

Whatever is put in is heard `delay_s` after the time at which it was put. That is what is controlled: when the
first sample of a frame would be heard is compared with when it should be, and the sound is played faster or
slower by what brings both together. In speech that is at most one percent and changes slowly: enough for two
clocks that drift apart, too little to be heard. In silence, where nobody hears it, it is much more, so that a
stream whose delay has changed is followed at once.
"""

from __future__ import annotations

import threading

import numpy as np

from musetalk_cli.media.variable_rate import VariableResampler
from musetalk_cli.types import Samples

RAMP_S = 0.005
"""Over how much time sound sets in, dies away, or goes over into other sound."""
MARGIN_S = 0.01
"""How much later than necessary sound is heard, since threads do not wake up in time; grows by as much
wherever the sound card finds too little."""
MOST_MARGIN_S = 0.1
LEAD_DECAY = 0.01
"""Seconds that the sound card's lead shrinks in a second in which it does not show."""
JUMP_S = 0.1
"""By so much the sound card's clock does not drift: it has stood still."""
CLOCK_S = 0.5
"""Over how much time the sound card's clock is smoothed: its driver tells it in steps of a buffer."""
LATE_S = 0.4
"""Over how much time it is smoothed how late the sound is: frames are put when a thread wakes up."""
APART_S = 0.08
"""Of sound that is so much later than it should be, and has been for a while, a part is left out: with the
frame that it may follow its picture at 25 a second it is what viewers notice (125 ms, ITU-R BT.1359)."""
QUIET = 1e-3
"""Below -60 dB of full scale nobody hears how fast it is played."""

_TURN = 1 / 15
"""Natural frequency of the controller, 1/s: critically damped, so 200 ppm of drift are met within 2 ms."""
_SPEECH_MOST = 0.01
_QUIET_GAIN = 2.0
_QUIET_MOST = 0.25
_DRIFT_MOST = 0.001


class Playback:
    """Holds the sound between two threads: one puts frames' sound in, the sound card's takes it out.

    Args:
        sample_rate: Samples per second of what is put in.
        card_rate: Samples per second of what is taken out.
        channels: Channels of both.
        lead_s: How long before it is heard the sound card takes sound, as far as it says so beforehand.

    Attributes:
        breaks: How often sound was broken off, since what comes next came too late.
        drained: Set when everything was taken after `end`.
    """

    def __init__(self, sample_rate: int, card_rate: int, channels: int, lead_s: float) -> None:
        self.breaks = 0
        self.drained = threading.Event()
        self._card_rate = card_rate
        self._sample_rate = sample_rate
        self._ratio = sample_rate / card_rate
        self._resampler = VariableResampler(self._ratio, channels)
        self._ramp = round(RAMP_S * card_rate)
        self._sound: Samples = np.zeros((0, channels), np.float32)
        self._lock = threading.Lock()
        self._lead = lead_s
        self._margin = MARGIN_S
        self._delay = self._needed()
        self._heard: float | None = None
        self._plays = self._ended = False
        self._sets_in = True
        self._late = self._drift = 0.0

    @property
    def lead_s(self) -> float:
        """Seconds before it is heard at which the sound card takes sound."""
        return self._lead

    @property
    def delay_s(self) -> float:
        """Seconds from the time at which sound is put in to the time at which it is heard."""
        return self._delay

    # -- frames ------------------------------------------------------------------------------------------

    def append(self, samples: Samples, now: float) -> None:
        """Add what comes next, to be heard `delay_s` from now.

        Args:
            samples: float32 `[n, channels]`.
            now: Monotonic seconds.
        """
        with self._lock:
            seconds = len(samples) / self._sample_rate
            late = self._late_by(now)
            quiet = not _audible(samples) and not _audible(self._sound[-self._ramp :])
            if not self._plays:
                self._begin(now)
            else:
                self._late += (late - self._late) * min(1.0, seconds / LATE_S)
                if min(self._late, late) > APART_S:
                    self._leave_out(round(late * self._card_rate))
            out = self._resampler.resample(samples, self._ratio * (1 + self._correction(seconds, quiet)))
            if self._sets_in and len(out):
                self._sets_in = False
                if _audible(out[:1]):
                    beginning = out[: self._ramp]
                    beginning *= _rising(len(beginning))
            self._sound = np.concatenate([self._sound, out])

    def mute(self) -> None:
        """What waits dies away and is not heard any more; silence takes its time."""
        with self._lock:
            dying = self._sound[: self._ramp]
            sound = np.zeros_like(self._sound)
            sound[: len(dying)] = dying * _rising(len(dying))[::-1]
            self._sound = sound
            self._give_held_back(silent=True)

    def end(self) -> None:
        """Nothing more comes: what waits is played to its end, and `drained` says when it was taken."""
        with self._lock:
            self._give_held_back()
            self._die_away()
            self._ended = True
            if not len(self._sound):
                self.drained.set()

    # -- the sound card --------------------------------------------------------------------------------

    def take(self, count: int, now: float, ahead: float) -> Samples:
        """Take what the sound card plays next, with silence where nothing is there.

        Args:
            count: Samples of each channel.
            now: Monotonic seconds.
            ahead: Seconds from now to when the first of them is heard, as the sound card says.

        Returns:
            float32 `[count, channels]`.
        """
        with self._lock:
            seconds = count / self._card_rate
            lead = self._follow(now + ahead, seconds) - now
            self._lead = max(self._lead - LEAD_DECAY * seconds, lead)
            if self._plays and len(self._sound) < count + self._ramp:
                self._run_dry()
            out = np.zeros((count, self._sound.shape[1]), np.float32)
            taken = self._sound[:count]
            out[: len(taken)] = taken
            self._sound = self._sound[count:]
            if self._ended and not len(self._sound):
                self.drained.set()
            return out

    def broke(self) -> None:
        """The sound card has broken off by itself: it was not served in time."""
        with self._lock:
            self.breaks += self._plays and _audible(self._sound)

    def _follow(self, heard: float, seconds: float) -> float:
        """Follow the sound card's clock; gives when the sample after those that it takes now is heard."""
        if self._heard is None or abs(heard - self._heard) > JUMP_S:
            self._heard = heard
        self._heard += (heard - self._heard) * min(1.0, seconds / CLOCK_S) + seconds
        return self._heard

    def _run_dry(self) -> None:
        """Let the last of what is there die away; a ramp's length is always left for that."""
        if _audible(self._sound[-self._ramp :]):
            self.breaks += 1
            self._margin = min(self._margin + MARGIN_S, MOST_MARGIN_S)
        self._give_held_back()
        self._die_away()

    # -- both, under the lock ----------------------------------------------------------------------------

    def _needed(self) -> float:
        """How long before it is heard sound must be put, so that the sound card never finds too little."""
        return self._lead + RAMP_S + self._resampler.look_ahead / self._sample_rate + self._margin

    def _late_by(self, now: float) -> float:
        """How much later than it should what is put now would be heard."""
        before = len(self._sound) + self._resampler.held_back(self._ratio)
        heard = now + self._lead if self._heard is None else self._heard
        return heard + before / self._card_rate - (now + self._delay)

    def _begin(self, now: float) -> None:
        """Lay silence before what comes, so that it is heard in time."""
        self._resampler.clear()
        self._delay = self._needed()
        self._late = self._late_by(now)
        self._lay(-self._late)
        self._late = max(0.0, self._late)
        self._plays = self._sets_in = True

    def _correction(self, seconds: float, quiet: bool) -> float:
        """How much faster the next sound is played: what is known of the drift, and what is late by now."""
        if abs(self._late) < APART_S / 4:
            drift = self._drift + self._late * seconds * _TURN**2
            self._drift = float(np.clip(drift, -_DRIFT_MOST, _DRIFT_MOST))
        gain, most = (_QUIET_GAIN, _QUIET_MOST) if quiet else (2 * _TURN, _SPEECH_MOST)
        return float(np.clip(self._drift + gain * self._late, -most, most))

    def _leave_out(self, count: int) -> None:
        """Leave out so many samples of what is taken next, going over from one place to the other."""
        count = max(0, min(count, len(self._sound) - 2 * self._ramp))
        rest = self._sound[count:].copy()
        over = min(self._ramp, len(rest))
        rest[:over] += (self._sound[:over] - rest[:over]) * (1 - _rising(over))
        self._sound = rest
        self._late = 0.0

    def _lay(self, seconds: float) -> None:
        count = max(0, round(seconds * self._card_rate))
        self._sound = np.concatenate([self._sound, np.zeros((count, self._sound.shape[1]), np.float32)])

    def _give_held_back(self, *, silent: bool = False) -> None:
        """Give what the resampler holds back, or silence of that length; what comes next sets in anew."""
        count = round(self._resampler.held_back(self._ratio))
        held = self._resampler.flush(self._ratio)[:count]
        self._resampler.clear()
        self._sound = np.concatenate([self._sound, np.zeros_like(held) if silent else held])
        self._sets_in = True

    def _die_away(self) -> None:
        """Let the last of what is there die away."""
        self._sound = self._sound.copy()
        dying = self._sound[-self._ramp :]
        dying *= _rising(len(dying))[::-1]
        self._plays = False


def _rising(count: int) -> Samples:
    """A ramp from 0 to 1, `[count, 1]`, that begins and ends flat."""
    ramp: Samples = np.sin(np.linspace(0, np.pi / 2, count, dtype=np.float32)[:, None]) ** 2
    return ramp


def _audible(samples: Samples) -> bool:
    return bool(len(samples)) and float(np.abs(samples).max()) >= QUIET
