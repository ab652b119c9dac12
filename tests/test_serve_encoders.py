"""What viewers are sent, read back by decoders: H.264, Opus and JPEG."""

from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lives import delay_of, level, speech

from musetalk_cli.errors import OutputError
from musetalk_cli.types import StreamFormat

av = pytest.importorskip("av", reason="the extra serve is not installed")

from musetalk_cli.serve import encoders  # noqa: E402 - needs PyAV
from musetalk_cli.serve.encoders import H264Encoder, OpusEncoder, hardware_works, jpeg  # noqa: E402

CONSTRAINED_BASELINE = 66, 0x40


def stream(width=96, height=64, fps=Fraction(25), rate=48_000, channels=1):
    return StreamFormat(width, height, fps, rate, channels)


def picture(number, width=96, height=64):
    """A smooth picture with every colour that moves from one to the next; read only, as frames are."""
    rows, columns = np.mgrid[:height, :width] / 16 + number / 4
    waves = (np.sin(rows), np.sin(columns + 1), np.sin(rows + columns + 2))
    image = np.stack([128 + 100 * wave for wave in waves], axis=2).astype(np.uint8)
    image.setflags(write=False)
    return image


def units(encoder, count, keys=(), fps=Fraction(25), image=picture):
    return [encoder.encode(image(n), n / fps, key=n in keys) for n in range(count)]


def kinds(unit):
    """Types of the NAL units of an access unit, but for what only comments."""
    found, at = [], 0
    while (at := unit.find(b"\0\0\1", at)) >= 0:
        found.append(unit[at + 3] & 0x1F)
        at += 3
    return [kind for kind in found if kind != 6]


def decode(access_units):
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for unit in access_units for frame in decoder.decode(av.Packet(unit))]
    return frames + decoder.decode(None)


def bgr(frame):
    """A decoded frame by the formulas of BT.709 in the limited range, chroma as it is stored."""
    y, u, v = np.split(
        frame.to_ndarray().ravel(), np.cumsum([frame.height * frame.width, frame.height * frame.width // 4])
    )
    half = (frame.height // 2, frame.width // 2)
    y = (y.reshape(frame.height, frame.width) - 16.0) / 219
    u, v = (np.kron((plane.reshape(half) - 128.0) / 224, np.ones((2, 2))) for plane in (u, v))
    red, blue = y + 1.5748 * v, y + 1.8556 * u
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    return 255 * np.stack([blue, green, red], axis=2).clip(0, 1)


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one - other.astype(float)) ** 2))


def test_pictures_come_back_at_once_and_as_they_were():
    made = units(H264Encoder(stream()), 10)
    decoder = av.CodecContext.create("h264", "r")
    decoder.flags |= 0x80000  # low delay: each must come without those behind it
    for number, (unit, _) in enumerate(made):
        (frame,) = decoder.decode(av.Packet(unit))
        assert psnr(bgr(frame), picture(number)) > 36


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 0), (255, 0, 0), (40, 90, 200)]
)
def test_colours_are_exact_and_said(colour):
    image = np.full((64, 96, 3), colour, np.uint8)
    (frame,) = decode([H264Encoder(stream()).encode(image, Fraction(0))[0]])
    assert np.abs(bgr(frame) - colour).max() < 3
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)


def test_every_browser_decodes_the_profile():
    unit, _ = H264Encoder(stream()).encode(picture(0), Fraction(0))
    profile = unit[unit.find(b"\0\0\1\x67") + 4 :][:2]
    assert profile[0] == CONSTRAINED_BASELINE[0]
    assert profile[1] & CONSTRAINED_BASELINE[1]


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(5)])
def test_an_idr_comes_every_second_and_on_request_with_its_parameter_sets(fps):
    second = int(fps)
    made = units(H264Encoder(stream(fps=fps)), 3 * second + 4, {second + 2}, fps)
    keys = [number for number, (_, is_key) in enumerate(made) if is_key]
    assert keys == [0, second, second + 2, 2 * second + 2, 3 * second + 2]
    for unit, is_key in made:
        assert kinds(unit) == ([7, 8, 5] if is_key else [1])


def test_an_idr_on_request_stands_alone_and_what_follows_builds_on_it():
    made = units(H264Encoder(stream()), 20, {7})
    frames = decode([unit for unit, _ in made[7:]])
    assert len(frames) == 13
    assert min(psnr(bgr(frame), picture(7 + n)) for n, frame in enumerate(frames)) > 36


def test_odd_sizes_get_their_last_row_and_column_twice():
    image = picture(3, 95, 63)
    (frame,) = decode([H264Encoder(stream(95, 63)).encode(image, Fraction(0))[0]])
    assert (frame.width, frame.height) == (96, 64)
    assert psnr(bgr(frame)[:63, :95], image) > 34


