"""What the service is told: where it listens, who may come, and how much it may take."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from musetalk_cli.errors import InputError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 2160
DEFAULT_PORTS = {"http": 80, "https": 443}
"""Ports that no origin names."""
SHORTEST_TOKEN = 16
"""Characters of a token at the least, so that it cannot be guessed."""


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server.

    Attributes:
        url: `stun:HOST:PORT` or `turn:HOST:PORT`.
        username: Of a TURN server, or None.
        credential: Of a TURN server, or None.
    """

    url: str
    username: str | None = None
    credential: str | None = None


def parse_ice_server(text: str) -> IceServer:
    """Read `stun:HOST[:PORT]` or `turn:[USER:PASSWORD@]HOST[:PORT]`.

    Raises:
        InputError: It is neither.
    """
    scheme, _, rest = text.partition(":")
    account, at, address = rest.rpartition("@")
    user, colon, password = account.partition(":")
    if scheme not in {"stun", "turn", "turns"} or not address or (at and not (user and colon and password)):
        raise InputError(
            f"--ice-server {scheme}:... is not understood.",
            "Write it like stun:HOST:3478 or turn:USER:PASSWORD@HOST:3478.",
        )
    return IceServer(f"{scheme}:{address}", user or None, password or None)


def parse_origin(text: str) -> str:
    """Read the origin of a page: scheme, host and port, as a browser writes them.

    Raises:
        InputError: It is none.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or any(rest):
        raise InputError(f"--origin {text} is no page's origin.", "Write it like https://example.com.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = "" if port in {None, DEFAULT_PORTS[parts.scheme]} else f":{port}"
    return f"{parts.scheme}://{host}{place}"


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """How the service runs.

    Attributes:
        host: Address it listens at.
        port: Port it listens at; 0 is any free one.
        token: What every request to `/v1` must bring; None asks for nothing.
        origins: Pages besides its own that may use it, like `https://example.com`.
        max_sessions: Sessions at once; None is what was measured.
        memory: Bytes that avatars may take.
        linger_s: Seconds that a session goes on without a viewer.
        drain_s: Seconds that running sessions have left when the service ends.
        sessions_per_client: Sessions that one address may have at once.
        ice_servers: Told to browsers, and used by the service.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    token: str | None = None
    origins: tuple[str, ...] = ()
    max_sessions: int | None = None
    memory: int = 4 << 30
    linger_s: float = 30.0
    drain_s: float = 30.0
    sessions_per_client: int = 8
    ice_servers: tuple[IceServer, ...] = ()


def is_loopback(host: str) -> bool:
    """True for an address that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def why_refused(host: str, token: str | None) -> str | None:
    """Why a service may not listen there with this token; None where it may."""
    if token is None:
        if is_loopback(host):
            return None
        return (
            f"--host {host} can be reached by others: pass --token or MUSETALK_TOKEN, so that not everyone "
            "can make your faces speak."
        )
    # what no header carries as it is: every request would be refused
    strange = next((character for character in token if not " " <= character <= "~"), None)
    if strange is not None:
        return f"--token holds {strange!r}: use letters, digits and signs of ASCII only."
    if token != token.strip():
        return "--token begins or ends with a space."
    if len(token) < SHORTEST_TOKEN:
        return f"--token has {len(token)} characters: it needs at least {SHORTEST_TOKEN}."
    return None
