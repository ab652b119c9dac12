"""What a frame shows for each fate, with the avatar's own idle picture and with a clip."""

from fractions import Fraction

import numpy as np
import pytest
from handmade import passed_through

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.engine.pictures import Pictures
from musetalk_cli.timeline import Timeline, mirrored
from musetalk_cli.types import Clip, Fate, FrameRequest

FPS = Fraction(25)
CLIP = Clip([np.full((120, 160, 3), level, np.uint8) for level in (10, 20, 30)], Fraction(50))
BEFORE = np.full((120, 160, 3), 99, np.uint8)
MADE, WITHOUT = 1, 2
"""Source frames with a face and without one."""
CLIPS = pytest.mark.parametrize("clip", [None, CLIP], ids=["own", "clip"])


@pytest.fixture(scope="module")
def avatar():
    return passed_through(synthetic_avatar(160, 120, 64, 4), {WITHOUT})


def request_for(fate, weight=1.0, source=MADE, index=5):
    return FrameRequest(index, None, np.zeros((640, 1), np.float32), 0.0, 0.0, 0, fate, weight, source=source)


def patch_of(avatar, level=200):
    box = avatar.patches[MADE].box
    return np.full((box.height, box.width, 3), level, np.uint8)


def show(avatar, clip, request, patch=None, fate=None, before=BEFORE):
    pictures = Pictures(avatar, Timeline(FPS), clip)
    idle = pictures.idle(request)
    return pictures.show(request, fate or request.fate, patch, idle, before), idle


def test_the_idle_picture_is_the_source_frame_or_that_of_the_clip_at_its_own_speed(avatar):
    for index in range(9):
        request = request_for(Fate.IDLE, 0.0, index=index)
        assert np.array_equal(Pictures(avatar, Timeline(FPS), None).idle(request), avatar.frames[MADE])
        shown = CLIP.pictures[mirrored(2 * index, 3)]
        assert np.array_equal(Pictures(avatar, Timeline(FPS), CLIP).idle(request), shown)


@CLIPS
def test_the_idle_picture_costs_no_copy_and_nobody_can_write_into_it(avatar, clip):
    _, idle = show(avatar, clip, request_for(Fate.IDLE, 0.0))
    assert any(np.shares_memory(idle, one) for one in (avatar.frames if clip is None else clip.pictures))
    assert not idle.flags.writeable
    assert all(frame.flags.writeable for frame in avatar.frames)


@CLIPS
def test_a_speaking_frame_is_a_copy_of_its_source_frame_with_the_patch_in_its_box(avatar, clip):
    patch, box = patch_of(avatar), avatar.patches[MADE].box
    image, _ = show(avatar, clip, request_for(Fate.SPEAKING), patch)
    expected = avatar.frames[MADE].copy()
    expected[box.slices()] = patch
    assert np.array_equal(image, expected)
    assert not np.shares_memory(image, avatar.frames[MADE])


def test_a_fading_frame_is_mixed_in_its_patch_alone_where_the_idle_picture_is_the_source_frame(avatar):
    patch, box = patch_of(avatar), avatar.patches[MADE].box
    image, idle = show(avatar, None, request_for(Fate.FADING, 0.25), patch)
    expected = idle.astype(float)
    expected[box.slices()] = 0.25 * patch + 0.75 * idle[box.slices()]
    assert np.abs(image - expected).max() <= 0.5
    outside = np.ones(image.shape[:2], bool)
    outside[box.slices()] = False
    assert np.array_equal(image[outside], idle[outside])


def test_a_fading_frame_is_mixed_as_a_whole_with_a_clip(avatar):
    patch, box = patch_of(avatar), avatar.patches[MADE].box
    image, idle = show(avatar, CLIP, request_for(Fate.FADING, 0.25), patch)
    spoken = avatar.frames[MADE].astype(float)
    spoken[box.slices()] = patch
    assert np.abs(image - (0.25 * spoken + 0.75 * idle)).max() <= 0.5


@CLIPS
@pytest.mark.parametrize("fate", [Fate.IDLE, Fate.DISCARDED])
def test_where_nothing_is_said_the_idle_picture_itself_is_shown(avatar, clip, fate):
    image, idle = show(avatar, clip, request_for(fate, 0.0))
    assert image is idle


@CLIPS
def test_a_held_frame_shows_the_picture_before_it_or_the_idle_one_where_there_is_none(avatar, clip):
    request = request_for(Fate.HELD)
    assert show(avatar, clip, request)[0] is BEFORE
    image, idle = show(avatar, clip, request, before=None)
    assert image is idle


@CLIPS
@pytest.mark.parametrize(("fate", "source"), [(Fate.PASS_THROUGH, WITHOUT), (Fate.BROKEN, MADE)])
def test_what_has_no_usable_face_shows_its_source_frame(avatar, clip, fate, source):
    image, idle = show(avatar, clip, request_for(Fate.SPEAKING, source=source), fate=fate)
    assert np.array_equal(image, avatar.frames[source])
    assert (image is idle) is (clip is None), "read-only and shared where it is the idle picture"


def test_what_has_no_usable_face_fades_to_a_clip_all_the_same(avatar):
    request = request_for(Fate.PASS_THROUGH, 0.5, source=WITHOUT)
    image, idle = show(avatar, CLIP, request)
    assert np.abs(image - (0.5 * avatar.frames[WITHOUT] + 0.5 * idle)).max() <= 0.5