def test_the_bit_rate_is_bounded():
    noise = lambda n: np.random.default_rng(n).integers(0, 256, (256, 256, 3), np.uint8)  # noqa: E731
    sizes = [8 * len(unit) for unit, _ in units(H264Encoder(stream(256, 256)), 100, image=noise)]
    seconds = np.convolve(sizes, np.ones(25), "valid")
    assert seconds[25:].max() < 1.5 * 500_000 * 1.1


def test_a_size_that_cannot_be_encoded_is_told():
    with pytest.raises(OutputError, match=r"^The picture cannot be encoded as H\.264: .+[^.]\.$"):
        H264Encoder(stream(20_000, 20_000))


def test_the_gpu_encodes_where_it_is_asked_to_and_can():
    encoder = H264Encoder(stream(256, 256), hardware=True)
    assert encoder.codec == ("h264_nvenc" if hardware_works() else "libx264")
    assert encoder.encode(picture(0, 256, 256), Fraction(0))[1]
    assert H264Encoder(stream()).codec == "libx264"


def test_a_gpu_that_takes_no_further_stream_is_done_without(monkeypatch, caplog):
    if hardware_works():
        pytest.skip("this GPU would take it")
    monkeypatch.setattr(encoders, "hardware_works", lambda: True)
    with caplog.at_level("INFO"):
        encoder = H264Encoder(stream(256, 256), hardware=True)
    assert encoder.codec == "libx264"
    assert encoder.encode(picture(0, 256, 256), Fraction(0))[1]
    assert "takes no further stream" in caplog.text


def test_jpeg():
    image = picture(1)
    assert psnr(cv2.imdecode(np.frombuffer(jpeg(image), np.uint8), cv2.IMREAD_COLOR), image) > 32
    assert len(jpeg(image, 40)) < len(jpeg(image))


def pieces(sound, size):
    return [sound[at : at + size] for at in range(0, len(sound), size)]


def heard(packets, channels=1):
    """What a decoder gives, laid out by the packets' times from 0: float32 `[n, channels]`."""
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.format = 48_000, "stereo", "flt"
    parts = [
        frame.to_ndarray().reshape(-1, 2) for one in packets for frame in decoder.decode(av.Packet(one.data))
    ]
    return np.concatenate(parts)[-packets[0].pts :, :channels]


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_sound_is_heard_at_its_time(rate):
    sound, encoder = speech(2, rate), OpusEncoder(rate, 1)
    packets = [one for piece in pieces(sound[:, None], rate // 25) for one in encoder.encode(piece)]
    assert {later.pts - one.pts for one, later in pairwise(packets)} == {960}
    reference = np.interp(np.arange(96_000) / 48_000, np.arange(len(sound)) / rate, sound).astype(np.float32)
    delay, likeness = delay_of(reference[24_000:60_000], heard(packets)[:, 0], 48_000)
    assert abs(delay - 0.5) < 0.001
    assert likeness > 0.85  # noise, at 1 bit a sample


def test_packets_come_with_the_frame_that_completes_them_and_tell_where_they_start():
    encoder = OpusEncoder(48_000, 1, start=4_800)
    made = [encoder.encode(piece) for piece in pieces(speech(0.2, 48_000)[:, None], 1920)]
    assert [len(packets) for packets in made] == [2] * 5
    first = made[0][0].pts
    assert 4_800 - 480 < first <= 4_800
    assert [one.pts for packets in made for one in packets] == [first + 960 * n for n in range(10)]


def test_about_48_kbit_a_second():
    encoder = OpusEncoder(48_000, 1)
    bits = sum(
        8 * len(one.data)
        for piece in pieces(speech(4, 48_000)[:, None], 1920)
        for one in encoder.encode(piece)
    )
    assert 30_000 < bits / 4 < 60_000


@pytest.mark.parametrize("channels", [2, 4])
def test_sides_stay_apart(channels):
    sound = np.zeros((48_000, channels), np.float32)
    sound[:, ::2] = speech(1, 48_000)[:, None]
    encoder = OpusEncoder(48_000, channels)
    packets = [one for piece in pieces(sound, 1920) for one in encoder.encode(piece)]
    left, right = heard(packets, 2).T
    assert level(left) > level(right) + 30


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=12))
def test_the_packets_do_not_depend_on_how_the_sound_was_cut(sizes):
    sound = speech(sum(sizes) / 44_100, 44_100)[:, None]
    whole, cut = OpusEncoder(44_100, 1), OpusEncoder(44_100, 1)
    parts = np.split(sound, np.cumsum(sizes)[:-1])
    assert list(whole.encode(sound)) == [one for part in parts for one in cut.encode(part)]
