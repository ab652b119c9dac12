"""Real footage through the whole of preparation, and on to frames; skipped without it."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from musetalk_cli.avatar.store import load_avatar, verify
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.preparation.inputs import PictureSource
from musetalk_cli.run.generate import generate
from musetalk_cli.run.prepare import prepare

DATA = os.environ.get("MUSETALK_TEST_DATA")
FRAMES = {"sun": 550, "yongen": 268}

pytestmark = pytest.mark.skipif(DATA is None, reason="MUSETALK_TEST_DATA does not name the footage")


@pytest.fixture(scope="module")
def run(golden, tmp_path_factory):
    avatars = tmp_path_factory.mktemp("avatars")
    return RunConfig(
        DataFolder(avatars, "flag"), DataFolder(avatars, "flag"), str(golden / "models"), "cpu", "fp32"
    )


@pytest.fixture(scope="module", params=list(FRAMES))
def prepared(request, run):
    source = PictureSource(Path(str(DATA)) / "footage" / f"{request.param}.mp4")
    return request.param, prepare(run, source, request.param)


def test_every_frame_has_a_steady_box(prepared, run):
    name, result = prepared
    meta = result.meta
    assert meta.frames == FRAMES[name]
    assert meta.passthrough_frames == ()
    assert meta.report["faces"]["interpolated"] == 0
    assert verify(run.avatars.path, name) == []
    centres = np.array([((b.x1 + b.x2) / 2, (b.y1 + b.y2) / 2) for b in meta.boxes])
    assert np.abs(np.diff(centres, axis=0)).mean() < 0.5
    assert np.abs(np.diff(centres, 2, axis=0)).mean() < 0.5
    sizes = np.array([(b.width, b.height) for b in meta.boxes])
    assert np.abs(np.diff(sizes, axis=0)).max() <= 4


def test_boxes_lie_where_the_published_pipeline_puts_them(prepared, run):
    name, result = prepared
    folder = Path(str(DATA)) / "golden" / "footage" / "avatar"
    if name != "sun":
        pytest.skip("the golden avatar is of sun.mp4")
    from musetalk_cli.avatar.pickles import read_boxes

    x1, y1, x2, y2 = np.array(read_boxes(folder / "coords.pkl"))[:4].mean(axis=0)
    box = result.meta.boxes[0]
    width, height = x2 - x1, y2 - y1
    assert abs((box.x1 + box.x2) / 2 - (x1 + x2) / 2) < 0.08 * width
    assert abs((box.y1 + box.y2) / 2 - (y1 + y2) / 2) < 0.08 * height
    assert abs(box.width / width - 1) < 0.15
    assert abs(box.height / height - 1) < 0.15


@pytest.mark.parametrize("image_ops", ["cpu", "gpu"])
def test_nothing_changes_outside_the_mask(prepared, run, golden, tmp_path, image_ops):
    name, result = prepared
    job = JobConfig(image_ops=image_ops)
    report = generate(run, job, name, golden / "audio.wav", frames_dir=tmp_path)
    assert report.frames == len(list(tmp_path.iterdir()))
    avatar = load_avatar(run.avatars.path, name)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        source, made = avatar.frames[number], cv2.imread(str(path))
        crop = result.meta.crop_boxes[number]
        mask = np.zeros(source.shape[:2], np.uint8)
        file = run.avatars.path / name / "masks" / f"{number:08d}.png"
        inside = crop.clamp(source.shape[1], source.shape[0])
        whole = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        mask[inside.slices()] = whole[inside.shift(-crop.x1, -crop.y1).slices()]
        changed = (made != source).any(axis=2)
        assert changed.mean() > 0.01
        assert not changed[mask == 0].any()
        # Where the mask begins the change begins softly: by no more than its share of the whole range.
        faint = (mask > 0) & (mask < 26)
        step = np.abs(made.astype(int) - source)[faint]
        assert step.max(initial=0) <= 26
