"""Ctrl-C, SIGTERM and a terminal that goes away: the program ends with 130, and its files are complete.

While nothing is being written the first of them ends it at once. While a stream runs the first one asks it to
end and complete its files, and the second one ends it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from musetalk_cli.live.control import ControlHandle

Handler = Callable[[int, "FrameType | None"], None]

INTERRUPTED = 130
"""What the program ends with, whichever signal it was."""


@contextmanager
def end_on_signals() -> Iterator[None]:
    """Each of the signals raises KeyboardInterrupt, wherever the main thread is."""
    with _handled(_raise):
        yield


@contextmanager
def stop_on_signals() -> Iterator[ControlHandle]:
    """What ends a stream from outside: the first signal does so once it runs, and every other one raises."""
    handle = ControlHandle()

    def stop_or_raise(number: int, frame: FrameType | None) -> None:
        at_once = handle.stop.is_set() or not handle.bound
        handle.stop.set()
        if at_once:
            _raise(number, frame)

    with _handled(stop_or_raise):
        yield handle


def _raise(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP go to a handler; a SIGHUP that is ignored stays so, as `nohup` wants it."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)
