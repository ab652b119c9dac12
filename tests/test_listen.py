import contextlib
import errno
import logging
import queue
import select
import socket
import struct
import threading

import numpy as np
import pytest
from clocks import FakeClock
from processes import open_descriptors

from musetalk_cli.errors import InputError
from musetalk_cli.sources import ListenSource, listen
from musetalk_cli.types import Delivery

START = 1000.0
BOUND_S = 10


class Listening:
    """A source on a free port, read in a thread of its own from where the context begins.

    Attributes:
        taking: While it is clear, the thread takes no block after the one it has.
    """

    def __init__(self, rate=16000, channels=1, address="0"):
        self.clock = FakeClock(START)
        self.source = ListenSource(address, rate, channels, self.clock)
        self.rate = rate
        self.blocks = queue.Queue()
        self.taking = threading.Event()
        self.taking.set()
        self._clients = []
        self._thread = threading.Thread(target=self._read)

    def _read(self):
        for block in self.source:
            self.blocks.put(block)
            self.taking.wait()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, failure, *_):
        self.source.close()
        self.taking.set()
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()
        for client in self._clients:
            client.close()
        assert failure or self.blocks.empty(), "more came than was sent"

    def connect(self):
        host, _, port = self.source.address.rpartition(":")
        client = socket.create_connection((host.strip("[]"), int(port)), BOUND_S)
        self._clients.append(client)
        return client

    def next(self):
        return self.blocks.get(timeout=BOUND_S)

    def samples(self, count):
        """So many samples, `[count, channels]`, in blocks of 50 ms at most, with which nothing ends."""
        found = [self.next()]
        while sum(len(block.samples) for block in found) < count:
            found.append(self.next())
        assert all(len(block.samples) for block in found)
        assert max(len(block.samples) for block in found) <= self.rate // 20
        assert not any(block.ends for block in found)
        samples = np.concatenate([block.samples for block in found])
        assert len(samples) == count
        return samples

    def is_ended(self):
        """True where the next block only says that its client's sound has ended."""
        block = self.next()
        return block.ends and block.samples.shape == (0, self.source.channels)


def peer_of(client):
    """A copy of this process's own end of a connection."""
    for descriptor in open_descriptors():
        with contextlib.suppress(OSError):
            found = socket.fromfd(descriptor, client.family, client.type)
            with contextlib.suppress(OSError):
                if found.getpeername() == client.getsockname():
                    return found
            found.close()
    raise AssertionError("nobody is connected")


def wait_until_received(client, size):
    """Wait until so many bytes of a client that is served can be read without waiting."""
    poller = select.poll()
    with peer_of(client) as served:
        served.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        poller.register(served, select.POLLIN)
        assert poller.poll(BOUND_S * 1e3)
        served.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def numbers(count, channels=1, seed=0):
    return np.random.default_rng(seed).integers(-32768, 32768, (count, channels)).astype("<i2")


def scaled(values):
    return values.astype(np.float32) / 32768


