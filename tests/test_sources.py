import os
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from clocks import FakeClock
from descriptors import FIRST, crowded

from musetalk_cli.errors import InputError
from musetalk_cli.sources import FileSource, PcmSource
from musetalk_cli.types import AudioBlock, Delivery


@pytest.fixture
def sound(tmp_path):
    """A second of noise, stereo at 8 kHz."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 2)).astype(np.float32)
    path = tmp_path / "sound.wav"
    soundfile.write(path, samples, 8000, subtype="FLOAT")
    return path, samples


class Pipe:
    """Both ends of a pipe; `write` from the test, `source` reads."""

    def __init__(self, rate=16000, channels=1):
        self.read_end, self.write_end = os.pipe()
        self.source = PcmSource(self.read_end, rate, FakeClock(), channels=channels)

    def write(self, data):
        os.write(self.write_end, data)

    def end(self):
        os.close(self.write_end)


def joined(blocks):
    return np.concatenate([block.samples for block in blocks])


def test_a_file_comes_whole_and_unchanged(sound):
    path, samples = sound
    source = FileSource(path, FakeClock(), pace=False)
    assert (source.sample_rate, source.channels, source.delivery) == (8000, 2, Delivery.RECORDED)
    np.testing.assert_array_equal(joined(source), samples)


@pytest.mark.parametrize("pace", [True, False])
def test_a_file_waits_unless_it_is_paced_and_a_recording_goes_on_after_an_interrupt(sound, pace):
    path, samples = sound
    source = FileSource(path, FakeClock(), pace=pace)
    assert source.delivery is (Delivery.PLAYED if pace else Delivery.RECORDED)
    blocks = iter(source)
    first = next(blocks)
    source.discard()
    np.testing.assert_array_equal(joined([first, *blocks]), samples)


def test_a_paced_block_arrives_when_its_last_sample_was_spoken(sound):
    path, samples = sound
    clock = FakeClock(start=50.0)
    source = FileSource(path, clock, pace=True)
    heard = 0
    for block in source:
        heard += len(block.samples)
        assert block.arrived == pytest.approx(50.0 + heard / 8000)
        assert clock.now() == pytest.approx(block.arrived)
    assert heard == len(samples)


def test_a_paced_file_catches_up_after_a_slow_consumer(sound):
    path, _ = sound
    clock = FakeClock(start=0.0)
    blocks = iter(FileSource(path, clock, pace=True))
    next(blocks)
    clock.time = 10.0
    rest = list(blocks)
    assert rest[-1].arrived == pytest.approx(1.0)
    assert clock.now() == 10.0


def test_a_closed_file_ends(sound):
    source = FileSource(sound[0], FakeClock(), pace=True)
    blocks = iter(source)
    next(blocks)
    source.close()
    assert list(blocks) == []


def test_a_file_that_was_never_read_leaves_no_decoder(sound, started):
    source = FileSource(sound[0], FakeClock(), pace=True)
    source.close()
    source.close()
    assert not started()
    assert list(source) == []


def test_short_reads_and_odd_bytes_change_nothing():
    samples = np.random.default_rng(1).integers(-32768, 32767, 5000, dtype=np.int16)
    data = samples.astype("<i2").tobytes()
    pipe = Pipe()
    blocks = iter(pipe.source)
    found = []
    cuts = [0, 1, 2, 3, 8, 4097, 9999, len(data)]
    for begin, end in pairwise(cuts):
        pipe.write(data[begin:end])
        if begin % 2 + (end - begin) > 1:
            found.append(next(blocks))
    pipe.end()
    found += blocks
    np.testing.assert_array_equal(joined(found)[:, 0], samples.astype(np.float32) / 32768)


@pytest.mark.parametrize("rest", [b"", b"\x01"])
def test_half_a_sample_at_the_end_is_dropped_and_told(caplog, rest):
    pipe = Pipe()
    pipe.write(b"\x00\x40" + rest)
    pipe.end()
    np.testing.assert_array_equal(joined(pipe.source), [[0.5]])
    assert [record.args[1:] for record in caplog.records] == [(1, 1)] * len(rest)


@pytest.mark.parametrize("channels", [1, 2, 5, 8])
def test_channels_are_taken_apart_however_the_bytes_were_cut(channels):
    numbers = np.random.default_rng(channels).integers(-32768, 32768, (700, channels)).astype("<i2")
    data = numbers.tobytes()
    pipe = Pipe(channels=channels)
    assert (pipe.source.channels, pipe.source.delivery) == (channels, Delivery.SENT)
    blocks = iter(pipe.source)
    found = []
    cuts = [0, 1, 2 * channels + 1, 99, 1000, len(data) - 1, len(data)]
    for begin, end in pairwise(cuts):
        pipe.write(data[begin:end])
        if end // (2 * channels) > begin // (2 * channels):
            found.append(next(blocks))
            assert found[-1].samples.shape[1] == channels
    pipe.end()
    found += blocks
    np.testing.assert_array_equal(joined(found), numbers.astype(np.float32) / 32768)


@pytest.mark.parametrize("cut", range(1, 12))
def test_samples_after_a_discard_stay_where_they_belong(cut):
    """Two channels, 4 bytes a sample: what was written is thrown away, also in the middle of a sample."""
    numbers = np.arange(1, 201, dtype="<i2").reshape(-1, 2)
    data = numbers.tobytes()
    pipe = Pipe(channels=2)
    blocks = iter(pipe.source)
    pipe.write(data[:9])
    first = next(blocks).samples
    pipe.write(data[9 : 9 + cut])
    pipe.source.discard()
    pipe.source.discard()
    pipe.write(data[9 + cut :])
    pipe.end()
    np.testing.assert_array_equal(first * 32768, numbers[:2])
    np.testing.assert_array_equal(joined(blocks) * 32768, numbers[(9 + cut) // 4 :])


def test_a_discard_takes_all_a_pipe_holds_and_waits_for_nothing():
    pipe = Pipe()
    pipe.source.discard()
    os.set_blocking(pipe.write_end, False)
    assert os.write(pipe.write_end, bytes(1 << 20)) >= 1 << 16
    pipe.source.discard()
    pipe.write(b"\x00\x40")
    pipe.end()
    np.testing.assert_array_equal(joined(pipe.source), [[0.5]])


def test_a_discard_has_an_end_where_the_sender_has_none():
    with Path("/dev/zero").open("rb") as endless:
        source = PcmSource(endless.fileno(), 16000, FakeClock())
        source.discard()
        assert len(next(iter(source)).samples) > 0


def test_a_stream_that_was_discarded_to_its_end_was_no_empty_one():
    pipe = Pipe()
    pipe.write(bytes(4))
    pipe.end()
    pipe.source.discard()
    assert list(pipe.source) == []


def test_a_redirected_file_goes_on_after_an_interrupt(tmp_path):
    path = tmp_path / "speech.pcm"
    path.write_bytes(b"\x00\x40" * 3)
    with path.open("rb") as file:
        source = PcmSource(file.fileno(), 16000, FakeClock())
        assert source.delivery is Delivery.RECORDED, "nothing of what is read ahead is dropped"
        source.discard()
        np.testing.assert_array_equal(joined(source), [[0.5]] * 3)


def test_a_discard_does_not_read_what_is_being_read(monkeypatch):
    """Both would find the pipe readable, and the second would wait for what the first has taken."""
    pipe = Pipe()
    reading, go = threading.Event(), threading.Event()
    read, readers = os.read, []

    def slow(descriptor, size):
        readers.append(threading.current_thread())
        reading.set()
        assert go.wait(10)
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", slow)
    found = []
    reader = threading.Thread(target=lambda: found.extend(pipe.source))
    reader.start()
    pipe.write(b"\x00\x40")
    assert reading.wait(10)
    discarder = threading.Thread(target=pipe.source.discard)
    discarder.start()
    discarder.join(0.1)
    assert readers == [reader]
    go.set()
    discarder.join(10)
    pipe.end()
    reader.join(10)
    assert not reader.is_alive()
    assert not discarder.is_alive()
    np.testing.assert_array_equal(joined(found), [[0.5]])


def test_discards_beside_a_reader_lose_no_alignment():
    """Every sample holds its own number in both channels, whatever was thrown away between them."""
    pipe = Pipe(channels=2)
    numbers = np.repeat(np.arange(30_000, dtype="<i2"), 2)
    found = []
    reader = threading.Thread(target=lambda: found.extend(pipe.source))
    reader.start()
    data = numbers.tobytes()
    for begin in range(0, len(data), 777):
        pipe.write(data[begin : begin + 777])
        if begin % 5 == 0:
            pipe.source.discard()
    pipe.end()
    reader.join(20)
    assert not reader.is_alive()
    left, right = (joined([*found, AudioBlock(np.zeros((0, 2), np.float32), 0.0)]) * 32768).T
    np.testing.assert_array_equal(left, right)
    assert np.all(np.diff(left) > 0)


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


@pytest.mark.parametrize("channels", [0, -1, 9])
def test_channels_nothing_is_recorded_with_are_refused(channels):
    with pytest.raises(InputError, match="--input-channels"):
        PcmSource(0, 16000, FakeClock(), channels=channels)


def test_a_descriptor_that_cannot_be_read_is_told():
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    with pytest.raises(InputError, match="cannot be read"):
        list(PcmSource(read_end, 16000, FakeClock()))


def test_a_descriptor_of_any_number_is_read():
    with crowded():
        pipe = Pipe()
        assert pipe.read_end > FIRST
        blocks = iter(pipe.source)
        pipe.write(b"\x00\x40")
        np.testing.assert_array_equal(next(blocks).samples, [[0.5]])
        pipe.write(b"\x00\x40" * 100)
        pipe.source.discard()
        pipe.write(b"\x00\x20")
        pipe.end()
        np.testing.assert_array_equal(joined(blocks), [[0.25]])
        os.close(pipe.read_end)
