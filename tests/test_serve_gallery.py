import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from musetalk_cli.config import DataFolder, JobConfig
from musetalk_cli.errors import AvatarError, ModelError
from musetalk_cli.serve import gallery
from musetalk_cli.serve.gallery import Gallery


def test_what_is_wrong_with_an_avatar_is_told_without_where_it_is(coloured_run, monkeypatch):
    def fails(folder, name):
        raise AvatarError(f"{folder / name / 'avatar.json'} cannot be read: Permission denied.")

    # by hand: whoever runs the tests may be one who may read everything
    monkeypatch.setattr(gallery, "load_meta", fails)
    monkeypatch.setattr(gallery, "load_avatar", fails)
    shown = Gallery(coloured_run, JobConfig(), 1 << 30)
    reasons = {home.name: reason for home, _, reason in shown.all()}
    assert reasons["red"] == "avatar.json cannot be read: Permission denied."
    with pytest.raises(AvatarError, match=r"^avatar\.json cannot be read"):
        shown.faces.take("red")


@pytest.fixture
def run(coloured_run, tmp_path):
    """With avatars that a test may change."""
    folder = tmp_path / "avatars"
    shutil.copytree(coloured_run.avatars.path, folder)
    return replace(coloured_run, avatars=DataFolder(folder, "flag"))


def offered(shown):
    return [home.name for home, _, reason in shown.all() if reason is None]


def test_an_avatar_that_was_prepared_anew_is_shown_as_it_is_now(run):
    shown, folder = Gallery(run, JobConfig(), 1 << 30), run.avatars.path
    old = shown.faces.take("red")
    shutil.copytree(folder / "red", folder / "new")
    for path in (folder / "new" / "full_imgs").iterdir():
        cv2.imwrite(str(path), np.full_like(cv2.imread(str(path)), (0, 200, 0)))
    shutil.rmtree(folder / "red")
    (folder / "new").rename(folder / "red")
    new = shown.faces.take("red")
    assert (old.avatar.frames[0][0, 0] == (0, 0, 200)).all()
    assert (new.avatar.frames[0][0, 0] == (0, 200, 0)).all()


def test_the_pictures_shown_in_silence_are_looked_at_too(run):
    shown = Gallery(run, JobConfig(idle_avatar="blue"), 1 << 30)
    old = shown.faces.take("red")
    assert shown.faces.take("red") is old
    description = run.avatars.path / "blue" / "avatar.json"
    text = description.read_text()
    description.unlink()
    description.write_text(text + "\n")
    assert shown.faces.take("red") is not old


def test_one_that_cannot_be_shown_holds_up_no_other_and_is_not_offered(run, caplog):
    shown, tried = Gallery(run, JobConfig(), 1 << 30), []

    def warm_up(avatar):
        tried.append(avatar.meta.name)
        if avatar.meta.name == "blue":
            raise ModelError("What comes out is not a number.")

    shown.rehearse(warm_up)
    assert tried == ["blue", "red"]
    assert [line.message for line in caplog.records] == [
        "Avatar blue is not offered: What comes out is not a number."
    ]
    assert offered(shown) == ["red"]
    with pytest.raises(AvatarError, match="not a number"):
        shown.faces.take("blue")
    description = run.avatars.path / "blue" / "avatar.json"
    description.write_text(description.read_text() + "\n")
    assert offered(shown) == ["blue", "red"], "it was prepared anew"
    shown.faces.take("blue")


def test_one_with_a_damaged_file_holds_up_no_other(run):
    latents = run.avatars.path / "blue" / "latents.safetensors"
    latents.write_bytes(latents.read_bytes()[:100])
    shown, tried = Gallery(run, JobConfig(), 1 << 30), []
    shown.rehearse(tried.append)
    assert [avatar.meta.name for avatar in tried] == ["red"]
    assert offered(shown) == ["red"]


def test_where_none_can_be_shown_the_first_says_why(run):
    shown = Gallery(run, JobConfig(), 1 << 30)

    def warm_up(avatar):
        raise ModelError(f"{avatar.meta.name} is not a number.")

    with pytest.raises(ModelError, match="blue is not a number"):
        shown.rehearse(warm_up)
    assert shown.faces.held > 0, "they stay as long as there is room"
