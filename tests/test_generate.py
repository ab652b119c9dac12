"""The whole job from files to files, against upstream's results to the pixel."""

import json
import os
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from lives import read_back, speech, write_sound

from musetalk_cli.avatar.upstream import import_avatar
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.run.generate import generate
from musetalk_cli.run.realtime import realtime
from musetalk_cli.sinks import NullSink, RecordingSink
from musetalk_cli.sources import FileSource, PcmSource
from musetalk_cli.timeline import mirrored
from musetalk_cli.types import Fate

AS_PUBLISHED = JobConfig(sharpen=None, silence=None, batch_sizes=(5,))
"""Five batches are the 25 frames of the golden sound."""
DATA = os.environ.get("MUSETALK_TEST_DATA")


def run_config(models, avatars):
    return RunConfig(DataFolder(models, "flag"), DataFolder(avatars, "flag"), str(models), "cpu", "fp32")


def psnr(one, other):
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def assert_equal_frames(ours: Path, upstream: Path):
    names = sorted(path.name for path in upstream.iterdir())
    assert sorted(path.name for path in ours.iterdir()) == names
    for name in names:
        figure = psnr(cv2.imread(str(ours / name)), cv2.imread(str(upstream / name)))
        assert figure >= 60, f"{name}: {figure:.1f} dB"


@pytest.mark.all_threads
@pytest.mark.parametrize("image_ops", [pytest.param("cpu", marks=pytest.mark.slow), "gpu"])
def test_generate_equals_upstream(golden, avatars_dir, tmp_path, image_ops):
    job = replace(AS_PUBLISHED, image_ops=image_ops)
    report = generate(
        run_config(golden / "models", avatars_dir),
        job,
        "synthetic",
        golden / "audio.wav",
        frames_dir=tmp_path / "out",
    )
    assert_equal_frames(tmp_path / "out", golden / "frames")
    assert report.frames == 25
    assert report.duration_s == pytest.approx(1.0)
    assert report.fallbacks == report.late_frames == report.dropped_frames == 0
    assert report.stages["unet"].count == 5
    assert report.stages["sink"].count == 25


@pytest.mark.all_threads
@pytest.mark.skipif(not DATA, reason="MUSETALK_TEST_DATA does not name a folder with golden/footage")
def test_generate_equals_upstream_on_real_frames(tmp_path):
    golden = Path(DATA) / "golden" / "footage"
    import_avatar(golden / "avatar", tmp_path, "footage")
    generate(
        run_config(golden / "models", tmp_path),
        AS_PUBLISHED,
        "footage",
        golden / "audio.wav",
        frames_dir=tmp_path / "out",
    )
    assert_equal_frames(tmp_path / "out", golden / "frames")


def whole(path):
    """A recording as fast as it is taken."""
    return FileSource(path, MonotonicClock(), pace=False)


@pytest.mark.slow
@pytest.mark.all_threads
def test_a_stream_in_one_chunk_equals_upstream(golden, avatars_dir):
    """The frames of a stream whose only chunk is the whole sound, taken on their way to the sink."""
    frames = []

    class Keep(NullSink):
        def write(self, frame):
            frames.append(frame.image)

    job = replace(AS_PUBLISHED, chunk=Fraction(2))
    run = run_config(golden / "models", avatars_dir)
    realtime(run, job, "synthetic", whole(golden / "audio.wav"), [Keep()])
    expected = sorted((golden / "frames").iterdir())
    assert len(frames) == len(expected)
    for frame, path in zip(frames, expected, strict=True):
        assert psnr(frame, cv2.imread(str(path))) >= 60


def breath(seconds):
    """Noise that swells to -50 dB of full scale: below the level of speech, above that of a quiet room."""
    count = round(seconds * 16_000)
    swell = np.sin(np.pi * np.arange(count) / count) ** 2
    return (10 ** (-50 / 20) * swell * np.random.default_rng(4).standard_normal(count)).astype(np.float32)


@pytest.mark.slow
def test_generate_rests_in_silence_and_without_it_makes_every_frame(
    avatars_dir, golden_avatar, models, musetalk, tmp_path
):
    """Speech, a second of breath, speech: by default the face is its source's there, as in a stream."""
    sound = write_sound(tmp_path / "breath.wav", speech(0.4), breath(1.0), speech(0.3))
    arguments = ["generate", "--avatars-dir", avatars_dir, "--model", models, "--avatar", "synthetic"]
    arguments += ["--audio", sound, "--sharpen", "off", "--json"]
    shown, reports = {}, {}
    for silence in ([], ["--silence", "off"]):
        out = tmp_path / ("gated" if not silence else "always")
        code, stdout, _ = musetalk(*arguments, *silence, "--frames-dir", out)
        assert code == 0
        reports[out.name] = json.loads(stdout)
        pictures = [cv2.imread(str(path)) for path in sorted(out.iterdir())]
        shown[out.name] = [
            np.array_equal(picture, golden_avatar.frames[mirrored(number, 4)])
            for number, picture in enumerate(pictures)
        ]
    stream = []

    class Keep(NullSink):
        def write(self, frame):
            stream.append(frame.fate is Fate.IDLE)

    realtime(run_config(models, avatars_dir), JobConfig(), "synthetic", whole(sound), [Keep()])
    assert shown["gated"] == stream
    assert shown["gated"][21:28] == [True] * 7, "0.3 s after the speech to just before the next"
    assert not any(shown["gated"][3:17] + shown["gated"][35:])
    assert not any(shown["always"])
    assert reports["gated"]["idle_frames"] == sum(stream)
    assert reports["gated"]["settings"]["silence"] == "-45dB"
    assert (reports["always"]["idle_frames"], reports["always"]["settings"]["silence"]) == (0, "off")


