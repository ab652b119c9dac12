"""What is embedded is complete, small, and speaks."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from lives import take_all

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.avatar.store import load_avatar, load_meta, verify
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.engine.windows import OFFLINE_HOP
from musetalk_cli.nets.bundle import open_bundle
from musetalk_cli.nets.embedded import AVATARS
from musetalk_cli.run.job import make_engine

ROOT = Path(__file__).parents[1]
MODEL, PEOPLE = ROOT / "models" / "demo", ROOT / "avatars"
SECONDS = Fraction(8, 5)


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


@pytest.mark.parametrize("name", [AVATARS[0], pytest.param(AVATARS[1], marks=pytest.mark.slow)])
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


@pytest.fixture(
    scope="module", params=[AVATARS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in AVATARS[1:])]
)
def spoken(request, tmp_path_factory):
    """The frames of the first seconds of the sample, the avatar that spoke them, and the sound."""
    import soundfile

    from musetalk_cli.media.stills import read_image
    from musetalk_cli.run.generate import generate

    work = tmp_path_factory.mktemp("spoken")
    samples, rate = soundfile.read(PEOPLE / "demo" / "sample.wav", dtype="float32")
    soundfile.write(work / "part.wav", samples[: int(SECONDS * rate)], rate)
    run = RunConfig(DataFolder(ROOT / "models", "flag"), DataFolder(PEOPLE, "flag"), device="cpu")
    generate(run, JobConfig(silence=None), request.param, work / "part.wav", frames_dir=work / "frames")
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
    loud = np.log(np.sqrt((samples[: int(SECONDS * 16000)].reshape(-1, 640) ** 2).mean(1)) + 1e-3)
    assert len(frames) == SECONDS * 25
    assert moved[:8].max() < 0.6 * np.median(moved[15:]), "the sample begins with half a second of silence"
    assert np.corrcoef(moved, loud[: len(moved)])[0, 1] > 0.5


class StillFace:
    """The first frame of the avatar demo, of which only the mouth moves."""

    def __init__(self):
        run = RunConfig(
            DataFolder(ROOT / "models", "flag"), DataFolder(PEOPLE, "flag"), model="demo", device="cpu"
        )
        whole = load_avatar(PEOPLE, "demo")
        meta = replace(whole.meta, boxes=whole.meta.boxes[:1], crop_boxes=whole.meta.crop_boxes[:1])
        self.bundle = open_bundle(run)
        self.avatar = Avatar(meta, whole.frames[:1], whole.patches[:1], whole.latents[:1])
        self.shut = self.mouths(np.zeros(16_000, np.float32), 25)[-1]

    def mouths(self, samples, fps, alignment="frame"):
        """What can change in each frame of a sound, float64 `[frames, rows, columns, 3]`."""
        engine = make_engine(
            self.bundle, JobConfig(alignment=alignment, chunk=OFFLINE_HOP), MonotonicClock(), live=False
        )
        session = engine.open(self.avatar, Fraction(fps), OFFLINE_HOP, Fraction(0), 16_000, 1)
        session.hear(samples[:, None], 0.0)
        session.end_sound(0.0)
        found = []
        while engine.step():
            found += [frame.image[self.avatar.patches[0].box.slices()] for frame in take_all(session)]
        return np.array(found, np.float64)

    def openings(self, samples, fps, alignment="frame"):
        """How far the mouth is from shut in each frame, in levels."""
        return np.abs(self.mouths(samples, fps, alignment) - self.shut).mean(axis=(1, 2, 3))


@pytest.fixture(scope="module")
def still_face():
    return StillFace()


@pytest.fixture(scope="module")
def words():
    """A second and a half from the middle of the sample."""
    import soundfile

    return soundfile.read(PEOPLE / "demo" / "sample.wav", dtype="float32", start=16_000, stop=40_000)[0]


@pytest.fixture(scope="module")
def trained(still_face, words):
    """The opening at 25 fps."""
    return still_face.openings(words, 25)


@pytest.mark.slow
@pytest.mark.parametrize("fps", [8, 10, 12])
def test_the_first_frame_of_silence_is_shut_at_any_rate(still_face, trained, fps):
    """Rows that are padding alone are no silence to the networks: the published first frame is open."""
    quiet = np.zeros(16_000 // 4, np.float32)
    assert still_face.openings(quiet, fps)[0] < 0.05 * trained.max()
    assert still_face.openings(quiet, fps, "published")[0] > 0.4 * trained.max()


@pytest.mark.slow
@pytest.mark.parametrize("fps", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_the_lips_are_in_time_at_any_rate(still_face, words, trained, fps):
    """The shift at which the opening fits that at 25 fps best is below 20 ms."""
    opening = still_face.openings(words, fps)
    times = np.arange(len(opening)) / fps
    lags = np.arange(-300, 301) / 1000
    at_25 = np.arange(len(trained)) / 25
    alike = [np.corrcoef(opening, np.interp(times - lag, at_25, trained))[0, 1] for lag in lags]
    assert max(alike) > 0.9
    assert abs(lags[np.argmax(alike)]) <= 0.02


def test_nothing_changes_outside_the_mask(spoken):
    frames, avatar, _ = spoken
    for number in (0, 20, 38):
        crop = avatar.meta.crop_boxes[number].clamp(avatar.meta.width, avatar.meta.height)
        outside = np.ones(frames[number].shape[:2], bool)
        outside[crop.slices()] = False
        assert (frames[number][outside] == avatar.frames[number][outside]).all()
