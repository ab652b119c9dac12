"""The published order of work gives the frames that ours gives: it is the same work in another order."""

import numpy as np
import torch
from handmade import passed_through

from musetalk_cli.bench.published import PublishedFrames, published_chunk
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.engine.compositor import CpuPath


def ours(avatar, face, number):
    """A frame by the specification."""
    path = CpuPath()
    target = path.place(avatar)[number]
    [patch] = path.blend(path.resize(torch.from_numpy(face[None]), [target]), [target])
    frame = avatar.frames[number].copy()
    frame[avatar.patches[number].box.slices()] = patch
    return frame


def test_frames_are_those_of_the_specification():
    avatar = synthetic_avatar(160, 120, 64, 5)
    frames, random = PublishedFrames(avatar), np.random.default_rng(1)
    before = [frame.copy() for frame in avatar.frames]
    for number in range(7):
        face = random.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        assert np.array_equal(frames.frame(face, number), ours(avatar, face, number % 5))
    for frame, kept in zip(avatar.frames, before, strict=True):
        assert np.array_equal(frame, kept), "an avatar's frame is never drawn on"


def test_frames_without_a_face_are_passed_over():
    avatar = passed_through(synthetic_avatar(160, 120, 64, 4), {0, 2})
    face = np.full((256, 256, 3), 200, np.uint8)
    frames = PublishedFrames(avatar)
    for number, source in enumerate([1, 3, 1]):
        assert np.array_equal(frames.frame(face, number), ours(avatar, face, source))


def test_faces_are_rounded_on_the_host_and_their_colours_turned():
    decoded = torch.linspace(-1.2, 1.2, 3 * 256 * 256).reshape(1, 3, 256, 256)
    [face] = PublishedFrames(synthetic_avatar(160, 120, 64, 1)).faces(decoded)
    expected = np.rint(np.clip(decoded[0].numpy() / 2 + 0.5, 0, 1) * 255).astype(np.uint8)
    assert np.array_equal(face, expected.transpose(1, 2, 0)[..., ::-1])


def test_the_first_frame_comes_before_the_last():
    frames, done = PublishedFrames(synthetic_avatar(160, 120, 64, 2)), []

    def decode():
        done.append("decoded")
        return torch.zeros(3, 3, 256, 256)

    first, last = published_chunk(lambda: done.append("encoded"), decode, frames)
    assert done == ["encoded", "decoded"]
    assert 0 < first < last
