"""`musetalk prepare-avatar` from a film to an avatar that speaks: small real networks, drawn faces."""

import errno
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from face_graphs import face_points, with_dwpose
from films import film

from musetalk_cli.avatar.store import list_avatars, load_avatar, load_meta, verify
from musetalk_cli.face.motion import find_cuts
from training import portrait
from training.face import Pose, landmarks
from training.people import PEOPLE

SIZE, FRAMES = (320, 240), 24
FACE = (90, 255, 90)
RADIUS = 40
FEW = ("--max-frames", 3)
SOME = ("--max-frames", 8)


def centre(number):
    """Where the disc is, trembling by two pixels."""
    return 130 + number + 2 * (number % 2), 110 + 2 * (number % 3 == 0)


def disc_frame(number, there=True):
    frame = np.random.default_rng(number).integers(0, 30, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    if there:
        cv2.circle(frame, centre(number), RADIUS, FACE, -1)
    return frame


@pytest.fixture(scope="module")
def models(models, tmp_path_factory):
    """The tiny networks, a DWPose that takes a green disc for a face, and no parser."""
    return with_dwpose(models, tmp_path_factory.mktemp("with-dwpose"), FACE)


@pytest.fixture(scope="module")
def parser_models(models, tmp_path_factory):
    """The same with a small SegFormer, and without DWPose."""
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    from musetalk_cli.face.parsing import LABELS

    folder = tmp_path_factory.mktemp("parser")
    shutil.copytree(models, folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "dwpose")
    names = [*LABELS[::-1]]
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=16,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder / "face-parsing")
    (folder / "face-parsing" / "preprocessor_config.json").write_text(json.dumps({"do_resize": True}))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return film(tmp_path_factory.mktemp("clip") / "disc.avi", [disc_frame(n) for n in range(FRAMES)])


@pytest.fixture
def run(musetalk):
    """Runs a command that ends with the given code; gives its stdout and stderr."""

    def call(*arguments, code=0):
        ended, out, err = musetalk(*arguments)
        assert ended == code, err
        return out, err

    return call


@pytest.fixture
def prepare(run):
    """Runs `prepare-avatar`; gives its stdout and stderr."""

    def call(source, avatars, models, *arguments, name="a", code=0):
        places = ("--avatars-dir", avatars, "--models-dir", models, "--device", "cpu")
        return run("prepare-avatar", source, "--name", name, *places, *arguments, code=code)

    return call


def test_a_film_becomes_an_avatar_that_speaks(prepare, run, clip, models, golden, tmp_path):
    told = json.loads(prepare(clip, tmp_path, models, "--json", "--smooth", "off")[0])
    assert (told["name"], told["frames"], told["passthrough"]) == ("a", FRAMES, [])
    assert verify(tmp_path, "a") == []
    meta = load_meta(tmp_path, "a")
    assert meta.parameters["landmarks"] == "dwpose"
    for number, box in enumerate(meta.boxes):
        points = face_points(centre(number), RADIUS)
        expected = (*points.min(0), points[:, 0].max(), points[:, 1].max() + 10)
        assert np.abs(np.subtract((box.x1, box.y2), (expected[0], expected[3]))).max() <= 3
        assert abs(box.x2 - expected[2]) <= 3
    out = tmp_path / "out"
    run(
        "generate", "--avatar", "a", "--audio", golden / "audio.wav", "--frames-dir", out,
        "--avatars-dir", tmp_path, "--models-dir", models, "--model", models, "--device", "cpu", "--fps", 5,
    )  # fmt: skip
    avatar = load_avatar(tmp_path, "a")
    shown = range(0, FRAMES, 5)  # of 25 frames in a second, five are wanted
    for number, path in zip(shown, sorted(out.iterdir()), strict=True):
        changed = (cv2.imread(str(path)) != avatar.frames[number]).any(axis=2)
        assert changed.any()
        changed[avatar.patches[number].box.slices()] = False
        assert not changed.any()


@pytest.mark.slow
def test_smoothing_is_the_default_and_told(prepare, run, clip, models, tmp_path):
    prepare(clip, tmp_path, models)
    jitter = load_meta(tmp_path, "a").report["jitter_px"]
    assert jitter["after"] < 0.4 * jitter["before"]
    assert "jitter" in run("avatars", "show", "a", "--avatars-dir", tmp_path)[0]


