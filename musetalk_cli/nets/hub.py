"""The model hub: what it says of a file, and the file's bytes from any position on.

Only its plain HTTP interface is used: `ENDPOINT/REPOSITORY/resolve/REVISION/PATH` answers with the file or a
redirect to where it lies, and tells its size, its commit and, for large files, its SHA-256 (`X-Linked-Size`,
`X-Repo-Commit`, `X-Linked-ETag`). What passes by itself is tried again: a broken connection, 408, 429, 5xx.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from musetalk_cli.errors import ModelError
from musetalk_cli.nets.answers import (
    TIMEOUT_S,
    Body,
    Remote,
    blocks_of,
    headers_of,
    reason,
    size_of,
    tag_of,
)
from musetalk_cli.nets.patience import PassingError, Patience, asked_wait
from musetalk_cli.nets.pins import HubFile

PUBLIC = "https://huggingface.co"
_REDIRECTS = 5


class NotThereError(ModelError):
    """The repository has no such file, or is none."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are followed here: their answers say what the file is, and the token stays at the hub."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 - as the base class has it
        return None


@dataclass(slots=True)
class Hub:
    """One hub, and the patience with it.

    Attributes:
        endpoint: Its address.
        token: What it knows the user by, or None. It is sent to this address and no other.
        offline: Nothing is asked.
        sleep: Waits for so many seconds.
    """

    endpoint: str = PUBLIC
    token: str | None = field(default=None, repr=False)
    offline: bool = False
    sleep: Callable[[float], None] = time.sleep
    _opener: urllib.request.OpenerDirector = field(init=False, repr=False)
    _answered: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        handler = urllib.request.HTTPSHandler(context=_certificates())
        self._opener = urllib.request.build_opener(_NoRedirect, handler)

    def look(self, file: HubFile, revision: str) -> Remote:
        """What it says of a file.

        Raises:
            NotThereError: It has no such file.
            ModelError: It cannot be reached, or refuses.
        """

        def ask() -> Remote:
            with self._answer("HEAD", file, revision, {}) as (answer, before):
                said = {**headers_of(answer), **before}
                if "x-linked-size" not in said:
                    self._check_plain(answer, file, revision)
            size = size_of(said.get("x-linked-size") or said.get("content-length", ""))
            if size is None:
                raise _failed(self, file, revision, "it does not say how large the file is")
            return Remote(size, said.get("x-repo-commit"), tag_of(said))

        patience = self.patience(file, revision)
        while True:
            try:
                return ask()
            except PassingError as fault:
                patience.after(fault)

    def patience(self, file: HubFile, revision: str) -> Patience:
        """For something that is asked of a file."""
        return Patience(self.sleep, lambda why: _failed(self, file, revision, why))

    @contextmanager
    def read(self, file: HubFile, revision: str, start: int) -> Iterator[Body]:
        """The bytes of a file from a position on.

        Raises:
            NotThereError: It has no such file.
            ModelError: It refuses.
            PassingError: It cannot be reached, or the connection broke.
        """
        ranged = {"Range": f"bytes={start}-"} if start else {}
        with self._answer("GET", file, revision, ranged) as (answer, before):
            self._check_plain(answer, file, revision)
            partial = answer.status == http.HTTPStatus.PARTIAL_CONTENT
            part = re.match(r"bytes (\d+)-\d+/(.*)", answer.headers.get("Content-Range", ""))
            if partial and (not part or int(part[1]) != start):
                raise PassingError("it sent another part of the file")
            size = part[2] if partial and part else answer.headers.get("Content-Length", "")
            tag = tag_of({**headers_of(answer), **before})
            yield Body(start if partial else 0, tag, size_of(size), blocks_of(answer))

    def _check_plain(self, answer: Any, file: HubFile, revision: str) -> None:  # noqa: ANN401 - an answer of http.client
        """Refuse bytes that are packed, which was not asked for: their size is not the file's.

        Raises:
            ModelError: They are.
        """
        packed = answer.headers.get("Content-Encoding", "identity")
        if packed.lower() != "identity":
            why = f"it, or a proxy on the way, sends the file packed ({packed[:20]}), which was not asked for"
            raise _failed(self, file, revision, why)

    @contextmanager
    def _answer(
        self, method: str, file: HubFile, revision: str, headers: dict[str, str]
    ) -> Iterator[tuple[Any, dict[str, str]]]:
        """The last answer in a line of redirects, open, and what those before said of the file."""
        if self.offline:
            failed = _failed(self, file, revision, "HF_HUB_OFFLINE is set, so the hub is not asked")
            failed.hint = f"Unset HF_HUB_OFFLINE. {failed.hint}"
            raise failed
        url, said = address(self.endpoint, file, revision), dict[str, str]()
        for _ in range(_REDIRECTS):
            answer = self._open(method, url, file, revision, headers)
            place = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not place:
                with answer:
                    yield answer, said
                return
            answer.close()
            named = {key: value for key, value in headers_of(answer).items() if key.startswith("x-")}
            said, before = {**named, **said}, urlsplit(url)
            try:
                after = urlsplit(url := urljoin(url, place))
            except ValueError as error:
                raise _failed(self, file, revision, "it sends to what is no address") from error
            if after.scheme not in ("http", "https") or (before.scheme, after.scheme) == ("https", "http"):
                raise _failed(self, file, revision, "it sends to an address that is not safe")
            if method == "HEAD" and {"x-linked-size", "x-linked-etag"} <= said.keys():
                yield answer, said
                return
        raise _failed(self, file, revision, "it sends from one address to the next")

    def _open(self, method: str, url: str, file: HubFile, revision: str, headers: dict[str, str]) -> Any:  # noqa: ANN401 - an answer of http.client
        """One request, its answer a redirect or a success.

        Raises:
            NotThereError: It has no such file.
            ModelError: It refuses.
            PassingError: What may go well the next time.
        """
        request = urllib.request.Request(url, method=method, headers={"User-Agent": "musetalk", **headers})  # noqa: S310 - of http and https only
        if self.token and self._is_own(url):
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            answer = self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            answer = error
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            said = reason(cause)
            # What never answered is not there; in the middle of a download it may come again.
            if isinstance(cause, ssl.SSLCertVerificationError) or not self._answered:
                raise _failed(self, file, revision, said) from error
            raise PassingError(said) from error
        except (ValueError, OverflowError) as error:  # a name or a port that nobody can have
            raise _failed(self, file, revision, "its address cannot be asked") from error
        self._answered = True
        if answer.status < 400:
            return answer
        with answer:
            raise self._refused(answer, file, revision, elsewhere=not self._is_own(url))

    def _is_own(self, url: str) -> bool:
        """True for an address of this hub, where the token may go to."""
        return urlsplit(url)[:2] == urlsplit(self.endpoint)[:2]

    def _refused(self, answer: Any, file: HubFile, revision: str, *, elsewhere: bool) -> Exception:  # noqa: ANN401 - an answer of http.client
        status = answer.status
        if elsewhere and status in (401, 403):  # no token is meant for it; an old address is given anew
            return PassingError(f"the server it sends to refused (status {status})", asked_wait(answer))
        if status == http.HTTPStatus.NOT_FOUND:
            return NotThereError(
                f"{file.repository} at {self.endpoint} has no {file.path} in revision {revision[:12]}.",
                "Check HF_ENDPOINT." if self.endpoint != PUBLIC else _by_hand(self, file, revision),
            )
        if status in (401, 403):
            return ModelError(
                f"The hub {self.endpoint} does not let {file} be read (status {status}).",
                "Check HF_TOKEN: the hub does not know it, or it may not read this."
                if self.token
                else "Set HF_TOKEN to a token of the hub that may read it.",
            )
        if status == http.HTTPStatus.TOO_MANY_REQUESTS:
            return PassingError("it was asked too often (status 429)", asked_wait(answer))
        if status == http.HTTPStatus.REQUEST_TIMEOUT or status >= 500:
            return PassingError(f"it failed (status {status})", asked_wait(answer))
        return _failed(self, file, revision, f"it refused (status {status})")


def address(endpoint: str, file: HubFile, revision: str) -> str:
    """Where a hub has a file."""
    return f"{endpoint}/{file.repository}/resolve/{quote(revision, safe='')}/{quote(file.path)}"


def _failed(hub: Hub, file: HubFile, revision: str, why: str) -> ModelError:
    return ModelError(
        f"{file.path} of {file.repository} could not be fetched from the hub {hub.endpoint} because {why}.",
        _by_hand(hub, file, revision),
    )


def _by_hand(hub: Hub, file: HubFile, revision: str) -> str:
    return (
        "The same command goes on where it stopped. "
        f"By hand the file is fetched from {address(hub.endpoint, file, revision)} ."
    )


def _certificates() -> ssl.SSLContext:
    """The system's certificates, and those that come with Python's packages where it has none."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not os.environ.get("SSL_CERT_FILE"):
        import certifi

        context.load_verify_locations(certifi.where())
    return context
