"""Servers on this machine that take a stream."""

import os
import socket
import subprocess
from contextlib import contextmanager

import pytest
from lives import LIMIT_S

from musetalk_cli.media import ffmpeg


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for_listener(server, port, protocol):
    """Until the kernel's table shows the port; bounded by a number of looks at it."""
    for _ in range(20_000):
        assert server.poll() is None, server.stderr.read()
        with open(f"/proc/net/{protocol}") as table:  # noqa: PTH123
            if f"0100007F:{port:04X} " in table.read():
                return
        os.sched_yield()
    pytest.fail("the server does not listen")


@contextmanager
def serving(scheme, path, tail=""):
    """A server that writes what it is sent into a file; gives its URL, and has it whole after the statement.

    Args:
        scheme: `rtmp` or `srt`.
        path: The file, .mkv.
        tail: What of an RTMP URL follows the port.
    """
    port = free_port(socket.SOCK_STREAM if scheme == "rtmp" else socket.SOCK_DGRAM)
    url = f"{scheme}://127.0.0.1:{port}{tail}"
    heard = {"rtmp": ("-listen", "1", "-i", url), "srt": ("-f", "mpegts", "-i", f"{url}?mode=listener")}
    command = [ffmpeg.executable(), "-v", "error", "-y", *heard[scheme], "-c", "copy", "-copyts", str(path)]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for_listener(server, port, "tcp" if scheme == "rtmp" else "udp")
        yield url
        assert server.wait(LIMIT_S) == 0, server.stderr.read()
    finally:
        server.kill()
        server.communicate()
