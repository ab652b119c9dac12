"""Import of MuseTalk folders: the golden ones, their variants, and hostile ones."""

import io
import json
import os
import pickle
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from musetalk_cli.avatar.pickles import read_boxes
from musetalk_cli.avatar.store import load_avatar, load_meta, verify
from musetalk_cli.avatar.upstream import import_avatar
from musetalk_cli.errors import AvatarError

GOLDEN = Path(__file__).parent / "data" / "golden" / "avatar"
SHARED = os.environ.get("MUSETALK_TEST_DATA")
PARTS = ("coords.pkl", "mask_coords.pkl")


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(GOLDEN, tmp_path / "upstream"))


def boxes(folder, part="coords.pkl"):
    return pickle.loads((folder / part).read_bytes())


def put(folder, part, value):
    (folder / part).write_bytes(pickle.dumps(value))


def cut(folder, count):
    """Keep the first `count` stored frames, so that what was mirrored is not."""
    for place in ("full_imgs", "mask"):
        for path in sorted((folder / place).iterdir())[count:]:
            path.unlink()
    for part in PARTS:
        put(folder, part, boxes(folder, part)[:count])
    torch.save(torch.load(folder / "latents.pt")[:count], folder / "latents.pt")


def refuse(folder, said):
    avatars = folder.parent / "avatars"
    with pytest.raises(AvatarError, match=said) as caught:
        import_avatar(folder, avatars, "a")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert not avatars.exists() or not list(avatars.iterdir())


@pytest.mark.parametrize(
    "source",
    [
        GOLDEN,
        pytest.param(
            Path(SHARED or ".") / "golden" / "footage" / "avatar",
            marks=pytest.mark.skipif(not SHARED, reason="MUSETALK_TEST_DATA does not name the footage"),
        ),
    ],
)
def test_the_golden_loop_is_halved(source, tmp_path):
    meta = import_avatar(source, tmp_path, "golden")
    avatar = load_avatar(tmp_path, "golden")
    assert verify(tmp_path, "golden") == []
    assert meta == avatar.meta
    assert (meta.frames, meta.fps, meta.model["version"]) == (4, 25, "v15")
    assert [list(box) for box in meta.boxes] == boxes(source)[:4]
    assert [list(box) for box in meta.crop_boxes] == boxes(source, "mask_coords.pkl")[:4]
    latents = torch.cat(torch.load(source / "latents.pt")[:4])
    assert torch.equal(avatar.latents, latents)
    for number in range(4):
        frame = cv2.imread(str(source / "full_imgs" / f"{number:08d}.png"))
        np.testing.assert_array_equal(avatar.frames[number], frame)
        mask = cv2.imread(str(source / "mask" / f"{number:08d}.png"), cv2.IMREAD_GRAYSCALE)
        stored = tmp_path / "golden" / "masks" / f"{number:08d}.png"
        np.testing.assert_array_equal(cv2.imread(str(stored), cv2.IMREAD_UNCHANGED), mask)


def tell(folder, **told):
    """Say more in the folder's own description."""
    path = folder / "avator_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))


def test_a_folder_without_a_rate_says_so_and_is_taken_at_25(folder, tmp_path, caplog):
    assert import_avatar(folder, tmp_path / "avatars", "a").fps == 25
    (said,) = [record.getMessage() for record in caplog.records]
    assert "does not say its frame rate: taken at 25 fps" in said


@pytest.mark.parametrize(("told", "rate"), [(30, 30), ("30000/1001", Fraction(30000, 1001)), (12.5, 12.5)])
def test_a_rate_that_is_told_is_taken_and_nothing_is_said(folder, tmp_path, caplog, told, rate):
    """By the folder, or, before it, by the caller."""
    tell(folder, fps=told)
    assert import_avatar(folder, tmp_path / "avatars", "a").fps == rate
    import_avatar(folder, tmp_path / "avatars", "b", fps=Fraction(24000, 1001))
    assert load_meta(tmp_path / "avatars", "b").fps == Fraction(24000, 1001)
    assert not caplog.records


@pytest.mark.parametrize("told", [0, -25, 1e9, "quick", "1e3"])
def test_a_rate_that_is_none_is_refused(folder, told):
    tell(folder, fps=told)
    refuse(folder, r"fps of .*avator_info\.json")


def test_a_folder_without_the_mirror_is_kept_whole(folder, tmp_path):
    cut(folder, 4)
    (folder / "avator_info.json").unlink()
    meta = import_avatar(folder, tmp_path / "avatars", "plain")
    assert meta.frames == 4
    assert meta.model["version"] == "v15"


