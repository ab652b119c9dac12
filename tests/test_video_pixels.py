"""What frames look like: upright, with square pixels, opaque, 8 bits, in the standard range."""

from fractions import Fraction

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from test_video import ffmpeg, picture

from musetalk_cli.media import ffmpeg as ffmpeg_tool
from musetalk_cli.media.video import Selection, read_frames

BLACK = "put on black"
PEAKS = (10, 12, 100)


def first(source, selection=None):
    """The first frame as int, and the clip."""
    with read_frames(source, *([selection] if selection else [])) as video:
        return next(iter(video)).astype(int), video


def encode(path, images, pixels, *options, rate=10):
    """A video of arrays whose bytes are what ffmpeg calls `pixels`."""
    height, width = images[0].shape[:2]
    form = "bgra" if images[0].dtype == np.uint8 and images[0].shape[-1] == 4 else "bgr24"
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), pix_fmt_in=form, pix_fmt_out=pixels, fps=rate, macro_block_size=1,
        codec=options[0], output_params=list(options[1:]), quality=None,
    )  # fmt: skip
    writer.send(None)
    for image in images:
        writer.send(np.ascontiguousarray(image).tobytes())
    writer.close()
    return path


def blocks(seed, channels=3, size=(64, 48)):
    """Squares of 16 pixels in one random colour each, which codecs keep."""
    small = np.random.default_rng(seed).integers(0, 256, (size[1] // 16, size[0] // 16, channels))
    return np.kron(small, np.ones((16, 16, 1), np.int64)).astype(np.uint8)


def inside(image):
    """The middles of the squares."""
    return image[4::16, 4::16].astype(int)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("turn", "code"), [(90, 2), (180, 1), (270, 0)])
def test_a_turned_video_is_shown_upright(tmp_path, suffix, turn, code):
    clip = encode(tmp_path / "clip.mp4", [blocks(1)] * 3, "yuv444p", "libx264", "-crf", "1")
    turned = tmp_path / f"turned.{suffix}"
    ffmpeg("-display_rotation", turn, "-i", clip, "-c", "copy", turned)
    frame, video = first(turned)
    rotate = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)[code]
    wanted = cv2.rotate(blocks(1), rotate)
    assert (video.width, video.height) == (wanted.shape[1], wanted.shape[0])
    assert np.abs(inside(frame) - inside(wanted)).max() < 6
    reader = cv2.VideoCapture(str(turned))
    assert np.abs(frame - reader.read()[1]).mean() < 2


@pytest.mark.parametrize("size", [(353, 241), (33, 47)])
@pytest.mark.parametrize(
    ("codec", "pixels"), [("libx264", "yuv444p"), ("libvpx-vp9", "yuv420p"), ("mpeg4", "yuv420p")]
)
def test_odd_sizes(tmp_path, size, codec, pixels):
    path = tmp_path / "odd.mkv"
    image = cv2.GaussianBlur(picture(2, size), (0, 0), 8)
    encode(path, [image] * 3, pixels, codec, "-b:v", "4M")
    frame, video = first(path)
    assert (video.width, video.height) == size
    assert np.abs(frame - image).mean() < 6


@pytest.mark.parametrize(
    ("aspect", "turn", "shown"),
    [("4/3", 0, (85, 48)), ("8/9", 0, (64, 54)), ("4/3", 90, (48, 85)), ("1/1", 0, (64, 48))],
)
def test_pixels_that_are_not_square(tmp_path, aspect, turn, shown):
    path = tmp_path / "clip.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=5:duration=1,setsar={aspect}", tmp_path / "flat.mp4"
    )
    ffmpeg("-display_rotation", turn, "-i", tmp_path / "flat.mp4", "-c", "copy", path)
    frame, video = first(path)
    assert (frame.shape[1], frame.shape[0]) == (video.width, video.height) == shown
    assert any("not square" in note for note in video.notes) == (aspect != "1/1")
    small, video = first(path, Selection(max_size=40))
    assert max(small.shape[:2]) == 40
    assert abs(small.shape[1] / small.shape[0] - shown[0] / shown[1]) < 0.04
    assert any(f"from {shown[0]}x{shown[1]} to" in note for note in video.notes)


