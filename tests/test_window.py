"""The window, on a screen of its own."""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from descriptors import FIRST, crowded
from processes import open_descriptors

from musetalk_cli.errors import OutputError
from musetalk_cli.media import pipe_writer
from musetalk_cli.sinks import DisplaySink, viewer
from musetalk_cli.types import Frame, FrameRequest, StreamFormat

STREAM = StreamFormat(200, 160, Fraction(25), 16_000, 1)
LIMIT_S = 30
HELD_S = 2.0
"""Many repeats: the first comes after 0.66 s, and then 25 a second."""

missing = [tool for tool in ("Xvfb", "xdotool", "import") if shutil.which(tool) is None]
needs_screen = pytest.mark.skipif(
    bool(missing), reason=f"no screen for tests: {', '.join(missing)} not found"
)


def start_screen():
    """An X server that chooses its own number and tells it."""
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=(write_end,), stderr=subprocess.DEVNULL)
    os.close(write_end)
    with os.fdopen(read_end) as told:
        assert select.select([told], [], [], LIMIT_S)[0], "Xvfb does not start"
        number = told.readline().strip()
    return server, f":{number}"


@pytest.fixture
def screen(monkeypatch):
    server, display = start_screen()
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    yield server
    server.kill()
    server.wait()


class Told:
    """What a sink told, and the frames that keep it talking."""

    def __init__(self, overlay=""):
        self.interrupts = self.closes = 0
        self.said = threading.Event()
        self.sink = DisplaySink(lambda: overlay, self._interrupt, self._close)

    def _interrupt(self):
        self.interrupts += 1
        self.said.set()

    def _close(self):
        self.closes += 1
        self.said.set()

    def write_until(self, reached, seconds=LIMIT_S):
        """Write frames as fast as a window draws, until something holds; for so long: a look may be slow."""
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            self.sink.write(frame(number))
            if reached():
                return True
            number += 1
            self.said.wait(0.01)
            self.said.clear()
        return False


def frame(number=0, image=None):
    if image is None:
        image = np.zeros((STREAM.height, STREAM.width, 3), np.uint8)
        image[:, :100], image[:, 100:] = (10, 200, 90), (250, 30, 60)
        image[110:, 50:] = (40, 50, 240)
    image.setflags(write=False)
    request = FrameRequest(number, torch.zeros(0), np.zeros((640, 1), np.float32), 0.0, 0.0, 0)
    return Frame(request, image, number / STREAM.fps, 0.0)


def press(*arguments, closes=False):
    """Without a window manager nobody gives the window the keyboard, so this does.

    A window that a key closes may be gone before the key is let go, which is then told as a failure.
    """
    command = ["xdotool", "search", "--sync", "--name", viewer.TITLE, "windowfocus", "--sync", *arguments]
    subprocess.run(command, check=not closes, timeout=LIMIT_S, capture_output=True)


def screenshot(path):
    subprocess.run(["import", "-silent", "-window", "root", path], check=True, timeout=LIMIT_S)
    return cv2.imread(str(path))


def place(shot, image):
    """Where an image lies in a screenshot, and how far the pixels there are from it."""
    distance = cv2.matchTemplate(shot, image, cv2.TM_SQDIFF)
    least, _, (x, y), _ = cv2.minMaxLoc(distance)
    return (x, y), least


@needs_screen
def test_pixels_of_a_frame_are_on_the_screen_with_one_line_over_them(screen, tmp_path):
    told = Told("25 fps ünd\nmore")
    told.sink.open(STREAM)
    path = tmp_path / "shot.png"
    below = slice(60, STREAM.height)
    wanted = frame().image
    seen = []

    def shown():
        shot = screenshot(path)
        (x, y), apart = place(shot, wanted[below].copy())
        seen[:] = [shot[y - 60 : y, x : x + STREAM.width]]
        return apart == 0

    assert told.write_until(shown)
    told.sink.finish()
    assert seen[0].shape == (60, STREAM.width, 3)
    differs = (seen[0] != wanted[:60]).any(axis=2)
    assert 50 < differs.sum() < 5000
    assert np.ptp(np.flatnonzero(differs.any(axis=1))) < 20
    assert (seen[0][differs].min(axis=1) > 200).any()
    assert (told.interrupts, told.closes) == (0, 0)


@needs_screen
def test_the_window_is_told_to_the_systems_xlib_by_its_own_bridge(screen, started):
    """With the one in OpenCV's wheel, Xlib took events of the toolkit, and some windows stayed black."""
    try:
        ctypes.CDLL(viewer.XLIB_BRIDGE)
    except OSError:
        pytest.skip(f"the system has no {viewer.XLIB_BRIDGE}")
    told = Told()
    told.sink.open(STREAM)
    (window,) = started()
    loaded = [line.split()[-1] for line in Path(f"/proc/{window}/maps").read_text().splitlines()]
    told.sink.finish()
    bridges = list(dict.fromkeys(path for path in loaded if "libX11-xcb" in path))
    packed = [path for path in bridges if "opencv" in path]
    assert len(bridges) > len(packed), "who owns the events is told to nobody"


