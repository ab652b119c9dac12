"""Hidden names of what is not complete: kept while their owner lives, removed when it was killed."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_sinks import STREAM, frame, names

from musetalk_cli.errors import OutputError
from musetalk_cli.sinks import FramesSink, RecordingSink, VideoSink

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_sinks import STREAM, frame
from musetalk_cli.sinks import FramesSink, VideoSink
folder = Path(sys.argv[1])
for sink in (VideoSink(folder / "out.mp4"), FramesSink(folder / "out"), FramesSink(folder / "there")):
    sink.open(STREAM)
    sink.write(frame(0))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_what_a_killed_run_left_goes_with_the_next_in_the_same_folder(tmp_path):
    (tmp_path / "there").mkdir()
    script = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(script, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len([name for name in names(tmp_path) if name.endswith(".partial")]) == 2
    assert len(names(tmp_path / "there")) == 1
    VideoSink(tmp_path / "other.mp4")
    assert names(tmp_path) == ["there"]
    FramesSink(tmp_path / "there")
    assert names(tmp_path / "there") == []


def test_what_a_living_run_writes_is_not_touched(tmp_path):
    (tmp_path / "there").mkdir()
    sinks = [
        VideoSink(tmp_path / "out.mp4"), FramesSink(tmp_path / "out"), FramesSink(tmp_path / "there")
    ]  # fmt: skip
    for sink in sinks:
        sink.open(STREAM)
        sink.write(frame(0))
    VideoSink(tmp_path / "other.mp4")
    FramesSink(tmp_path / "there")
    for sink in sinks:
        sink.finish()
    assert names(tmp_path) == ["out", "out.mp4", "there"]
    assert names(tmp_path / "out") == names(tmp_path / "there") == ["00000000.png"]


def test_only_what_has_our_kind_of_name_is_removed(tmp_path):
    mine = tmp_path / ".musetalk-mine.partial"
    mine.write_text("kept")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    link = tmp_path / f".musetalk-{'0' * 32}.partial"
    link.symlink_to(elsewhere)
    os.mkfifo(tmp_path / f".musetalk-{'1' * 32}.partial")
    VideoSink(tmp_path / "out.mp4")
    assert mine.read_text() == "kept"
    assert (elsewhere / "kept").exists()
    assert link.is_symlink()


def test_no_lock_is_left_open(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for end in ("finish", "abort"):
        for sink in (VideoSink(tmp_path / "out.mp4"), FramesSink(tmp_path / "out")):
            sink.open(STREAM)
            sink.write(frame(0))
            getattr(sink, end)()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("kind", ["video", "frames", "recording"])
def test_a_folder_that_was_removed_is_said_at_the_end(tmp_path, kind):
    """And not blamed on the space of the disk."""
    folder = tmp_path / "results"
    folder.mkdir()
    make = {"video": VideoSink, "recording": RecordingSink, "frames": FramesSink}[kind]
    sink = make(folder / ("out" if kind == "frames" else "out.mp4"))
    sink.open(STREAM)
    for number in range(3):
        sink.write(frame(number))
    shutil.rmtree(folder)
    option = "--frames-dir" if kind == "frames" else "--output"
    with pytest.raises(OutputError, match=rf"^{option} .* was removed, or its folder was, while") as error:
        sink.finish()
    assert error.value.hint is None
    sink.abort()
    assert names(tmp_path) == []


def test_pictures_into_a_folder_that_was_removed_are_refused(tmp_path):
    (tmp_path / "results").mkdir()
    sink = FramesSink(tmp_path / "results" / "out")
    sink.open(STREAM)
    shutil.rmtree(tmp_path / "results")
    with pytest.raises(OutputError, match="was removed, or its folder was"):
        sink.write(frame(0))
