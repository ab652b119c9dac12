"""Whose a failure inside the engine is: one session's, or the device's and so everybody's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from musetalk_cli.engine.session import Session
from musetalk_cli.errors import DeviceError, DeviceLostError, first_line, is_device_full, is_device_lost


@contextmanager
def failing_alone(session: Session) -> Iterator[None]:
    """What a session fails with is its own: it takes no part any more, and the others go on."""
    try:
        yield
    except Exception as error:
        if is_device_lost(error):
            raise
        session.failure = session.failure or error


@contextmanager
def telling_device_errors() -> Iterator[None]:
    """What is not a mistake but the device's own failure is told as one that the user can act on.

    Raises:
        DeviceError: Its memory does not suffice, or PyTorch has no code for it.
        DeviceLostError: It has failed.
    """
    try:
        yield
    except RuntimeError as error:
        if "no kernel image is available" in str(error):
            raise DeviceError(
                f"PyTorch {torch.__version__} has no code for this GPU.",
                "`musetalk doctor` says which PyTorch has; --device cpu does without the GPU.",
            ) from error
        if isinstance(error, torch.OutOfMemoryError) or is_device_full(error):
            raise DeviceError(
                f"The device has not enough memory: {first_line(error)}.",
                "Use a smaller --batch-size or --precision fp16, and close what else uses the device.",
            ) from error
        if not is_device_lost(error):
            raise
        raise DeviceLostError(
            f"The device has failed: {first_line(error)}.",
            "Start again. Where it comes back `dmesg` may tell why, and --device cpu does without it.",
        ) from error
