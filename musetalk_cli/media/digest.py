"""Digests of files: by them a source is recognised when a preparation goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from musetalk_cli.errors import InputError

_BLOCK = 1 << 20


def digest_of(files: Iterable[Path]) -> str:
    """SHA-256 in hexadecimal: of the file, or for several of their digests in order.

    Raises:
        InputError: A file cannot be read.
    """
    digests = [_file_digest(path) for path in files]
    return digests[0].hex() if len(digests) == 1 else hashlib.sha256(b"".join(digests)).hexdigest()


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    return digest.digest()