@pytest.mark.parametrize("part", ["coords.pkl", "mask_coords.pkl", "latents.pt", "full_imgs", "mask"])
def test_one_part_that_is_not_mirrored_keeps_the_whole(folder, tmp_path, part):
    if part.endswith(".pkl"):
        value = boxes(folder, part)
        shift = [1, 1, 1, 1] if part == "mask_coords.pkl" else [0, 0, -1, 0]
        value[7] = [a + b for a, b in zip(value[7], shift, strict=True)]
        put(folder, part, value)
    elif part == "latents.pt":
        value = torch.load(folder / part)
        value[7] = value[7] + 1
        torch.save(value, folder / part)
    else:
        path = folder / part / "00000007.png"
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        image[0, 0] ^= 255
        cv2.imwrite(str(path), image)
    assert import_avatar(folder, tmp_path / "avatars", "odd").frames == 8


def test_other_encodings_of_the_same_avatar(folder, tmp_path):
    """Any zero padding, three-channel masks, re-encoded files, one half-precision tensor, numpy scalars."""
    for place in ("full_imgs", "mask"):
        for number in range(8):
            path = folder / place / f"{number:08d}.png"
            image = cv2.imread(str(path))
            path.unlink()
            compression = [cv2.IMWRITE_PNG_COMPRESSION, number]
            cv2.imwrite(str(folder / place / f"{number + 95}.png"), image, compression)
    (folder / "full_imgs" / ".DS_Store").write_text("no image")
    put(folder, "coords.pkl", [tuple(np.int64(side) for side in box) for box in boxes(folder)])
    put(folder, "mask_coords.pkl", [[np.float32(s) for s in box] for box in boxes(folder, "mask_coords.pkl")])
    torch.save(torch.cat(torch.load(folder / "latents.pt")).half(), folder / "latents.pt")
    meta = import_avatar(folder, tmp_path / "avatars", "a")
    plain = import_avatar(GOLDEN, tmp_path / "avatars", "b")
    assert (meta.boxes, meta.crop_boxes) == (plain.boxes, plain.crop_boxes)
    a, b = (load_avatar(tmp_path / "avatars", name) for name in "ab")
    np.testing.assert_array_equal(a.frames, b.frames)
    assert torch.allclose(a.latents, b.latents, rtol=1e-2, atol=1e-2)
    for one, other in zip(a.patches, b.patches, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)


def test_boxes_over_the_border_are_clamped(folder, tmp_path):
    value = boxes(folder)
    for number in (0, 7):
        value[number] = [value[number][0], value[number][1], 400, 300]
    put(folder, "coords.pkl", value)
    meta = import_avatar(folder, tmp_path / "avatars", "a")
    assert meta.boxes[0][2:] == (320, 240)
    assert verify(tmp_path / "avatars", "a") == []


def test_counts_that_disagree_name_the_frames(folder):
    (folder / "mask" / "00000003.png").unlink()
    refuse(folder, r"mask/ lacks 00000003\.png.*full_imgs/ 8, mask/ 7")
    (folder / "full_imgs" / "00000003.png").unlink()
    refuse(folder, "full_imgs/ 7, mask/ 7, coords.pkl 8")


def test_latents_that_were_dropped_name_the_faceless_frames(folder):
    value = boxes(folder)
    value[2] = (0.0, 0.0, 0.0, 0.0)
    put(folder, "coords.pkl", value)
    torch.save(torch.load(folder / "latents.pt")[:7], folder / "latents.pt")
    refuse(folder, r"no face for frames 2;.*latents.pt 7; latents.pt ends before frames 7")


def test_placeholders_alone_are_refused(folder):
    value = boxes(folder)
    value[5] = [0, 0, 0, 0]
    put(folder, "coords.pkl", value)
    refuse(folder, "no face for frames 5")


def test_other_files_that_do_not_fit(folder):
    (folder / "mask" / "cover.png").write_bytes(b"")
    refuse(folder, r"cover\.png is not named")
    (folder / "mask" / "cover.png").rename(folder / "mask" / "3.png")
    refuse(folder, "are the same frame")
    (folder / "mask" / "3.png").unlink()
    cv2.imwrite(str(folder / "mask" / "00000000.png"), np.zeros((9, 9), np.uint8))
    refuse(folder, r"00000000\.png is 9x9, but its crop box is 206x206")
    (folder / "mask" / "00000000.png").write_bytes(b"text")
    refuse(folder, "not an image")


def test_missing_parts(folder, tmp_path):
    refuse(tmp_path / "none" / "none", "no avatar folder")
    for part in ("latents.pt", "mask_coords.pkl", "coords.pkl"):
        (folder / part).unlink()
        refuse(folder, part)
    shutil.rmtree(folder / "mask")
    refuse(folder, "mask cannot be read")


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"version": "v9"}', "v9"),
        ('{"bbox_shift": NaN}', "NaN is not"),
    ],
)
def test_wrong_info(folder, info, said):
    (folder / "avator_info.json").write_text(info)
    refuse(folder, said)


