"""Frames without a face are shown as they are, in their turn, and cost the networks nothing."""

import shutil
from dataclasses import replace
from fractions import Fraction
from math import floor

import cv2
import numpy as np
import pytest
import torch
from clocks import FakeClock
from handmade import passed_through, without_faces
from lives import is_same_picture, take_all

from musetalk_cli.avatar.store import load_avatar, load_meta, verify
from musetalk_cli.bench.synthetic import synthetic_avatar, synthetic_sound
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.engine.compositor import CpuPath, GpuPath
from musetalk_cli.engine.engine import Engine
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.run.generate import generate
from musetalk_cli.timeline import mirrored

JOB = JobConfig(batch_sizes=(4,), image_ops="cpu")
FPS = Fraction(25)


def some_frames(random, count):
    """A random set of frames that leaves at least one."""
    return set(random.choice(count, random.integers(1, count), replace=False).tolist())


class Counting(CpuPath):
    """Counts the faces of each batch."""

    def __init__(self):
        self.resized = []

    def resize(self, faces, targets):
        self.resized.append(len(targets))
        return super().resize(faces, targets)


class Speaker:
    """An engine whose work is counted: rows of every UNet batch, faces decoded, faces resized."""

    def __init__(self, bundle, job=JOB, images=None):
        images = images or Counting()
        self.unet_rows, self.decoded, self.resized = [], [], getattr(images, "resized", [])
        self._hooks = [
            bundle.unet.register_forward_pre_hook(lambda _, given: self.unet_rows.append(len(given[0]))),
            bundle.vae.decoder.register_forward_pre_hook(lambda _, given: self.decoded.append(len(given[0]))),
        ]
        # the hooks come first: the engine's networks are copies, made with it
        self.engine = Engine(bundle, job, StageStats(FakeClock()), images=images)

    def __del__(self):
        for hook in self._hooks:
            hook.remove()

    def open(self, avatar, fps=FPS, hop=Fraction(1, 2), rate=16_000, channels=1):
        return self.engine.open(avatar, fps, hop, None, rate, channels)

    def say(self, avatar, sound, **stream):
        """All frames of a sound that is given at once."""
        session = self.open(avatar, **stream)
        session.hear(sound, 0.0)
        session.end_sound(0.0)
        frames = []
        while self.engine.step():
            frames += take_all(session)
        assert session.is_done
        return frames


def assert_passed_through(frames, avatar, plain, numbers):
    """Frames are those of the plain avatar, but for those that are passed through, which are bit for bit.

    Where a face has another place in its batch it may round differently in a few values.
    """
    assert [frame.request.index for frame in frames] == list(range(len(plain)))
    for frame, animated in zip(frames, plain, strict=True):
        source = mirrored(floor(frame.pts * avatar.meta.fps), avatar.meta.frames)
        if source in numbers:
            assert np.array_equal(frame.image, avatar.frames[source])
        else:
            assert is_same_picture(frame.image, animated.image)
        assert not np.array_equal(animated.image, avatar.frames[source]), "the networks change every face"
        assert (frame.pts, frame.request.hop) == (animated.pts, animated.request.hop)
        assert np.array_equal(frame.request.audio, animated.request.audio)


