"""A model hub on this machine: it answers as the real one does, and fails as it is told to."""

import hashlib
import re
import socket
import struct
import threading
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote

COMMIT = "c0ffee" * 6 + "c0ff"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def git_blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer.

    Attributes:
        status: Another status than the file's.
        headers: And headers with it.
        cut: Bytes of the body after which the connection is closed.
        reset: The connection is not closed but torn.
        instead: What is sent in place of the bytes.
        whole: Ranges are ignored.
    """

    status: int | None = None
    headers: dict = field(default_factory=dict)
    cut: int | None = None
    reset: bool = False
    instead: bytes | None = None
    whole: bool = False


class HubServer:
    """Files by repository and path, faults to come by method, and what was asked."""

    def __init__(self):
        self.files, self.small, self.tags = {}, set(), {}
        self.faults = defaultdict(deque)
        self.asked = []
        self.elsewhere = None
        self.url = None

    def publish(self, repository, path, data, small=False, tag=None):
        """Put a file there; small ones are sent at once, with git's digest or a tag, others lie elsewhere."""
        self.files[f"{repository}/{path}"] = data
        if tag is not None:
            self.tags[f"{repository}/{path}"] = tag
        if small:
            self.small.add(f"{repository}/{path}")

    def fails(self, method, *faults):
        """The next answers to a method fail so; None is one that goes well."""
        self.faults[method].extend(faults)

    def bodies(self):
        """Paths of the files whose bytes were asked for, and the ranges."""
        return [(path, headers.get("Range")) for method, path, headers in self.asked if method == "GET"]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        hub = self.server.hub
        path = unquote(self.path)
        stored = re.fullmatch(r"/stored/(.+)", path)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        hub.asked.append((self.command, path, dict(self.headers)))
        key = stored[1] if stored else f"{found[1]}/{found[3]}" if found else ""
        queue = hub.faults[self.command]
        leads_on = not stored and key in hub.files and key not in hub.small and self.command == "GET"
        fault = (queue.popleft() if queue and not leads_on else None) or Fault()
        if fault.status is not None:
            self._send(fault.status, fault.headers, b"<html>no</html>", fault)
        elif key not in hub.files:
            self._send(404, {"X-Error-Code": "EntryNotFound"}, b"Entry not found", fault)
        elif not stored and key not in hub.small:
            data = hub.files[key]
            place = f"{hub.elsewhere or hub.url}/stored/{key}"
            headers = {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{sha256(data)}"'}
            self._send(
                302, {**headers, "Location": place, "X-Repo-Commit": COMMIT}, b"Found. Redirecting", fault
            )
        else:
            self._file(hub.files[key], hub.tags.get(key, git_blob(hub.files[key])), fault)

    def _file(self, data, tag, fault):
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        sent = data if fault.instead is None else fault.instead
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and not fault.whole:
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(sent) - 1}/{len(sent)}"
            self._send(206, headers, sent[start:], fault)
        else:
            self._send(200, headers, sent, fault)

    def _send(self, status, headers, body, fault):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.cut is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[: fault.cut])
        self.wfile.flush()
        self.close_connection = True
        if fault.reset:  # without lingering, closing sends a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@contextmanager
def a_hub(hub=None):
    """A hub that answers; gives its `HubServer`, whose `url` it has."""
    hub = hub or HubServer()
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    server.hub = hub
    server.handle_error = lambda *_: None
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