def test_the_version_is_kept(folder, tmp_path):
    (folder / "avator_info.json").write_text(json.dumps({"version": "v1", "bbox_shift": 5, "other": {}}))
    meta = import_avatar(folder, tmp_path / "avatars", "a")
    assert (meta.model["version"], meta.parameters["bbox_shift"]) == ("v1", 5)


class Run:
    def __reduce__(self):
        return os.system, ("touch hacked",)


class Nested:
    def __reduce__(self):
        return eval, ("open('hacked', 'w')",)


def scalar(kind, raw):
    """A numpy scalar of any type, as a pickle writes it."""
    return (
        b"\x80\x03cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n"
        + pickle.dumps((kind, False, True), 3)[2:-1]
        + b"RC"
        + bytes([len(raw)])
        + raw
        + b"tR."
    )


def laughs():
    value = [0, 0, 1, 1]
    for _ in range(60):
        value = [value] * 4
    return pickle.dumps(value)


HOSTILE = {
    "system": pickle.dumps([Run()]),
    "eval": pickle.dumps([[0, 0, 1, Nested()]]),
    "system, protocol 0": b"cos\nsystem\n(S'touch hacked'\ntR.",
    "instance": b"(S'touch hacked'\nios\nsystem\n.",
    "builtins through numpy": b"cnumpy\nload\n(S'hacked'\ntR.",
    "attribute of an admitted name": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
    "persistent id": b"Phacked\n.",
    "extension": b"\x80\x02\x82\x01.",
    "object scalar": scalar("O8", pickle.dumps(Run())[:8]),
    "void scalar": scalar("V8", bytes(8)),
    "scalar of the wrong length": scalar("i8", bytes(4)),
    "state of a stand-in": b"\x80\x02cnumpy\ndtype\n}U\x08__call__K\x01sb.",
    "slots of a stand-in": b"\x80\x02cnumpy\ndtype\nN}U\x08__call__K\x01s\x86b.",
    "memo bomb": b"\x80\x02]r" + struct.pack("<I", 2**31 - 1) + b".",
    "length bomb": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "laughs": laughs(),
    "a name of many lines": b"\x80\x04\x8c\x03a\nb\x8c\x03c\nd\x93.",
    "cut off": pickle.dumps([[0, 0, 1, 1]] * 9)[:-8],
    "empty": b"",
    "text": b"This is no pickle.",
    "text inside": pickle.dumps([["0", 0, 1, 1]]),
    "three sides": pickle.dumps([[0, 1, 1]]),
    "not finite": pickle.dumps([[0, 0, 1, float("nan")]]),
    "huge": pickle.dumps([[0, 0, 1, 10**40]]),
    "bool": pickle.dumps([[0, 0, 1, True]]),
    "dict": pickle.dumps({0: [0, 0, 1, 1]}),
    "number": pickle.dumps(5),
    "deep": b"(" * 100_000 + b"l" * 100_000 + b".",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_run_nothing(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coords.pkl").write_bytes(HOSTILE[kind])
    with pytest.raises(AvatarError, match=r"coords\.pkl") as caught:
        read_boxes(tmp_path / "coords.pkl")
    assert "\n" not in caught.value.message
    assert os.listdir(tmp_path) == ["coords.pkl"]  # noqa: PTH208


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint16, np.float32, np.float64, int, float])
def test_numbers_of_every_kind(tmp_path, protocol, kind):
    value = [tuple(kind(side) for side in (1, 2, 300, 400)), [kind(0)] * 4]
    (tmp_path / "coords.pkl").write_bytes(pickle.dumps(value, protocol))
    assert read_boxes(tmp_path / "coords.pkl") == [(1, 2, 300, 400), (0, 0, 0, 0)]


def test_old_and_new_names_and_big_endian_numbers(tmp_path):
    path = tmp_path / "coords.pkl"
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        one = scalar("i8", (7).to_bytes(8, "little"))[2:-1].replace(b"numpy.core.multiarray", module)
        path.write_bytes(b"\x80\x03](" + b"(" + one * 4 + b"l" + b"e.")
        assert read_boxes(path) == [(7, 7, 7, 7)]
    state = b"(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    one = (
        scalar("i8", (7).to_bytes(8, "big"))[2:-1]
        .replace(b"tRRC", b"tRC")
        .replace(b"RC", b"R" + state + b"C")
    )
    path.write_bytes(b"\x80\x03](" + b"(" + one * 4 + b"l" + b"e.")
    assert read_boxes(path) == [(7, 7, 7, 7)]


