"""The data that comes with the program is found where an installation puts it, and the wheel carries it."""

import sysconfig
from pathlib import Path

import pytest

from musetalk_cli.nets import embedded as module
from musetalk_cli.nets.embedded import AVATARS, demo_sample, embedded_avatars, embedded_models, places

ROOT = Path(__file__).parents[1]


def test_a_checkout_comes_before_what_a_wheel_installs():
    first, second, *_ = places()
    assert first == ROOT
    assert second == Path(sysconfig.get_path("data")) / "share" / "musetalk"


def test_the_folders_are_those_that_hold_the_demo(embedded):
    assert embedded_models() == embedded / "models"
    assert embedded_avatars() == embedded / "avatars"
    assert demo_sample() == embedded / "avatars" / "demo" / "sample.wav"


@pytest.mark.usefixtures("nothing_embedded")
def test_without_data_there_are_none():
    assert embedded_models() is embedded_avatars() is demo_sample() is None


def test_a_folder_without_the_demo_is_passed_over(installation, tmp_path, monkeypatch):
    for kind in ("models", "avatars"):
        (tmp_path / kind / "mine").mkdir(parents=True)
    monkeypatch.setattr(module, "places", lambda: (tmp_path, installation))
    assert embedded_models() == installation / "models"
    assert embedded_avatars() == installation / "avatars"
    (tmp_path / "avatars" / "demo").mkdir()
    assert embedded_avatars() == tmp_path / "avatars"
    assert demo_sample() is None


def test_the_wheel_carries_all_of_it(installation):
    """Every file of the data is matched by one pattern, and no folder is: setuptools copies files only."""
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    data_files = settings["tool"]["setuptools"]["data-files"]
    carried = []
    for target, patterns in data_files.items():
        source = target.removeprefix("share/musetalk/")
        for pattern in patterns:
            assert pattern.rpartition("/")[0] == source
            carried += installation.glob(pattern)
    assert sorted(carried) == sorted(path for path in installation.rglob("*") if path.is_file())
    for name in AVATARS:
        assert f"share/musetalk/avatars/{name}" in data_files
