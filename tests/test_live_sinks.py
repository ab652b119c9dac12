"""Recordings, pipes and servers, read back by ffmpeg's own demuxers and decoders."""

import os
import pty
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from servers import free_port, serving
from test_sinks import check_format

from musetalk_cli.errors import OutputError
from musetalk_cli.media import containers, encode, ffmpeg, pipe_writer
from musetalk_cli.sinks import NetworkSink, NullSink, PipeSink, RecordingSink, parse_output
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import Frame, FrameRequest, StreamFormat

STREAM = StreamFormat(64, 48, Fraction(25), 16_000, 1)
LIMIT_S = 60
SECRET = "hunter2"


def frames(stream, seconds, every_s=2, noise=0):
    """Black and silent frames; a white one with a tone each `every_s` seconds."""
    timeline = Timeline(stream.fps)
    rng = np.random.default_rng(0)
    for number in range(int(seconds * stream.fps)):
        begin, end = (timeline.frame_start(n, stream.sample_rate) for n in (number, number + 1))
        marked = number % (int(stream.fps) * every_s) == 0
        tone = np.sin(np.arange(begin, end) * 2 * np.pi * 1000 / stream.sample_rate) * (
            0.8 if marked else 0.0
        )
        sound = np.repeat(tone[:, None], stream.channels, 1).astype(np.float32)
        image = np.full((stream.height, stream.width, 3), 255 if marked else 0, np.uint8)
        if noise and not marked:
            image = rng.integers(0, noise, image.shape, np.uint8)
        image.setflags(write=False)
        request = FrameRequest(number, torch.zeros(0), sound, 0.0, 0.0, 0)
        yield Frame(request, image, number / stream.fps, 0.0)


def write(sink, stream, seconds, **kinds):
    sink.open(stream)
    for frame in frames(stream, seconds, **kinds):
        sink.write(frame)
    sink.finish()


def run_ffmpeg(*arguments):
    command = [ffmpeg.executable(), "-hide_banner", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)


def pictures(path):
    """Seconds and mean brightness of each picture."""
    told = run_ffmpeg("-i", path, "-an", "-vf", "showinfo", "-fps_mode", "passthrough", "-f", "null", "-")
    found = re.findall(r"pts_time:(\S+).* mean:\[(\d+)", told.stderr.decode())
    return [(float(seconds), int(mean)) for seconds, mean in found]


def marks(path):
    """Seconds at which pictures turn white, and at which sounds begin."""
    seen = pictures(path)
    white = [now[0] for before, now in zip([(0, 0), *seen], seen, strict=False) if before[1] < 120 < now[1]]
    laid = "aresample=48000:async=1:first_pts=0"
    told = run_ffmpeg("-v", "error", "-i", path, "-vn", "-af", laid, "-ac", "1", "-f", "f32le", "-")
    loud = np.flatnonzero(np.abs(np.frombuffer(told.stdout, "<f4")) > 0.2)
    begins = loud[np.diff(loud, prepend=-48_000) > 12_000]
    return np.array(white), begins / 48_000


def check_together(path, stream, seconds, every_s=2):
    """Every mark is there, seen and heard less than one frame apart, from the first to the last."""
    white, heard = marks(path)
    wanted = range(0, int(seconds * stream.fps), int(stream.fps) * every_s)
    assert len(white) == len(heard) == len(wanted)
    apart = heard - white
    assert np.abs(apart).max() < 1 / stream.fps
    assert np.ptp(apart) < 0.002


