"""Sound files that are spoken: decoded as they are needed, at the rate and with the channels of a session."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np

from musetalk_cli.errors import InputError
from musetalk_cli.media.audio import SoundReader
from musetalk_cli.media.resample import StreamResampler
from musetalk_cli.media.sound_decoder import FORMATS
from musetalk_cli.types import Samples

BLOCK_S = 0.1
"""Seconds of a block."""
SENT_FORMATS = "WAV, FLAC, MP3, M4A, OGG and most others work; raw PCM is taken by the WebSocket /v1/stream."


def read_recording(content: bytes, sample_rate: int, channels: int) -> Generator[Samples]:
    """Yield a file's sound as float32 `[n, channels]`, mixed to mono and given to every channel.

    Args:
        content: Of any file with an audio stream.
        sample_rate: Samples per second of what is wanted.
        channels: Channels of what is wanted.

    Raises:
        InputError: The file holds no sound that can be read, or is damaged, where it is.
    """
    # decoders seek, so it has to be a file, for as long as it is read
    with tempfile.TemporaryDirectory(prefix="musetalk-") as folder:
        path = Path(folder) / "sound"
        path.write_bytes(content)
        try:
            yield from _decoded(path, sample_rate, channels)
        except InputError as error:
            # neither the name of the file nor a command of this machine says anything to whoever sent it
            hint = SENT_FORMATS if error.hint == FORMATS else error.hint
            raise InputError(error.message.replace(str(path), "The file"), hint) from error


def _decoded(path: Path, sample_rate: int, channels: int) -> Generator[Samples]:
    with closing(SoundReader(path)) as reader:
        resampler = StreamResampler(reader.sample_rate, sample_rate)
        for block in reader.blocks(max(1, round(BLOCK_S * reader.sample_rate))):
            yield _spread(resampler.resample(block), channels)
        yield _spread(resampler.flush(), channels)


def _spread(mono: Samples, channels: int) -> Samples:
    return np.repeat(mono[:, None], channels, axis=1)
