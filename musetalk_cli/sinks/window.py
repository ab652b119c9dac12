"""A window on the screen that shows the newest frame and takes keys."""

from __future__ import annotations

import math
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from musetalk_cli.errors import OutputError
from musetalk_cli.media import pipe_writer
from musetalk_cli.sinks import viewer
from musetalk_cli.types import Frame, StreamFormat

START_S = 20.0
"""How long the window's process may take to start on a busy machine."""
END_S = 3.0
"""How long it may take to close."""
LISTEN_S = 0.1
"""How long the thread that hears the window waits at once."""


class DisplaySink:
    """Shows frames in a window; one that comes while the last is being drawn is not shown.

    Space or `i` interrupts, once for each press; `q`, Esc or the close button closes. What the user does is
    told at once, in a thread of the window's own, also while no frame flows. A closed window takes all later
    frames and shows none. The window lives in a process of its own, which ends with this one.

    Args:
        overlay: Gives the line that is drawn over each frame; what is not ASCII becomes a question mark.
        on_interrupt: Called when the user interrupts.
        on_close: Called once, when the user closes the window.

    Attributes:
        name: What messages and reports call it.
        watched: True: somebody watches as the frames come.

    Raises:
        OutputError: There is no screen, it cannot be reached, or OpenCV has no windows.
    """

    def __init__(
        self, overlay: Callable[[], str], on_interrupt: Callable[[], None], on_close: Callable[[], None]
    ) -> None:
        self.name = "window"
        self.watched = True
        self._overlay = overlay
        self._on_interrupt = on_interrupt
        self._on_close = on_close
        self._process: subprocess.Popen[bytes] | None = None
        self._frames: pipe_writer.PipeWriter | None = None
        self._said: IO[bytes] | None = None
        self._ready = False
        self._patience = self._missed = 0
        self._failure: OutputError | None = None
        self._lock = threading.RLock()
        self._ear = threading.Thread(target=self._hear, name="window", daemon=True)
        check_screen()

    def open(self, stream: StreamFormat) -> None:
        """Open the window, black.

        Raises:
            OutputError: The screen went away since it was checked.
        """
        self._patience = math.ceil(pipe_writer.STALL_S * stream.fps)
        read_end, write_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                _command(stream.width, stream.height),
                stdin=read_end,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,  # Ctrl-C in the terminal is for the stream, which then closes it
            )
        except OSError as error:
            os.close(write_end)
            raise OutputError(f"The window cannot be started: {error.strerror}.") from error
        finally:
            os.close(read_end)
        self._frames, self._said = pipe_writer.PipeWriter(write_end), self._process.stdout
        with self._lock:
            self._listen(START_S)
            if not self._ready:
                raise OutputError("The window did not open.", _SCREEN_HINT)
        self._ear.start()

    def write(self, frame: Frame) -> None:
        """Show a frame if the window is ready for one.

        Raises:
            OutputError: Window process or screen went away, or took nothing for `pipe_writer.STALL_S`.
        """
        with self._lock:
            self._listen(0.0)
            if self._failure is not None:
                raise self._failure
            if self._frames is None or self._frames.closed:
                return
            self._missed = 0 if self._ready else self._missed + 1
            if self._ready:
                self._show(self._frames, frame)
            elif self._missed > self._patience:
                self._stuck()

    def _show(self, frames: pipe_writer.PipeWriter, frame: Frame) -> None:
        self._ready = False
        # one line of a fixed length goes before each frame
        text = self._overlay().encode("ascii", "replace").partition(b"\n")[0]
        frames.push(memoryview(text[: viewer.TEXT].ljust(viewer.TEXT, b"\0")))
        frames.push(np.ascontiguousarray(frame.image).data.cast("B"))
        try:
            pipe_writer.drain({frames: 0})
        except TimeoutError:
            self._stuck()
        except OSError:
            self._listen(END_S)

    def _stuck(self) -> NoReturn:
        self._kill()
        raise OutputError(f"The window took nothing for {pipe_writer.STALL_S:g} s.", _SCREEN_HINT)

    def finish(self) -> None:
        """Close the window."""
        self._end(END_S)
        self._join()

    def abort(self) -> None:
        """Close the window at once; safe to call at any time, from any thread, also while another writes."""
        self._kill()
        self._join()

    def _kill(self) -> None:
        """End the process; whoever holds the lock may call it, since nobody is waited for."""
        if (process := self._process) is not None:
            process.kill()
        self._end(0.0)

    def _hear(self) -> None:
        """The window's thread: tell what the user does, as it comes."""
        while (said := self._said) is not None:
            try:
                if _readable(said, LISTEN_S):
                    with self._lock:
                        self._listen(0.0)
            except OutputError as error:
                self._failure = error
            except (OSError, ValueError):  # closed between both lines
                return

    def _join(self) -> None:
        if self._ear.is_alive() and threading.current_thread() is not self._ear:
            self._ear.join()

    def _listen(self, seconds: float) -> None:
        """Take what the window says, waiting so long for the first of it.

        Raises:
            OutputError: It ended without the user's wish.
        """
        while self._said is not None and _readable(self._said, seconds):
            seconds = 0.0
            told = self._said.read(64) or b""
            if not told:
                self._kill()
                raise OutputError("The window is gone: its screen or its process has ended.", _SCREEN_HINT)
            self._ready = self._ready or viewer.READY in told
            for _ in range(told.count(viewer.INTERRUPT)):
                self._on_interrupt()
            if viewer.CLOSED in told:
                self._end(END_S)
                self._on_close()

    def _end(self, seconds: float) -> None:
        with self._lock:
            process, said = self._process, self._said
            self._process = self._said = None
            self._ready = False
            if self._frames is not None:
                self._frames.close()
            if process is None or said is None:
                return
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.kill()
            process.wait()
            said.close()


def _readable(stream: IO[bytes], seconds: float) -> bool:
    poller = select.poll()
    poller.register(stream, select.POLLIN)
    return bool(poller.poll(seconds * 1e3))


_SCREEN_HINT = "Run it in a desktop session, or without a window."


def check_screen() -> None:
    """Make sure that a window can be opened.

    Raises:
        OutputError: It cannot.
    """
    import cv2

    if any(line.split() == ["GUI:", "NONE"] for line in cv2.getBuildInformation().splitlines()):
        raise OutputError(
            "This OpenCV was built without windows.",
            "pip uninstall opencv-python-headless && pip install --force-reinstall opencv-python",
        )
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise OutputError("There is no screen here: DISPLAY and WAYLAND_DISPLAY are not set.", _SCREEN_HINT)
    try:
        done = subprocess.run(
            _command("probe"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=START_S,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OutputError(f"The screen did not answer for {START_S:g} s.", _SCREEN_HINT) from error
    except OSError as error:
        raise OutputError(f"The window cannot be started: {error.strerror}.") from error
    if done.returncode != 0:
        screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "here"
        raise OutputError(f"The screen {screen} cannot be reached.", _SCREEN_HINT)


def _command(*arguments: object) -> list[str]:
    """The viewer, run as a file."""
    return [sys.executable, str(Path(viewer.__file__)), *map(str, arguments)]