@pytest.mark.slow
def test_a_middle_without_a_face_is_shown_as_it_is(prepare, run, models, golden, tmp_path):
    there = [not 8 <= number < 16 for number in range(FRAMES)]
    source = film(tmp_path / "gap.avi", [disc_frame(n, there[n]) for n in range(FRAMES)])
    _, err = prepare(source, tmp_path, models, "--max-gap", "0.2")
    assert "0.32-0.64 s" in err
    meta = load_meta(tmp_path, "a")
    assert meta.passthrough_frames == tuple(range(8, 16))
    assert meta.report["faces"]["passthrough_times"] == [[0.32, 0.64]]
    out = tmp_path / "out"
    run(
        "generate", "--avatar", "a", "--audio", golden / "audio.wav", "--frames-dir", out,
        "--avatars-dir", tmp_path, "--models-dir", models, "--model", models, "--device", "cpu",
    )  # fmt: skip
    written = [cv2.imread(str(path)) for path in sorted(out.iterdir())]
    for number, frame in enumerate(written[:FRAMES]):
        same = np.array_equal(frame, disc_frame(number, there[number]))
        assert same == (not there[number]), number


@pytest.mark.slow
def test_landmarks_can_be_saved_and_given_back(prepare, clip, models, tmp_path):
    file = tmp_path / "points.json"
    prepare(clip, tmp_path, models, *SOME, "--save-landmarks", file)
    entries = json.loads(file.read_text())
    assert len(entries) == 8
    assert np.shape(entries[0]["points"]) == (68, 2)
    prepare(clip, tmp_path, models, *SOME, "--landmarks", file, name="b")
    one, other = load_avatar(tmp_path, "a"), load_avatar(tmp_path, "b")
    assert one.meta.boxes == other.meta.boxes
    assert bool((one.latents == other.latents).all())
    assert other.meta.parameters["landmarks"] == "file"
    entries[3] = None
    file.write_text(json.dumps(entries))
    prepare(clip, tmp_path, models, *SOME, "--landmarks", file, "--max-gap", 0, name="c")
    assert load_meta(tmp_path, "c").passthrough_frames == (3,)


@pytest.fixture(scope="module")
def pair():
    """Two drawn people side by side, the right one larger, and the boxes of their true landmarks."""
    frame = np.full((640, 1024, 3), 200, np.uint8)
    boxes = []
    for place, (person, scale) in enumerate(zip(PEOPLE, (0.7, 1.0), strict=True)):
        pose, values = Pose(scale=scale), np.zeros(5)
        frame[:, 512 * place : 512 * (place + 1)] = portrait.draw(person, pose, values)
        points = landmarks(person, pose, values) + np.array([512, 0]) * place
        boxes.append((points.min(0), points.max(0)))
    return frame, boxes


@pytest.mark.parametrize(("choice", "place"), [("left", 0), ("right", 1), ("largest", 1), ("1", 0), ("2", 1)])
def test_who_speaks_is_chosen(prepare, pair, models, tmp_path, choice, place):
    frame, boxes = pair
    cv2.imwrite(str(tmp_path / "pair.png"), frame)
    prepare(
        tmp_path / "pair.png", tmp_path, models, "--detector", "haar", "--parser", "outline", "--face", choice
    )
    box = load_meta(tmp_path, "a").boxes[0]
    low, high = boxes[place]
    assert abs((box.x1 + box.x2) / 2 - (low[0] + high[0]) / 2) < 0.1 * (high[0] - low[0])
    assert load_meta(tmp_path, "a").report["people"] == 2


def test_a_person_who_is_not_there_is_refused(prepare, pair, models, tmp_path):
    cv2.imwrite(str(tmp_path / "pair.png"), pair[0])
    avatars = tmp_path / "avatars"
    arguments = ("--detector", "haar", "--face", "3")
    _, err = prepare(tmp_path / "pair.png", avatars, models, *arguments, code=1)
    assert "2 people were seen" in err
    assert list(avatars.iterdir()) == []


def test_the_rough_fallback_is_announced_and_sees_no_mouth(prepare, pair, parser_models, tmp_path):
    cv2.imwrite(str(tmp_path / "pair.png"), pair[0])
    _, err = prepare(tmp_path / "pair.png", tmp_path, parser_models, "--json")
    assert "rough fallback" in err
    meta = load_meta(tmp_path, "a")
    assert meta.parameters["landmarks"] == "haar"
    assert meta.parameters["mask"] == "jaw"
    assert meta.rest_frames == ()
    assert meta.report["profile_share"] is meta.report["occluded_share"] is None