def test_a_pickle_that_is_too_large(tmp_path):
    with (tmp_path / "coords.pkl").open("wb") as file:
        file.truncate((1 << 24) + 1)
    with pytest.raises(AvatarError, match="larger"):
        read_boxes(tmp_path / "coords.pkl")


def saved(value):
    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (saved([Run()] * 8), "not a file of tensors"),
        (b"text", "not a file of tensors"),
        (b"", "not a file of tensors"),
        (saved({"a": 1}), "does not hold the latents"),
        (saved([1, 2]), "does not hold the latents"),
        (saved(torch.zeros(8, 32, 32)), "does not hold the latents"),
        (saved(torch.zeros(1, 1, 1, 1).expand(10**6, 8, 32, 32)), "latents.pt 1000000"),
        (saved([torch.zeros(1, 4, 32, 32)] * 8), "Entry 0"),
        (saved([torch.zeros(1, 8, 32, 32, dtype=torch.int64)] * 8), "Entry 0"),
        (
            saved([torch.zeros(1, 8, 32, 32)] * 7 + [torch.full((1, 8, 32, 32), torch.nan)]),
            "Entry 7 .* finite",
        ),
        (saved([torch.zeros(1, 8, 32, 32).to_sparse()] * 8), "Entry 0"),
        (saved([torch.zeros(1, 8, 32, 32, device="meta")] * 8), "Entry 0"),
    ],
    ids=range(12),
)
def test_hostile_latents(folder, monkeypatch, data, said):
    monkeypatch.chdir(folder.parent)
    (folder / "latents.pt").write_bytes(data)
    refuse(folder, said)
    assert not Path("hacked").exists()


def test_an_import_over_an_avatar(folder, tmp_path):
    avatars = tmp_path / "avatars"
    import_avatar(folder, avatars, "a")
    with pytest.raises(AvatarError, match="already"):
        import_avatar(folder, avatars, "a")
    cut(folder, 4)
    (folder / "latents.pt").write_bytes(b"text")
    with pytest.raises(AvatarError, match="not a file of tensors"):
        import_avatar(folder, avatars, "a", overwrite=True)
    assert verify(avatars, "a") == []
    with pytest.raises(AvatarError, match="cannot name an avatar"):
        import_avatar(folder, avatars, "../a")


def outside(folder, tmp_path, part):
    """Move a part of an avatar's folder elsewhere, with a link in its place."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / part).rename(elsewhere / Path(part).name)
    return elsewhere / Path(part).name


PLACES = [
    "full_imgs", "mask", "full_imgs/00000002.png", "mask/00000002.png", *PARTS,
    "latents.pt", "avator_info.json",
]  # fmt: skip


@pytest.mark.parametrize("part", PLACES)
@pytest.mark.parametrize("kind", ["absolute", "relative", "twice", "nowhere", "ring"])
def test_links_that_leave_the_folder_are_refused(folder, tmp_path, part, kind):
    target, link = outside(folder, tmp_path, part), folder / part
    if kind == "relative":
        target = os.path.relpath(target, link.parent)
    elif kind == "twice":
        (folder / "step").symlink_to(target)
        target = folder / "step"
    elif kind == "nowhere":
        target = tmp_path / "nowhere"
    elif kind == "ring":
        target = link
    link.symlink_to(target)
    refuse(folder, "is a link that leads (out of the avatar's folder|nowhere)")


def test_the_folder_itself_may_be_a_link_and_links_inside_it_too(folder, tmp_path):
    (folder / "full_imgs").rename(folder / "pictures")
    (folder / "full_imgs").symlink_to("pictures")
    (folder / "mask" / "00000001.png").rename(folder / "one.png")
    (folder / "mask" / "00000001.png").symlink_to(folder / "one.png")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert import_avatar(tmp_path / "link", tmp_path / "avatars", "a").frames == 4


@pytest.mark.parametrize("part", ["full_imgs", "masks", "masks/00000001.png", "latents.safetensors"])
def test_links_out_of_a_finished_avatar_are_not_followed(folder, tmp_path, part):
    import_avatar(folder, tmp_path / "avatars", "a")
    avatar = tmp_path / "avatars" / "a"
    (avatar / part).symlink_to(outside(avatar, tmp_path, part))
    with pytest.raises(AvatarError, match="leads out of the avatar's folder"):
        load_avatar(tmp_path / "avatars", "a")
    assert any("leads out" in problem for problem in verify(tmp_path / "avatars", "a"))


def test_missing_frames_are_counted_not_listed(folder):
    torch.save(torch.zeros(1, 1, 1, 1).expand(10**12, 8, 32, 32), folder / "latents.pt")
    refuse(folder, "latents.pt 1000000000000.* ends before frames 8, 9, 10, 11, 12 and 999999999987 more")
