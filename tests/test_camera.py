"""The virtual camera, against a stand-in with the interface of pyvirtualcam 0.11 and later."""

import inspect
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from cameras import Camera, PixelFormat, plug_in

from musetalk_cli.errors import OutputError
from musetalk_cli.sinks import VirtualCameraSink
from musetalk_cli.types import Frame, FrameRequest, StreamFormat


@pytest.fixture
def device(tmp_path, monkeypatch):
    plug_in(monkeypatch, tmp_path)
    return tmp_path


def frame(width, height, number):
    image = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
    image.setflags(write=False)
    request = FrameRequest(number, torch.zeros(0), np.zeros((640, 1), np.float32), 0.0, 0.0, 0)
    return Frame(request, image, Fraction(number, 25), 0.0)


def test_the_stand_in_takes_what_the_library_takes():
    real = pytest.importorskip("pyvirtualcam", reason="pyvirtualcam is not installed")
    assert real.PixelFormat.BGR.value == PixelFormat.BGR.value
    for name in ("__init__", "send", "close"):
        wanted, found = (inspect.signature(getattr(kind, name)) for kind in (real.Camera, Camera))
        assert list(wanted.parameters) == list(found.parameters)


@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
def test_frames_are_shown_as_they_are(device, size):
    sink = VirtualCameraSink()
    sink.open(StreamFormat(*size, Fraction(30000, 1001), 16_000, 1))
    frames = [frame(*size, number) for number in range(3)]
    for one in frames:
        sink.write(one)
    sink.finish()
    sink.abort()
    (made,) = Camera.made
    assert made.settings == (64, 48, pytest.approx(29.97, abs=1e-3), PixelFormat.BGR, False)
    for one, sent in zip(frames, made.sent, strict=True):
        np.testing.assert_array_equal(sent[: size[1], : size[0]], one.image)
    assert made.closed == 1
    assert (sink.name, sink.watched) == ("virtual camera", True)


def test_abort_gives_the_device_back_and_may_come_at_any_time(device):
    sink = VirtualCameraSink()
    sink.abort()
    sink.open(StreamFormat(64, 48, Fraction(25), 16_000, 1))
    sink.abort()
    sink.abort()
    assert Camera.made[0].closed == 1


def test_a_missing_library_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(OutputError, match=r"^A virtual camera needs pyvirtualcam\.$") as error:
        VirtualCameraSink()
    assert error.value.hint == "pip install 'musetalk-cli[camera]'"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows its devices as files")
def test_a_missing_device_is_told_before_anything_is_opened(device):
    (device / "video0").rmdir()
    with pytest.raises(OutputError, match=r"^There is no virtual camera device\.$") as error:
        VirtualCameraSink()
    assert "v4l2loopback" in error.value.hint
    assert not Camera.made


def test_a_device_that_is_refused_is_told_in_one_sentence(device, monkeypatch):
    monkeypatch.setattr(Camera, "refuses", "'v4l2loopback' backend: Device /dev/video0\ncould not be opened.")
    sink = VirtualCameraSink()
    words = (
        "^No virtual camera can be opened: 'v4l2loopback' backend: Device /dev/video0 could not be opened\\.$"
    )
    with pytest.raises(OutputError, match=words):
        sink.open(StreamFormat(64, 48, Fraction(25), 16_000, 1))
    sink.abort()


def test_a_device_that_goes_away_is_told(device, monkeypatch):
    sink = VirtualCameraSink()
    sink.open(StreamFormat(64, 48, Fraction(25), 16_000, 1))

    def gone(self, frame):
        raise RuntimeError("error writing to device")

    monkeypatch.setattr(Camera, "send", gone)
    with pytest.raises(OutputError, match="takes no frame: error writing to device"):
        sink.write(frame(64, 48, 0))
    sink.abort()