@pytest.fixture(scope="module")
def noisy_avatar(golden_avatar):
    """The golden avatar, longer: its frames in another order, with latents that all differ."""
    order = [0, 1, 2, 3, 2, 0, 3]
    latents = golden_avatar.latents[order]
    latents = latents + 0.05 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    meta = replace(
        golden_avatar.meta,
        boxes=tuple(golden_avatar.meta.boxes[number] for number in order),
        crop_boxes=tuple(golden_avatar.meta.crop_boxes[number] for number in order),
    )
    frames = [golden_avatar.frames[number] for number in order]
    return replace(
        golden_avatar,
        meta=meta,
        frames=frames,
        patches=[golden_avatar.patches[number] for number in order],
        latents=latents,
    )


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_only_frames_with_a_face_are_animated(tiny_bundle, noisy_avatar, golden_sound, seed):
    random = np.random.default_rng(seed)
    numbers = some_frames(random, noisy_avatar.meta.frames)
    sizes = (int(random.integers(1, 6)),)
    job = replace(JOB, batch_sizes=sizes, image_ops=("cpu", "gpu")[seed % 2], sharpen=None)
    sound = golden_sound[: int(random.integers(9_000, 12_000)), None]
    hop = Fraction(int(random.integers(2, 8)), 10)
    plain = Speaker(tiny_bundle, job).say(noisy_avatar, sound, hop=hop)
    avatar = passed_through(noisy_avatar, numbers)
    frames = Speaker(tiny_bundle, job).say(avatar, sound, hop=hop)
    assert_passed_through(frames, avatar, plain, numbers)
    assert np.array_equal(np.concatenate([frame.request.audio for frame in frames]), sound)


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 6))])
def test_no_network_and_no_image_step_works_for_them(tiny_bundle, seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 12))
    avatar = synthetic_avatar(160, 120, 64, count)
    numbers = some_frames(random, count)
    job = replace(JOB, batch_sizes=tuple(range(1, int(random.integers(2, 10)))))
    speaker = Speaker(tiny_bundle, job)
    frames = speaker.say(passed_through(avatar, numbers), synthetic_sound(1.5))
    assert len(frames) == 37
    animated = sum(mirrored(index, count) not in numbers for index in range(37))
    assert sum(speaker.unet_rows) == sum(speaker.decoded) == sum(speaker.resized) == animated


def test_the_batch_size_is_that_of_the_faces(tiny_bundle):
    avatar = passed_through(synthetic_avatar(160, 120, 64, 24), set(range(1, 24)))
    speaker = Speaker(tiny_bundle, replace(JOB, batch_sizes=(2, 8, 24)))
    frames = speaker.say(avatar, synthetic_sound(0.96), hop=Fraction(2))
    assert (len(frames), speaker.unet_rows) == (24, [2])


def test_a_batch_without_a_face_runs_no_network(tiny_bundle):
    avatar = passed_through(synthetic_avatar(160, 120, 64, 24), set(range(1, 24)))
    speaker = Speaker(tiny_bundle)
    frames = speaker.say(avatar, synthetic_sound(0.96))
    assert (len(frames), speaker.unet_rows, speaker.decoded, speaker.resized) == (24, [4], [4], [1])


def test_nobody_can_write_into_the_avatar(tiny_bundle):
    """A made frame is a copy; one that is shown as it is costs no copy, and cannot be written to."""
    avatar = passed_through(synthetic_avatar(160, 120, 64, 3), {0, 2})
    before = [frame.copy() for frame in avatar.frames]
    for frame in Speaker(tiny_bundle).say(avatar, synthetic_sound(0.5)):
        if mirrored(frame.request.index, 3) == 1:
            frame.image[:] = 0
            continue
        with pytest.raises(ValueError, match="read-only"):
            frame.image[:] = 0
    assert np.array_equal(avatar.frames, before)


@pytest.mark.parametrize(
    ("image_ops", "flights"), [("cpu", 1), pytest.param("gpu", 2, marks=pytest.mark.slow)]
)
def test_several_sessions_at_random_keep_their_order(tiny_bundle, golden_avatar, image_ops, flights):
    """Sessions with some, many and no such frames share batches, of which two are on their way at once."""
    random, job = np.random.default_rng(flights), replace(JOB, image_ops=image_ops)
    bases = [golden_avatar, synthetic_avatar(320, 240, 96, 9), synthetic_avatar(160, 120, 64, 6)]
    sets = [{1, 2}, {0, 3, 4, 5, 6, 7, 8}, set()]
    avatars = [passed_through(base, numbers) for base, numbers in zip(bases, sets, strict=True)]
    streams = [
        {"fps": Fraction(25), "rate": 11_025, "channels": 2},
        {"fps": Fraction(30)},
        {"fps": Fraction(30000, 1001)},
    ]
    sounds = [0.1 * random.standard_normal(shape) for shape in ((5_000, 2), (9_000, 1), (7_345, 1))]
    sounds = [sound.astype(np.float32) for sound in sounds]
    plain = [
        Speaker(tiny_bundle, job).say(base, sound, **stream)
        for base, sound, stream in zip(bases, sounds, streams, strict=True)
    ]
    speaker = Speaker(tiny_bundle, job)
    speaker.engine.most_flights = flights
    sessions = [speaker.open(avatar, **stream) for avatar, stream in zip(avatars, streams, strict=True)]
    taken = speak_at_random(speaker.engine, sessions, sounds, random)
    for frames, avatar, expected, numbers, sound in zip(taken, avatars, plain, sets, sounds, strict=True):
        assert_passed_through(frames, avatar, expected, numbers)
        assert np.array_equal(np.concatenate([frame.request.audio for frame in frames]), sound)