@pytest.mark.parametrize("address", ["0", ":0", "127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_every_way_to_write_an_address_can_be_reached(address, caplog):
    if "::" in address and not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        listening = Listening(address=address)
    except InputError as error:
        if "[::1]" in address and error.__cause__.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            pytest.skip("IPv6 is off on this system")
        raise
    assert listening.source.delivery is Delivery.LIVE
    with listening:
        listening.connect().sendall(b"\x00\x40\x00\xc0")
        block = listening.next()
    np.testing.assert_array_equal(block.samples, [[0.5], [-0.5]])
    assert block.arrived == START
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "address",
    ["", "x", "host:", "1:2:3", "::1:9000", "[::1]", "127.0.0.1:70000", ":-1", "9000 ", "[]:9", "٣"],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match=r"--listen .* is no address"):
        ListenSource(address, 16000, 1, FakeClock())


@pytest.mark.parametrize("failure", [socket.gaierror(-2, "unknown"), UnicodeError("label too long")])
def test_a_host_nobody_knows_is_told(failure, monkeypatch):
    def unknown(*_, **__):
        raise failure

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(InputError, match=r"--listen nobody:9000 names a host"):
        ListenSource("nobody:9000", 16000, 1, FakeClock())


def test_a_port_in_use_and_an_address_of_another_machine_are_told():
    source = ListenSource("0", 16000, 1, FakeClock())
    with pytest.raises(InputError, match=f"--listen {source.address} is in use"):
        ListenSource(source.address, 16000, 1, FakeClock())
    source.close()
    with pytest.raises(InputError, match=r"--listen 192\.0\.2\.1:0 cannot be listened at"):
        ListenSource("192.0.2.1:0", 16000, 1, FakeClock())


@pytest.mark.parametrize(
    ("rate", "channels", "name"), [(3999, 1, "--input-rate"), (16000, 9, "--input-channels")]
)
def test_a_format_nothing_is_recorded_with_is_refused(rate, channels, name):
    with pytest.raises(InputError, match=name):
        ListenSource("0", rate, channels, FakeClock())


def test_an_address_others_can_reach_is_warned_of_once(caplog):
    ListenSource("0.0.0.0:0", 16000, 1, FakeClock()).close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "Anyone who can reach 0.0.0.0:" in warnings[0]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_sound_comes_as_it_was_sent_however_it_was_cut(channels):
    sizes = [1, 2, 3, 5, 777, 2048, 1996] * 6
    sent = numbers(sum(sizes) // (2 * channels), channels)
    data = sent.tobytes()
    found, begin = [], 0
    with Listening(channels=channels) as listening:
        client = listening.connect()
        for size in sizes:
            client.sendall(data[begin : begin + size])
            whole = (begin + size) // (2 * channels) - begin // (2 * channels)
            if whole:
                found.append(listening.samples(whole))
            begin += size
    np.testing.assert_array_equal(np.concatenate(found), scaled(sent))


def test_nothing_is_made_up_while_nobody_speaks():
    """Silence is put in where the stream's time is known; a source that did it too would make it twice."""
    with Listening(rate=11025, channels=2) as listening:
        listening.clock.time += 61
        client = listening.connect()
        client.sendall(b"\x00\x40\x00\x20" * 3)
        np.testing.assert_array_equal(listening.samples(3), [[0.5, 0.25]] * 3)
        listening.clock.time += 61
        client.sendall(b"\x00\x20\x00\x40" * 3)
        np.testing.assert_array_equal(listening.samples(3), [[0.25, 0.5]] * 3)


@pytest.mark.parametrize("rate", [4000, 11025, 48000])
def test_sound_sent_at_once_is_given_as_fast_as_it_is_taken_and_whole(rate):
    """No time goes by in which it could have been heard; whoever takes it holds it back, not the source."""
    sent = numbers(2 * rate)
    with Listening(rate) as listening:
        listening.connect().sendall(sent.tobytes())
        np.testing.assert_array_equal(listening.samples(2 * rate), scaled(sent))
        assert listening.clock.now() == START


def test_a_client_that_is_far_ahead_has_to_wait_and_loses_nothing():
    sent = numbers(1 << 20)
    data = memoryview(sent.tobytes())
    with Listening() as listening:
        listening.taking.clear()
        client = listening.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        client.sendall(data[:2])
        found = [listening.samples(1)]
        client.setblocking(False)
        begin = 2
        with pytest.raises(BlockingIOError):
            while begin < len(data):
                begin += client.send(data[begin : begin + (1 << 16)])
        assert begin < 1 << 20
        client.settimeout(BOUND_S)
        listening.taking.set()
        client.sendall(data[begin:])
        found.append(listening.samples(len(sent) - 1))
    np.testing.assert_array_equal(np.concatenate(found), scaled(sent))


def test_what_waited_while_nobody_took_it_arrives_when_it_is_taken():
    with Listening() as listening:
        listening.taking.clear()
        client = listening.connect()
        client.sendall(b"\x00\x40" * 320)
        assert listening.next().arrived == START
        client.sendall(b"\x00\x20" * 320)
        wait_until_received(client, 640)
        listening.clock.time += 5
        listening.taking.set()
        block = listening.next()
    np.testing.assert_array_equal(block.samples, [[0.25]] * 320)
    assert block.arrived == START + 5


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_goes_leaves_no_half_sample_to_the_next(reset):
    with Listening() as listening:
        client = listening.connect()
        client.sendall(b"\x00\x40\x11")
        np.testing.assert_array_equal(listening.samples(1), [[0.5]])
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert listening.is_ended()
        listening.connect().sendall(b"\x00\x20")
        np.testing.assert_array_equal(listening.samples(1), [[0.25]])


def held_back(size=4000):
    """The beginning of sound that may be AAC until this many bytes were seen, so that none of it is given."""
    return bytes([0xFF, 0xF1, 0x50, size >> 11, size >> 3 & 255, (size & 7) << 5, 0]) + b"\x20" * (size - 7)


def test_sound_that_was_held_back_ends_with_its_last_block_alone():
    """2000 samples, given when their client goes: they are no container any more."""
    with Listening() as listening:
        client = listening.connect()
        client.sendall(held_back(4000))
        client.close()
        blocks = [listening.next() for _ in range(3)]
    assert [len(block.samples) for block in blocks] == [800, 800, 400]
    assert [block.ends for block in blocks] == [False, False, True]
    sent = np.frombuffer(held_back(4000), "<i2")[:, None]
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), scaled(sent))


