"""Preparation: frames, boxes, masks and latents stay in step, and a failure leaves nothing."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from films import film
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musetalk_cli.avatar.description import AvatarMeta
from musetalk_cli.avatar.store import load_avatar, load_meta, verify
from musetalk_cli.errors import InputError, ModelError
from musetalk_cli.face.boxes import add_margin, crop_box, face_box
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.face.masks import mask_from_outline, mask_from_parsing
from musetalk_cli.preparation.imaging import crop_image, face_image
from musetalk_cli.preparation.inputs import FaceNetworks, PictureSource
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.run import prepare_avatar
from musetalk_cli.types import Box

SIZE = (128, 96)
MODEL = {"version": "v15"}
GOLDEN = Path(__file__).parent / "data" / "golden"


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3)).astype(np.uint8)


def landmarks(number):
    """A face of its own for every frame."""
    angle = np.linspace(0, np.pi, 17)
    points = np.tile([[60.0 + number, 50.0]], (68, 1))
    points[:17] += np.stack([-25 * np.cos(angle), 30 * np.sin(angle)], 1)
    points[17:27] += np.stack([np.linspace(-20, 20, 10), np.full(10, -15.0)], 1)
    return FaceLandmarks(points, Box(35 + number, 20, 85 + number, 80))


def encode(faces):
    """Latents that tell which face they were made from."""
    assert faces.shape[1:] == (256, 256, 3)
    assert faces.dtype == np.uint8
    small = np.stack([cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA) for face in faces])
    latents = torch.from_numpy(np.tile(small[:, None, :, :, 0], (1, 8, 1, 1))).float() / 255
    return latents.contiguous(memory_format=torch.channels_last)


def prepare(source, avatars, faces, *, encode=encode, parse=None, overwrite=False, progress=None, **options):
    """Prepare with every frame's own box and no filled gaps, unless the options say otherwise."""
    given = {"smooth": False, "max_gap": 0, "min_faces": 0, "batch_size": 3, **options}
    return prepare_avatar(
        PictureSource(source, landmarks=faces),
        avatars,
        "a",
        networks=FaceNetworks(encode, parse=parse),
        options=PrepareOptions(**given),
        model=MODEL,
        overwrite=overwrite,
        progress=progress,
    ).meta


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A lossless video, so that its frames are known exactly."""
    return film(tmp_path_factory.mktemp("clip") / "clip.avi", map(picture, range(8)))


def expected_box(number, margin=10):
    face = landmarks(number)
    return add_margin(face_box(face.points, face.detection, frame=SIZE), margin, SIZE[1])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.booleans(), min_size=8, max_size=8).filter(any), st.integers(1, 9))
def test_lists_never_get_out_of_step(clip, tmp_path, there, batch_size):
    faces = [landmarks(number) if here else None for number, here in enumerate(there)]
    avatars = tmp_path / "avatars"
    meta = prepare(clip, avatars, faces, batch_size=batch_size, overwrite=True)
    avatar = load_avatar(avatars, "a")
    assert meta == avatar.meta
    assert meta.frames == len(avatar.frames) == len(avatar.patches) == len(avatar.latents) == 8
    assert meta.passthrough_frames == tuple(number for number in range(8) if not there[number])
    for number, here in enumerate(there):
        np.testing.assert_array_equal(avatar.frames[number], picture(number))
        mask_file = avatars / "a" / "masks" / f"{number:08d}.png"
        if not here:
            assert avatar.patches[number] is meta.boxes[number] is meta.crop_boxes[number] is None
            assert not mask_file.exists()
            assert not avatar.latents[number].any()
            continue
        box = expected_box(number)
        assert (meta.boxes[number], meta.crop_boxes[number]) == (box, crop_box(box))
        latents = encode(face_image(picture(number), box)[None])
        assert torch.equal(avatar.latents[number], latents[0])
        mask = cv2.imread(str(mask_file), cv2.IMREAD_UNCHANGED)
        outline = mask_from_outline(landmarks(number).points, box, crop_box(box))
        np.testing.assert_array_equal(mask, outline)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.booleans(), min_size=8, max_size=8).filter(any), st.sampled_from([0.0, 0.04, 0.08, 10.0]))
def test_short_gaps_are_filled_and_long_ones_pass_through(clip, tmp_path, there, max_gap):
    faces = [landmarks(number) if here else None for number, here in enumerate(there)]
    meta = prepare(clip, tmp_path, faces, smooth=True, max_gap=max_gap, overwrite=True)
    filled, passing = set(), set()
    for number in (n for n in range(8) if not there[n]):
        before = next((n for n in range(number, -1, -1) if there[n]), None)
        after = next((n for n in range(number, 8) if there[n]), None)
        inside = before is not None and after is not None and after - before - 1 <= round(max_gap * 25)
        (filled if inside else passing).add(number)
    assert set(meta.passthrough_frames) == passing
    assert meta.report["faces"]["interpolated"] == len(filled)
    assert meta.report["faces"]["found"] == sum(there)
    avatar = load_avatar(tmp_path, "a")
    for number in range(8):
        assert bool(avatar.latents[number].any()) == (number not in passing)


def test_what_is_recorded(clip, tmp_path):
    done = []
    faces = [landmarks(number) for number in range(8)]
    meta = prepare(clip, tmp_path, faces, bbox_shift=-2, extra_margin=4, progress=done.append)
    found = [(step.done, step.total) for step in done if step.stage == "finding faces"]
    assert found == [(number + 1, 8) for number in range(8)]
    assert [step.done for step in done if step.stage == "encoding faces"] == [3, 6, 8]
    assert {"decode", "write"} < set(done[-1].rates)
    assert meta.fps == 25
    assert meta.model == MODEL
    assert meta.source == {"name": "clip.avi", "sha256": hashlib.sha256(clip.read_bytes()).hexdigest()}
    assert meta.parameters["bbox_shift"] == -2
    assert meta.parameters["extra_margin"] == 4
    assert (meta.parameters["smooth"], meta.parameters["mask"]) == ("off", "outline")
    data = json.loads((tmp_path / "a" / "avatar.json").read_text())
    assert AvatarMeta.from_json(json.dumps(data)) == meta == load_meta(tmp_path, "a")
    assert verify(tmp_path, "a") == []
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "avatar.json", "full_imgs", "masks", "latents.safetensors"
    }  # fmt: skip


def test_the_report_says_what_it_takes(clip, tmp_path):
    meta = prepare(clip, tmp_path, [landmarks(number) for number in range(8)])
    memory = load_avatar(tmp_path, "a").memory()
    assert (meta.report["device_bytes"], meta.report["host_bytes"]) == (
        memory.device_bytes,
        memory.host_bytes,
    )
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file() and path.name != "avatar.json"]
    assert meta.report["disk_bytes"] == sum(path.stat().st_size for path in files)
    assert meta.report["face_scale"] == pytest.approx(meta.face_scale, abs=1e-3)


def test_a_parser_makes_the_mask(clip, tmp_path):
    labels = np.zeros((512, 512), np.uint8)
    labels[200:, 150:350] = 1
    seen = []

    def parse(crops):
        seen.extend(crops)
        return np.stack([labels] * len(crops))

    meta = prepare(clip, tmp_path, [landmarks(number) for number in range(8)], parse=parse)
    assert meta.parameters["mask"] == "jaw"
    box, crop = meta.boxes[2], meta.crop_boxes[2]
    np.testing.assert_array_equal(seen[2], crop_image(picture(2), crop))
    mask = cv2.imread(str(tmp_path / "a" / "masks" / "00000002.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, mask_from_parsing(labels, box, crop))


def test_a_crop_over_the_border_is_black_there():
    crop = crop_image(picture(0), Box(-10, -5, 20, 120))
    assert crop.shape == (125, 30, 3)
    assert not crop[:5].any()
    assert not crop[:, :10].any()
    assert not crop[101:].any()
    np.testing.assert_array_equal(crop[5:101, 10:], picture(0)[:, :20])


def test_images_and_folders(tmp_path):
    for number in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), picture(number))
    faces = [landmarks(number) for number in range(3)]
    assert prepare(tmp_path / "images", tmp_path / "avatars", faces).frames == 3
    one = prepare(tmp_path / "images" / "1.png", tmp_path / "avatars", faces[1:2], overwrite=True)
    assert one.frames == 1
    assert one.boxes[0] == expected_box(1)


@pytest.mark.parametrize("count", [0, 7, 9])
def test_another_number_of_landmarks_is_refused(clip, tmp_path, count):
    faces = [landmarks(number) for number in range(count)]
    with pytest.raises(InputError, match=f"has 8 frames, but there are landmarks for {count}"):
        prepare(clip, tmp_path, faces)
    assert not list(tmp_path.iterdir())


def test_too_few_faces_are_refused_with_their_times(clip, tmp_path):
    faces = [landmarks(number) if number < 3 else None for number in range(8)]
    with pytest.raises(InputError, match=r"Only 3 of the 8 frames .* 50% are needed.*0.12-0.32 s") as caught:
        prepare(clip, tmp_path, faces, min_faces=0.5)
    assert "--min-faces" in caught.value.hint
    assert not list(tmp_path.iterdir())
    assert prepare(clip, tmp_path, faces, min_faces=0.375).frames == 8


@pytest.mark.parametrize(
    "face",
    [
        None,
        FaceLandmarks(landmarks(0).points, None),
        FaceLandmarks(landmarks(0).points + 5000, Box(5000, 5000, 5050, 5050)),
        FaceLandmarks(landmarks(0).points * 0 + 40, Box(40, 40, 42, 42)),
    ],
    ids=["no landmarks", "no detection", "outside", "tiny"],
)
def test_no_face_at_all_is_refused(clip, tmp_path, face):
    with pytest.raises(InputError, match="No frame of"):
        prepare(clip, tmp_path, [face] * 8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "broken", [lambda faces: encode(faces)[:, :4], lambda faces: encode(faces) * torch.nan]
)
def test_a_broken_encoder_leaves_nothing(clip, tmp_path, broken):
    with pytest.raises(ModelError):
        prepare(clip, tmp_path / "avatars", [landmarks(number) for number in range(8)], encode=broken)
    assert not list((tmp_path / "avatars").iterdir())


def test_a_video_that_is_cut_off_leaves_nothing(clip, tmp_path):
    part = tmp_path / "part.avi"
    part.write_bytes(clip.read_bytes()[:150_000])
    with pytest.raises(InputError):
        prepare(part, tmp_path / "avatars", [landmarks(number) for number in range(8)])
    assert not list((tmp_path / "avatars").iterdir())


def test_a_missing_source_makes_no_folder(tmp_path):
    with pytest.raises(InputError, match=r"none\.mp4"):
        prepare(tmp_path / "none.mp4", tmp_path / "avatars", [])
    assert not (tmp_path / "avatars").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"extra_margin": -1},
        {"bbox_shift": 5000},
        {"batch_size": 0},
        {"max_gap": -1},
        {"max_gap": float("nan")},
        {"min_faces": 1.5},
        {"face": "0"},
        {"face": "nobody"},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(InputError, match=r"out|understood"):
        PrepareOptions(**options)


def test_golden_faces_are_resized_as_upstream_does():
    """The golden VAE, fed by our resize, gives the golden latents."""
    from diffusers import AutoencoderKL

    folder = GOLDEN / "models" / "sd-vae"
    weights = torch.load(folder / "diffusion_pytorch_model.bin", weights_only=True)
    config = json.loads((folder / "config.json").read_text())
    vae = AutoencoderKL.from_config(config).eval()
    names = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    renamed = {}
    for key, value in weights.items():
        parts = [names.get(part, part) if "attentions" in key else part for part in key.split(".")]
        renamed[".".join(parts)] = value
    vae.load_state_dict(renamed)
    frame = cv2.imread(str(GOLDEN / "avatar" / "full_imgs" / "00000000.png"))
    rgb = face_image(frame, Box(114, 69, 206, 207))[..., ::-1].copy()
    image = torch.from_numpy(rgb).permute(2, 0, 1).float() / 255
    masked = image.clone()
    masked[:, 128:] = 0
    with torch.inference_mode():
        latents = [vae.encode(part[None] * 2 - 1).latent_dist.mode() * 0.18215 for part in (masked, image)]
    golden = torch.load(GOLDEN / "avatar" / "latents.pt", weights_only=True)[0]
    torch.testing.assert_close(torch.cat(latents, 1), golden, atol=1e-4, rtol=1e-4)
