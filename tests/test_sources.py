import os
import threading
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from clocks import FakeClock

from musetalk_cli.errors import InputError
from musetalk_cli.sources import FileSource, PcmSource


@pytest.fixture
def sound(tmp_path):
    """A second of noise, stereo at 8 kHz."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 2)).astype(np.float32)
    path = tmp_path / "sound.wav"
    soundfile.write(path, samples, 8000, subtype="FLOAT")
    return path, samples


class Pipe:
    """Both ends of a pipe; `write` from the test, `source` reads."""

    def __init__(self, rate=16000):
        self.read_end, self.write_end = os.pipe()
        self.source = PcmSource(self.read_end, rate, FakeClock())

    def write(self, data):
        os.write(self.write_end, data)

    def end(self):
        os.close(self.write_end)


def joined(pieces):
    return np.concatenate([piece.samples for piece in pieces])


def test_a_file_comes_whole_and_unchanged(sound):
    path, samples = sound
    source = FileSource(path, FakeClock(), pace=False)
    assert (source.sample_rate, source.channels, source.live) == (8000, 2, False)
    np.testing.assert_array_equal(joined(source), samples)


def test_a_paced_piece_arrives_when_its_last_sample_was_spoken(sound):
    path, samples = sound
    clock = FakeClock(start=50.0)
    source = FileSource(path, clock, pace=True)
    heard = 0
    for piece in source:
        heard += len(piece.samples)
        assert piece.arrived == pytest.approx(50.0 + heard / 8000)
        assert clock.now() == pytest.approx(piece.arrived)
    assert heard == len(samples)


def test_a_paced_file_catches_up_after_a_slow_consumer(sound):
    path, _ = sound
    clock = FakeClock(start=0.0)
    pieces = iter(FileSource(path, clock, pace=True))
    next(pieces)
    clock.time = 10.0
    rest = list(pieces)
    assert rest[-1].arrived == pytest.approx(1.0)
    assert clock.now() == 10.0


def test_a_closed_file_ends(sound):
    source = FileSource(sound[0], FakeClock(), pace=True)
    pieces = iter(source)
    next(pieces)
    source.close()
    assert list(pieces) == []


def test_a_file_that_was_never_read_leaves_no_decoder(sound):
    source = FileSource(sound[0], FakeClock(), pace=True)
    source.close()
    source.close()
    assert source._reader._process.returncode is not None
    assert list(source) == []


def test_short_reads_and_odd_bytes_change_nothing():
    samples = np.random.default_rng(1).integers(-32768, 32767, 5000, dtype=np.int16)
    data = samples.astype("<i2").tobytes()
    pipe = Pipe()
    pieces = iter(pipe.source)
    found = []
    cuts = [0, 1, 2, 3, 8, 4097, 9999, len(data)]
    for begin, end in pairwise(cuts):
        pipe.write(data[begin:end])
        if begin % 2 + (end - begin) > 1:
            found.append(next(pieces))
    pipe.end()
    found += pieces
    np.testing.assert_array_equal(joined(found)[:, 0], samples.astype(np.float32) / 32768)


def test_half_a_sample_at_the_end_is_left_out():
    pipe = Pipe()
    pipe.write(b"\x00\x40\x01")
    pipe.end()
    np.testing.assert_array_equal(joined(pipe.source), [[0.5]])


@pytest.mark.parametrize("data", [b"", b"\x01"])
def test_a_stream_without_a_sample_is_refused(data):
    pipe = Pipe()
    pipe.write(data)
    pipe.end()
    with pytest.raises(InputError, match="No sound came from standard input"):
        list(pipe.source)


def test_close_from_another_thread_ends_a_waiting_read():
    pipe = Pipe()
    found = []
    thread = threading.Thread(target=lambda: found.extend(pipe.source))
    thread.start()
    pipe.source.close()
    thread.join(5)
    assert not thread.is_alive()
    assert found == []
    pipe.end()


@pytest.mark.parametrize("rate", [0, -1, 3999, 384_001])
def test_a_rate_nothing_is_recorded_at_is_refused(rate):
    with pytest.raises(InputError, match="--input-rate"):
        PcmSource(0, rate, FakeClock())


def test_a_descriptor_that_cannot_be_read_is_told():
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    with pytest.raises(InputError, match="cannot be read"):
        list(PcmSource(read_end, 16000, FakeClock()))