def test_a_client_that_goes_without_a_sample_ends_too():
    with Listening() as listening:
        listening.connect().close()
        assert listening.is_ended()


def test_a_second_client_is_sent_away_at_once_and_the_first_goes_on(caplog):
    caplog.set_level(logging.INFO)
    with Listening() as listening:
        first = listening.connect()
        first.sendall(b"\x00\x40")
        listening.samples(1)
        assert listening.connect().recv(1) == b""
        first.sendall(b"\x00\x20")
        np.testing.assert_array_equal(listening.samples(1), [[0.25]])
    assert any("was sent away" in record.getMessage() for record in caplog.records)


def test_a_client_that_vanished_is_noticed_by_the_system():
    with Listening() as listening:
        client = listening.connect()
        client.sendall(bytes(2))
        listening.samples(1)
        served = peer_of(client)
        assert served.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 30
        served.close()


def test_a_discard_leaves_nothing_of_what_waited_and_later_samples_in_place():
    """Most of what was read at once waits, and more in the system, with half a sample at its end."""
    listening = Listening(channels=2)
    blocks = iter(listening.source)
    client = listening.connect()
    client.sendall(b"\x00\x10\x00\x10")
    assert len(next(blocks).samples) == 1
    client.sendall(b"\x00\x40\x00\x20" * 8000)
    wait_until_received(client, 4 * 8000)
    np.testing.assert_array_equal(next(blocks).samples, [[0.5, 0.25]] * 800)
    client.sendall(b"\x00\x40\x00\x20" * 4000 + b"\x00\x40\x00")
    wait_until_received(client, 4 * 4000 + 3)
    listening.source.discard()
    client.sendall(b"\x20" + b"\x00\xc0\x00\xe0" * 320)
    with listening:
        found = listening.samples(321)
    np.testing.assert_array_equal(found[0], [0.5, 0.25])
    np.testing.assert_array_equal(found[1:], [[-0.5, -0.25]] * 320)


@pytest.mark.parametrize("sent", [b"\x00\x40" * 4000, held_back(6000)])
def test_a_discard_leaves_the_end_of_a_client_that_has_gone(sent):
    """Else what is said next would be taken for more of what was discarded."""
    with Listening() as listening:
        listening.taking.clear()
        client = listening.connect()
        client.sendall(sent)
        client.close()
        assert not listening.next().ends
        listening.source.discard()
        listening.taking.set()
        assert listening.is_ended()
        listening.connect().sendall(b"\x00\x20")
        np.testing.assert_array_equal(listening.samples(1), [[0.25]])


def test_a_discard_without_a_client_and_after_the_end_does_nothing():
    source = ListenSource("0", 16000, 1, FakeClock())
    source.discard()
    source.close()
    source.close()
    source.discard()
    assert list(source) == []


