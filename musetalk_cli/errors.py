"""The one exception family: raised anywhere, caught once at the edge."""

from __future__ import annotations

_OF_DEVICE = ("cuda error", "cudnn error", "triton error [cuda]")
"""How PyTorch and Triton begin what they tell of CUDA and its libraries."""
_NO_MEMORY = ("out of memory", "alloc_failed", "allocation_failed")
"""What is in it where memory lacks; the last two are in the names of codes of cuBLAS and cuDNN."""


class MuseTalkError(Exception):
    """Something the user can act on.

    Args:
        message: One sentence: what is wrong, and where.
        hint: What to do about it, or None where nothing can be said.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(MuseTalkError):
    """A value, a sound, a picture or a file given by the user cannot be used."""


class MissingError(InputError):
    """An option was left out that has no default here."""


class ModelError(MuseTalkError):
    """A model bundle is missing, incomplete or broken."""


class AvatarError(MuseTalkError):
    """An avatar is missing, incomplete or broken."""


class DeviceError(MuseTalkError):
    """The wanted device is not there or failed."""


class DeviceLostError(DeviceError):
    """The device has failed, and this process can do nothing more on it."""


class OutputError(MuseTalkError):
    """A result cannot be written."""


def is_device_lost(error: BaseException) -> bool:
    """True where CUDA has failed with more than want of memory: every later call fails then, whatever it is.

    Told by what CUDA and its libraries say, so that nobody has to load PyTorch to ask.
    """
    return _is_of_device(error) and not _lacks_memory(error)


def is_device_full(error: BaseException) -> bool:
    """True where CUDA or a library of it has no memory; not always that is an OutOfMemoryError of PyTorch."""
    return _is_of_device(error) and _lacks_memory(error)


def _is_of_device(error: BaseException) -> bool:
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _OF_DEVICE)


def _lacks_memory(error: BaseException) -> bool:
    said = str(error).lower()
    return any(words in said for words in _NO_MEMORY)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, to stand in a sentence: without its full stop.

    Where the error says nothing it is the name of its kind.
    """
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def describe(error: BaseException) -> str:
    """One line that says what failed: the sentence of ours, or the kind of any other and its first line."""
    if isinstance(error, MuseTalkError):
        return error.message
    said = first_line(error)
    kind = type(error).__name__
    return kind if said == kind else f"{kind}: {said}"
