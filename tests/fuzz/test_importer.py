"""Any folder in place of one that upstream prepared: a sound avatar, or one sentence and no trace."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from peaks import bounded
from upstreams import Files, claimed, folders, lay_out, png, upstream

from musetalk_cli.avatar.store import load_avatar, verify
from musetalk_cli.avatar.upstream import import_avatar
from musetalk_cli.budget import VARIABLE
from musetalk_cli.errors import MuseTalkError

BUDGET = 256 << 20
"""What an import may take."""


def check_sound(avatars, meta, files):
    """The avatar is whole, and nothing else is there."""
    assert [path.name for path in avatars.iterdir()] == ["a"]
    assert verify(avatars, "a") == []
    folder = avatars / "a"
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    for place in ("full_imgs", "masks"):
        assert len(list((folder / place).iterdir())) == meta.frames
    avatar = load_avatar(avatars, "a")
    assert len(avatar.frames) == len(avatar.patches) == len(avatar.latents) == meta.frames
    assert torch.isfinite(avatar.latents).all()
    stored = sum(name.endswith((".png", ".PNG", ".jpg")) for name in files if name.startswith("full_imgs/"))
    assert meta.frames * (2 if meta.parameters["mirrored"] else 1) <= stored


def check(files):
    """Import a folder of these files: the whole property."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as place:
        root = Path(place)
        patch.setenv(VARIABLE, f"{BUDGET >> 20}M")
        patch.chdir(root)
        (root / "outside").mkdir()
        (root / "outside" / "secret").write_bytes(png())
        lay_out(files, root / "upstream")
        refused = meta = None
        try:
            with bounded(BUDGET):
                meta = import_avatar(root / "upstream", root / "avatars", "a")
        except MuseTalkError as error:
            refused = error
        if meta is not None:
            check_sound(root / "avatars", meta, files)
        else:
            assert refused.message.endswith(".")
            assert len(refused.message) < 1500
            assert not list((root / "avatars").glob("*"))
            assert not list((root / "avatars").glob(".*"))
        assert not list(root.rglob("hacked"))
        assert (root / "outside" / "secret").read_bytes() == png()


@given(files=folders())
def test_a_folder_is_a_sound_avatar_or_refused_in_one_sentence(files):
    check(files)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("place", ["full_imgs", "mask"])
def test_small_files_of_large_pictures_are_within_the_budget(mirrored, place):
    files = Files(upstream(2, mirrored=mirrored))
    files |= {name: claimed(8000, 8000, 8000) for name in files if name.startswith(place)}
    files["mask_coords.pkl"] = pickle.dumps([[0, 0, 8000, 8000]] * (4 if mirrored else 2))
    check(files)
