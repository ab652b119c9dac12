"""The avatars' folder: what is written is read back, and nothing half-written or hostile gets through."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from handmade import without_faces, write_avatar
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from musetalk_cli.avatar.data import Patch
from musetalk_cli.avatar.description import AvatarMeta
from musetalk_cli.avatar.store import (
    list_avatars,
    load_avatar,
    load_meta,
    measure,
    remove,
    verify,
)
from musetalk_cli.avatar.writer import AvatarWriter
from musetalk_cli.errors import AvatarError, OutputError
from musetalk_cli.face.boxes import crop_box
from musetalk_cli.types import Box

WIDTH, HEIGHT = 96, 80
REST = {
    "fps": Fraction(30000, 1001),
    "parameters": {"bbox_shift": 0, "extra_margin": 10, "mask": "outline", "smooth": "off"},
    "model": {"version": "v15"},
    "source": {"name": "a.mp4", "sha256": "0" * 64},
}


def content(count, seed=0):
    rng = np.random.default_rng(seed)
    frames = [rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8) for _ in range(count)]
    boxes = [Box(20 + n, 10, 60 + n, 70) for n in range(count)]
    masks = []
    for box in boxes:
        crop = crop_box(box)
        mask = np.zeros((crop.height, crop.width), np.uint8)
        mask[crop.height // 2 : crop.height // 2 + 20, 30:-30] = rng.integers(1, 256)
        masks.append(mask)
    return frames, masks, boxes, rng.normal(size=(count, 8, 32, 32)).astype(np.float32)


def write(folder, name, count=3, seed=0, **options):
    frames, masks, boxes, latents = content(count, seed)
    with AvatarWriter(folder, name, **options) as writer:
        for frame, mask, box in zip(frames, masks, boxes, strict=True):
            writer.add(frame, mask, box, crop_box(box))
        writer.add_latents(latents)
        return writer.finish(**REST)


@pytest.fixture
def avatars(tmp_path):
    folder = tmp_path / "avatars"
    write(folder, "anna")
    return folder


def change(avatars, **fields):
    path = avatars / "anna" / "avatar.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def left_over(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_what_is_written_is_read_back(avatars):
    frames, masks, boxes, latents = content(3)
    avatar = load_avatar(avatars, "anna")
    assert list_avatars(avatars) == left_over(avatars) == ["anna"]
    assert verify(avatars, "anna") == []
    assert avatar.meta == load_meta(avatars, "anna")
    assert avatar.meta.fps == Fraction(30000, 1001)
    np.testing.assert_array_equal(avatar.frames, frames)
    np.testing.assert_array_equal(avatar.latents.numpy(), latents)
    for patch, mask, box in zip(avatar.patches, masks, boxes, strict=True):
        crop = crop_box(box)
        whole = np.zeros((HEIGHT, WIDTH), np.uint8)
        inside = crop.intersect(box)
        whole[inside.slices()] = mask[inside.shift(-crop.x1, -crop.y1).slices()]
        again = np.zeros_like(whole)
        again[patch.box.slices()] = patch.mask
        np.testing.assert_array_equal(again, whole)
        assert patch.face == box
        assert patch.box.intersect(box) == patch.box


def test_the_description_is_plain(avatars):
    data = json.loads((avatars / "anna" / "avatar.json").read_text())
    assert data["format"] == 1
    assert data["frames"] == 3
    assert data["fps"] == "30000/1001"
    assert data["boxes"][0] == [20, 10, 60, 70]
    assert data["crop_boxes"][0] == list(crop_box(Box(20, 10, 60, 70)))
    assert replace(load_meta(avatars, "anna"), fps=Fraction(25)).to_json().count('"fps": 25,') == 1


def test_memory_is_told_without_the_frames(avatars):
    avatar = load_avatar(avatars, "anna")
    masks = sum(patch.mask.size for patch in avatar.patches)
    assert measure(avatars, "anna") == avatar.memory()
    assert avatar.memory().device_bytes == 4 * masks + 3 * 8 * 32 * 32 * 4
    assert avatar.memory().host_bytes == 3 * WIDTH * HEIGHT * 3 + masks
    assert avatar.meta.face_scale == 60 / 256


def test_an_empty_mask_is_a_patch_of_one_pixel():
    face = Box(10, 10, 40, 50)
    crop = crop_box(face)
    patch = Patch.cut(np.zeros((crop.height, crop.width), np.uint8), face, crop, (96, 80))
    assert patch.box == Box(10, 10, 11, 11)
    assert patch.mask.tolist() == [[0]]


def test_an_unknown_avatar_lists_the_known(avatars, tmp_path):
    write(avatars, "bob")
    with pytest.raises(AvatarError, match="There is no avatar eve") as caught:
        load_avatar(avatars, "eve")
    assert "anna, bob" in caught.value.hint
    assert str(avatars) in caught.value.message
    with pytest.raises(AvatarError) as caught:
        load_avatar(tmp_path / "none", "eve")
    assert "none" in caught.value.hint


def test_a_taken_name_needs_overwrite(avatars):
    with pytest.raises(AvatarError, match="already") as caught:
        write(avatars, "anna", seed=1)
    assert "--overwrite" in caught.value.hint
    write(avatars, "anna", seed=1, overwrite=True)
    np.testing.assert_array_equal(load_avatar(avatars, "anna").frames, content(3, seed=1)[0])
    assert left_over(avatars) == ["anna"]


def test_a_folder_that_is_no_avatar_is_not_overwritten(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(AvatarError, match="is not an avatar"):
        write(tmp_path, "photos", overwrite=True)
    assert left_over(tmp_path) == ["photos"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_writer_leaves_nothing(avatars, error):
    frames, masks, boxes, _ = content(1)

    def interrupted():
        with AvatarWriter(avatars, "anna", overwrite=True) as writer:
            writer.add(frames[0], masks[0], boxes[0], crop_box(boxes[0]))
            raise error

    with pytest.raises(error):
        interrupted()
    assert left_over(avatars) == ["anna"]
    assert verify(avatars, "anna") == []


def test_the_old_one_comes_back_where_the_new_one_cannot_be_placed(avatars, monkeypatch):
    real, calls = Path.rename, []

    def rename(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OutputError, match="No space left"):
        write(avatars, "anna", seed=1, overwrite=True)
    assert left_over(avatars) == ["anna"]
    np.testing.assert_array_equal(load_avatar(avatars, "anna").frames, content(3)[0])


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write(tmp_path, "anna")
    assert left_over(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file", "anna")


def test_what_a_killed_writer_left_is_removed(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from musetalk_cli.avatar.writer import AvatarWriter\n"
        "with AvatarWriter(Path(sys.argv[1]), 'anna'): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False, cwd=Path(__file__).parents[1])
    assert len(left_over(tmp_path)) == 1
    with AvatarWriter(tmp_path, "other"), AvatarWriter(tmp_path, "anna"):
        assert list_avatars(tmp_path) == []
        with AvatarWriter(tmp_path, "anna"):
            assert len(left_over(tmp_path)) == 3
    assert left_over(tmp_path) == []


def test_the_writer_refuses_what_does_not_fit(tmp_path):
    frames, masks, boxes, latents = content(2)
    crop = crop_box(boxes[0])
    with AvatarWriter(tmp_path, "anna") as writer:
        with pytest.raises(AvatarError, match="not inside"):
            writer.add(frames[0], masks[0], Box(50, 10, 97, 70), crop)
        with pytest.raises(AvatarError, match="crop box"):
            writer.add(frames[0], masks[0][1:], boxes[0], crop)
        writer.add(frames[0], masks[0], boxes[0], crop)
        with pytest.raises(AvatarError, match="frame 0 is 96x80"):
            writer.add(frames[1][1:], masks[1], boxes[1], crop)
        with pytest.raises(AvatarError, match="frame 1 are not finite"):
            writer.add_latents(np.concatenate([latents[:1], latents[1:] * np.float32("nan")]))
        with pytest.raises(AvatarError, match="shape"):
            writer.add_latents(latents[:, :4])
        writer.add_latents(latents)
        with pytest.raises(AvatarError, match="1 frames and 2 latents"):
            writer.finish(**REST)
    assert left_over(tmp_path) == []


def png(path, shape):
    cv2.imwrite(str(path), np.zeros(shape, np.uint8))


BROKEN = {
    "lacks 00000001.png": lambda f: (f / "full_imgs" / "00000001.png").unlink(),
    "masks/ lacks 00000000.png, 00000001.png": lambda f: [p.unlink() for p in (f / "masks").iterdir()],
    "has 00000003.png": lambda f: png(f / "masks" / "00000003.png", (2, 2)),
    "00000000.png is 95x80": lambda f: png(f / "full_imgs" / "00000000.png", (80, 95, 3)),
    "00000002.png is 7x7": lambda f: png(f / "masks" / "00000002.png", (7, 7)),
    "00000002.png is broken": lambda f: (f / "masks" / "00000002.png").write_bytes(b"text"),
    "lacks 00000002.png": lambda f: (
        (f / "masks" / "00000002.png").unlink(),
        os.mkfifo(f / "masks" / "00000002.png"),
    ),
    "latents.safetensors": lambda f: (f / "latents.safetensors").unlink(),
    "cannot be read": lambda f: (f / "latents.safetensors").write_bytes(b"\xff" * 64),
    r"F32 \[2, 8, 32, 32\]": lambda f: save_file({"latents": content(2)[3]}, f / "latents.safetensors"),
    "F64": lambda f: save_file({"latents": content(3)[3].astype(float)}, f / "latents.safetensors"),
    "one tensor": lambda f: save_file(
        {"latents": content(3)[3], "more": content(1)[3]}, f / "latents.safetensors"
    ),
    "frame 2 are not finite": lambda f: save_file(
        {"latents": content(3)[3] * np.array([1, 1, np.inf], np.float32)[:, None, None, None]},
        f / "latents.safetensors",
    ),
}


@pytest.mark.parametrize("said", BROKEN)
def test_broken_files_are_named(avatars, said):
    BROKEN[said](avatars / "anna")
    assert_broken(avatars, said)


def assert_broken(avatars, said):
    """Loading says in one sentence what is wrong with an avatar, and verifying finds nothing else."""
    with pytest.raises(AvatarError, match=said) as caught:
        load_avatar(avatars, "anna")
    assert "\n" not in caught.value.message
    assert len(verify(avatars, "anna")) == 1


def test_verify_collects(avatars):
    (avatars / "anna" / "full_imgs" / "00000000.png").write_bytes(b"")
    (avatars / "anna" / "masks" / "00000001.png").unlink()
    (avatars / "anna" / "latents.safetensors").unlink()
    assert len(verify(avatars, "anna")) == 3
    change(avatars, format=2)
    assert len(verify(avatars, "anna")) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 2}, {"format": True}, {"format": "1"}, {"frames": 10**12}, {"frames": 2}, {"frames": 3.0},
        {"frames": -1}, {"width": "96"}, {"width": 10**9}, {"height": 0}, {"fps": "1e999999999"}, {"fps": 0},
        {"fps": "25/0"}, {"fps": [25]}, {"fps": True}, {"name": "../x"}, {"name": 5}, {"boxes": "boxes"},
        {"boxes": None}, {"boxes": [["0", "0", "1", "1"]] * 3}, {"boxes": [[0, 0, 1]] * 3},
        {"boxes": [[0, 0, 97, 80]] * 3}, {"boxes": [[5, 5, 5, 9]] * 3}, {"boxes": [[0, 0, 1, 1.5]] * 3},
        {"boxes": [[-1, 0, 5, 5]] * 3}, {"crop_boxes": [[0, 0, 10**9, 10**9]] * 3},
        {"crop_boxes": [[200, 200, 300, 300]] * 3}, {"crop_boxes": []}, {"parameters": []}, {"model": {}},
        {"model": {"version": 15}}, {"source": None}, {"boxes": [None] * 3}, {"crop_boxes": [None] * 3},
        {"boxes": [None] * 3, "crop_boxes": [None] * 3}, {"rest_frames": [-1]}, {"rest_frames": [3]},
        {"rest_frames": [1, 0]}, {"rest_frames": [1, 1]}, {"rest_frames": [1.0]}, {"rest_frames": [True]},
        {"rest_frames": "1"}, {"rest_frames": None}, {"rest_frames": {}}, {"idle_frames": -1},
        {"idle_frames": 10**7}, {"idle_frames": 2.0}, {"idle_frames": True}, {"idle_frames": None},
        {"report": []}, {"report": None}, {"report": "none"}, {"latents_sha256": 5},
        {"latents_sha256": "0" * 63},
    ],
)  # fmt: skip
def test_a_hostile_description_is_one_sentence(avatars, fields):
    change(avatars, **fields)
    with pytest.raises(AvatarError) as caught:
        load_meta(avatars, "anna")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    assert verify(avatars, "anna") == [caught.value.message]


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", "{" * 10_000, "[" * 200_000, '{"fps": NaN}', '{"frames": ' + "9" * 9999 + "}"],
)
def test_what_is_no_description(text):
    with pytest.raises(AvatarError, match=r"avatar\.json"):
        AvatarMeta.from_json(text)


def test_remove(avatars):
    write(avatars, "bob")
    remove(avatars, "anna")
    assert left_over(avatars) == ["bob"]
    with pytest.raises(AvatarError, match="no avatar anna"):
        remove(avatars, "anna")


def test_remove_follows_no_link(avatars, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere, "real")
    (avatars / "link").symlink_to(elsewhere / "real", target_is_directory=True)
    remove(avatars, "link")
    assert verify(elsewhere, "real") == []
    (avatars / "anna" / "outside").symlink_to(elsewhere, target_is_directory=True)
    remove(avatars, "anna")
    assert verify(elsewhere, "real") == []
    assert left_over(avatars) == []


def test_remove_takes_no_other_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(AvatarError, match="no avatar photos"):
        remove(tmp_path, "photos")
    assert left_over(tmp_path) == ["photos"]


def write_by_hand(folder, numbers=(), idle=(), **fields):
    """An avatar of five frames called anna, some of which pass through; its frames, boxes and latents."""
    frames, masks, boxes, latents = content(5)
    meta = AvatarMeta(
        "anna", Fraction(25), WIDTH, HEIGHT, tuple(boxes), tuple(map(crop_box, boxes)), **PLAIN, **fields
    )
    latents[list(numbers)] = 0
    kept = [None if number in numbers else mask for number, mask in enumerate(masks)]
    write_avatar(folder, without_faces(meta, numbers), frames, kept, latents, idle)
    return frames, boxes, latents


PLAIN = {"parameters": {}, "model": {"version": "v15"}, "source": {}}
SOME = st.sets(st.integers(0, 4), max_size=4)


@given(
    numbers=SOME,
    rest=SOME,
    idle=st.integers(0, 3),
    report=st.dictionaries(st.text(), st.integers(-(2**53), 2**53)),
)
@settings(max_examples=25, deadline=None)
def test_frames_that_pass_through_are_read_back(tmp_path_factory, numbers, rest, idle, report):
    folder = tmp_path_factory.mktemp("avatars")
    fields = {"rest_frames": tuple(sorted(rest)), "idle_frames": idle, "report": report}
    frames, boxes, latents = write_by_hand(folder, numbers, content(idle, seed=9)[0], **fields)
    avatar = load_avatar(folder, "anna")
    assert verify(folder, "anna") == []
    assert avatar.meta == load_meta(folder, "anna") == AvatarMeta.from_json(avatar.meta.to_json())
    assert {name: getattr(avatar.meta, name) for name in fields} == fields
    assert avatar.meta.passthrough_frames == tuple(sorted(numbers))
    assert avatar.meta.frames == 5
    np.testing.assert_array_equal(avatar.frames, frames)
    np.testing.assert_array_equal(avatar.latents.numpy(), latents)
    assert [patch and patch.face for patch in avatar.patches] == list(avatar.meta.boxes)
    assert [box for box in avatar.meta.boxes if box] == [boxes[n] for n in range(5) if n not in numbers]
    assert avatar.meta.face_scale == 60 / 256
    masks = sum(patch.mask.size for patch in avatar.patches if patch)
    assert measure(folder, "anna") == avatar.memory()
    assert avatar.memory().device_bytes == 4 * masks + 5 * 8 * 32 * 32 * 4
    assert avatar.memory().host_bytes == 5 * WIDTH * HEIGHT * 3 + masks, "the idle clip is not loaded"


def test_the_face_scale_is_that_of_the_faces(tmp_path):
    write_by_hand(tmp_path, {0, 1})
    meta = load_meta(tmp_path, "anna")
    boxes = (None, None, Box(0, 0, 9, 10), Box(0, 0, 9, 20), Box(0, 0, 9, 40))
    assert replace(meta, boxes=boxes).face_scale == 20 / 256


def test_an_older_description_is_read(avatars):
    path = avatars / "anna" / "avatar.json"
    plain = load_meta(avatars, "anna")
    data = json.loads(path.read_text())
    for key in ("rest_frames", "idle_frames", "report", "latents_sha256"):
        del data[key]
    path.write_text(json.dumps(data | {"skipped_frames": [1, 4]}))
    assert load_meta(avatars, "anna") == replace(plain, latents_sha256=None)
    assert verify(avatars, "anna") == []
    assert (plain.rest_frames, plain.idle_frames, plain.report, plain.passthrough_frames) == ((), 0, {}, ())
    assert "skipped_frames" not in plain.to_json()


@pytest.mark.parametrize("key", ["boxes", "crop_boxes"])
def test_a_frame_has_both_boxes_or_none(avatars, key):
    boxes = json.loads((avatars / "anna" / "avatar.json").read_text())[key]
    change(avatars, **{key: [boxes[0], None, boxes[2]]})
    with pytest.raises(AvatarError, match=r"Frame 1 of avatar\.json has one of box and crop box, not both"):
        load_meta(avatars, "anna")


def test_one_frame_at_least_has_a_face(tmp_path):
    write_by_hand(tmp_path, {0, 1, 2, 3})
    assert len(load_meta(tmp_path, "anna").passthrough_frames) == 4
    write_by_hand(tmp_path / "none", range(5))
    with pytest.raises(AvatarError, match=r"No frame of avatar\.json has a face"):
        load_meta(tmp_path / "none", "anna")


BROKEN_BY_HAND = {
    "masks/ lacks 00000002.png": lambda f: (f / "masks" / "00000002.png").unlink(),
    "masks/ has 00000001.png, which": lambda f: png(f / "masks" / "00000001.png", (2, 2)),
    "full_imgs/ lacks 00000001.png": lambda f: (f / "full_imgs" / "00000001.png").unlink(),
    "idle/ lacks 00000001.png": lambda f: (f / "idle" / "00000001.png").unlink(),
    "idle/ has 00000002.png": lambda f: png(f / "idle" / "00000002.png", (HEIGHT, WIDTH, 3)),
    "idle/ has first.png": lambda f: png(f / "idle" / "first.png", (HEIGHT, WIDTH, 3)),
    "idle/ cannot be read": lambda f: shutil.rmtree(f / "idle"),
    "idle/00000000.png is 95x80": lambda f: png(f / "idle" / "00000000.png", (80, 95, 3)),
    "idle/00000000.png is broken": lambda f: (f / "idle" / "00000000.png").write_bytes(b"text"),
    "latents of frame 1 are not finite": lambda f: save_file(
        {"latents": content(5)[3] * np.array([1, np.inf, 1, 1, 1], np.float32)[:, None, None, None]},
        f / "latents.safetensors",
    ),
}


@pytest.mark.parametrize("said", BROKEN_BY_HAND)
def test_broken_files_of_an_avatar_with_all_kinds_of_frames(tmp_path, said):
    write_by_hand(tmp_path, {1}, content(2, seed=9)[0], idle_frames=2)
    assert verify(tmp_path, "anna") == []
    BROKEN_BY_HAND[said](tmp_path / "anna")
    assert_broken(tmp_path, said)


def test_a_broken_picture_of_the_idle_clip_is_found(tmp_path):
    """Loading looks at the header only; verify decodes."""
    write_by_hand(tmp_path, (), content(2, seed=9)[0], idle_frames=2)
    path = tmp_path / "anna" / "idle" / "00000001.png"
    path.write_bytes(path.read_bytes()[:60])
    load_avatar(tmp_path, "anna")
    assert verify(tmp_path, "anna") == ["idle/00000001.png is broken."]


def test_an_idle_clip_the_description_does_not_know(tmp_path):
    write_by_hand(tmp_path, (), content(1)[0])
    [problem] = verify(tmp_path, "anna")
    assert problem == "idle/ has 00000000.png, which the description does not know."
    with pytest.raises(AvatarError, match=r"idle/ has 00000000\.png"):
        measure(tmp_path, "anna")