@pytest.mark.parametrize("source_fps", ["10", "60", "24000/1001"])
def test_a_clip_of_any_rate_keeps_its_speed(
    avatars_dir, golden_avatar, models, musetalk, tmp_path, source_fps
):
    """In silence the pictures are those of the clip, forward and backward, at the time of each frame."""
    place = Path(shutil.copytree(avatars_dir / "synthetic", tmp_path / "avatars" / "synthetic"))
    description = json.loads((place / "avatar.json").read_text())
    (place / "avatar.json").write_text(json.dumps(description | {"fps": source_fps}))
    sound = write_sound(tmp_path / "silence.wav", np.zeros(16_000))
    arguments = [
        "generate",
        "--avatars-dir",
        tmp_path / "avatars",
        "--model",
        models,
        "--avatar",
        "synthetic",
    ]
    code, _, _ = musetalk(*arguments, "--audio", sound, "--fps", "30", "--frames-dir", tmp_path / "out")
    assert code == 0
    pictures = [cv2.imread(str(path)) for path in sorted((tmp_path / "out").iterdir())]
    assert len(pictures) == 30
    both = [0, 1, 2, 3, 3, 2, 1, 0]
    for number, picture in enumerate(pictures):
        source = both[int(Fraction(number, 30) * Fraction(source_fps)) % 8]
        assert np.array_equal(picture, golden_avatar.frames[source])


@pytest.mark.slow
def test_the_alignment_is_an_option_and_is_reported(avatars_dir, models, musetalk, tmp_path):
    """At 10 fps the frames hear other rows; at 25 both are the same to the last bit."""
    sound = write_sound(tmp_path / "speech.wav", speech(0.3))
    arguments = ["generate", "--avatars-dir", avatars_dir, "--model", models, "--avatar", "synthetic"]
    arguments += ["--audio", sound, "--json", "--frames-dir", tmp_path / "out"]
    last = {}
    named = (["--alignment", "frame"], ["--alignment", "published"])
    for fps, givens in (("10", ([], *named)), ("25", named)):
        for given in givens:
            code, stdout, _ = musetalk(*arguments, "--fps", fps, *given)
            assert code == 0
            name = " ".join([fps, *given[1:]])
            assert json.loads(stdout)["settings"]["alignment"] == (given or ["frame"])[-1]
            last[name] = cv2.imread(str(max((tmp_path / "out").iterdir())))
    assert np.array_equal(last["10"], last["10 frame"])
    assert not np.array_equal(last["10 frame"], last["10 published"])
    assert np.array_equal(last["25 frame"], last["25 published"])


@pytest.mark.slow
def test_the_cards_window_is_for_streams(avatars_dir, models, musetalk, tmp_path):
    """A whole file is encoded in segments of 30 s whatever a card says, and `--window` is over both."""
    own = tmp_path / "own"
    shutil.copytree(models, own)
    (own / "bundle.json").write_text('{"window_s": 4.5}')
    common = ["--avatars-dir", avatars_dir, "--avatar", "synthetic", "--json", "--fps", "10"]
    common += ["--audio", write_sound(tmp_path / "speech.wav", speech(0.5))]
    windows = []
    for command, model, given in (
        ("generate", own, ["--frames-dir", tmp_path / "out"]),
        ("realtime", own, ["--no-pace"]),
        ("realtime", own, ["--no-pace", "--window", "3"]),
        ("realtime", models, ["--no-pace"]),
    ):
        code, stdout, _ = musetalk(command, *common, "--model", model, *given)
        assert code == 0
        windows.append(json.loads(stdout)["settings"]["window_s"])
    assert windows == [30, 4.5, 3, 30]


@pytest.mark.slow
def test_realtime_reports_its_latencies(golden, avatars_dir, models, tmp_path):
    job = JobConfig(chunk=Fraction(1, 4), batch_sizes=(8,))
    report = realtime(
        run_config(models, avatars_dir),
        job,
        "synthetic",
        whole(golden / "audio.wav"),
        [RecordingSink(tmp_path / "a.mp4")],
    )
    plain = report.as_json()
    for name in ("first_frame_ms", "last_frame_ms", "mouth_to_eye_ms", "response_ms"):
        assert 0 < plain[name]["p50"] <= plain[name]["p95"] <= plain[name]["p99"]
    assert plain["first_frame_ms"]["p50"] <= plain["last_frame_ms"]["p50"]
    assert plain["frames"] == 25
    assert (plain["utterances"], plain["stalls"], plain["short_frames"]) == (1, 0, 0)
    assert plain["chunk_s"] == 0.25
    assert {"features", "unet", "vae", "resize", "sharpen", "blend", "download", "sink", "audio"} <= set(
        plain["stages"]
    )
    assert set(plain["stages"]["unet"]) == {"count", "p50_ms", "p95_ms", "p99_ms", "total_ms"}
    assert len(read_back(tmp_path / "a.mp4").times) == 25


@pytest.mark.slow
def test_pcm_from_a_descriptor_equals_the_file(golden, avatars_dir, models, tmp_path):
    import soundfile

    run, job = run_config(models, avatars_dir), JobConfig()
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