def test_close_ends_a_waiting_iteration_and_frees_the_port():
    with Listening() as listening:
        client = listening.connect()
        client.sendall(bytes(2))
        listening.samples(1)
        listening.source.close()
        with pytest.raises(ConnectionRefusedError):
            listening.connect()
        assert client.recv(1) == b""
        ListenSource(listening.source.address, 16000, 1, FakeClock()).close()


def test_close_lets_the_client_go_though_nobody_takes_the_sound():
    source = ListenSource("0", 16000, 1, FakeClock())
    host, port = source.address.split(":")
    with socket.create_connection((host, int(port)), BOUND_S) as client:
        client.sendall(bytes(2))
        blocks = iter(source)
        next(blocks)
        source.close()
        assert client.recv(1) == b""
        assert list(blocks) == []


def test_a_client_that_cannot_be_let_in_yet_is_let_in_later(monkeypatch):
    accept, failures = socket.socket.accept, [OSError(errno.EMFILE, "too many open files")] * 2

    def failing(self):
        if failures:
            raise failures.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", failing)
    with Listening() as listening:
        listening.connect().sendall(b"\x00\x40")
        np.testing.assert_array_equal(listening.samples(1), [[0.5]])
    assert not failures


def test_a_client_that_sent_at_once_and_closed_does_not_hold_the_place():
    """The next one has come before any of it was read; it is judged after the sound, and heard."""
    first, second = numbers(8000), numbers(4000, seed=1)
    listening = Listening()
    client = listening.connect()
    client.sendall(first.tobytes())
    client.close()
    later = listening.connect()
    later.sendall(second.tobytes())
    with listening:
        np.testing.assert_array_equal(listening.samples(len(first)), scaled(first))
        assert listening.is_ended()
        np.testing.assert_array_equal(listening.samples(len(second)), scaled(second))
        later.setblocking(False)
        with pytest.raises(BlockingIOError):
            later.recv(1)


@pytest.mark.parametrize("spoke", [False, True])
def test_a_client_that_is_silent_for_long_gives_its_place_to_the_next(spoke):
    """Its utterance ends before the sound of the next one, of which its own is no part."""
    with Listening() as listening:
        silent = listening.connect()
        if spoke:
            silent.sendall(b"\x00\x10\x11")
            listening.samples(1)
        assert listening.connect().recv(1) == b"", "the first one has the place"
        listening.clock.time += listen.IDLE_S - 0.01
        assert listening.connect().recv(1) == b"", "not yet"
        listening.clock.time += 0.02
        listening.connect().sendall(b"\x00\x40")
        assert silent.recv(1) == b""
        assert listening.is_ended()
        np.testing.assert_array_equal(listening.samples(1), [[0.5]])


def test_a_silent_client_keeps_its_place_while_nobody_wants_it():
    with Listening() as listening:
        client = listening.connect()
        assert listening.connect().recv(1) == b"", "it has the place"
        listening.clock.time += 100 * listen.IDLE_S
        client.sendall(b"\x00\x40")
        np.testing.assert_array_equal(listening.samples(1), [[0.5]])
        assert listening.connect().recv(1) == b"", "it is not silent any more"


def test_a_client_whose_sound_waits_is_not_silent():
    """Nobody took it for long: who comes meanwhile is judged after it was read."""
    with Listening() as listening:
        listening.taking.clear()
        client = listening.connect()
        client.sendall(b"\x00\x40")
        listening.samples(1)
        client.sendall(b"\x00\x20")
        wait_until_received(client, 2)
        listening.clock.time += 2 * listen.IDLE_S
        later = listening.connect()
        listening.taking.set()
        assert later.recv(1) == b""
        np.testing.assert_array_equal(listening.samples(1), [[0.25]])


def test_a_client_that_sends_a_container_is_sent_away_and_the_next_is_heard(caplog):
    with Listening() as listening:
        client = listening.connect()
        client.sendall(b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(4000))
        client.settimeout(BOUND_S)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        assert listening.is_ended()
        listening.connect().sendall(struct.pack("<h", 16_384) * 400)
        np.testing.assert_array_equal(listening.samples(400), [[0.5]] * 400)
    assert sum("WAV came from the client" in record.getMessage() for record in caplog.records) == 1
