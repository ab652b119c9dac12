"""Who may come in: token, origin, host, and how often. Everything is checked before a route is reached."""

from __future__ import annotations

import hmac
import logging
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from musetalk_cli.clock import Clock
from musetalk_cli.serve.settings import ServeConfig, is_loopback
from musetalk_cli.strict_json import dump

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PROTECTED = ("/v1", "/metrics")
"""Paths that want the token, where there is one."""
BEGINNINGS = ("/v1/whep", "/v1/offer", "/v1/stream")
"""Paths that begin a session."""
BEGUN_AT_ONCE, BEGUN_PER_S = 2.5, 1 / 16
"""What one client may begin in a row, and then per second, for each session that it may have at once."""
CLIENTS = 4096
"""Clients whose beginnings are remembered."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=()"),
    (b"cache-control", b"no-store"),
)
SHARED = ((b"access-control-expose-headers", b"location, retry-after"), (b"vary", b"origin"))
"""Headers for pages of the origins that may use the service besides its own (CORS)."""
ASKED = (
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (b"access-control-allow-headers", b"authorization, content-type"),
    (b"access-control-max-age", b"600"),
)
"""What such a page is told where its browser asks before it sends a request."""
WRONG_ORIGIN = "Requests from pages of {} are not taken."
WRONG_HOST = "Requests to the host {} are not taken."


class Refill:
    """A bucket of tokens for each client (token bucket): some at once, and then at a rate.

    Args:
        clock: Where time comes from.
        at_once: Tokens in a full bucket.
        per_s: Tokens that come back each second.
    """

    def __init__(self, clock: Clock, at_once: float, per_s: float) -> None:
        self._clock = clock
        self._at_once = at_once
        self._per_s = per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, client: str) -> bool:
        """Take one; False where the bucket is empty."""
        now = self._clock.now()
        with self._lock:
            left, at = self._buckets.pop(client, (self._at_once, now))
            left = min(self._at_once, left + (now - at) * self._per_s)
            taken = left >= 1
            self._buckets[client] = (left - taken, now)
            if len(self._buckets) > CLIENTS:
                self._buckets.popitem(last=False)
            return taken


class Guard:
    """Lets a request through to the application, or answers it.

    Args:
        app: The application.
        config: Token, origins, and where the service listens.
        clock: Where time comes from.
    """

    def __init__(self, app: App, config: ServeConfig, clock: Clock) -> None:
        self._app = app
        self._config = config
        sessions = config.sessions_per_client
        self._refill = Refill(clock, BEGUN_AT_ONCE * sessions, BEGUN_PER_S * sessions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        # what a browser wants to see before it shows an answer to a page of another origin
        origin = headers.get("origin")
        shared: tuple[tuple[bytes, bytes], ...] = ()
        if origin is not None and origin in self._config.origins:
            shared = ((b"access-control-allow-origin", origin.encode("latin-1")), *SHARED)

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                message["headers"] = [*message.get("headers", []), *HEADERS, *shared]
            await send(message)

        refused = self._refusal(scope, headers)
        if shared and scope.get("method") == "OPTIONS":
            await send_with_headers({"type": "http.response.start", "status": 204, "headers": [*ASKED]})
            await send({"type": "http.response.body", "body": b""})
        elif refused is not None:
            await _refuse(scope, receive, send_with_headers, *refused)
        elif scope.get("method") == "HEAD":
            # asked for like the rest of it, which the server leaves out
            await self._app({**scope, "method": "GET"}, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str, str | None] | None:
        """Status, sentence and hint, or None where the request may go on."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 403, WRONG_HOST.format(repr(host[:80])), "Use the address that the service listens at."
        origin = headers.get("origin")
        if origin is not None and not self._is_allowed(origin, host):
            return 403, WRONG_ORIGIN.format(repr(origin[:80])), "Start the service with --origin for it."
        path = scope["path"]
        if path.startswith(PROTECTED) and not self._has_token(headers.get("authorization", "")):
            return 401, "The token is missing or wrong.", "Send the header Authorization: Bearer TOKEN."
        begins = scope["type"] == "websocket" or scope.get("method") == "POST"
        if begins and path in BEGINNINGS and not self._refill.take(client_of(scope)):
            return 429, "Too many sessions were begun from this address.", "Wait some seconds."
        return None

    def _is_ours(self, host: str) -> bool:
        """False where a name of somebody else leads a browser here: a page of theirs would count as ours."""
        if self._config.token is not None or not is_loopback(self._config.host):
            return True
        try:
            return is_loopback(urlsplit(f"//{host}").hostname or "")
        except ValueError:
            return False

    def _is_allowed(self, origin: str, host: str) -> bool:
        # with the scheme of either: a proxy in front may have taken TLS off
        return origin in self._config.origins or origin in {f"http://{host}", f"https://{host}"}

    def _has_token(self, authorization: str) -> bool:
        if self._config.token is None:
            return True
        scheme, _, token = authorization.partition(" ")
        same = hmac.compare_digest(token.strip().encode(), self._config.token.encode())
        return same and scheme.lower() == "bearer"


def client_of(scope: Scope) -> str:
    """The address that a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: int, error: str, hint: str | None
) -> None:
    body = dump({"error": error, "hint": hint}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *([(b"www-authenticate", b"Bearer")] if status == 401 else []),
        *([(b"retry-after", b"5")] if status == 429 else []),
    ]
    kind = "http"
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": error})
            return
        kind = "websocket.http"
    await send({"type": f"{kind}.response.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})
