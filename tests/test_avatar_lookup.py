"""A name leads to the chosen folder first, then to the embedded avatars."""

import shutil

import pytest

from musetalk_cli.avatar.lookup import Home, check_removable, find_all, find_avatar
from musetalk_cli.avatar.store import verify
from musetalk_cli.errors import AvatarError


def test_the_chosen_folder_comes_first(embedded, avatars_dir, tmp_path):
    own = embedded / "avatars"
    assert find_avatar(avatars_dir, "synthetic") == Home(
        "synthetic", avatars_dir, avatars_dir / "synthetic", False
    )
    assert find_avatar(avatars_dir, "demo2") == Home("demo2", own, own / "demo2", True)
    assert find_avatar(tmp_path / "none", "demo") == Home("demo", own, own / "demo", True)
    shutil.copytree(avatars_dir / "synthetic", tmp_path / "demo")
    assert find_avatar(tmp_path, "demo") == Home("demo", tmp_path, tmp_path / "demo", False)
    assert verify(own, "demo") == []


def test_a_folder_that_is_no_avatar_hides_none(embedded, tmp_path):
    (tmp_path / "demo").mkdir()
    assert find_avatar(tmp_path, "demo").embedded


def test_all_are_listed_once(embedded, avatars_dir, tmp_path):
    own = embedded / "avatars"
    assert [home.name for home in find_all(avatars_dir)] == ["demo", "demo2", "synthetic"]
    assert find_all(own) == [Home("demo", own, own / "demo", True), Home("demo2", own, own / "demo2", True)]
    link = tmp_path / "link"
    link.symlink_to(own, target_is_directory=True)
    assert find_all(link) == [
        Home("demo", link, link / "demo", True),
        Home("demo2", link, link / "demo2", True),
    ]
    shutil.copytree(avatars_dir / "synthetic", tmp_path / "demo")
    assert find_all(tmp_path)[0] == Home("demo", tmp_path, tmp_path / "demo", False)
    assert find_all(tmp_path / "none") == find_all(own)


def test_what_lies_beside_the_embedded_avatars_is_somebodys_own(
    installation, avatars_dir, tmp_path, monkeypatch
):
    shutil.copytree(installation / "avatars", tmp_path / "checkout" / "avatars")
    shutil.copytree(avatars_dir / "synthetic", tmp_path / "checkout" / "avatars" / "anna")
    monkeypatch.setattr("musetalk_cli.nets.embedded.places", lambda: (tmp_path / "checkout",))
    assert [home.name for home in find_all(tmp_path)] == ["demo", "demo2"]
    with pytest.raises(AvatarError, match="no avatar anna"):
        find_avatar(tmp_path, "anna")
    assert not find_avatar(tmp_path / "checkout" / "avatars", "anna").embedded


def test_an_unknown_name_lists_what_there_is(embedded, avatars_dir, tmp_path):
    with pytest.raises(AvatarError, match=f"no avatar eve in {avatars_dir}") as caught:
        find_avatar(avatars_dir, "eve")
    assert caught.value.hint == "There are: synthetic; embedded are: demo, demo2."
    with pytest.raises(AvatarError) as caught:
        find_avatar(tmp_path, "eve")
    assert caught.value.hint == "embedded are: demo, demo2."


@pytest.mark.usefixtures("nothing_embedded")
def test_without_embedded_avatars(avatars_dir, tmp_path):
    assert find_all(avatars_dir) == [Home("synthetic", avatars_dir, avatars_dir / "synthetic", False)]
    assert find_all(tmp_path) == []
    with pytest.raises(AvatarError) as caught:
        find_avatar(tmp_path, "demo")
    assert "none" in caught.value.hint


@pytest.mark.parametrize("name", ["", "..", "../demo", "demo/../demo", "/demo"])
def test_names_that_leave_the_folder(embedded, tmp_path, name):
    with pytest.raises(AvatarError, match="cannot name an avatar"):
        find_avatar(tmp_path, name)


def test_an_embedded_avatar_is_not_removed_from_whatever_folder_is_chosen(embedded, avatars_dir):
    for folder in (avatars_dir, embedded / "avatars"):
        with pytest.raises(AvatarError, match="came with the program") as caught:
            check_removable(folder, "demo")
        assert caught.value.hint is None
    check_removable(avatars_dir, "synthetic")