@pytest.mark.slow
def test_the_parser_is_taken_where_it_is_there(prepare, clip, models, parser_models, tmp_path):
    points = tmp_path / "points.json"
    prepare(clip, tmp_path, models, "--save-landmarks", points, "--max-frames", 3)
    common = ("--landmarks", points, "--max-frames", 3)
    prepare(clip, tmp_path, parser_models, *common, name="parsed")
    prepare(clip, tmp_path, parser_models, *common, "--parser", "outline", name="outline")
    prepare(clip, tmp_path, parser_models, *common, "--parsing-mode", "raw", name="raw")
    parsed, outline, raw = (
        load_meta(tmp_path, name).parameters["mask"] for name in ("parsed", "outline", "raw")
    )
    assert (parsed, outline, raw) == ("jaw", "outline", "raw")
    masks = [
        (tmp_path / name / "masks" / "00000000.png").read_bytes() for name in ("parsed", "outline", "raw")
    ]
    assert len(set(masks)) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--detector", "dwpose"], 1, "dwpose is incomplete"),
        (["--face", "somebody"], 1, "--face somebody"),
        (["--cheek-width", "wide"], 1, "--cheek-width wide"),
        (["--upper-boundary", "2"], 1, "--upper-boundary"),
        (["--feather", "-1"], 1, "--feather"),
        (["--start", "soon"], 1, "--start soon"),
        (["--start", "99"], 1, "--start"),
        (["--duration", "0"], 1, "--duration"),
        (["--max-frames", "0"], 1, "--max-frames"),
        (["--max-size", "1"], 1, "--max-size"),
        (["--fps", "1000"], 1, "--fps"),
        (["--preview", "sheet.jpg"], 1, "--preview sheet.jpg"),
        (["--preview", "nowhere/sheet.png"], 1, "nowhere"),
        (["--preview", "a.png", "--preview", "b.png"], 1, "--preview b.png"),
        (["--save-landmarks", "/"], 1, "is a folder"),
        (["--preview", "a.png", "--preview", "grid:./a.png"], 1, "written by another option too"),
        (["--save-landmarks", "nowhere/points.json"], 1, "nowhere"),
        (["--idle", "nowhere.mp4"], 1, "nowhere.mp4"),
        (["--trim", "much"], 2, "trim"),
        (["--smooth", "maybe"], 2, "smooth"),
    ],
)
def test_bad_calls_leave_nothing(prepare, clip, parser_models, tmp_path, arguments, code, text):
    avatars = tmp_path / "avatars"
    _, err = prepare(clip, avatars, parser_models, *arguments, code=code)
    assert text in " ".join(err.split())
    assert "Traceback" not in err
    assert not avatars.exists() or list(avatars.iterdir()) == []


def test_a_film_without_faces_is_refused(prepare, models, tmp_path):
    source = film(tmp_path / "empty.avi", [disc_frame(n, there=False) for n in range(4)])
    _, err = prepare(source, tmp_path / "avatars", models, code=1)
    assert "No frame of" in err
    assert list((tmp_path / "avatars").iterdir()) == []


