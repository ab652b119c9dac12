"""A preparation that was interrupted goes on where it stopped, and nobody can tell from the result."""

import errno
import importlib
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from face_graphs import face_points
from films import film

from musetalk_cli.avatar.store import list_avatars, verify
from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.preparation.inputs import FaceNetworks, PictureSource
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.preview import contact_sheet, shift_grid
from musetalk_cli.preparation.run import prepare_avatar
from musetalk_cli.text import PROGRESS
from musetalk_cli.types import Box

SIZE, FRAMES, BATCH = (128, 96), 20, 4


class DiscFinder:
    """Takes a bright disc for a face: a finder of its own kind, with results that only the pixels decide."""

    name, batch, sees_mouth, cutoff_hz = "disc", 3, True, 3.0

    def __init__(self):
        self.seen = Counter()

    def find(self, frames, previous):
        self.seen["frames"] += len(frames)
        self.seen["calls"] += 1
        return [self.face(frame) for frame in frames]

    def face(self, frame):
        moments = cv2.moments((frame[..., 1] > 200).astype(np.uint8), binaryImage=True)
        if not moments["m00"]:
            return []
        centre = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
        points = np.round(face_points(centre, (moments["m00"] / np.pi) ** 0.5), 2)
        return [FaceLandmarks(points, Box(*(int(v) for v in (*points.min(0), *points.max(0) + 1))))]


class Encoder:
    """Latents that depend on the pixels and on who shares the batch, as those of a real network may."""

    def __init__(self):
        self.calls = 0

    def __call__(self, faces):
        self.calls += 1
        small = np.stack([cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA) for face in faces])
        latents = torch.from_numpy(np.tile(small[:, None, :, :, 0], (1, 8, 1, 1))).float() / 255
        return latents + len(faces) / 100


def interrupted(work, at):
    """The work, which at its call number `at` is stopped as by Ctrl-C."""
    calls = Counter()

    def stopped(*arguments):
        calls["all"] += 1
        if calls["all"] == at:
            raise KeyboardInterrupt
        return work(*arguments)

    return stopped