def over_black(image):
    """What a BGRA image shows over black, by Pillow."""
    whole = Image.fromarray(image[..., [2, 1, 0, 3]], "RGBA")
    black = Image.new("RGBA", whole.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, whole))[..., 2::-1].astype(int)


@pytest.mark.parametrize(
    ("name", "pixels", "options", "tolerance"),
    [
        ("vp9.webm", "yuva420p", ("libvpx-vp9", "-crf", "4", "-b:v", "4M"), 12),
        ("vp8.webm", "yuva420p", ("libvpx", "-auto-alt-ref", "0", "-crf", "4", "-b:v", "4M"), 12),
        ("prores.mov", "yuva444p10le", ("prores_ks", "-profile:v", "4444"), 6),
        ("animation.mov", "argb", ("qtrle",), 1),
        ("png.mov", "rgba", ("png",), 1),
        ("ffv1.mkv", "bgra", ("ffv1",), 1),
    ],
)
def test_a_transparent_video_is_put_on_black(tmp_path, name, pixels, options, tolerance):
    images = [blocks(seed, 4) for seed in range(3)]
    path = encode(tmp_path / name, images, pixels, *options)
    with read_frames(path) as video:
        assert sum(BLACK in note for note in video.notes) == 1
        frames = list(video)
    assert len(frames) == 3
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(inside(frame) - inside(over_black(image))).max() <= tolerance


def test_transparency_that_cannot_be_read(tmp_path, monkeypatch):
    path = encode(tmp_path / "vp9.webm", [blocks(0, 4)], "yuva420p", "libvpx-vp9", "-b:v", "4M")
    monkeypatch.setattr(ffmpeg_tool, "listed", lambda *_: frozenset())
    frame, video = first(path)
    assert frame.shape == (48, 64, 3)
    assert "left out" in video.notes[-1]


@pytest.mark.parametrize(
    "name", ["clip.gif", "clip.png", "clip.webp", "clip %02d.gif", "clip %d.png", "%d.webp"]
)
def test_an_animation_is_a_video(tmp_path, name):
    images = [Image.fromarray(blocks(seed)) for seed in range(5)]
    options = {} if name.endswith("gif") else {"lossless": True}
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:], duration=40, **options)
    with read_frames(tmp_path / name) as video:
        assert (video.fps, video.expected) == (25, 5)
        frames = list(video)
    for seed, frame in enumerate(frames):
        np.testing.assert_allclose(inside(frame), inside(blocks(seed)[..., ::-1]), atol=4)
    assert len(frames) == 5


def test_a_gif_with_its_own_times(tmp_path):
    images = [Image.fromarray(blocks(seed)) for seed in range(4)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[100, 300, 100, 900])
    with read_frames(tmp_path / "a.gif", Selection(fps=Fraction(10))) as video:
        frames = list(video)
    assert video.expected == len(frames) == 14
    for frame, seed in zip(frames, [0, 1, 1, 1, 2] + [3] * 9, strict=True):
        np.testing.assert_allclose(inside(frame), inside(blocks(seed)[..., ::-1]), atol=4)


def test_a_transparent_gif_is_put_on_black(tmp_path):
    path = tmp_path / "a.gif"
    half = "format=rgba,geq=r=200:g=100:b=50:a='255*lt(X,32)'"
    graph = (
        f"color=black:size=64x48:rate=10:duration=0.3,{half},split[a][b];[a]palettegen[p];[b][p]paletteuse"
    )
    ffmpeg("-f", "lavfi", "-i", graph, path)
    frame, video = first(path)
    assert BLACK in video.notes[0]
    assert np.abs(frame[:, :32] - (50, 100, 200)).max() < 8
    assert (frame[:, 32:] == 0).all()


def test_a_still_that_is_named_as_an_animation(tmp_path):
    Image.fromarray(blocks(0)).save(tmp_path / "one.gif")
    frame, video = first(tmp_path / "one.gif")
    assert video.expected == 1
    np.testing.assert_allclose(inside(frame), inside(blocks(0)[..., ::-1]), atol=4)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