def test_previews(prepare, clip, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(clip, tmp_path, models, "--preview", "sheet.png", "--preview", "grid")
    sheet, grid = cv2.imread("sheet.png"), cv2.imread("a-grid.png")
    assert sheet.shape == (960, 1280, 3)
    assert grid.shape == (960, 7 * 320, 3)
    meta = load_meta(tmp_path, "a")
    # The first tile shows frame 0 around its crop box, with the box in red.
    crop, box = meta.crop_boxes[0], meta.boxes[0]
    scale = 320 / (2 * int(crop.width * 0.6))
    x = round((box.x1 - ((crop.x1 + crop.x2) // 2 - int(crop.width * 0.6))) * scale)
    y = round(((box.y1 + box.y2) / 2 - ((crop.y1 + crop.y2) // 2 - int(crop.width * 0.6))) * scale)
    red = sheet[y, max(0, x - 3) : x + 4].astype(int)
    assert (red[:, 2] - red[:, 1]).max() > 100


@pytest.mark.parametrize(
    "given",
    [
        ("--preview", "there/sheet.png"),
        pytest.param(("--preview", "grid:there/grid.png"), marks=pytest.mark.slow),
        pytest.param(("--save-landmarks", "there/points.json"), marks=pytest.mark.slow),
    ],
)
def test_where_a_preview_cannot_be_written_there_is_no_avatar_and_the_retry_works(
    prepare, clip, models, tmp_path, monkeypatch, given
):
    """The folder of the output is removed while the work goes on."""
    monkeypatch.chdir(tmp_path)
    there, avatars = tmp_path / "there", tmp_path / "avatars"
    there.mkdir()

    def removing(differences):
        there.rmdir()
        return find_cuts(differences)

    with monkeypatch.context() as patched:
        patched.setattr("musetalk_cli.preparation.run.find_cuts", removing)
        _, err = prepare(clip, avatars, models, *FEW, *given, code=1)
    assert f"{given[1].removeprefix('grid:')} was removed, or its folder was" in " ".join(err.split())
    assert list_avatars(avatars) == []
    there.mkdir()
    _, err = prepare(clip, avatars, models, *FEW, *given)
    assert "Going on after 3 frames" in err
    assert len(list(there.iterdir())) == 1
    assert verify(avatars, "a") == []


def test_a_full_disk_leaves_the_preview_of_before(prepare, clip, models, tmp_path, monkeypatch):
    avatars, sheet = tmp_path / "avatars", tmp_path / "sheet.png"
    sheet.write_bytes(b"before")
    write = Path.write_bytes

    def full(path, data):
        if path.parent == tmp_path:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        _, err = prepare(clip, avatars, models, *FEW, "--preview", sheet, code=1)
    assert "No space left on device" in err
    assert list_avatars(avatars) == []
    assert sheet.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["avatars", "sheet.png"]
    prepare(clip, avatars, models, *FEW, "--preview", sheet)
    assert cv2.imread(str(sheet)).shape == (320, 960, 3)


def test_a_preview_in_the_folder_that_is_replaced_is_refused(prepare, clip, models, tmp_path):
    (tmp_path / "a").mkdir()
    _, err = prepare(clip, tmp_path, models, "--overwrite", "--preview", tmp_path / "a" / "x.png", code=1)
    assert "is in the folder of the avatar" in " ".join(err.split())


@pytest.mark.slow
def test_an_idle_clip_goes_along(prepare, clip, models, tmp_path):
    idle = film(tmp_path / "idle.avi", [disc_frame(90 + n) for n in range(10)], fps=50)
    _, err = prepare(clip, tmp_path, models, *FEW, "--idle", idle)
    assert err.count("note: Idle clip: Frames were resampled from 50 to 25 per second.") == 1
    meta = load_meta(tmp_path, "a")
    assert meta.idle_frames == 5
    assert verify(tmp_path, "a") == []
    stored = [cv2.imread(str(path)) for path in sorted((tmp_path / "a" / "idle").iterdir())]
    assert all(any(np.array_equal(frame, disc_frame(90 + n)) for n in range(10)) for frame in stored)
    other = film(tmp_path / "wide.avi", [np.zeros((100, 400, 3), np.uint8)] * 2)
    _, err = prepare(clip, tmp_path, models, *FEW, "--idle", other, name="b", code=1)
    assert "400x100" in err
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_an_idle_clip_of_a_rate_that_cannot_be_had_is_refused_before_the_work(
    prepare, models, clip, tmp_path
):
    fast = film(tmp_path / "fast.avi", [disc_frame(n) for n in range(6)], fps=240)
    _, err = prepare(fast, tmp_path / "avatars", models, "--idle", clip, code=1)
    assert "25 frames per second, the source 240" in err
    assert "finding faces" not in err
    assert list((tmp_path / "avatars").iterdir()) == []
    prepare(fast, tmp_path / "avatars", models, "--idle", fast)
    assert load_meta(tmp_path / "avatars", "a").idle_frames == 6


@pytest.mark.slow
def test_the_first_frames_are_as_exact_as_the_others(prepare, models, tmp_path):
    """A small face is seen badly in the whole frame; it is looked at again from near."""
    centres = [(500 + number, 400 + number % 2) for number in range(12)]
    frames = []
    for place in centres:
        frame = np.zeros((720, 1280, 3), np.uint8)
        cv2.circle(frame, place, 45, FACE, -1)
        frames.append(frame)
    points = tmp_path / "points.json"
    source = film(tmp_path / "small.avi", frames)
    prepare(source, tmp_path, models, "--save-landmarks", points)
    found = [np.array(entry["points"]) for entry in json.loads(points.read_text())]
    errors = [np.abs(one - face_points(place, 45)).mean() for one, place in zip(found, centres, strict=True)]
    assert np.mean(errors[:8]) < 1.5 * np.mean(errors[8:]) + 0.1


@pytest.mark.slow
def test_the_rough_landmarks_come_back_as_they_were(prepare, models, tmp_path):
    frames = [portrait.draw(PEOPLE[0], Pose(x=2 * (n % 2), y=n % 3), np.zeros(5)) for n in range(8)]
    source, points = film(tmp_path / "drawn.avi", frames), tmp_path / "points.json"
    prepare(source, tmp_path, models, "--detector", "haar", "--save-landmarks", points)
    prepare(source, tmp_path, models, "--landmarks", points, name="b")
    one, other = load_meta(tmp_path, "a"), load_meta(tmp_path, "b")
    assert (one.boxes, one.rest_frames) == (other.boxes, other.rest_frames)
    assert other.rest_frames == ()
    assert one.report["jitter_px"] == other.report["jitter_px"]
    assert other.report["profile_share"] is None


@pytest.mark.slow
def test_v1_has_the_mask_it_was_trained_with(prepare, parser_models, models, clip, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(parser_models, old)
    (old / "musetalk").mkdir()
    for name in ("musetalk.json", "unet.safetensors"):
        shutil.copy(old / "musetalkV15" / name, old / "musetalk")
    points = tmp_path / "points.json"
    prepare(clip, tmp_path, models, "--save-landmarks", points, "--max-frames", 2)
    common = ("--landmarks", points, "--max-frames", 2, "--model", "v1")
    prepare(clip, tmp_path, old, *common, name="b")
    prepare(clip, tmp_path, old, *common, "--parsing-mode", "neck", name="c")
    assert load_meta(tmp_path, "b").parameters["mask"] == "raw"
    assert load_meta(tmp_path, "b").parameters["extra_margin"] == 0
    assert load_meta(tmp_path, "c").parameters["mask"] == "neck"


@pytest.mark.slow
def test_part_of_a_clip(prepare, clip, models, tmp_path):
    arguments = ("--start", "0.2", "--duration", "0.4", "--max-size", "160")
    prepare(clip, tmp_path, models, *arguments)
    meta = load_meta(tmp_path, "a")
    assert (meta.frames, meta.width, meta.height) == (10, 160, 120)
    assert meta.parameters["selection"] == {"start": "1/5", "duration": "2/5", "max_size": 160}
    prepare(clip, tmp_path, models, "--max-frames", "7", name="b")
    assert load_meta(tmp_path, "b").frames == 7
    prepare(clip, tmp_path, models, "--fps", "12.5", name="c")
    slow = load_meta(tmp_path, "c")
    assert (slow.frames, float(slow.fps)) == (12, 12.5)


def test_rest_frames_are_those_with_a_closed_mouth(prepare, models, tmp_path):
    """Landmarks of a drawn face whose mouth opens and closes."""
    person = PEOPLE[0]
    opened = [0.0, 0.0, 0.5, 1.0, 0.5, 0.0]
    frames, entries = [], []
    for opening in opened:
        values = np.array([opening, 0, 0, 0, 0], float)
        points = landmarks(person, Pose(), values)
        frames.append(portrait.draw(person, Pose(), values))
        low, high = points.min(0), points.max(0)
        entries.append({"points": points.tolist(), "box": [*map(int, low), *map(int, high)]})
    (tmp_path / "points.json").write_text(json.dumps(entries))
    source = film(tmp_path / "mouth.avi", frames)
    prepare(source, tmp_path, models, "--landmarks", tmp_path / "points.json")
    assert load_meta(tmp_path, "a").rest_frames == (0, 1, 5)


def test_help_is_there_for_every_option(run):
    text, _ = run("prepare-avatar", "--help")
    for option in ("--face", "--smooth", "--parsing-mode", "--preview", "--idle", "--trim", "--max-gap"):
        assert option in text
