"""A virtual camera that meetings and recorders can choose."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from musetalk_cli.errors import OutputError
from musetalk_cli.media.even import even, to_even
from musetalk_cli.types import Frame, StreamFormat

if TYPE_CHECKING:
    import pyvirtualcam

log = logging.getLogger(__name__)

DEVICES = Path("/sys/devices/virtual/video4linux")
_INSTALL = (
    "Load v4l2loopback: sudo modprobe v4l2loopback exclusive_caps=1"
    if sys.platform == "linux"
    else "Install OBS Studio, and start its virtual camera once."
)


class VirtualCameraSink:
    """Shows each frame when it is written; a camera has no sound.

    Attributes:
        name: What messages and reports call it.
        watched: True: somebody watches as the frames come.

    Raises:
        OutputError: The library is missing, or there is no device.
    """

    def __init__(self) -> None:
        self.name = "virtual camera"
        self.watched = True
        try:
            import pyvirtualcam  # noqa: F401 - told now rather than after the networks are loaded
        except ImportError as error:
            raise OutputError(
                "A virtual camera needs pyvirtualcam.", "pip install 'musetalk-cli[camera]'"
            ) from error
        if sys.platform == "linux" and not any(DEVICES.glob("video*")):
            raise OutputError("There is no virtual camera device.", _INSTALL)
        self._camera: pyvirtualcam.Camera | None = None

    def open(self, stream: StreamFormat) -> None:
        """Take the device; odd sizes get their last column or row twice, as cameras have none.

        Raises:
            OutputError: No device can be had.
        """
        import pyvirtualcam

        try:
            self._camera = pyvirtualcam.Camera(
                even(stream.width),
                even(stream.height),
                float(stream.fps),
                fmt=pyvirtualcam.PixelFormat.BGR,
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise OutputError(f"No virtual camera can be opened: {reason}.", _INSTALL) from error

    def write(self, frame: Frame) -> None:
        """Show one frame.

        Raises:
            OutputError: The device refuses it.
        """
        if self._camera is None:
            return
        try:
            self._camera.send(to_even(frame.image))
        except (RuntimeError, OSError) as error:
            raise OutputError(f"The virtual camera takes no frame: {error}.") from error

    def finish(self) -> None:
        """Give the device back."""
        if self._camera is not None:
            camera, self._camera = self._camera, None
            camera.close()

    def abort(self) -> None:
        """Give the device back; safe to call at any time."""
        try:
            self.finish()
        except (RuntimeError, OSError) as error:
            log.warning("The virtual camera could not be closed: %s", error)
