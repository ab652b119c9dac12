"""What is embedded is complete, small, and speaks."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from musetalk_cli.avatar.store import load_avatar, load_meta, verify
from musetalk_cli.config import JobConfig, Place, RunConfig
from musetalk_cli.embedded import AVATARS

ROOT = Path(__file__).parents[1]
MODEL, PEOPLE = ROOT / "models" / "demo", ROOT / "avatars"
SECONDS = 4


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_bundle_and_the_avatars_are_small_enough_to_ship():
    assert size(MODEL) <= 12e6
    assert sum(size(PEOPLE / name) for name in AVATARS) <= 8e6


def test_the_card_says_what_the_bundle_is():
    card = json.loads((MODEL / "bundle.json").read_text())
    assert card["name"] == "demo"
    assert "drawn" in card["knows"]
    assert card["license"]
    assert card["recipe"]["seed"] == 1
    judged = json.loads((MODEL / "evaluation.json").read_text())
    assert len({clip["voice"] for clip in judged["clips"]}) >= 3


@pytest.mark.parametrize("name", AVATARS)
def test_an_avatar_is_sound_and_loops_without_a_jump(name):
    assert verify(PEOPLE, name) == []
    meta = load_meta(PEOPLE, name)
    assert meta.model == {"version": "v15", "name": "demo"}
    assert (meta.width, meta.height) == (512, 640)
    assert meta.frames >= 100
    frames = load_avatar(PEOPLE, name).frames
    steps = [float(np.abs(a.astype(int) - b).mean()) for a, b in itertools.pairwise(frames)]
    assert max(steps) < 3, "levels from frame to frame"
    ends = (steps[0], steps[-1])
    assert max(ends) < np.median(steps), "at its ends, where it turns, the loop is all but still"


def test_the_two_avatars_are_different_people():
    one, other = (load_avatar(PEOPLE, name).frames[0].astype(int) for name in AVATARS)
    assert np.abs(one - other).mean() > 40


@pytest.fixture(scope="module", params=AVATARS)
def spoken(request, tmp_path_factory):
    """The frames of the first seconds of the sample, the avatar that spoke them, and the sound."""
    import soundfile

    from musetalk_cli.generate import generate
    from musetalk_cli.media.stills import read_image

    work = tmp_path_factory.mktemp("spoken")
    samples, rate = soundfile.read(PEOPLE / "demo" / "sample.wav", dtype="float32")
    soundfile.write(work / "part.wav", samples[: SECONDS * rate], rate)
    run = RunConfig(Place(ROOT / "models", "flag"), Place(PEOPLE, "flag"), device="cpu")
    generate(run, JobConfig(), request.param, work / "part.wav", frames_dir=work / "frames")
    frames = [read_image(path) for path in sorted((work / "frames").iterdir())]
    return frames, load_avatar(PEOPLE, request.param), samples


def change(frame, rest, box):
    """Mean change of the lower half of a face, levels."""
    rows = slice((box.y1 + box.y2) // 2, box.y2)
    return float(np.abs(frame[rows, box.x1 : box.x2].astype(int) - rest[rows, box.x1 : box.x2]).mean())


def test_it_rests_in_silence_and_moves_with_the_sound(spoken):
    frames, avatar, samples = spoken
    moved = np.array(
        [change(frame, avatar.frames[n], avatar.meta.boxes[n]) for n, frame in enumerate(frames)]
    )
    loud = np.log(np.sqrt((samples[: SECONDS * 16000].reshape(-1, 640) ** 2).mean(1)) + 1e-3)
    assert len(frames) == SECONDS * 25
    assert moved[:8].max() < 0.6 * np.median(moved[15:]), "the sample begins with half a second of silence"
    assert np.corrcoef(moved, loud[: len(moved)])[0, 1] > 0.5


def test_nothing_changes_outside_the_mask(spoken):
    frames, avatar, _ = spoken
    for number in (0, 30, 77):
        crop = avatar.meta.crop_boxes[number].clamp(avatar.meta.width, avatar.meta.height)
        outside = np.ones(frames[number].shape[:2], bool)
        outside[crop.slices()] = False
        assert (frames[number][outside] == avatar.frames[number][outside]).all()
