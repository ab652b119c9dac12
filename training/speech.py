"""Synthesised speech with the times of its phonemes, from two families of free voices.

espeak-ng speaks many languages and is asked through its C interface; flite has a few recorded English
speakers and is asked through its program. Both are Debian packages of their own name.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 16000

_SYNCHRONOUS = 2
_PHONEMES_AS_IPA = 3
_PHONEME_EVENT = 7
_PLAIN_TEXT_UTF8 = 1
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
"""Numbers of espeak-ng's speak_lib.h."""


_CMU_AS_IPA = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "ay": "aɪ", "b": "b", "ch": "tʃ",
    "d": "d", "dh": "ð", "eh": "ɛ", "er": "ɜ", "ey": "eɪ", "f": "f", "g": "ɡ", "hh": "h", "ih": "ɪ",
    "iy": "i", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n", "ng": "ŋ", "ow": "oʊ", "oy": "ɔɪ",
    "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th": "θ", "uh": "ʊ", "uw": "u", "v": "v",
    "w": "w", "y": "j", "z": "z", "zh": "ʒ",
}  # fmt: skip
"""The phonemes of flite's English voices."""


class SpeechError(RuntimeError):
    """A synthesiser is missing, or refuses a voice or a text."""


@dataclass(frozen=True, slots=True)
class Phone:
    """A speech sound and when it is heard.

    Attributes:
        symbol: In IPA; a pause is `_` or empty.
        start: Seconds from the start of the utterance.
        end: Seconds, after `start`.
    """

    symbol: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """Something said.

    Attributes:
        samples: float32 `[n]` at 16 kHz, in -1..1.
        phones: What is heard when, in order.
    """

    samples: NDArray[np.float32]
    phones: tuple[Phone, ...]

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return len(self.samples) / SAMPLE_RATE


class _EventId(ctypes.Union):
    _fields_: ClassVar = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Voice(ctypes.Structure):
    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
    ]


class _Event(ctypes.Structure):
    _fields_: ClassVar = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


if TYPE_CHECKING:
    _Shorts = ctypes._Pointer[ctypes.c_short]  # noqa: SLF001 - the type has no other name
    _Events = ctypes._Pointer[_Event]  # noqa: SLF001
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Espeak:
    """espeak-ng in this process; there can be one, see `espeak`.

    Raises:
        SpeechError: The library is not installed.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise SpeechError("espeak-ng is not installed: apt install espeak-ng") from error
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 500, None, _PHONEMES_AS_IPA)
        if self._rate <= 0:
            raise SpeechError("espeak-ng does not start.")
        self._library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
        self._pieces: list[NDArray[np.int16]] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: _Shorts, count: int, events: _Events) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        number = 0
        while events[number].type:
            event = events[number]
            if event.type == _PHONEME_EVENT:
                self._events.append((event.audio_position, event.id.string.decode("utf-8", "ignore")))
            number += 1
        return 0

    def _identifier(self) -> str:
        """Language and variant of the voice in use; a variant that is not there is not in it."""
        voice = self._library.espeak_GetCurrentVoice().contents
        return str((voice.identifier or b"").decode("utf-8", "ignore"))

    def say(self, text: str, voice: str, *, rate: int = 165, pitch: int = 50, span: int = 50) -> Utterance:
        """Speak.

        Args:
            text: A sentence in the voice's language.
            voice: A language and a variant, as `de+f2`.
            rate: Words a minute, 80..450.
            pitch: 0..99.
            span: How far the pitch moves, 0..99.

        Raises:
            SpeechError: There is no such voice, or nothing is said.
        """
        self._pieces, self._events = [], []
        taken = self._library.espeak_SetVoiceByName(voice.encode()) == 0
        _, plus, variant = voice.partition("+")
        if not taken or (plus and not self._identifier().endswith(f"+{variant}")):
            raise SpeechError(f"espeak-ng has no voice {voice}")
        for setting, value in ((_RATE, rate), (_PITCH, pitch), (_PITCH_RANGE, span)):
            self._library.espeak_SetParameter(setting, value, 0)
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _PLAIN_TEXT_UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._pieces:
            raise SpeechError(f"espeak-ng says nothing for {text!r}")
        samples = np.concatenate(self._pieces).astype(np.float32) / 32768
        seconds = len(samples) / self._rate
        starts = [position / 1000 for position, _ in self._events]
        ends = [*starts[1:], seconds]
        symbols = ["_" if symbol.startswith("(") else symbol for _, symbol in self._events]
        phones = tuple(
            Phone(symbol, start, end)
            for symbol, start, end in zip(symbols, starts, ends, strict=True)
            if end > start
        )
        return Utterance(soxr.resample(samples, self._rate, SAMPLE_RATE, "HQ"), phones)


@cache
def espeak() -> Espeak:
    """The one espeak-ng of this process."""
    return Espeak()


def say_flite(text: str, voice: str, *, stretch: float = 1.0) -> Utterance:
    """Speak with flite.

    Args:
        text: An English sentence.
        voice: `slt`, `rms`, `awb` or `kal16`.
        stretch: More than 1 is slower.

    Raises:
        SpeechError: flite is not installed, or says nothing.
    """
    program = shutil.which("flite")
    if program is None:
        raise SpeechError("flite is not installed: apt install flite")
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "said.wav"
        settings = ["-voice", voice, "--setf", f"duration_stretch={stretch:g}", "-psdur"]
        done = subprocess.run(
            [program, *settings, "-t", text, "-o", str(wave)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0 or not wave.is_file():
            raise SpeechError(f"flite does not speak with voice {voice}: {done.stderr.strip()}")
        samples, rate = soundfile.read(wave, dtype="float32")
    ends = [(symbol, float(end)) for symbol, end in re.findall(r"(\S+):([\d.]+)", done.stdout)]
    starts = [0.0, *(end for _, end in ends[:-1])]
    phones = tuple(
        Phone(_CMU_AS_IPA.get(symbol, "_"), start, end)
        for start, (symbol, end) in zip(starts, ends, strict=True)
        if end > start
    )
    return Utterance(soxr.resample(samples, rate, SAMPLE_RATE, "HQ"), phones)
