import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from fractions import Fraction

import cv2
import numpy as np
import pytest
from processes import open_descriptors

from musetalk_cli.errors import OutputError
from musetalk_cli.media import ffmpeg, pipe_writer
from musetalk_cli.media.audio import SoundReader, probe_sound
from musetalk_cli.media.containers import FILES, FLV, FRAGMENTED, MATROSKA, MP4, can_send
from musetalk_cli.media.encode import VideoEncoder
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import StreamFormat


def picture(width, height, number):
    """Smooth colours that move: what a face is to a codec."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [(x * 2 + number * 3) % 200 + 20, (y * 2) % 180 + 30, np.full_like(x, 40 + 5 * number % 150)], axis=2
    ).astype(np.uint8)


def smooth(width, height, number):
    return cv2.GaussianBlur(picture(width, height, number), (0, 0), 3)


def encode(path, stream, frames):
    """Write `frames` pictures with a tone; returns the pictures."""
    timeline = Timeline(stream.fps)
    encoder = VideoEncoder(path, stream)
    pictures = []
    for number in range(frames):
        begin, end = (timeline.frame_start(n, stream.sample_rate) for n in (number, number + 1))
        tone = 0.3 * np.sin(np.arange(begin, end) * 2 * np.pi * 440 / stream.sample_rate)
        pictures.append(smooth(stream.width, stream.height, number))
        encoder.write(pictures[-1], np.repeat(tone[:, None], stream.channels, 1).astype(np.float32))
    encoder.finish()
    return pictures


def decode(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize(
    ("rate", "channels", "fps", "size"),
    [
        (8000, 1, Fraction(25), (64, 48)),
        (16000, 1, Fraction(30000, 1001), (65, 49)),
        (44100, 2, Fraction(24), (64, 49)),
        (48000, 6, Fraction(50), (65, 48)),
    ],
)
def test_picture_and_sound_come_back(tmp_path, rate, channels, fps, size):
    path = tmp_path / "out.mp4"
    count = int(fps)
    pictures = encode(path, StreamFormat(*size, fps, rate, channels), count)
    found, found_fps = decode(path)
    assert len(found) == count
    assert found_fps == pytest.approx(float(fps), rel=1e-4)
    width, height = size
    assert found[0].shape == (height + height % 2, width + width % 2, 3)
    assert min(psnr(a, b[:height, :width]) for a, b in zip(pictures, found, strict=True)) > 34
    sound = probe_sound(path)
    assert (sound.sample_rate, sound.channels) == (rate, channels)
    assert sound.duration == pytest.approx(count / fps, abs=float(1 / fps))


def test_a_second_starts_where_it_should(tmp_path):
    path = tmp_path / "out.mp4"
    stream = StreamFormat(32, 32, Fraction(25), 16000, 1)
    encoder = VideoEncoder(path, stream)
    for number in range(50):
        loud = np.full((640, 1), 0.0 if number < 25 else 0.5, np.float32) * np.sin(np.arange(640))[:, None]
        encoder.write(np.zeros((32, 32, 3), np.uint8), loud.astype(np.float32))
    encoder.finish()
    with SoundReader(path) as reader:
        samples = np.concatenate(list(reader.blocks(4000)))[:, 0]
    onset = int(np.argmax(np.abs(samples) > 0.2)) / 16000
    assert onset == pytest.approx(1.0, abs=0.02)


def test_the_format_is_what_players_want(tmp_path):
    path = tmp_path / "out.mp4"
    encode(path, StreamFormat(64, 48, Fraction(25), 44100, 1), 5)
    told = subprocess.run([ffmpeg.executable(), "-i", path], capture_output=True, text=True).stderr
    assert re.search(r"Video: h264.*yuv420p\(tv, bt709", told)
    assert "Audio: aac" in told
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_abort_ends_ffmpeg_and_may_come_twice(tmp_path, started):
    before = open_descriptors()
    encoder = VideoEncoder(tmp_path / "out.mp4", StreamFormat(64, 48, Fraction(25), 16000, 1))
    encoder.write(picture(64, 48, 0), np.zeros((640, 1), np.float32))
    assert len(started()) == 1
    encoder.abort()
    encoder.abort()
    assert not started()
    assert open_descriptors() == before


def test_an_ffmpeg_that_is_killed_is_told(tmp_path, started):
    before = open_descriptors()
    encoder = VideoEncoder(tmp_path / "out.mp4", StreamFormat(640, 480, Fraction(25), 16000, 1))
    encoder.write(picture(640, 480, 0), np.zeros((640, 1), np.float32))
    (ffmpeg_pid,) = started()
    os.kill(ffmpeg_pid, signal.SIGKILL)
    with pytest.raises(OutputError, match="ended by signal 9"):
        for number in range(1000):
            encoder.write(picture(640, 480, number), np.zeros((640, 1), np.float32))
    assert not started()
    assert open_descriptors() == before


def test_an_ffmpeg_that_is_killed_at_the_end_is_told(tmp_path, started):
    encoder = VideoEncoder(tmp_path / "out.mp4", StreamFormat(64, 48, Fraction(25), 16000, 1))
    (ffmpeg_pid,) = started()
    os.kill(ffmpeg_pid, signal.SIGKILL)
    os.waitid(os.P_PID, ffmpeg_pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(OutputError, match="ended by signal 9"):
        encoder.finish()


def test_a_place_that_is_not_there_is_told(tmp_path):
    encoder = VideoEncoder(tmp_path / "nowhere" / "out.mp4", StreamFormat(64, 48, Fraction(25), 16000, 1))
    with pytest.raises(OutputError, match="No such file or directory"):
        for number in range(1000):
            encoder.write(picture(64, 48, number), np.zeros((640, 1), np.float32))


def test_a_full_disk_is_told(tmp_path):
    script = """
    import resource, signal, sys
    import numpy as np
    from fractions import Fraction
    from pathlib import Path
    from musetalk_cli.errors import OutputError
    from musetalk_cli.media.encode import VideoEncoder
    from musetalk_cli.types import StreamFormat

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    encoder = VideoEncoder(Path(sys.argv[1]), StreamFormat(320, 240, Fraction(25), 16000, 1))
    rng = np.random.default_rng(0)
    try:
        for _ in range(100):
            encoder.write(rng.integers(0, 255, (240, 320, 3), np.uint8), np.zeros((640, 1), np.float32))
        encoder.finish()
    except OutputError as error:
        print(error.message)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), tmp_path / "out.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("The video cannot be written: ")
    assert done.stderr == ""


