"""Clients that send a request a byte at a time, over real sockets."""

import socket
import threading

import pytest
from lives import RATE, speech
from serving import FPS, JOB, TIMEOUT_S, serving, wav

from musetalk_cli.serve import header_timeout

HEADER_S = 0.5
PACE_S = 0.05
HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def served(coloured_run):
    with pytest.MonkeyPatch.context() as patch, serving(coloured_run, JOB) as client:
        patch.setattr(header_timeout, "HEADER_S", HEADER_S)
        yield client


def connect(served):
    host, port = served.address.split(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


def trickle(connection, data):
    """Send the same bytes one by one, again and again, until the other side closes; gives what it said."""
    connection.settimeout(PACE_S)
    said = b""
    for sent in range(round(TIMEOUT_S / PACE_S)):
        try:
            part = connection.recv(1 << 16)
        except TimeoutError:
            connection.send(data[sent % len(data) : sent % len(data) + 1])
            continue
        except ConnectionError:
            return said
        if not part:
            return said
        said += part
    pytest.fail("the connection is still open")


def answer(connection):
    """The whole answer to a `HEAD`."""
    said = b""
    while not said.endswith(b"}"):
        said += connection.recv(1 << 16)
    return said


def test_a_head_that_comes_a_byte_at_a_time_is_not_waited_for(served):
    with connect(served) as connection:
        connection.sendall(HEAD[:-2])
        assert trickle(connection, b"x") == b""


def test_nor_is_the_next_one_of_a_connection_that_asked_before(served):
    with connect(served) as connection:
        connection.sendall(HEAD)
        assert answer(connection).startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1" not in trickle(connection, b"x")


def test_nor_a_body_that_nobody_reads(served):
    head = b"POST /v1/sessions/none/interrupt HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
    with connect(served) as connection:
        connection.sendall(head)
        assert trickle(connection, b"x").startswith(b"HTTP/1.1 404")


def test_who_says_nothing_at_all_is_not_waited_for(served):
    with connect(served) as connection:
        assert connection.recv(1) == b""


def test_a_head_that_is_too_long_is_refused(served):
    with connect(served) as connection:
        connection.sendall(HEAD[:-2] + b"X: " + b"x" * header_timeout.HEADER_BYTES)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 4")


def test_what_takes_longer_for_another_reason_goes_on(served):
    """A session, and a sound that comes slowly."""
    body = wav(speech(0.3), RATE)
    gap = len(body) // 8

    def slowly():
        for start in range(0, len(body), gap):
            threading.Event().wait(HEADER_S / 4)
            yield body[start : start + gap]

    with served.program("red", video="none") as program:
        program.watch(round(3 * HEADER_S * FPS))
        path = f"/v1/sessions/{program.first['session']}/speak"
        assert served.ask("POST", path, slowly()).status == 202
        program.until("segment_finished")


def test_a_connection_that_asks_again_and_again_is_kept(served):
    with connect(served) as connection:
        for _ in range(6):
            connection.sendall(HEAD)
            assert answer(connection).startswith(b"HTTP/1.1 200")
            connection.settimeout(HEADER_S / 3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(TIMEOUT_S)
