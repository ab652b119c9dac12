"""The whole job from files to files, against upstream's results to the pixel."""

import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from lives import read_back

from musetalk_cli.avatar.upstream import import_avatar
from musetalk_cli.config import JobConfig, Place, RunConfig
from musetalk_cli.generate import generate
from musetalk_cli.realtime import realtime
from musetalk_cli.sinks import NullSink, RecordingSink
from musetalk_cli.sources import FileSource, PcmSource
from musetalk_cli.timing import MonotonicClock

UNSHARPENED = JobConfig(sharpen=None, batch_sizes=(8,))
DATA = os.environ.get("MUSETALK_TEST_DATA")


def run_config(golden, avatars):
    return RunConfig(Place(golden, "flag"), Place(avatars, "flag"), str(golden / "models"), "cpu", "fp32")


def psnr(one, other):
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def assert_equal_frames(ours: Path, upstream: Path):
    names = sorted(path.name for path in upstream.iterdir())
    assert sorted(path.name for path in ours.iterdir()) == names
    for name in names:
        figure = psnr(cv2.imread(str(ours / name)), cv2.imread(str(upstream / name)))
        assert figure >= 60, f"{name}: {figure:.1f} dB"


@pytest.mark.parametrize("image_ops", ["cpu", "gpu"])
def test_generate_equals_upstream(golden, avatars_dir, tmp_path, image_ops):
    job = JobConfig(sharpen=None, batch_sizes=(8,), image_ops=image_ops)
    report = generate(
        run_config(golden, avatars_dir), job, "synthetic", golden / "audio.wav", frames_dir=tmp_path / "out"
    )
    assert_equal_frames(tmp_path / "out", golden / "frames")
    assert report.frames == 25
    assert report.duration_s == pytest.approx(1.0)
    assert report.fallbacks == report.late_frames == report.dropped_frames == 0
    assert report.stages["unet"].count == 4
    assert report.stages["sink"].count == 25


@pytest.mark.skipif(not DATA, reason="MUSETALK_TEST_DATA does not name a folder with golden/footage")
def test_generate_equals_upstream_on_real_frames(tmp_path):
    golden = Path(DATA) / "golden" / "footage"
    import_avatar(golden / "avatar", tmp_path, "footage")
    generate(
        run_config(golden, tmp_path),
        UNSHARPENED,
        "footage",
        golden / "audio.wav",
        frames_dir=tmp_path / "out",
    )
    assert_equal_frames(tmp_path / "out", golden / "frames")


def whole(path):
    """A recording as fast as it is taken."""
    return FileSource(path, MonotonicClock(), pace=False)


def test_a_stream_in_one_chunk_equals_upstream(golden, avatars_dir):
    """The frames of a stream whose only chunk is the whole sound, taken on their way to the sink."""
    frames = []

    class Keep(NullSink):
        def write(self, frame):
            frames.append(frame.image)

    job = JobConfig(chunk=Fraction(2), sharpen=None, batch_sizes=(8,))
    realtime(run_config(golden, avatars_dir), job, "synthetic", whole(golden / "audio.wav"), [Keep()])
    expected = sorted((golden / "frames").iterdir())
    assert len(frames) == len(expected)
    for frame, path in zip(frames, expected, strict=True):
        assert psnr(frame, cv2.imread(str(path))) >= 60


def test_realtime_reports_its_latencies(golden, avatars_dir, tmp_path):
    job = JobConfig(chunk=Fraction(1, 4), batch_sizes=(8,))
    report = realtime(
        run_config(golden, avatars_dir),
        job,
        "synthetic",
        whole(golden / "audio.wav"),
        [RecordingSink(tmp_path / "a.mp4")],
    )
    plain = report.as_json()
    for name in ("first_frame_ms", "last_frame_ms", "mouth_to_eye_ms"):
        assert 0 < plain[name]["p50"] <= plain[name]["p95"] <= plain[name]["p99"]
    assert plain["first_frame_ms"]["p50"] <= plain["last_frame_ms"]["p50"]
    assert plain["frames"] == 25
    assert plain["chunk_s"] == 0.25
    assert {"features", "unet", "vae", "resize", "sharpen", "blend", "download", "sink", "audio"} <= set(
        plain["stages"]
    )
    assert set(plain["stages"]["unet"]) == {"count", "p50_ms", "p95_ms", "p99_ms", "total_ms"}
    assert len(read_back(tmp_path / "a.mp4").times) == 25


def test_pcm_from_a_descriptor_equals_the_file(golden, avatars_dir, tmp_path):
    import soundfile

    run, job = run_config(golden, avatars_dir), JobConfig()
    pcm, rate = soundfile.read(golden / "audio.wav", dtype="int16")
    raw = tmp_path / "sound.pcm"
    raw.write_bytes(pcm.tobytes())
    with raw.open("rb") as stream:
        piped = PcmSource(stream.fileno(), rate, MonotonicClock())
        realtime(run, job, "synthetic", piped, [RecordingSink(tmp_path / "pcm.mp4")])
    realtime(run, job, "synthetic", whole(golden / "audio.wav"), [RecordingSink(tmp_path / "wav.mp4")])
    videos = [cv2.VideoCapture(str(tmp_path / name)) for name in ("pcm.mp4", "wav.mp4")]
    for _ in range(25):
        (ok, one), (_, other) = (video.read() for video in videos)
        assert ok
        assert np.array_equal(one, other)
