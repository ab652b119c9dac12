import socket

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from musetalk_cli.errors import InputError
from musetalk_cli.serve.server import GONE_S, bind, configure


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 64 + ".net", "a..b"])
def test_a_host_that_is_none_is_refused_in_a_sentence(host):
    with pytest.raises(InputError, match="cannot be found"):
        bind(host, 0)


def test_who_is_not_read_is_not_taken_for_gone():
    """What its system confirms says that it is there; its answers to pings wait behind what it sent."""
    assert configure(None).ws_ping_timeout is None
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == GONE_S * 1000
