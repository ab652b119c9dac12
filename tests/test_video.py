"""Frames from videos, images and folders, and what is said about broken ones."""

import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from musetalk_cli.errors import InputError
from musetalk_cli.media.video import read_frames, source_files

SIZE = (64, 48)
NOISE = "testsrc=size=64x48:rate=25:duration=1,noise=alls=40:allf=t"


def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "a clip: 'one' -%d.mp4"
    ffmpeg("-f", "lavfi", "-i", NOISE, "-pix_fmt", "yuv420p", "-movflags", "+faststart", f"file:{path}")
    return path


def picture(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)


def test_every_frame_of_a_video_once(clip):
    with read_frames(clip) as video:
        assert (video.fps, video.width, video.height, video.expected) == (25, 64, 48, 25)
        frames = list(video)
    assert len(frames) == 25
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)
    assert len({frame.tobytes() for frame in frames}) == 25


def test_colours_are_blue_green_red(tmp_path):
    path = tmp_path / "red.avi"
    ffmpeg("-f", "lavfi", "-i", "color=red:size=32x32:rate=5:duration=1", "-c:v", "png", path)
    with read_frames(path) as video:
        assert all((frame[..., :2] < 4).all() and (frame[..., 2] > 250).all() for frame in video)


def test_lossless_frames_come_back_as_they_were(tmp_path):
    pictures = [picture(number) for number in range(5)]
    path = tmp_path / "lossless.avi"
    writer = imageio_ffmpeg.write_frames(
        str(path), SIZE, pix_fmt_in="bgr24", pix_fmt_out="bgr24", codec="rawvideo", fps=10, macro_block_size=1
    )
    writer.send(None)
    for image in pictures:
        writer.send(image.tobytes())
    writer.close()
    with read_frames(path) as video:
        assert video.fps == 10
        np.testing.assert_array_equal(list(video), pictures)


def test_closing_early_ends_the_decoder(tmp_path):
    path = tmp_path / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=320x240:rate=25:duration=20", "-c:v", "mpeg4", path)
    started = []
    real = subprocess.Popen

    def record(*arguments, **options):
        started.append(real(*arguments, **options))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", record)
        for frames_taken in (0, 3):
            with read_frames(path) as video:
                for _ in range(frames_taken):
                    next(iter(video))
            assert all(process.poll() is not None for process in started)


def test_one_image(tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), picture(0))
    with read_frames(tmp_path / "face.png") as video:
        assert (video.fps, video.expected) == (25, 1)
        np.testing.assert_array_equal(list(video), [picture(0)])


def test_a_folder_in_natural_order(tmp_path):
    for number in (10, 9, 100, 1):
        cv2.imwrite(str(tmp_path / f"frame {number}.png"), picture(number))
    (tmp_path / "notes.txt").write_text("no image")
    assert [path.stem for path in source_files(tmp_path)] == ["frame 1", "frame 9", "frame 10", "frame 100"]
    with read_frames(tmp_path) as video:
        np.testing.assert_array_equal(list(video), [picture(number) for number in (1, 9, 10, 100)])


def test_images_of_two_sizes_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), picture(1))
    cv2.imwrite(str(tmp_path / "2.png"), picture(2, (32, 32)))
    with read_frames(tmp_path) as video, pytest.raises(InputError, match=r"2\.png is 32x32"):
        list(video)


@pytest.mark.parametrize("name", ["none.mp4", "empty.mp4", "text.mp4", "text.png", "folder", "sound.wav"])
def test_what_is_no_picture(tmp_path, name):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is not a video. " * 100)
    (tmp_path / "text.png").write_text("This is not an image.")
    (tmp_path / "folder").mkdir()
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.1", tmp_path / "sound.wav")
    with pytest.raises(InputError, match=name) as caught:
        read_frames(tmp_path / name)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_an_image_that_claims_to_be_huge(tmp_path):
    done, data = cv2.imencode(".png", picture(0))
    assert done
    head = bytearray(data.tobytes())
    head[16:24] = (60_000).to_bytes(4, "big") * 2
    (tmp_path / "huge.png").write_bytes(head)
    with pytest.raises(InputError, match=r"huge\.png"):
        read_frames(tmp_path / "huge.png")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_video_that_is_cut_off(clip, tmp_path, suffix):
    whole, part = tmp_path / f"whole.{suffix}", tmp_path / f"part.{suffix}"
    ffmpeg("-i", f"file:{clip}", "-c", "copy", "-movflags", "+faststart", whole)
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with read_frames(part) as video, pytest.raises(InputError, match="cut off after"):
        list(video)


def test_a_playlist_reaches_no_network(tmp_path):
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match=r"list\.m3u8"):
        read_frames(tmp_path / "list.m3u8")