def test_an_ffmpeg_that_takes_nothing_is_told_and_ended(tmp_path, monkeypatch, started):
    monkeypatch.setattr(pipe_writer, "STALL_S", 0.2)
    encoder = VideoEncoder(tmp_path / "out.mp4", StreamFormat(640, 480, Fraction(25), 16000, 1))
    (ffmpeg_pid,) = started()
    os.kill(ffmpeg_pid, signal.SIGSTOP)
    with pytest.raises(OutputError, match=r"^The video took nothing for 0\.2 s\.$"):
        for number in range(1000):
            encoder.write(picture(640, 480, number), np.zeros((640, 1), np.float32))
    assert not started()
    with pytest.raises(OutputError, match="closed"):
        encoder.write(picture(640, 480, 0), np.zeros((640, 1), np.float32))
    encoder.finish()


def test_abort_frees_a_writer_that_waits(tmp_path, started):
    encoder = VideoEncoder(tmp_path / "out.mp4", StreamFormat(640, 480, Fraction(25), 16000, 1))
    (ffmpeg_pid,) = started()
    os.kill(ffmpeg_pid, signal.SIGSTOP)
    told = []

    def write():
        try:
            encoder.write(picture(640, 480, 0), np.zeros((640, 1), np.float32))
        except OutputError as error:
            told.append(error.message)

    thread = threading.Thread(target=write)
    thread.start()
    encoder.abort()
    thread.join(5)
    assert not thread.is_alive()
    assert len(told) == 1


def test_sound_that_is_not_wanted_yet_waits_and_all_of_it_comes(tmp_path):
    """A second of sound with each frame fills its pipe long before ffmpeg wants that much."""
    path = tmp_path / "out.mkv"
    stream = StreamFormat(32, 32, Fraction(1), 48_000, 2)
    with path.open("wb") as file:
        encoder = VideoEncoder(file.fileno(), stream, MATROSKA)
        for _ in range(30):
            encoder.write(np.zeros((32, 32, 3), np.uint8), np.zeros((48_000, 2), np.float32))
        encoder.finish()
    assert probe_sound(path).samples == 30 * 48_000


OLD_FFMPEG = """
import os, select, sys
sound = int(next(word for word in sys.argv if word.startswith("pipe:") and word != "pipe:0")[5:])
told = sys.argv[sys.argv.index("pipe:0") :]
probe = int(told[told.index("-probesize") + 1]) if "-probesize" in told else 4096
taken = 0
while taken < probe and (data := os.read(sound, probe - taken)):
    taken += len(data)
files = {0, sound}
while files:
    for file in select.select(files, [], [])[0]:
        if not os.read(file, 1 << 16):
            files.remove(file)
"""


