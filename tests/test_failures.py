"""Whose a failure inside the engine is, and in which words the device's own are told."""

from types import SimpleNamespace

import pytest
import torch

from musetalk_cli.engine.failures import failing_alone, telling_device_errors
from musetalk_cli.errors import DeviceError, DeviceLostError, InputError, is_device_lost

LOST = "CUDA error: an illegal memory access was encountered"


def failing(session, error):
    with failing_alone(session):
        raise error


def test_what_a_session_fails_with_is_kept_by_it_and_goes_no_further():
    session, other = SimpleNamespace(failure=None), SimpleNamespace(failure=None)
    error = InputError("The sound is shorter than one frame.", "Pass a longer sound.")
    failing(session, error)
    assert session.failure is error
    assert other.failure is None


def test_the_first_failure_of_a_session_is_the_one_that_is_kept():
    session, errors = SimpleNamespace(failure=None), [KeyError("latents"), ValueError("shapes differ")]
    for error in errors:
        failing(session, error)
    assert session.failure is errors[0]


@pytest.mark.parametrize("error", [RuntimeError(LOST), KeyboardInterrupt(), SystemExit(1)])
def test_a_lost_device_and_who_ends_the_program_are_no_sessions_own(error):
    session = SimpleNamespace(failure=None)
    with pytest.raises(type(error)) as raised:
        failing(session, error)
    assert raised.value is error
    assert session.failure is None


def tell(error):
    """What `telling_device_errors` makes of an error; it must make another one of it."""
    with pytest.raises(DeviceError) as raised, telling_device_errors():
        raise error
    assert raised.value.__cause__ is error
    return raised.value


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "Triton Error [CUDA]: out of memory",
    ],
)
def test_want_of_memory_is_told_as_such_in_whatever_words_and_the_device_is_not_lost(said):
    error = tell(RuntimeError(said))
    assert "not enough memory" in error.message
    assert "--batch-size" in error.hint
    assert not isinstance(error, DeviceLostError)
    assert not is_device_lost(error.__cause__)


def test_want_of_memory_is_told_in_the_first_line_of_what_pytorch_says():
    error = tell(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nsecond line"))
    expected = "The device has not enough memory: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert error.message == expected


def test_a_gpu_that_pytorch_has_no_code_for_is_told_with_a_way_out():
    error = tell(RuntimeError("CUDA error: no kernel image is available for execution on the device"))
    assert error.message == f"PyTorch {torch.__version__} has no code for this GPU."
    assert "--device cpu" in error.hint
    assert not isinstance(error, DeviceLostError)


def test_a_lost_device_is_told_as_one():
    error = tell(RuntimeError(LOST))
    assert isinstance(error, DeviceLostError)
    assert error.message == f"The device has failed: {LOST}."


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError(LOST), InputError("No.", "")])
def test_a_mistake_stays_the_mistake_that_it_is(error):
    with pytest.raises(type(error)) as raised, telling_device_errors():
        raise error
    assert raised.value is error
