"""Which hub is asked, as the environment says it."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from musetalk_cli.errors import InputError
from musetalk_cli.nets.hub import PUBLIC, Hub

_VISIBLE = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a bearer token may be (RFC 6750, 2.1)."""


def hub_of_environment() -> Hub:
    """The hub that `HF_ENDPOINT` names, else the public one; with `HF_TOKEN` and `HF_HUB_OFFLINE`.

    Raises:
        InputError: `HF_ENDPOINT` is no address of a server, or `HF_TOKEN` no token.
    """
    endpoint = checked_endpoint(os.environ.get("HF_ENDPOINT") or PUBLIC)
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return Hub(endpoint, checked_token(os.environ.get("HF_TOKEN", "")), offline)


def checked_token(text: str) -> str | None:
    """A token of the hub; None where there is none. It stands in no message.

    Raises:
        InputError: It cannot be one.
    """
    token = text.strip()
    if token and not _TOKEN.fullmatch(token):
        what = "stands in quotes" if token[0] in "\"'" else "holds a character that no token has"
        raise InputError(f"HF_TOKEN {what}.", "Copy it again from the hub, or unset HF_TOKEN.")
    return token or None


def checked_endpoint(text: str) -> str:
    """The address of a hub, without a slash at its end.

    Raises:
        InputError: It is no address of a server.
    """
    endpoint = text.rstrip("/")
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.username)
        usable = usable and (parts.port is None or parts.port > 0) and bool(_VISIBLE.fullmatch(endpoint))
        (parts.hostname or "").encode("idna")
    except ValueError:
        usable = False
    if not usable:
        raise InputError(
            f"HF_ENDPOINT={endpoint} is no address of a hub.", f"Write it like {PUBLIC}, or leave it out."
        )
    return endpoint
