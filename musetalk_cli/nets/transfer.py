"""One file of the hub on its way: to a hidden name beside its place, going on where it stopped, and whole."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musetalk_cli.errors import ModelError
from musetalk_cli.nets.answers import Body, Remote
from musetalk_cli.nets.hub import Hub
from musetalk_cli.nets.patience import PassingError
from musetalk_cli.nets.pins import HubFile, Pin
from musetalk_cli.nets.proof import BLOCK
from musetalk_cli.nets.turns import PARTIAL

if TYPE_CHECKING:
    from hashlib import _Hash as Digest

SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Order:
    """A file that is fetched.

    Attributes:
        file: What of the hub.
        revision: Which of it.
        remote: What the hub says of it.
        pin: What it has to be; the digest is None the first time.
        target: Its place.
        replaces: The file that is there instead, or None.
        local: Its path under the models folder, with `/`.
    """

    file: HubFile
    revision: str
    remote: Remote
    pin: Pin
    target: Path
    replaces: Path | None
    local: str

    @property
    def partial(self) -> Path:
        """Where it lies while it comes, by what it will be: never the beginning of another file."""
        return partial_of(self.target, self.pin.sha256 or self.remote.etag)

    @property
    def digested(self) -> bool:
        """A digest is known that tells the right file from any other one."""
        tag = self.remote.etag
        return bool(self.pin.sha256 or SHA256.fullmatch(tag) or _GIT.fullmatch(tag))

    @property
    def resumes(self) -> bool:
        """What came of it can be gone on with: it is known whether the rest is of the same file."""
        return bool(self.remote.etag) or self.digested

    @property
    def begun(self) -> int:
        """Bytes of it that an earlier download left, and that can be gone on with."""
        return self.partial.stat().st_size if self.resumes and self.partial.is_file() else 0


def partial_of(target: Path, digest: str) -> Path:
    """Where a file of that digest, or tag, lies while it comes."""
    mark = re.sub(r"[^0-9a-zA-Z]", "", digest)[:16]
    return target.with_name(f".{target.name}.{mark}{PARTIAL}")


def transfer(hub: Hub, order: Order, told: Callable[[int], object]) -> str:
    """Bring what is missing of a file; gives the SHA-256 of all of it.

    Raises:
        OSError: It cannot be written.
        ModelError: It cannot be had.
    """
    size, patience = order.remote.bytes, hub.patience(order.file, order.revision)
    with order.partial.open("ab" if order.resumes else "wb") as out:
        digest, furthest = _digest_of(order.partial), out.tell()
        told(min(furthest, size))
        while out.tell() < size:
            try:
                position = out.tell() if order.resumes else 0
                with hub.read(order.file, order.revision, position) as body:
                    _check_same(order, body)
                    if body.start != out.tell():
                        out.truncate(0)
                        out.seek(0)
                        digest = hashlib.sha256()
                    for block in body.blocks:
                        out.write(block)
                        digest.update(block)
                        told(min(out.tell(), size))
                        if out.tell() > furthest:  # a hub that begins anew each time brings nothing
                            furthest = out.tell()
                            patience.reset()
                        if out.tell() > size:
                            break
                if out.tell() < size:
                    raise PassingError("the connection ended in the middle of the file")
            except PassingError as fault:
                patience.after(fault)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _check_same(order: Order, body: Body) -> None:
    """Refuse bytes of another file than those that came before, which they would replace or be mixed with.

    Raises:
        ModelError: They are of another one, as its tag says where no digest would tell them apart.
        PassingError: They are no file of that size, like the page that a network shows until one signs in.
    """
    if body.whole is not None and body.whole != order.remote.bytes:
        raise PassingError(f"it sent {body.whole} bytes in place of the file's {order.remote.bytes}")
    if not order.digested and body.etag and body.etag != order.remote.etag:
        raise ModelError(
            f"{order.file} was replaced on the hub while it came.",
            "Run the same command again: it fetches the new one.",
        )


def is_right(order: Order, digest: str) -> bool:
    """True where a file that came is the one that is wanted: as known, else as the hub itself says."""
    tag = order.remote.etag
    if order.pin.sha256 is not None:
        return digest == order.pin.sha256
    if SHA256.fullmatch(tag):
        return digest == tag
    if _GIT.fullmatch(tag):  # a blob of git is hashed behind a header with its size
        header = f"blob {order.remote.bytes}\0".encode()
        return _digest_of(order.partial, hashlib.sha1(header, usedforsecurity=False)).hexdigest() == tag
    return order.partial.stat().st_size == order.remote.bytes


def _digest_of(path: Path, digest: Digest | None = None) -> Digest:
    digest = digest or hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest
