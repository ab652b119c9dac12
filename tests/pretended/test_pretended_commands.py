"""Whole commands on a pretended GPU, with their threads, reports and traces."""

import json

import cv2
import numpy as np
import pytest
from lives import speech, write_sound


@pytest.fixture
def speaking(musetalk, models, avatars_dir, tmp_path):
    """Runs a command that speaks, and gives its report."""
    sound = write_sound(tmp_path / "in.wav", speech(0.6))
    chosen = ["--avatar", "synthetic", "--avatars-dir", avatars_dir, "--model", models, "--audio", sound]

    def call(command, *options):
        code, out, err = musetalk(command, *chosen, "--json", *options)
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.mark.slow
def test_a_file_made_on_a_gpu_has_the_frames_of_the_cpu(gpu, speaking, tmp_path):
    frames = {}
    for device in ("cuda", "cpu"):
        options = ["--device", device, "--precision", "fp32", "--sharpen", "off"]
        report = speaking("generate", "--frames-dir", tmp_path / device, *options)
        assert report["settings"]["image_ops"] == ("gpu" if device == "cuda" else "cpu")
        assert (report["frames"], report["fallbacks"]) == (15, 0)
        frames[device] = [cv2.imread(str(path)) for path in sorted((tmp_path / device).glob("*.png"))]
    assert len(frames["cuda"]) == 15
    for one, other in zip(frames["cuda"], frames["cpu"], strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.slow
def test_a_live_stream_on_a_gpu_tells_its_stages_in_report_and_trace(gpu, speaking, tmp_path):
    trace = tmp_path / "trace.json"
    report = speaking(
        "realtime", "--device", "cuda", "--no-pace", "--trace", trace, "--output", tmp_path / "o.mp4"
    )
    assert (report["device"], report["fallbacks"]) == ("a pretended GPU", 0)
    assert report["settings"]["precision"] == "float16"
    names = [event["name"] for event in json.loads(trace.read_text())]
    for stage in ("features", "unet", "vae", "resize", "sharpen", "blend", "download"):
        assert names.count(stage) == report["stages"][stage]["count"] > 0
