from pathlib import Path

import pytest

from musetalk_cli.config import Sharpen, default_folder, parse_sharpen
from musetalk_cli.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("off", None),
        ("on", Sharpen(1.2, 1.0, 5.0)),
        ("0.5", Sharpen(0.5, 1.0, 5.0)),
        ("0.5,2", Sharpen(0.5, 2.0, 5.0)),
        ("0.5,2,0", Sharpen(0.5, 2.0, 0.0)),
    ],
)
def test_sharpening_is_read(text, expected):
    assert parse_sharpen(text) == expected


@pytest.mark.parametrize("text", ["", "yes", "1,2,3,4", "-1", "1,0", "1,1,-1", "nan", "1,inf", "1,,2"])
def test_bad_sharpening_is_refused(text):
    with pytest.raises(InputError, match="--sharpen"):
        parse_sharpen(text)


def test_a_folder_in_the_working_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_folder("models").origin == "user data folder"
    (tmp_path / "models").mkdir()
    place = default_folder("models")
    assert place.origin == "working folder"
    assert place.path == Path.cwd() / "models"
