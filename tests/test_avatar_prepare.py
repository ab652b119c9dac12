"""Preparation: frames, boxes, masks and latents stay in step, and an interruption leaves nothing."""

import hashlib
import json
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musetalk_cli.avatar.data import AvatarMeta
from musetalk_cli.avatar.prepare import PrepareOptions, crop_image, face_image, prepare_avatar
from musetalk_cli.avatar.store import load_avatar, load_meta, verify
from musetalk_cli.errors import InputError, ModelError
from musetalk_cli.face.boxes import add_margin, crop_box, face_box
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.face.masks import mask_from_outline, mask_from_parsing
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


def prepare(source, avatars, faces, **options):
    keywords = {"landmarks": faces, "encode": encode, "options": PrepareOptions(batch_size=3), "model": MODEL}
    return prepare_avatar(source, avatars, "a", **{**keywords, **options})


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A lossless video, so that its frames are known exactly."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = imageio_ffmpeg.write_frames(
        str(path), SIZE, pix_fmt_in="bgr24", pix_fmt_out="bgr24", codec="rawvideo", fps=25, macro_block_size=1
    )
    writer.send(None)
    for number in range(8):
        writer.send(picture(number).tobytes())
    writer.close()
    return path


def expected_box(number, margin=10):
    face = landmarks(number)
    return add_margin(face_box(face.points, face.detection, frame=SIZE), margin, SIZE[1])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.booleans(), min_size=8, max_size=8).filter(any), st.integers(1, 9))
def test_lists_never_get_out_of_step(clip, tmp_path, there, batch_size):
    faces = [landmarks(number) if here else None for number, here in enumerate(there)]
    avatars = tmp_path / "avatars"
    meta = prepare(clip, avatars, faces, options=PrepareOptions(batch_size=batch_size), overwrite=True)
    avatar = load_avatar(avatars, "a")
    kept = [number for number, here in enumerate(there) if here]
    assert meta == avatar.meta
    assert meta.frames == len(avatar.frames) == len(avatar.patches) == len(avatar.latents) == len(kept)
    assert list(meta.skipped_frames) == [number for number in range(8) if number not in kept]
    for place, number in enumerate(kept):
        box = expected_box(number)
        np.testing.assert_array_equal(avatar.frames[place], picture(number))
        assert (meta.boxes[place], meta.crop_boxes[place]) == (box, crop_box(box))
        latents = encode(face_image(picture(number), box)[None])
        assert torch.equal(avatar.latents[place], latents[0])
        mask = cv2.imread(str(avatars / "a" / "masks" / f"{place:08d}.png"), cv2.IMREAD_UNCHANGED)
        outline = mask_from_outline(landmarks(number).points, box, crop_box(box))
        np.testing.assert_array_equal(mask, outline)


def test_what_is_recorded(clip, tmp_path):
    done = []
    options = PrepareOptions(bbox_shift=-2, extra_margin=4)
    faces = [landmarks(number) for number in range(8)]
    meta = prepare(clip, tmp_path, faces, options=options, progress=lambda *state: done.append(state))
    assert done == [(number + 1, 8) for number in range(8)]
    assert meta.fps == 25
    assert meta.model == MODEL
    assert meta.source == {"name": "clip.avi", "sha256": hashlib.sha256(clip.read_bytes()).hexdigest()}
    assert meta.parameters == {"bbox_shift": -2, "extra_margin": 4, "smooth": "off", "mask": "outline"}
    data = json.loads((tmp_path / "a" / "avatar.json").read_text())
    assert AvatarMeta.from_json(json.dumps(data)) == meta == load_meta(tmp_path, "a")
    assert verify(tmp_path, "a") == []


def test_a_parser_makes_the_mask(clip, tmp_path):
    labels = np.zeros((512, 512), np.uint8)
    labels[200:, 150:350] = 1
    seen = []

    def parser(crop):
        seen.append(crop)
        return labels

    meta = prepare(clip, tmp_path, [landmarks(number) for number in range(8)], parser=parser)
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
    ("broken", "error"),
    [
        (lambda _: (_ for _ in ()).throw(KeyboardInterrupt), KeyboardInterrupt),
        (lambda faces: encode(faces)[:, :4], ModelError),
        (lambda faces: encode(faces) * torch.nan, ModelError),
    ],
)
def test_an_interruption_leaves_nothing(clip, tmp_path, broken, error):
    with pytest.raises(error):
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


@pytest.mark.parametrize("options", [{"extra_margin": -1}, {"bbox_shift": 5000}, {"batch_size": 0}])
def test_options_out_of_range(options):
    with pytest.raises(InputError, match="out"):
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