def test_ten_bits_look_like_eight(tmp_path, matrix):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=5:duration=1", "-pix_fmt", "bgr0", "-c:v", "ffv1",
           tmp_path / "source.mkv")  # fmt: skip
    for before, after, pixels in (("source", "eight", "yuv444p"), ("eight", "ten", "yuv444p10le")):
        graph = f"scale=out_color_matrix={matrix}:out_range=tv:flags=accurate_rnd,format={pixels}"
        ffmpeg("-i", tmp_path / f"{before}.mkv", "-vf", graph, "-c:v", "ffv1", tmp_path / f"{after}.mkv")
    source, _ = first(tmp_path / "source.mkv")
    eight, _ = first(tmp_path / "eight.mkv")
    ten, video = first(tmp_path / "ten.mkv")
    assert np.abs(eight - ten).max() <= 2
    assert np.abs(source - ten).max() <= 4
    assert video.notes == ()


def pq(nits):
    """SMPTE ST 2084: signal of 0..1 for a luminance."""
    power = (np.asarray(nits) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def test_high_dynamic_range_becomes_standard(tmp_path):
    """Greys of known luminance come out as Hable's curve has them, 100 cd/m2 being 1."""
    nits = np.array([1, 5, 20, 50, 100, 203, 600, 1000])
    codes = np.round(64 + 876 * pq(nits)).astype(np.uint16)
    luma = np.repeat(np.repeat(codes[None], 48, 0), 8, 1)
    raw = np.concatenate([luma.ravel(), np.full(64 * 48 // 2, 512, np.uint16)])
    (tmp_path / "raw.yuv").write_bytes(np.tile(raw, 3).tobytes())
    tags = "setparams=color_trc=smpte2084:color_primaries={}:colorspace={}:range=tv"

    def clip(name, *colours):
        ffmpeg("-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", "64x48", "-i", tmp_path / "raw.yuv", "-vf",
                tags.format(*colours), "-c:v", "ffv1", tmp_path / name)  # fmt: skip
        return first(tmp_path / name)

    frame, video = clip("told.mkv", "bt2020", "bt2020nc")
    assert "High dynamic range (PQ) was converted" in video.notes[0]
    got = frame[24, 4::8]
    assert (np.ptp(got, axis=1) <= 1).all()

    def hable(x):
        return (x * (0.15 * x + 0.05) + 0.004) / (x * (0.15 * x + 0.5) + 0.06) - 0.02 / 0.3

    # ffmpeg takes 1000 or 10000 cd/m2 for white where a file does not say; BT.1886 has an exponent of 2.4.
    wanted = [255 * (hable(nits / 100) / hable(white)).clip(0, 1) ** (1 / 2.4) for white in PEAKS]
    assert min(np.abs(got[:, 0] - values).max() for values in wanted) <= 3, (got[:, 0], wanted)
    untold, _ = clip("untold.mkv", "unknown", "unknown")
    np.testing.assert_allclose(untold, frame, atol=1)


def test_hlg_and_an_ffmpeg_without_the_filters(tmp_path, monkeypatch):
    path = tmp_path / "hlg.mkv"
    tags = "setparams=color_trc=arib-std-b67:color_primaries=bt2020:colorspace=bt2020nc"
    ffmpeg("-f", "lavfi", "-i", f"color=gray:size=64x48:rate=5:duration=0.4,format=yuv420p10le,{tags}",
           "-c:v", "ffv1", path)  # fmt: skip
    frame, video = first(path)
    assert "High dynamic range (HLG) was converted" in video.notes[0]
    monkeypatch.setattr(ffmpeg_tool, "listed", lambda *_: frozenset({"tonemap"}))
    plain, video = first(path)
    assert "left as it is" in video.notes[0]
    assert np.abs(plain - 127).max() <= 3
    assert not np.array_equal(plain, frame)


def test_a_video_that_changes_its_size_keeps_that_of_its_beginning(tmp_path):
    large = cv2.resize(blocks(1), (96, 72), interpolation=cv2.INTER_NEAREST)
    files = [cv2.imencode(".jpg", image)[1].tobytes() for image in [blocks(0)] * 4 + [large] * 4]
    (tmp_path / "both.mjpeg").write_bytes(b"".join(files))
    with read_frames(tmp_path / "both.mjpeg") as video:
        frames = list(video)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 8
    for number, frame in enumerate(frames):
        assert np.abs(inside(frame) - inside(blocks(number // 4))).max() < 12
