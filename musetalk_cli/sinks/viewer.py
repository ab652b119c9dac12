"""The process behind the window: frames in by standard input, what the user did out by standard output.

It is run as a file, so that it loads nothing but OpenCV. Toolkits of windows want the main thread, and end
their process when the screen goes away; here both concern nobody else.

A message is `TEXT` bytes of overlay, padded with zeros, and a frame, uint8 `[height, width, 3]` BGR.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musetalk_cli.types import Image

TEXT = 160
"""Bytes of an overlay."""
READY, INTERRUPT, CLOSED = b"s", b"i", b"q"
"""What it says: ready for the next frame; space or i was pressed; q, Esc or the close button."""
TITLE = "MuseTalk"
XLIB_BRIDGE = "libX11-xcb.so.1"
"""The system's library with which a toolkit tells Xlib that the events are its own."""

_REPEAT_S = 0.75
"""A key that comes again within this is held down: no keyboard waits longer before it repeats."""
_POLL_MS = 10
_KEYS = dict.fromkeys(b" iI", INTERRUPT) | dict.fromkeys(b"qQ\x1b", CLOSED)


def main(width: int, height: int) -> None:
    """Show frames until the input ends or the user closes the window."""
    _load_bridge()
    import cv2
    import numpy as np

    message = np.zeros(TEXT + width * height * 3, np.uint8)
    messages = os.fdopen(0, "rb")
    image = message[TEXT:].reshape(height, width, 3)
    cv2.namedWindow(TITLE, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
    cv2.imshow(TITLE, image)
    _say(READY)
    poller = select.poll()
    poller.register(messages, select.POLLIN)
    pressed: dict[int, float] = {}
    while True:
        if poller.poll(_POLL_MS):
            if messages.readinto(message.data) < len(message):
                return
            text = bytes(message[:TEXT]).rstrip(b"\0").decode("ascii", "replace")
            _draw(image, text)
            cv2.imshow(TITLE, image)
            _say(READY)
        key = cv2.waitKey(1) & 0xFF
        now = time.monotonic()
        held = now - pressed.get(key, -_REPEAT_S) < _REPEAT_S
        pressed[key] = now
        said = _KEYS.get(key) if _visible() else CLOSED
        if said == CLOSED:
            _say(CLOSED)
            return
        if said is not None and not held:
            _say(said)


def _load_bridge() -> None:
    """Let OpenCV's toolkit find the bridge that fits the system's Xlib, where there is one.

    The one in OpenCV's wheel is older: it writes who owns the events where a newer Xlib keeps something else.
    Xlib then takes some of them for itself; where it takes that the window is on the screen, it stays black.
    """
    with suppress(OSError):
        ctypes.CDLL(XLIB_BRIDGE, mode=ctypes.RTLD_GLOBAL)


def probe() -> None:
    """Open a window and close it; where there is no screen the toolkit ends the process."""
    import cv2

    cv2.namedWindow(TITLE)
    cv2.destroyAllWindows()


def _visible() -> bool:
    import cv2

    try:
        return bool(cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1)
    except cv2.error:
        return False


def _draw(image: Image, text: str) -> None:
    """One line at the top left, white on a dark edge."""
    import cv2

    scale = max(0.4, image.shape[0] / 1000)
    for colour, weight in ((0, 3), (255, 1)):
        thick = max(1, round(weight * scale))
        at = (round(12 * scale), round(30 * scale))
        cv2.putText(
            image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (colour,) * 3, thick + weight // 2, cv2.LINE_AA
        )


def _say(what: bytes) -> None:
    os.write(1, what)


if __name__ == "__main__":
    if sys.argv[1:] == ["probe"]:
        probe()
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