def speak_at_random(engine, sessions, sounds, random):
    """Feed the sounds, a cut of one at a time, in any order, with any number of steps between them."""
    left = [list(np.array_split(sound, 8)) for sound in sounds]
    taken = [[] for _ in sessions]
    busy = True
    while busy:
        if any(left):
            number = random.choice([index for index, rest in enumerate(left) if rest])
            sessions[number].hear(left[number].pop(0), engine.stats.clock.now())
            if not left[number]:
                sessions[number].end_sound(engine.stats.clock.now())
        steps = [engine.step() for _ in range(random.integers(0, 3))]
        busy = any(left) or not steps or any(steps)
        for number, session in enumerate(sessions):
            taken[number] += take_all(session)
        engine.stats.clock.time += random.random() / 10
    assert all(session.is_done for session in sessions)
    return taken


@pytest.mark.parametrize("step", ["place", "resize", "download"])
def test_they_keep_their_turn_when_the_device_has_no_memory(tiny_bundle, golden_avatar, golden_sound, step):
    class Failing(GpuPath):
        def place(self, avatar):
            return self._fail("place") or super().place(avatar)

        def resize(self, faces, targets):
            return self._fail("resize") or super().resize(faces, targets)

        def download(self, patches):
            return self._fail("download") or super().download(patches)

        def _fail(self, name):
            if name == step:
                raise torch.OutOfMemoryError("out of memory, as injected")

    sound, numbers = golden_sound[:8000, None], {1, 2}
    plain = Speaker(tiny_bundle).say(golden_avatar, sound)
    speaker = Speaker(tiny_bundle, images=Failing(torch.device("cpu")))
    avatar = passed_through(golden_avatar, numbers)
    assert_passed_through(speaker.say(avatar, sound), avatar, plain, numbers)
    assert speaker.engine.images.fallbacks == 1


@pytest.mark.parametrize("image_ops", [pytest.param("cpu", marks=pytest.mark.slow), "gpu"])
def test_generate_passes_frames_through_from_files_to_files(golden, avatars_dir, models, tmp_path, image_ops):
    numbers = {0, 3} if image_ops == "cpu" else {2}
    shutil.copytree(avatars_dir / "synthetic", tmp_path / "avatars" / "synthetic")
    place = tmp_path / "avatars" / "synthetic"
    (place / "avatar.json").write_text(without_faces(load_meta(avatars_dir, "synthetic"), numbers).to_json())
    for number in numbers:
        (place / "masks" / f"{number:08d}.png").unlink()
    assert verify(tmp_path / "avatars", "synthetic") == []
    job = JobConfig(batch_sizes=(8,), image_ops=image_ops)
    for folder, out in ((avatars_dir, "plain"), (tmp_path / "avatars", "passed")):
        run = RunConfig(DataFolder(models, "flag"), DataFolder(folder, "flag"), str(models), "cpu", "fp32")
        report = generate(run, job, "synthetic", golden / "audio.wav", frames_dir=tmp_path / out)
        assert report.frames == 25
    frames = load_avatar(avatars_dir, "synthetic").frames
    for number in range(25):
        plain, passed = (cv2.imread(str(tmp_path / out / f"{number:08d}.png")) for out in ("plain", "passed"))
        source = mirrored(number, 4)
        if source in numbers:
            assert np.array_equal(passed, frames[source])
        else:
            assert is_same_picture(passed, plain)
        assert not np.array_equal(plain, frames[source])
