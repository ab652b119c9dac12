"""What to do about a failed write, by what the system says of it."""

from __future__ import annotations

import errno
import os
import signal

_SPACE = "Check the free space of the disk."
_PLACE = "Its folder is not there any more: make it again."
_RIGHTS = "Check the permissions of its folder."
_HINTS = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: "Check the free space of the disk, and your share of it.",
    errno.EFBIG: "Check how large a file may be there, and the free space of the disk.",
    errno.EIO: "Check the disk.",
    errno.ENOENT: _PLACE,
    errno.ENOTDIR: _PLACE,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "Choose a folder that can be written.",
    errno.ENOMEM: "Check the free memory.",
}
_SIGNALS = {signal.SIGKILL: "Check the free memory.", signal.SIGXFSZ: _HINTS[errno.EFBIG]}


def write_hint(reason: str) -> str | None:
    """The hint that belongs to a reason; None where the reason is none of the system's.

    Args:
        reason: A sentence that ends as `os.strerror` describes the failure.
    """
    return next((hint for number, hint in _HINTS.items() if reason.endswith(os.strerror(number))), None)


def signal_hint(number: int) -> str | None:
    """What a program that a signal ended may have lacked; None where the signal does not tell."""
    return _SIGNALS.get(signal.Signals(number)) if number in set(signal.Signals) else None