def test_an_ffmpeg_that_wants_sound_before_it_takes_a_picture_gets_enough(tmp_path, monkeypatch):
    """Older ones read the beginning of each input before they go on with any."""
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!{sys.executable} -S\n{OLD_FFMPEG}")
    program.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "executable", lambda: str(program))
    monkeypatch.setattr(pipe_writer, "STALL_S", 2.0)
    encoder = VideoEncoder(tmp_path / "out.mp4", StreamFormat(640, 480, Fraction(25), 16_000, 1))
    for number in range(3):
        encoder.write(picture(640, 480, number), np.zeros((640, 1), np.float32))
    encoder.finish()


@pytest.mark.parametrize(
    ("container", "rate", "coded"),
    [
        (MP4, 8000, None),
        (MATROSKA, 8000, None),
        (FLV, 16_000, 48_000),
        (FLV, 44_100, None),
        (FRAGMENTED, 16_000, 48_000),
        (FRAGMENTED, 48_000, None),
        (FRAGMENTED, 96_000, 48_000),
    ],
)
def test_sound_is_coded_at_a_rate_whose_priming_is_shorter_than_a_frame(container, rate, coded):
    options = container.options(StreamFormat(64, 48, Fraction(25), rate, 1)).split()
    assert (options[options.index("-ar") + 1] if "-ar" in options else None) == (coded and str(coded))


@pytest.mark.parametrize(
    ("fps", "keyframe"), [(Fraction(25), 25), (Fraction(30000, 1001), 29), (Fraction(1, 2), 1)]
)
def test_a_live_container_has_a_keyframe_every_second(fps, keyframe):
    options = FRAGMENTED.options(StreamFormat(64, 48, fps, 16_000, 1)).split()
    assert options[options.index("-g") + 1] == str(keyframe)


def test_the_bundled_ffmpeg_can_send_by_what_the_sinks_offer():
    assert all(can_send(scheme) for scheme in ("rtmp", "rtmps", "srt"))
    assert not can_send("nosuch")


@pytest.mark.parametrize(
    ("suffix", "channels", "written"),
    [
        (".mp4", 8, 8), (".mp4", 9, 2), (".mov", 10, 2), (".mkv", 16, 2), (".mp4", 64, 2),
        (".webm", 3, 2), (".webm", 4, 2), (".webm", 6, 6), (".webm", 10, 2),
    ],
)  # fmt: skip
def test_more_channels_than_the_codec_takes_are_mixed_to_stereo_and_that_is_said(
    tmp_path, caplog, suffix, channels, written
):
    path = tmp_path / f"out{suffix}"
    stream = StreamFormat(32, 32, Fraction(25), 48_000, channels)
    encoder = VideoEncoder(path, stream, FILES[suffix])
    tone = np.zeros((1920, channels), np.float32)
    tone[:, 0::2] = 0.5 * np.sin(np.arange(1920) * 2 * np.pi * 1000 / 48_000)[:, None]
    for number in range(25):
        encoder.write(picture(32, 32, number), tone)
    encoder.finish()
    with SoundReader(path) as reader:
        assert reader.channels == written
        samples = np.concatenate(list(reader.blocks(4800)))
    if written == 2:
        left, right = np.sqrt((samples[4800:40_000] ** 2).mean(axis=0))
        assert left == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
        assert right < 0.05
    assert len([r for r in caplog.records if "written as stereo" in r.getMessage()]) == (written != channels)


def test_a_place_that_is_not_there_has_a_hint_of_its_own(tmp_path):
    encoder = VideoEncoder(tmp_path / "nowhere" / "out.mp4", StreamFormat(64, 48, Fraction(25), 16000, 1))
    with pytest.raises(OutputError) as caught:
        for number in range(1000):
            encoder.write(picture(64, 48, number), np.zeros((640, 1), np.float32))
    assert "folder" in caught.value.hint
    assert "space" not in caught.value.hint


def test_sound_the_codec_refuses_is_no_matter_of_the_disk(tmp_path, monkeypatch):
    """Now and then ffmpeg, which has failed, waits for the one pipe while the other is written."""
    monkeypatch.setattr(pipe_writer, "STALL_S", 1)
    encoder = VideoEncoder(tmp_path / "out.mp4", StreamFormat(64, 48, Fraction(25), 16000, 1))
    with pytest.raises(OutputError) as caught:
        for number in range(1000):
            encoder.write(picture(64, 48, number), np.full((640, 1), 3e38, np.float32))
        encoder.finish()
    assert "space" not in (caught.value.hint or "")
