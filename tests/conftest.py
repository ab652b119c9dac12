"""Golden data and what is made of it, shared by the tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """Upstream's results on a small random-weight bundle."""
    return Path(__file__).parent / "data" / "golden"


@pytest.fixture(scope="session")
def avatars_dir(golden, tmp_path_factory):
    """A folder with the golden avatar, imported as `synthetic`; read only."""
    from musetalk_cli.avatar.upstream import import_avatar

    folder = tmp_path_factory.mktemp("avatars")
    import_avatar(golden / "avatar", folder, "synthetic")
    return folder


@pytest.fixture(scope="session")
def golden_bundle(golden):
    """The golden networks on the CPU in fp32."""
    import torch

    from musetalk_cli.nets.bundle import load_bundle

    return load_bundle(str(golden / "models"), Path(), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def golden_avatar(avatars_dir):
    """The golden avatar, loaded."""
    from musetalk_cli.avatar.store import load_avatar

    return load_avatar(avatars_dir, "synthetic")


@pytest.fixture(scope="session")
def golden_sound(golden):
    """The golden sound, float32 `[n]` at 16 kHz, read by a library of its own."""
    import soundfile

    return soundfile.read(golden / "audio.wav", dtype="float32")[0]
