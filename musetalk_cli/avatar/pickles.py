"""Reads the boxes in upstream's pickles without running what a pickle may carry.

Nothing from outside this file is ever reachable from the pickle: the few numpy names that real files use
are answered with stand-ins, which only turn the bytes of a number into a number.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from musetalk_cli.errors import AvatarError, first_line

_MAX_BYTES = 1 << 24
_LIMIT = 1e6
_HINT = "Prepare the avatar again from its video."
_MEMO_WRITES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_NUMBER_TYPES = frozenset(f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)) - {"f1"}


class _Refused(pickle.UnpicklingError):
    """The pickle holds something that no list of boxes needs."""


class _NumberType:
    """Stands in for `numpy.dtype` of one plain number."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:
        if code not in _NUMBER_TYPES:
            raise _Refused(f"the number type {code!r:.40}")
        self.code, self.order = str(code), "="

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise _Refused("the byte order of a number")
        self.order = str(order)


class _MakeNumberType:
    """Stands in for the callable `numpy.dtype`."""

    __slots__ = ()

    def __call__(self, code: object, *rest: object) -> _NumberType:
        return _NumberType(code, *rest)


class _MakeNumber:
    """Stands in for `numpy.core.multiarray.scalar`."""

    __slots__ = ()

    def __call__(self, kind: object, raw: object) -> int | float:
        if not isinstance(kind, _NumberType) or not isinstance(raw, bytes):
            raise _Refused("a numpy scalar that is no plain number")
        dtype = np.dtype(kind.order.replace("|", "=") + kind.code)
        if len(raw) != dtype.itemsize:
            raise _Refused("a numpy scalar of the wrong length")
        number: int | float = np.frombuffer(raw, dtype)[0].item()
        return number


class _MakeBytes:
    """Stands in for `_codecs.encode`, by which protocol 2 writes bytes."""

    __slots__ = ()

    def __call__(self, text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise _Refused("a text in an encoding")
        return text.encode("latin1")


class _Reader(pickle.Unpickler):
    """Admits lists, tuples, numbers and numpy scalars."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """Answer the names that numpy scalars are written with; refuse every other."""
        if (module, name) in {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}:
            return _MakeNumber()
        if (module, name) == ("numpy", "dtype"):
            return _MakeNumberType()
        if (module, name) == ("_codecs", "encode"):
            return _MakeBytes()
        raise _Refused(_brief(f"{module}.{name}"))

    def persistent_load(self, pid: object) -> object:
        """Refuse references to things outside the file."""
        raise _Refused(f"a reference {pid!r:.40}")


def read_boxes(path: Path) -> list[tuple[float, float, float, float]]:
    """Read a pickled list of boxes, one per frame, as finite numbers within a million.

    Raises:
        AvatarError: The file is missing, too large, no pickle, or holds anything else.
    """
    if not path.is_file():
        raise AvatarError(f"There is no file at {path}.", _HINT)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise AvatarError(f"{path} is larger than {_MAX_BYTES >> 20} MB.", _HINT)
        data = path.read_bytes()
    except OSError as error:
        raise AvatarError(f"{path} cannot be read: {error.strerror}.", _HINT) from error
    try:
        _check_memo(data)
        value = _Reader(io.BytesIO(data)).load()
    except _Refused as error:
        raise AvatarError(
            f"{path} holds {error}, which no list of boxes needs; it was not run.", _HINT
        ) from None
    except Exception as error:  # a broken pickle raises whatever its operations raise
        raise AvatarError(
            f"{path} is not a pickle that can be read: {_brief(first_line(error))}.", _HINT
        ) from error
    if not isinstance(value, (list, tuple)):
        raise AvatarError(f"{path} does not hold a list of boxes.", _HINT)
    return [_box(path, number, entry) for number, entry in enumerate(value)]


def _brief(text: str) -> str:
    """The beginning of a text that the file itself may have written."""
    return " ".join(text[:100].split())


def _check_memo(data: bytes) -> None:
    """Refuse memo numbers that a file of this size cannot need: the reader allocates up to the largest."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.name in _MEMO_WRITES and not 0 <= int(argument or 0) <= len(data):
            raise _Refused("a memo number out of range")


def _box(path: Path, number: int, entry: object) -> tuple[float, float, float, float]:
    sides = entry if isinstance(entry, (list, tuple)) and len(entry) == 4 else ()
    numbers = [side for side in sides if type(side) in (int, float) and abs(side) <= _LIMIT]
    if len(numbers) != 4 or not all(math.isfinite(side) for side in numbers):
        raise AvatarError(f"Entry {number} of {path} is not a box of four numbers.", _HINT)
    return numbers[0], numbers[1], numbers[2], numbers[3]