def prepare(clip, avatars, *, finder=None, encode=None, before=None, **options):
    return prepare_avatar(
        PictureSource(clip),
        avatars,
        "a",
        networks=FaceNetworks(encode or Encoder(), finder or DiscFinder()),
        options=PrepareOptions(**{"batch_size": BATCH, "min_faces": 0.2, **options}),
        model={"version": "v15"},
        before_publishing=before,
    )


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A lossless film of a disc that wanders, with two frames where it is gone."""
    frames = []
    for number in range(FRAMES):
        frame = np.random.default_rng(number).integers(0, 60, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
        if number not in (7, 8):
            cv2.circle(frame, (50 + number, 45 + 3 * (number % 3)), 24, (90, 255, 90), -1)
        frames.append(frame)
    return film(tmp_path_factory.mktemp("clip") / "clip.avi", frames)


@pytest.fixture(scope="module", params=[{}, {"trim": "auto"}], ids=["whole", "trimmed"])
def whole(request, clip, tmp_path_factory):
    """Options, and what an uninterrupted preparation with them gives."""
    folder = tmp_path_factory.mktemp("whole")
    prepare(clip, folder, **request.param)
    return request.param, files(folder / "a")


def test_sheets_drawn_before_publishing_show_the_frames_of_the_avatar(clip, whole, tmp_path):
    sheets = []

    def before(folder, meta, plan):
        assert list_avatars(tmp_path) == []
        sheets.extend(drawn(folder, meta, plan))

    def drawn(folder, meta, plan):
        return contact_sheet(folder, meta, plan), shift_grid(folder, meta, plan, 0, 10)

    done = prepare(clip, tmp_path, before=before, **whole[0])
    renumbered = replace(done.plan, first=0)
    for early, late in zip(sheets, drawn(tmp_path / "a", done.meta, renumbered), strict=True):
        assert np.array_equal(early, late)


@pytest.mark.parametrize("at", [1, 4, *(pytest.param(at, marks=pytest.mark.slow) for at in (2, 7))])
def test_stopped_while_finding_faces(clip, whole, tmp_path, at):
    options, expected = whole
    finder = DiscFinder()
    finder.find = interrupted(finder.find, at)
    with pytest.raises(KeyboardInterrupt):
        prepare(clip, tmp_path, finder=finder, **options)
    assert list_avatars(tmp_path) == []
    again = DiscFinder()
    done = prepare(clip, tmp_path, finder=again, **options)
    assert done.resumed % again.batch == 0
    assert again.seen["frames"] == FRAMES - done.resumed
    assert files(tmp_path / "a") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_going_on_is_progress_and_no_warning(clip, whole, tmp_path, caplog):
    options, _ = whole
    caplog.set_level(PROGRESS, logger="musetalk_cli")
    with pytest.raises(KeyboardInterrupt):
        prepare(clip, tmp_path, encode=interrupted(Encoder(), 1), **options)
    caplog.clear()
    prepare(clip, tmp_path, **options)
    said = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert said == [(PROGRESS, f"Going on after {FRAMES} frames of an interrupted preparation.")]


@pytest.mark.parametrize("at", [1, pytest.param(2, marks=pytest.mark.slow), 4])
def test_stopped_while_encoding(clip, whole, tmp_path, at):
    options, expected = whole
    encode = Encoder()
    with pytest.raises(KeyboardInterrupt):
        prepare(clip, tmp_path, encode=interrupted(encode, at), **options)
    finder, left = DiscFinder(), Encoder()
    assert prepare(clip, tmp_path, finder=finder, encode=left, **options).resumed == FRAMES
    assert not finder.seen
    assert files(tmp_path / "a") == expected
    batches = -(-sum(name.startswith("masks") for name in expected) // BATCH)
    assert left.calls == batches - (at - 1), "what was encoded is not encoded again"


def test_stopped_again_and_again(clip, whole, tmp_path):
    options, expected = whole
    for _ in range(30):
        finder, encode = DiscFinder(), Encoder()
        finder.find = interrupted(finder.find, 3)
        try:
            prepare(clip, tmp_path, finder=finder, encode=interrupted(encode, 4), **options)
        except KeyboardInterrupt:
            continue
        break
    assert files(tmp_path / "a") == expected
    assert verify(tmp_path, "a") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whole", "where"),
    [({}, "find"), ({"trim": "auto"}, "encode")],
    indirect=["whole"],
    ids=["whole", "trimmed"],
)
def test_killed(clip, whole, tmp_path, where):
    options, expected = whole
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import test_preparation_resume as t

        def killed(work, calls=[]):
            def stopped(*arguments):
                calls.append(1)
                if len(calls) == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return work(*arguments)
            return stopped

        finder, encode = t.DiscFinder(), t.Encoder()
        if sys.argv[3] == "find":
            finder.find = killed(finder.find)
        else:
            encode = killed(encode)
        t.prepare(Path(sys.argv[1]), Path(sys.argv[2]), finder=finder, encode=encode, **eval(sys.argv[4]))
        """
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(clip), str(tmp_path), where, repr(options)]
    run = subprocess.run(command, cwd=here, env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}"})
    assert run.returncode == -signal.SIGKILL
    assert list_avatars(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [".a.partial"]
    prepare(clip, tmp_path, **options)
    assert files(tmp_path / "a") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_torn_record_counts_as_not_written(clip, whole, tmp_path):
    options, expected = whole
    with pytest.raises(KeyboardInterrupt):
        prepare(clip, tmp_path, encode=interrupted(Encoder(), 3), **options)
    for name in ("survey.jsonl", "imaging.jsonl"):
        record = tmp_path / ".a.partial" / name
        record.write_bytes(record.read_bytes()[:-20])
    prepare(clip, tmp_path, **options)
    assert files(tmp_path / "a") == expected


@pytest.mark.parametrize(
    "other",
    [
        {"bbox_shift": 3},
        *(
            pytest.param(other, marks=pytest.mark.slow)
            for other in ({"smooth": False}, {"batch_size": 5}, {"latents": "fp16"})
        ),
    ],
)
def test_other_options_start_anew(clip, tmp_path, other):
    with pytest.raises(KeyboardInterrupt):
        prepare(clip, tmp_path / "resumed", encode=interrupted(Encoder(), 3))
    done = prepare(clip, tmp_path / "resumed", **other)
    assert done.resumed == 0
    prepare(clip, tmp_path / "fresh", **other)
    assert files(tmp_path / "resumed" / "a") == files(tmp_path / "fresh" / "a")


def test_another_source_starts_anew(clip, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare(clip, tmp_path / "avatars", encode=interrupted(Encoder(), 3))
    still = tmp_path / "still.png"
    frame = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    cv2.circle(frame, (60, 48), 24, (90, 255, 90), -1)
    cv2.imwrite(str(still), frame)
    done = prepare(still, tmp_path / "avatars")
    assert (done.resumed, done.meta.frames) == (0, 1)
    assert verify(tmp_path / "avatars", "a") == []


def test_a_failure_leaves_nothing_to_resume(clip, tmp_path):
    def broken(faces):
        raise InputError("no")

    with pytest.raises(InputError):
        prepare(clip, tmp_path, encode=broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["latents", "records"])
def test_a_full_disk_is_one_sentence_and_can_be_resumed(clip, whole, tmp_path, monkeypatch, what):
    options, expected = whole
    target, name = {
        "latents": ("musetalk_cli.avatar.latents.LatentsFile", "write"),
        "records": ("musetalk_cli.preparation.journal.Journal", "append"),
    }[what]
    calls = Counter()

    def full(self, *arguments):
        calls["all"] += 1
        if calls["all"] > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        module, _, cls = target.rpartition(".")
        original = getattr(getattr(importlib.import_module(module), cls), name)
        patch.setattr(f"{target}.{name}", full)
        with pytest.raises(OutputError, match="No space left on device") as caught:
            prepare(clip, tmp_path, **options)
    assert "avatars remove a" in caught.value.hint
    assert prepare(clip, tmp_path, **options).resumed >= 0
    assert files(tmp_path / "a") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_at_once_are_refused(clip, tmp_path):
    def meanwhile(faces):
        with pytest.raises(OutputError, match="Another process is preparing a"):
            prepare(clip, tmp_path)
        return Encoder()(faces)

    prepare(clip, tmp_path, encode=meanwhile)
    assert verify(tmp_path, "a") == []


def test_what_is_not_finished_is_told_and_can_be_removed(clip, tmp_path, musetalk):
    with pytest.raises(KeyboardInterrupt):
        prepare(clip, tmp_path, encode=interrupted(Encoder(), 3))
    code, _, err = musetalk("avatars", "list", "--avatars-dir", tmp_path)
    assert (code, "Not finished: a." in err) == (0, True)
    assert musetalk("avatars", "remove", "a", "--avatars-dir", tmp_path)[0] == 0
    assert list(tmp_path.iterdir()) == []
    assert musetalk("avatars", "remove", "a", "--avatars-dir", tmp_path)[0] == 1
