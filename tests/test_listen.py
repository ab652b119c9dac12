import contextlib
import errno
import logging
import os
import queue
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
    """A source on a free port, read in a thread of its own."""

    def __init__(self, rate=16000, channels=1, address="0"):
        self.clock = FakeClock(START)
        self.source = ListenSource(address, rate, channels, self.clock)
        self.rate = rate
        self.blocks = queue.Queue()
        self._clients = []
        self._thread = threading.Thread(target=self._read)

    def _read(self):
        for block in self.source:
            self.blocks.put(block)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.source.close()
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()
        for client in self._clients:
            client.close()

    def connect(self):
        host, _, port = self.source.address.rpartition(":")
        client = socket.create_connection((host.strip("[]"), int(port)), BOUND_S)
        self._clients.append(client)
        return client

    def next(self):
        return self.blocks.get(timeout=BOUND_S)

    def samples(self, count):
        """So many samples, `[count, channels]`, each block of 50 ms at most."""
        found = [self.next().samples]
        while sum(map(len, found)) < count:
            found.append(self.next().samples)
        assert max(map(len, found)) <= self.rate // 20
        found = np.concatenate(found)
        assert len(found) == count
        return found

    def rest(self):
        """What comes until nothing has come for a while."""
        found = []
        while True:
            try:
                found.append(self.blocks.get(timeout=0.15).samples)
            except queue.Empty:
                return np.concatenate(found) if found else np.zeros((0, self.source.channels), np.float32)


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
                listening.clock.time += whole / 16000
            begin += size
    np.testing.assert_array_equal(np.concatenate(found), scaled(sent))


def test_silence_takes_the_place_of_sound_exactly_on_schedule():
    with Listening(rate=11025, channels=2) as listening:
        total = 0
        for seconds in (0.5, 10, 61):
            listening.clock.time = START + seconds
            found = listening.rest()
            assert not found.any()
            total += len(found)
            assert 0 <= seconds * 11025 - total <= 0.02 * 11025 + 1
        listening.connect().sendall(b"\x00\x40\x00\x20" * 3)
        np.testing.assert_array_equal(listening.samples(3), [[0.5, 0.25]] * 3)


def test_sound_sent_at_once_is_taken_at_its_own_speed_and_whole():
    sent = numbers(2 * 16000)
    found = []
    with Listening() as listening:
        client = listening.connect()
        sender = threading.Thread(target=client.sendall, args=(sent.tobytes(),))
        sender.start()
        found.append(listening.rest())
        assert 0.23 * 16000 <= len(found[0]) <= 0.25 * 16000
        for _ in range(8):
            listening.clock.time += 0.24
            found.append(listening.rest())
            assert len(found[-1]) <= (0.24 * 1.01 + 0.02) * 16000 + 2
        sender.join(BOUND_S)
    np.testing.assert_array_equal(np.concatenate(found), scaled(sent))


def test_a_sender_that_never_ends_has_to_wait():
    with Listening() as listening:
        client = listening.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        listening.rest()
        client.settimeout(0.2)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 1 << 24:
                sent += client.send(bytes(1 << 16))
    assert sent < 1 << 20


@contextlib.contextmanager
def heard():
    """A source, its clock, a client of whom 20 ms were heard, and the blocks that come after them."""
    source = ListenSource("0", 16000, 1, clock := FakeClock(START))
    host, port = source.address.split(":")
    with socket.create_connection((host, int(port))) as client:
        blocks = iter(source)
        client.sendall(b"\x00\x40" * 320)
        assert next(blocks).samples.all()
        yield source, clock, client, blocks


def test_what_waited_while_nobody_took_it_comes_before_any_silence():
    with heard() as (source, clock, client, blocks):
        client.sendall(b"\x00\x20" * 800)
        clock.time += 5
        assert next(blocks).samples.all()
        clock.time += 0.02
        client.sendall(b"\x00\x20" * 320)
        assert next(blocks).samples.all()
        source.close()
        assert list(blocks) == []


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_goes_leaves_no_half_sample_to_the_next(reset):
    with Listening() as listening:
        client = listening.connect()
        client.sendall(b"\x00\x40\x11")
        np.testing.assert_array_equal(listening.samples(1), [[0.5]])
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        listening.clock.time += 1
        assert not listening.rest().any()
        listening.connect().sendall(b"\x00\x20")
        np.testing.assert_array_equal(listening.samples(1), [[0.25]])


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