@needs_screen
def test_keys_interrupt_and_close(screen, started):
    told = Told()
    told.sink.open(STREAM)
    told.sink.write(frame())
    press("key", "space")
    assert told.write_until(lambda: told.interrupts == 1)
    press("key", "i")
    assert told.write_until(lambda: told.interrupts == 2)
    press("key", "x")
    press("key", "Escape", closes=True)
    assert told.write_until(lambda: told.closes == 1)
    assert not started(), "it is closed before its end is told"
    for number in range(3):
        told.sink.write(frame(number))
    told.sink.finish()
    assert (told.interrupts, told.closes) == (2, 1)


@pytest.mark.slow
@needs_screen
def test_a_key_that_is_held_down_is_one_press(screen):
    told = Told()
    told.sink.open(STREAM)
    told.sink.write(frame())
    press("keydown", "space")
    assert told.write_until(lambda: told.interrupts == 1)
    told.write_until(lambda: False, HELD_S)
    press("keyup", "space")
    assert told.interrupts == 1
    told.sink.abort()


@pytest.mark.slow
@needs_screen
def test_the_close_button_closes(screen):
    told = Told()
    told.sink.open(STREAM)
    told.sink.write(frame())
    found = subprocess.run(["xdotool", "search", "--name", viewer.TITLE], capture_output=True, check=True)
    name = found.stdout.split()[0].decode()
    close = (
        "import ctypes, sys\n"
        "x = ctypes.CDLL('libX11.so.6')\n"
        "x.XOpenDisplay.restype = ctypes.c_void_p\n"
        "d = ctypes.c_void_p(x.XOpenDisplay(None))\n"
        "atom = lambda name: x.XInternAtom(d, name, 0)\n"
        "class Event(ctypes.Structure):\n"
        "    _fields_ = [('type', ctypes.c_int), ('serial', ctypes.c_ulong), ('sent', ctypes.c_int),\n"
        "        ('display', ctypes.c_void_p), ('window', ctypes.c_ulong), ('message', ctypes.c_ulong),\n"
        "        ('format', ctypes.c_int), ('data', ctypes.c_long * 5), ('pad', ctypes.c_long * 24)]\n"
        "w = int(sys.argv[1])\n"
        "e = Event(33, 0, 1, d, w, atom(b'WM_PROTOCOLS'), 32)\n"
        "e.data[0] = atom(b'WM_DELETE_WINDOW')\n"
        "x.XSendEvent(d, ctypes.c_ulong(w), 0, ctypes.c_long(0), ctypes.byref(e))\n"
        "x.XSync(d, 0)\n"
    )
    subprocess.run([sys.executable, "-c", close, name], check=True, timeout=LIMIT_S)
    assert told.write_until(lambda: told.closes == 1)
    assert told.interrupts == 0


@pytest.mark.slow
@needs_screen
def test_it_works_from_a_thread_that_is_not_the_main_one_and_again(screen):
    for _ in range(2):
        told = Told()

        def show(told=told):
            told.sink.open(STREAM)
            told.sink.write(frame())
            told.sink.finish()

        thread = threading.Thread(target=show)
        thread.start()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


@needs_screen
def test_a_screen_that_goes_away_is_told_and_ends_nobody_else(screen, started):
    told = Told()
    told.sink.open(STREAM)
    told.sink.write(frame())
    assert len(started()) == 1
    screen.kill()
    with pytest.raises(OutputError, match="The window is gone"):
        told.write_until(lambda: False)
    assert not started()
    told.sink.abort()


@needs_screen
def test_a_window_that_is_stuck_drops_frames_and_then_is_told(screen, started, monkeypatch):
    monkeypatch.setattr(pipe_writer, "STALL_S", 1)
    told = Told()
    told.sink.open(STREAM)
    (window,) = started()
    os.kill(window, signal.SIGSTOP)
    for number in range(10):
        told.sink.write(frame(number, np.zeros((160, 200, 3), np.uint8)) if number else tiny())
    with pytest.raises(OutputError, match="took nothing for 1 s"):
        for number in range(30):
            told.sink.write(frame(number))
    assert not started()


def tiny():
    return frame(0, np.zeros((1, 1, 3), np.uint8))


@needs_screen
def test_abort_may_come_at_any_time(screen, started):
    told = Told()
    told.sink.abort()
    told.sink.open(STREAM)
    assert len(started()) == 1
    told.sink.abort()
    told.sink.abort()
    told.sink.write(frame())
    told.sink.finish()
    assert not started()


def make():
    return DisplaySink(str, lambda: None, lambda: None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems need no variable for their screen")
def test_no_screen_is_told(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OutputError, match="There is no screen here"):
        make()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems need no variable for their screen")
def test_a_screen_that_cannot_be_reached_is_told(monkeypatch, capfd):
    monkeypatch.setenv("DISPLAY", ":59999")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OutputError, match=r"^The screen :59999 cannot be reached\.$"):
        make()
    assert capfd.readouterr() == ("", "")


def test_an_opencv_without_windows_is_told(monkeypatch):
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           NONE\n")
    with pytest.raises(OutputError, match="built without windows"):
        make()


@pytest.mark.slow
@needs_screen
def test_a_window_of_a_program_with_many_open_files(screen):
    with crowded():
        told = Told()
        before = open_descriptors()
        told.sink.open(STREAM)
        assert min(open_descriptors() - before) > FIRST
        told.sink.write(frame())
        told.sink.finish()
