import errno
import os
import signal

import pytest

from musetalk_cli.media.hints import signal_hint, write_hint


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENOSPC, "space"), (errno.EDQUOT, "space"), (errno.ENOENT, "folder"),
        (errno.EACCES, "permissions"), (errno.EROFS, "folder"), (errno.ENOMEM, "memory"),
    ],
)  # fmt: skip
def test_a_hint_belongs_to_what_the_system_says(number, word):
    hint = write_hint(f"Error writing trailer of file:x: {os.strerror(number)}")
    assert word in hint
    assert ("space" in hint) == (word == "space")


@pytest.mark.parametrize("reason", ["Input contains (near) NaN/+-Inf", "Unsupported channel layout", ""])
def test_what_is_not_the_systems_has_no_hint(reason):
    assert write_hint(reason) is None


def test_signals_have_the_hint_that_they_allow():
    assert "memory" in signal_hint(signal.SIGKILL)
    assert "space" in signal_hint(signal.SIGXFSZ)
    assert signal_hint(signal.SIGSEGV) is None
    assert signal_hint(1000) is None
