"""A stand-in for the module `pyvirtualcam` and the device it writes to."""

import sys
import types
from enum import Enum

import numpy as np

from musetalk_cli.sinks import camera


class PixelFormat(Enum):
    RGB = "raw "
    BGR = "24BG"


class Camera:
    """What `pyvirtualcam.Camera` takes and checks; it keeps what it was sent."""

    made = ()
    refuses = None

    def __init__(
        self,
        width,
        height,
        fps,
        *,
        fmt=PixelFormat.RGB,
        device=None,
        backend=None,
        print_fps=False,
        **kw,
    ):
        if self.refuses is not None:
            raise RuntimeError(self.refuses)
        self.settings = (width, height, fps, fmt, print_fps)
        self.shape = (height, width, 3)
        self.sent = []
        self.closed = 0
        Camera.made += (self,)

    def send(self, frame):
        if frame.dtype != np.uint8:
            raise TypeError(f"unexpected frame dtype: {frame.dtype} != uint8")
        if frame.shape != self.shape:
            raise ValueError(f"unexpected frame shape: {frame.shape} != {self.shape}")
        self.sent.append(frame.copy())

    def sleep_until_next_frame(self):
        raise AssertionError("whoever calls the sink keeps the time")

    def close(self):
        self.closed += 1


def plug_in(monkeypatch, folder):
    """The library is there, and a device, which the system shows in this folder."""
    module = types.ModuleType("pyvirtualcam")
    module.Camera, module.PixelFormat = Camera, PixelFormat
    monkeypatch.setitem(sys.modules, "pyvirtualcam", module)
    monkeypatch.setattr(Camera, "made", ())
    monkeypatch.setattr(Camera, "refuses", None)
    monkeypatch.setattr(camera, "DEVICES", folder)
    (folder / "video0").mkdir()
