"""Names of avatars: scripts, spellings, and the true reason of a refusal."""

import shutil
import unicodedata
from contextlib import nullcontext
from dataclasses import replace

import pytest
from handmade import write_avatar

from musetalk_cli.avatar.lookup import find_avatar
from musetalk_cli.avatar.names import MAX_NAME_BYTES, is_name, same_name, validate_name
from musetalk_cli.avatar.store import list_avatars, load_avatar, load_idle, load_meta, remove, verify
from musetalk_cli.avatar.upstream import import_avatar
from musetalk_cli.avatar.workspace import Workspace, discard_unfinished, list_unfinished
from musetalk_cli.avatar.writer import AvatarWriter
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.errors import AvatarError
from musetalk_cli.text import printable

GOOD = [
    "数字人", "my avatar", "Änna", "नमस्ते", "สวัสดี", "שלום", "مرحبا", "Ελένη", "Иван", "ひろ子", "김",
    "می\u200cنم", "٣", "_x", "a.b-c_d", "v1.5", "con2", "console", "com10", "a con",
]  # fmt: skip
BAD = [
    ("", "it is empty"),
    ("../x", "separates folders"),
    ("a/b", "separates folders"),
    ("a\\b", "separates folders"),
    (".", "a dot in front"),
    (".a", "a dot in front"),
    ("a.", "a dot at the end"),
    (" a", "a space is at its beginning or end"),
    ("a ", "a space is at its beginning or end"),
    ("-a", "taken for an option"),
    ("a\n", r"control character U\+000A"),
    ("a\x1b[31m", r"control character U\+001B"),
    ("a\0", r"control character U\+0000"),
    ("a\x9b", r"control character U\+009B"),
    ("a\u202eb", r"control character U\+202E"),
    ("a\u200c", r"control character U\+200C"),
    ("\ud800a", "not valid text in Unicode"),
    ("a\u3000b", "another space"),
    ("a\u00a0b", "another space"),
    ("a*", r"holds '\*' \(U\+002A\)"),
    ("a:b", "holds ':'"),
    ("a🙂", r"U\+1F642"),
    ("\u0301a", "combining mark"),
    ("CON", "reserved"),
    ("nul.txt", "reserved"),
    ("com1", "reserved"),
    ("LPT9 .x", "reserved"),
    ("a" * 201, "201 bytes"),
    ("数" * 67, "201 bytes"),
]


@pytest.fixture(scope="module")
def avatars(tmp_path_factory):
    """An avatar `Änna` with an idle clip, and one whose folder is spelled in decomposed form."""
    folder = tmp_path_factory.mktemp("avatars")
    made = synthetic_avatar(96, 96, 48, 2)
    masks = [made.frames[0][: box.height, : box.width, 0] for box in made.meta.crop_boxes]
    meta = replace(made.meta, name="Änna", idle_frames=2)
    write_avatar(folder, meta, made.frames, masks, made.latents.numpy(), made.frames)
    shutil.copytree(folder / "Änna", folder / unicodedata.normalize("NFD", "Zoë"))
    return folder


@pytest.mark.parametrize("name", GOOD)
def test_letters_and_digits_of_every_script_are_names(name):
    assert validate_name(name) == unicodedata.normalize("NFC", name)
    assert is_name(name)


@pytest.mark.parametrize(("name", "reason"), BAD)
def test_a_refusal_gives_its_true_reason_wherever_a_name_is_taken(tmp_path, golden, name, reason):
    uses = (
        validate_name,
        lambda n: load_meta(tmp_path, n),
        lambda n: remove(tmp_path, n),
        lambda n: find_avatar(tmp_path, n),
        lambda n: verify(tmp_path, n),
        lambda n: AvatarWriter(tmp_path, n),
        lambda n: discard_unfinished(tmp_path, n),
        lambda n: import_avatar(golden / "avatar", tmp_path, n),
    )
    for use in uses:
        with pytest.raises(AvatarError, match=reason) as caught:
            use(name)
        assert printable(caught.value.message) == caught.value.message
    assert not is_name(name)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_can_be_written(tmp_path):
    name = "数" * (MAX_NAME_BYTES // 3)
    with Workspace(tmp_path, name, key={"a": 1}):
        pass
    with AvatarWriter(tmp_path, name):
        pass


@pytest.mark.parametrize("spelling", ["Änna", "A\u0308nna", "änna", "ÄNNA", "a\u0308NNA"])
def test_every_spelling_finds_the_avatar(avatars, spelling):
    home = find_avatar(avatars, spelling)
    assert (home.name, home.folder) == ("Änna", avatars / "Änna")
    assert load_meta(avatars, spelling).name == "Änna"
    assert verify(avatars, spelling) == []
    assert len(load_avatar(avatars, spelling).frames) == 2
    assert len(load_idle(avatars, load_meta(avatars, spelling)).pictures) == 2
    for overwrite in (False, True):
        with nullcontext() if overwrite else pytest.raises(AvatarError, match="already an avatar Änna"):
            assert Workspace(avatars, spelling, overwrite=overwrite).target == avatars / "Änna"


def test_a_decomposed_folder_is_listed_and_found_composed(avatars):
    assert list_avatars(avatars) == ["Zoë", "Änna"]
    assert all(unicodedata.is_normalized("NFC", name) for name in list_avatars(avatars))
    meta = load_meta(avatars, "zoë")
    assert meta.name == "Zoë", "the folder names the avatar, not what is in it"
    assert len(load_idle(avatars, meta).pictures) == 2


def test_of_two_spellings_the_exact_one_is_meant(avatars, tmp_path):
    for name in ("anna", "Anna"):
        shutil.copytree(avatars / "Änna", tmp_path / name)
    assert load_meta(tmp_path, "anna").name == "anna"
    assert load_meta(tmp_path, "Anna").name == "Anna"
    with pytest.raises(AvatarError, match="ANNA may be any of the avatars Anna, anna"):
        load_meta(tmp_path, "ANNA")
    remove(tmp_path, "anna")
    assert list_avatars(tmp_path) == ["Anna"]
    remove(tmp_path, "aNNA")
    assert list_avatars(tmp_path) == []


def test_unfinished_work_is_found_in_every_spelling(tmp_path):
    for spelling in ("Änna", "a\u0308nna"):
        with pytest.raises(KeyboardInterrupt), Workspace(tmp_path, spelling, key={"a": 1}) as workspace:
            (workspace.folder / "done").touch()
            raise KeyboardInterrupt
    assert list_unfinished(tmp_path) == ["Änna"]
    assert discard_unfinished(tmp_path, "ÄNNA")
    assert list(tmp_path.iterdir()) == []


def test_commands_take_every_spelling(musetalk, avatars, golden, tmp_path):
    for command in ("show", "verify"):
        code, out, err = musetalk("avatars", command, "änna", "--avatars-dir", avatars)
        assert code == 0, err
        assert "Änna" in out
    for spelling, overwrite in (("my face", ()), ("My Face", ("--overwrite",))):
        code, out, err = musetalk(
            "avatars", "import", golden / "avatar", "--name", spelling, "--avatars-dir", tmp_path, *overwrite
        )
        assert code == 0, err
        assert out.startswith("Imported my face: ")
    assert musetalk("avatars", "show", "no body", "--avatars-dir", tmp_path)[0] == 1
    assert musetalk("avatars", "remove", "MY FACE", "--avatars-dir", tmp_path)[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_names_are_the_same_by_canonical_caseless_matching():
    assert same_name("Straße", "STRASSE")
    assert same_name("\u212b", "a\u030a")
    assert not same_name("anna", "änna")
