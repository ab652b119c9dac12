"""Commands over real sockets and pipes. Each `stop` is waited for, so what was sent before it was done."""

import os
import socket
import stat
import threading
import tracemalloc

import pytest
from descriptors import FIRST, crowded
from processes import open_descriptors

from musetalk_cli.errors import InputError
from musetalk_cli.live.control import CLIENTS, LINE_BYTES, ControlHandle, ControlLines

TIMEOUT_S = 30


@pytest.fixture(autouse=True)
def no_thread_or_descriptor_is_left():
    threads, descriptors = set(threading.enumerate()), open_descriptors()
    yield
    assert set(threading.enumerate()) == threads
    assert open_descriptors() == descriptors


class Session:
    """Counts interrupts, and says when one came."""

    def __init__(self):
        self.interrupts = 0
        self.came = threading.Semaphore(0)

    def interrupt(self):
        self.interrupts += 1
        self.came.release()

    def wait(self):
        assert self.came.acquire(timeout=TIMEOUT_S), "no interrupt came"


@pytest.fixture
def session():
    return Session()


@pytest.fixture
def handle(session):
    handle = ControlHandle()
    handle.bind(session)
    return handle


@pytest.fixture
def path(tmp_path):
    """Where a socket can be: the names of sockets are short."""
    return tmp_path / "c"


def connect(path):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(TIMEOUT_S)
    client.connect(str(path))
    return client


def test_a_handle_stops_and_interrupts(session):
    handle, stop = ControlHandle(), threading.Event()
    handle.interrupt()
    assert not handle.stop.is_set()
    handle.bind(session)
    handle.interrupt()
    assert session.interrupts == 1
    assert ControlHandle(stop).stop is stop


def test_commands_of_several_clients(path, handle, session):
    with ControlLines(str(path), handle), connect(path) as one, connect(path) as other:
        one.sendall(b"interrupt\n")
        session.wait()
        other.sendall(b"interrupt\ninterrupt\n")
        session.wait()
        session.wait()
        one.sendall(b"interrupt\n")
        session.wait()
        assert not handle.stop.is_set()
        other.sendall(b"stop\n")
        assert handle.stop.wait(TIMEOUT_S)
    assert session.interrupts == 4


def test_a_line_may_come_in_parts_and_between_those_of_others(path, handle, session):
    with ControlLines(str(path), handle), connect(path) as one, connect(path) as other:
        one.sendall(b"inter")
        other.sendall(b"interrupt\nst")
        session.wait()
        one.sendall(b"rupt")
        one.sendall(b" \r\n")
        session.wait()
        other.sendall(b"op\n")
        assert handle.stop.wait(TIMEOUT_S)
    assert session.interrupts == 2


def test_the_last_line_needs_no_end(path, handle):
    with ControlLines(str(path), handle):
        with connect(path) as client:
            client.sendall(b"stop")
        assert handle.stop.wait(TIMEOUT_S)


def test_who_goes_is_forgotten_and_others_go_on(path, handle, session):
    """More come and go, one after the other, than are served at once."""
    with ControlLines(str(path), handle), connect(path) as stays:
        for _ in range(3 * CLIENTS):
            with connect(path) as client:
                client.sendall(b"interrupt\n")
                session.wait()
        stays.sendall(b"stop\n")
        assert handle.stop.wait(TIMEOUT_S)


def test_clients_are_bounded(path, handle, session):
    with ControlLines(str(path), handle):
        clients = [connect(path) for _ in range(CLIENTS)]
        for client in clients:
            client.sendall(b"interrupt\n")
            session.wait()
        with connect(path) as late:
            assert late.recv(1) == b"", "closed by the other side"
        clients[0].sendall(b"stop\n")
        assert handle.stop.wait(TIMEOUT_S)
        for client in clients:
            client.close()


def test_what_is_no_command_is_said_and_changes_nothing(path, handle, session, caplog):
    with ControlLines(str(path), handle), connect(path) as client:
        client.sendall(b"restart\n\n  \nSTOP\n\xff\xfe\ninterrupt now\ninterrupt\n")
        session.wait()
        assert not handle.stop.is_set()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4
    assert said[0] == "--control does not know 'restart'; it knows interrupt and stop."
    assert session.interrupts == 1


@pytest.mark.parametrize("before", [b"x", b" "])
@pytest.mark.parametrize("length", [LINE_BYTES + 1, 2 * LINE_BYTES - 4, 2 * LINE_BYTES, 100_000])
def test_a_long_line_is_no_command(path, handle, session, caplog, before, length):
    """Neither its end nor its beginning, whatever a command it looks like."""
    with ControlLines(str(path), handle), connect(path) as client:
        client.sendall(b"interrupt\n")
        session.wait()
        client.sendall(before * (length - 4) + b"stop")
        with connect(path) as other:
            other.sendall(b"interrupt\n")
            session.wait()
        client.sendall(b"\ninterrupt\n")
        session.wait()
        assert not handle.stop.is_set()
    assert len(caplog.records) == 1
    assert len(caplog.records[0].getMessage()) < 200