def peer_of(client):
    """A copy of this process's own end of a connection."""
    for descriptor in open_descriptors():
        with contextlib.suppress(OSError):
            found = socket.socket(fileno=os.dup(descriptor))
            if found.getpeername() == client.getsockname():
                return found
    raise AssertionError("nobody is connected")


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
    with Listening(channels=2) as listening:
        client = listening.connect()
        client.sendall(b"\x00\x40\x00\x20" * 8000 + b"\x00\x40\x00")
        first = listening.rest()
        assert len(first) <= 0.25 * 16000
        listening.source.discard()
        client.sendall(b"\x20" + b"\x00\xc0\x00\xe0" * 320)
        listening.clock.time += 0.3
        second = listening.rest()
    np.testing.assert_array_equal(second[0], [0.5, 0.25])
    np.testing.assert_array_equal(second[1:], [[-0.5, -0.25]] * 320)


def test_what_a_discard_threw_away_is_not_made_up_for_with_silence():
    with heard() as (source, clock, client, blocks):
        client.sendall(b"\x00\x40" * 16000)
        clock.time += 5
        source.discard()
        done = threading.Event()

        def speak_again():
            client.sendall(b"\x00\x20" * 320)
            done.set()

        later = threading.Timer(0.1, speak_again)
        later.start()
        np.testing.assert_array_equal(next(blocks).samples[0], [0.25])
        later.join(BOUND_S)
        assert done.is_set()
        source.close()


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
    """Five seconds of sound, of which a quarter is taken now; the next client's comes after it."""
    first, second = numbers(5 * 16000), numbers(8000, seed=1)
    with Listening() as listening:
        client = listening.connect()
        client.sendall(first.tobytes())
        client.close()
        found = [listening.rest()]
        assert len(found[0]) <= 0.25 * 16000
        later = listening.connect()
        later.sendall(second.tobytes())
        while sum(map(len, found)) < len(first) + len(second):
            try:
                found.append(listening.blocks.get(timeout=0.01).samples)
            except queue.Empty:
                listening.clock.time += 0.1
        later.setblocking(False)
        with pytest.raises(BlockingIOError):
            later.recv(1)
    np.testing.assert_array_equal(np.concatenate(found), scaled(np.concatenate([first, second])))


@pytest.mark.parametrize("spoke", [False, True])
def test_a_client_that_is_silent_for_long_gives_its_place_to_the_next(spoke):
    with Listening() as listening:
        silent = listening.connect()
        if spoke:
            silent.sendall(b"\x00\x10")
            listening.samples(1)
        else:
            listening.rest()
        listening.clock.time += listen.IDLE_S - 0.01
        assert listening.connect().recv(1) == b"", "not yet"
        listening.rest()
        listening.clock.time += 0.02
        listening.connect().sendall(b"\x00\x40")
        assert silent.recv(1) == b""
        assert listening.rest()[-1] == 0.5


def test_a_silent_client_keeps_its_place_while_nobody_wants_it():
    with Listening() as listening:
        client = listening.connect()
        listening.rest()
        listening.clock.time += 100 * listen.IDLE_S
        listening.rest()
        client.sendall(b"\x00\x40")
        assert listening.rest()[-1] == 0.5
        assert listening.connect().recv(1) == b"", "it is not silent any more"


def test_a_client_whose_sound_waits_is_not_silent():
    with Listening() as listening:
        client = listening.connect()
        client.sendall(bytes(2 * 16000 * 8))
        listening.rest()
        for _ in range(40):
            listening.clock.time += listen.IDLE_S / 60
            listening.next()
        assert listening.connect().recv(1) == b""


def test_a_client_that_sends_a_container_is_sent_away_and_the_next_is_heard(caplog):
    with Listening() as listening:
        client = listening.connect()
        client.sendall(b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(4000))
        client.settimeout(BOUND_S)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        listening.connect().sendall(struct.pack("<h", 16_384) * 400)
        found = listening.samples(400)
        while not np.any(found):
            found = listening.samples(400)
        assert set(np.unique(found)) <= {0.0, 0.5}
    assert sum("WAV came from the client" in record.getMessage() for record in caplog.records) == 1