def ended(pid):
    """Wait until a process that is nobody's child here has gone; its pidfd says when."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], LIMIT_S)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("seconds", "rate", "fps", "channels"),
    [
        (20, 22_050, Fraction(30000, 1001), 2),
        pytest.param(60, 22_050, Fraction(30000, 1001), 2, marks=pytest.mark.slow),
        *(pytest.param(60, rate, Fraction(25), 1, marks=pytest.mark.slow) for rate in (16_000, 48_000)),
    ],
)
def test_a_recording_keeps_picture_and_sound_together_to_its_end(tmp_path, seconds, rate, fps, channels):
    stream = StreamFormat(64, 48, fps, rate, channels)
    path = tmp_path / "out.mp4"
    write(RecordingSink(path), stream, seconds, every_s=5)
    check_together(path, stream, seconds, every_s=5)
    assert len(pictures(path)) == int(seconds * fps)


@pytest.mark.parametrize("suffix", [".MOV", ".mkv", ".webm"])
def test_a_recording_is_what_its_suffix_says(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"older")
    write(RecordingSink(path), STREAM, 10)
    check_format(path)
    check_together(path, STREAM, 10)
    assert len(pictures(path)) == 250


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_recording_is_in_parts_of_a_second_that_reach_the_disk_at_once(tmp_path, suffix, started):
    path = tmp_path / f"out{suffix}"
    sink = RecordingSink(path)
    sink.open(STREAM)
    given = list(frames(STREAM, 8))
    for frame in given[:180]:
        sink.write(frame)
    (encoder,) = started()
    os.kill(encoder, signal.SIGSTOP)
    seen = pictures(path)
    os.kill(encoder, signal.SIGCONT)
    assert len(seen) >= 180 - 3 * 25
    for frame in given[180:]:
        sink.write(frame)
    sink.finish()
    part = b"moof" if suffix in {".mp4", ".mov"} else b"\x1f\x43\xb6\x75"
    assert path.read_bytes().count(part) >= 8
    check_together(path, STREAM, 8)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from processes import children
    from test_live_sinks import STREAM, frames
    from musetalk_cli.sinks import RecordingSink

    sink = RecordingSink(Path(sys.argv[1]))
    sink.open(STREAM)
    given = list(frames(STREAM, 6))
    for frame in given:
        sink.write(frame)
    (encoder,) = children()
    print(encoder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_recorded_before_an_encoder_is_killed_is_playable(tmp_path, started):
    path = tmp_path / "out.mp4"
    sink = RecordingSink(path)
    sink.open(STREAM)
    for frame in frames(STREAM, 6):
        sink.write(frame)
    (encoder,) = started()
    os.kill(encoder, signal.SIGKILL)
    sink.abort()
    check_playable(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "suffix", [".mp4", *(pytest.param(kind, marks=pytest.mark.slow) for kind in (".mkv", ".mov", ".webm"))]
)
def test_what_was_recorded_before_a_kill_is_playable(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), path]
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, timeout=LIMIT_S
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ended(int(done.stdout))
    check_playable(path)


def check_playable(path):
    """Of six seconds, all but the last two are there."""
    seen = pictures(path)
    assert len(seen) >= 6 * 25 - 2 * 25
    white, heard = marks(path)
    assert np.abs(white[:2] - heard[:2]).max() < 1 / STREAM.fps
    assert len(white) >= 2


def test_an_aborted_recording_keeps_all_its_frames(tmp_path, started):
    path = tmp_path / "out.mp4"
    sink = RecordingSink(path)
    sink.open(STREAM)
    for frame in frames(STREAM, 3):
        sink.write(frame)
    sink.abort()
    sink.abort()
    assert len(pictures(path)) == 75
    assert not started()


@pytest.mark.parametrize("end", ["abort", "finish"])
def test_a_recording_without_a_frame_touches_nothing(tmp_path, end):
    older = tmp_path / "older.mp4"
    older.write_bytes(b"older")
    for path in (older, tmp_path / "new.mp4"):
        sink = RecordingSink(path)
        getattr(sink, end)()
        sink.open(STREAM)
        getattr(sink, end)()
    assert [path.name for path in tmp_path.iterdir()] == ["older.mp4"]
    assert older.read_bytes() == b"older"


def test_a_file_that_may_not_grow_is_told_and_kept(tmp_path):
    path, limit = tmp_path / "out.mp4", 600_000
    sink = RecordingSink(path)
    stream = StreamFormat(160, 120, Fraction(25), 16_000, 1)
    said = rf"--output {path} cannot be written: ffmpeg was ended by signal 25 \(File size limit exceeded\)\."
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        sink.open(stream)
        with pytest.raises(OutputError, match=f"^{said}$"):
            for frame in frames(stream, 20, noise=255):
                sink.write(frame)
        sink.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert limit / 2 < path.stat().st_size <= limit
    assert len(pictures(path)) >= 25


def test_a_full_disk_is_told_with_its_reason():
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        sink = PipeSink(full.fileno())
        sink.open(STREAM)
        with pytest.raises(OutputError, match=r"--output - cannot be written: .*No space left on device\.$"):
            for frame in frames(STREAM, 60, noise=255):
                sink.write(frame)


def test_a_recording_on_a_full_disk_is_told_with_its_reason(monkeypatch):
    monkeypatch.setattr(pipe_writer, "STALL_S", 1.0)
    encoder = encode.VideoEncoder(Path("/dev/full"), STREAM, containers.FRAGMENTED, "--output out.mp4")
    with pytest.raises(
        OutputError, match=r"--output out\.mp4 cannot be written: .*No space left on device\.$"
    ):
        for frame in frames(STREAM, 60, noise=255):
            encoder.write(frame.image, frame.request.audio)


def test_a_player_gets_every_frame_and_the_sound_as_it_is(tmp_path):
    path = tmp_path / "out.mkv"
    with path.open("wb") as file:
        write(PipeSink(file.fileno()), STREAM, 10)
    check_together(path, STREAM, 10)
    assert len(pictures(path)) == 250
    told = run_ffmpeg("-i", path).stderr.decode()
    assert re.search(r"Audio: pcm_s16le, 16000 Hz", told)
    assert "Video: h264" in told


def test_a_pipe_gives_its_frames_as_they_come():
    """The reader has what was written up to five frames ago: nothing looks further ahead."""
    read_end, write_end = os.pipe()
    sink = PipeSink(write_end)
    sink.open(STREAM)
    os.close(write_end)
    got = 0
    with os.fdopen(read_end, "rb", buffering=0) as reader:
        for number, frame in enumerate(frames(STREAM, 2, noise=255)):
            sink.write(frame)
            while number > 20 and got < (number - 5) * 1500:
                assert select.select([reader], [], [], LIMIT_S)[0]
                got += len(reader.read(1 << 16))
        sink.abort()
    assert got > 40 * 1500


def test_a_reader_that_goes_away_is_told(started):
    read_end, write_end = os.pipe()
    sink = PipeSink(write_end)
    sink.open(STREAM)
    os.close(write_end)
    os.close(read_end)
    with pytest.raises(OutputError, match=r"^The reader of --output - went away\.$"):
        for frame in frames(STREAM, 60, noise=255):
            sink.write(frame)
    assert not started()
    sink.abort()


def test_a_reader_that_takes_nothing_is_told(monkeypatch, started):
    monkeypatch.setattr(pipe_writer, "STALL_S", 0.3)
    read_end, write_end = os.pipe()
    sink = PipeSink(write_end)
    sink.open(STREAM)
    os.close(write_end)
    with pytest.raises(OutputError, match=r"^--output - took nothing for 0\.3 s\.$"):
        for frame in frames(STREAM, 600, noise=255):
            sink.write(frame)
    os.close(read_end)
    assert not started()


def test_a_terminal_and_a_closed_descriptor_are_refused():
    main, terminal = pty.openpty()
    with pytest.raises(OutputError, match=r"is a terminal\.$"):
        PipeSink(terminal)
    os.close(main)
    os.close(terminal)
    with pytest.raises(OutputError, match="Bad file descriptor"):
        PipeSink(terminal)


@pytest.mark.parametrize("scheme", ["rtmp", "srt"])
def test_a_server_gets_every_frame_with_its_sound(tmp_path, scheme):
    path = tmp_path / "got.mkv"
    with serving(scheme, path, f"/live/{SECRET}" if scheme == "rtmp" else "") as url:
        sink = NetworkSink(url)
        assert sink.name == f"{scheme}://127.0.0.1"
        write(sink, STREAM, 12)
    too_late = 3 if scheme == "srt" else 0  # SRT gives up packets that come after their time
    assert 300 - too_late <= len(pictures(path)) <= 300
    check_together(path, STREAM, 12)


def test_a_server_that_is_not_there_is_told_without_its_key(caplog):
    sink = NetworkSink(f"rtmp://user:{SECRET}@127.0.0.1:{free_port(socket.SOCK_STREAM)}/live/{SECRET}")
    sink.open(STREAM)
    with pytest.raises(OutputError, match=r"^--output rtmp://127\.0\.0\.1 cannot be written: ") as error:
        for frame in frames(STREAM, 60, noise=255):
            sink.write(frame)
    assert "Connection refused" in error.value.message
    sink.abort()
    assert SECRET not in error.value.message + str(error.value.hint) + caplog.text + sink.name


def test_a_server_that_takes_nothing_is_told(monkeypatch, started):
    monkeypatch.setattr(pipe_writer, "STALL_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = NetworkSink(f"rtmp://127.0.0.1:{server.getsockname()[1]}/live/{SECRET}")
        sink.open(STREAM)
        with pytest.raises(OutputError, match=r"^--output rtmp://127\.0\.0\.1 took nothing for 0\.5 s\.$"):
            for frame in frames(STREAM, 60, noise=255):
                sink.write(frame)
        assert not started()


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("-", PipeSink, "standard output"),
        ("null", NullSink, "null"),
        ("RTMPS://Example.org/app/hunter2", NetworkSink, "rtmps://example.org"),
        ("srt://[::1]:9000?passphrase=hunter2", NetworkSink, "srt://[::1]"),
        ("null.mp4", RecordingSink, "null.mp4"),
    ],
)
def test_outputs_are_understood(tmp_path, monkeypatch, text, kind, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "isatty", lambda _: False)
    sink = parse_output(text)
    assert type(sink) is kind
    assert sink.name == name
    assert sink.watched is (kind in {PipeSink, NetworkSink})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("http://example.org/hunter2", r"cannot send to http://\."),
        ("file:///out.mp4", r"cannot send to file://\."),
        ("rtmp:///app/hunter2", r"rtmp://\.\.\. names no host"),
        ("rtmp://host:hunter2/app", "a host or a port that cannot be"),
        ("rtmp://host/app/hunter2 live=1", "a space or a control character"),
        ("srt://host?passphrase=hunter2", r"srt://host names no port"),
        ("nowhere/out.mp4", "is not there"),
        ("out.avi", r"would be \.avi"),
        ("out", "has no suffix"),
        (".", "is a folder"),
        ("fifo", "is a pipe or a device"),
    ],
)
def test_outputs_that_cannot_be_are_told_without_their_secrets(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with pytest.raises(OutputError, match=words) as error:
        parse_output(text)
    assert SECRET not in error.value.message + str(error.value.hint)