def test_a_long_line_is_not_kept(path, handle):
    """Sending waits until the other side has read, so most of the line was read when it is over."""
    line = bytes(10 << 20)
    with ControlLines(str(path), handle), connect(path) as client:
        tracemalloc.start()
        client.sendall(line)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert held < 1 << 20, "bytes"


def test_a_line_of_the_greatest_length_is_one(path, handle):
    with ControlLines(str(path), handle), connect(path) as client:
        client.sendall(b"stop".rjust(LINE_BYTES) + b"\n")
        assert handle.stop.wait(TIMEOUT_S)


def test_only_its_owner_may_use_the_socket(path, handle):
    before = os.umask(0)
    try:
        with ControlLines(str(path), handle):
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.umask(0) == 0, "the caller's mask is as it was"
    finally:
        os.umask(before)


def test_the_socket_is_removed_at_the_end(path, handle):
    for _ in range(2):
        with ControlLines(str(path), handle), connect(path) as client:
            client.sendall(b"stop\n")
            assert handle.stop.wait(TIMEOUT_S)
            handle.stop.clear()
        assert not path.exists()


def test_the_socket_is_removed_when_the_run_fails_and_clients_see_the_end(path, handle):
    with pytest.raises(KeyError), ControlLines(str(path), handle):
        client = connect(path)
        client.sendall(b"stop\n")
        assert handle.stop.wait(TIMEOUT_S)
        raise KeyError
    assert client.recv(1) == b""
    client.close()
    assert not path.exists()


def test_a_socket_that_somebody_removed_is_no_failure(path, handle):
    with ControlLines(str(path), handle):
        path.unlink()


def test_commands_from_a_descriptor(handle, session):
    reading, writing = os.pipe()
    with ControlLines(str(reading), handle):
        os.write(writing, b"interrupt\nint")
        session.wait()
        os.write(writing, b"errupt\nst")
        session.wait()
        os.write(writing, b"op\n")
        assert handle.stop.wait(TIMEOUT_S)
    os.fstat(reading)
    os.close(reading)
    os.close(writing)


def test_a_descriptor_that_ends_ends_nothing(handle, session):
    reading, writing = os.pipe()
    before = set(threading.enumerate())
    with ControlLines(str(reading), handle):
        (reader,) = set(threading.enumerate()) - before
        os.write(writing, b"interrupt")
        os.close(writing)
        session.wait()
        reader.join(TIMEOUT_S)
        assert not reader.is_alive(), "nothing to wait for any more"
    assert not handle.stop.is_set()
    os.close(reading)


@pytest.mark.parametrize("number", ["987654", "99999999999999999999"])
def test_a_descriptor_must_be_open(number, handle):
    with pytest.raises(InputError, match=f"--control {number} is not an open file descriptor") as caught:
        ControlLines(number, handle)
    assert "--control 3 3<commands" in caught.value.hint


def test_what_is_there_is_not_replaced(path, handle):
    path.write_text("mine")
    with pytest.raises(InputError, match="cannot be made: Address already in use") as caught:
        ControlLines(str(path), handle)
    assert str(path) in caught.value.message
    assert "not there yet" in caught.value.hint
    assert path.read_text() == "mine"


def test_a_second_run_does_not_take_the_socket_of_the_first(path, handle, session):
    with ControlLines(str(path), handle):
        with pytest.raises(InputError, match="Address already in use"):
            ControlLines(str(path), ControlHandle())
        with connect(path) as client:
            client.sendall(b"interrupt\n")
            session.wait()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 120, "path too long"), ("no-such-folder/control", "No such file or directory")],
)
def test_a_socket_that_cannot_be_made_is_said(tmp_path, handle, name, reason):
    with pytest.raises(InputError, match=reason) as caught:
        ControlLines(str(tmp_path / name), handle)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_socket_that_a_killed_run_left_is_used_again(path, handle):
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    assert path.is_socket()
    with ControlLines(str(path), handle):
        client = connect(path)
        client.sendall(b"stop\n")
        assert handle.stop.wait(TIMEOUT_S)
        client.close()
    assert not path.exists()


def test_descriptors_of_any_number_are_read(path, handle, session):
    """The socket's own, those of its clients, and one that was handed in."""
    with crowded():
        reading, writing = os.pipe()
        with ControlLines(str(path), handle), ControlLines(str(reading), handle), connect(path) as client:
            assert min(reading, client.fileno()) > FIRST
            client.sendall(b"interrupt\n")
            session.wait()
            os.write(writing, b"interrupt\n")
            session.wait()
            client.sendall(b"stop\n")
            assert handle.stop.wait(TIMEOUT_S)
        os.close(reading)
        os.close(writing)


def test_a_program_that_lets_nobody_in_is_not_waited_for(path, handle):
    """Its backlog is full: a connection that waits would wait for ever."""
    busy = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    busy.bind(str(path))
    busy.listen(0)
    waiting = []
    while not waiting or waiting[-1][1] == 0:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        waiting.append((client, client.connect_ex(str(path))))
    said = []

    def start():
        try:
            ControlLines(str(path), handle)
        except InputError as error:
            said.append(error.message)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(TIMEOUT_S / 6)
    for client, _ in waiting:
        client.close()
    busy.close()
    thread.join()
    assert said == [f"--control {path} cannot be made: Address already in use."]
    assert path.is_socket()
