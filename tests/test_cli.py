import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from musetalk_cli.sinks import FramesSink, VideoSink

COMMANDS = [
    [],
    ["generate"],
    ["batch"],
    ["realtime"],
    ["serve"],
    ["bench"],
    ["bench", "prepare"],
    ["bench", "realtime"],
    ["prepare-avatar"],
    ["avatars"],
    *(["avatars", name] for name in ("list", "show", "import", "verify", "remove")),
    ["doctor"],
    ["models"],
    *(["models", name] for name in ("list", "download", "verify", "convert")),
]
PUBLISHED = str(Path(__file__).parent / "data" / "golden" / "models")
HEAVY = ("torch", "cv2", "numpy", "diffusers", "transformers", "huggingface_hub")


@pytest.fixture
def job(models, avatars_dir):
    """Arguments of a job that is as small as can be: a frame per second."""
    common = ["--avatar", "synthetic", "--avatars-dir", avatars_dir, "--model", models]
    return [*common, "--sharpen", "off", "--fps", "1", "--batch-size", "1"]


@pytest.fixture
def sound(golden):
    return ["--audio", golden / "audio.wav"]


@pytest.fixture(scope="module")
def long_sound(tmp_path_factory):
    """Ten minutes, of which no test hears the end."""
    path = tmp_path_factory.mktemp("sound") / "long.wav"
    soundfile.write(path, np.zeros(600 * 8000, np.int16), 8000)
    return path


def assert_refused(result, words=""):
    """One sentence, perhaps a hint, and nothing else."""
    code, out, err = result
    assert code == 1, err
    assert out == ""
    err = without_progress(err)
    assert re.fullmatch(r"error: [^\n]+\n(hint:  [^\n]+\n)?", err), err
    assert re.search(words, err), err


def without_progress(err):
    return re.sub(
        r"(?m)^(chunks of|.*: speaking;|speaking:|Model \S+ has networks of its own,) .*\n", "", err
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command) or "top")
def test_help_is_there_for_every_command(musetalk, command):
    code, out, err = musetalk(*command, "--help")
    assert (code, err) == (0, "")
    assert "Usage: musetalk" in out


@pytest.mark.parametrize(
    ("typed", "at", "offered"),
    [("musetalk mod", 1, ["models"]), ("musetalk models ", 2, ["list", "download", "verify", "convert"])],
)
def test_a_shell_completes_commands(musetalk, monkeypatch, typed, at, offered):
    monkeypatch.setenv("_MUSETALK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(at))
    code, out, err = musetalk()
    assert (code, out.split(), err) == (0, offered, "")


def test_help_of_every_command_imports_nothing_heavy():
    script = f"""
import sys
from musetalk_cli.cli.app import run
for command in {COMMANDS!r}:
    sys.argv = ["musetalk", *command, "--help"]
    assert run() == 0
print(*sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_the_version_is_one_line(musetalk):
    code, out, _ = musetalk("--version")
    assert code == 0
    assert re.fullmatch(r"musetalk \d+\.\d+\.\d+\S*\n", out)


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["generate", "--nonsense"],
        ["generate", "--avatar", "x"],
        ["generate", "--audio", "x.wav", "--output", "x.mp4", "--models-dir", PUBLISHED],
        ["realtime", "--audio", "x.wav", "--models-dir", PUBLISHED],
        ["generate", "--avatar", "x", "--audio", "x.wav"],
        ["generate", "--avatar", "x", "--audio", "x.wav", "--output", "x.mp4", "--device", "tpu"],
        ["generate", "--avatar", "x", "--audio", "x.wav", "--output", "x.mp4", "--image-ops", "both"],
        ["realtime", "--mic", "--audio", "x.wav"],
        ["realtime", "--audio", "-", "--listen", "9000"],
        ["realtime", "--mic", "usb", "--listen", "9000"],
        ["realtime", "--audio", "-", "--control", "0"],
        ["realtime", "--avatar", "x", "--audio", "x.wav", "--when-late", "never"],
        ["bench", "--seconds", "2", "realtime"],
        ["bench", "realtime", "--seconds", "0.5"],
        ["realtime", "--avatar", "x", "--audio", "-", "--input-rate", "fast"],
        ["avatars", "show"],
    ],
)
def test_wrong_usage_is_2(musetalk, arguments):
    code, out, err = musetalk(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: musetalk" in err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--fps", value) for value in ("0", "0.99", "121", "-25", "abc", "nan", "inf", "1/0", "")),
        *(("--chunk", value) for value in ("0.01", "0.039", "2.01", "31", "nan", "x", "")),
        *(("--context", value) for value in ("-1", "30.5", "nan", "x", "")),
        *(("--window", value) for value in ("2.9", "30.5", "nan", "max", "")),
        *(("--sharpen", value) for value in ("maybe", "-1", "nan", "inf", "1,0", "1,2,3,4", "1,,2", "")),
        *(("--batch-size", value) for value in ("0", "-1", "257", "1.5", "x", "1,,2", "")),
        *(("--input-rate", value) for value in ("0", "3999", "384001")),
    ],
)
def test_a_value_out_of_range_is_refused(musetalk, job, option, value):
    assert_refused(musetalk("realtime", *job, "--audio", "/dev/stdin", f"{option}={value}"), option + "|pipe")


@pytest.mark.parametrize(
    "name", ["nobody", "../x", "..", ".", "", "/etc", "a/b", "-x", ".hidden", "x" * 300, "a\nb"]
)
def test_an_avatar_that_is_none_is_refused(musetalk, job, sound, tmp_path, name):
    job[job.index("--avatar") : job.index("--avatar") + 2] = [f"--avatar={name}"]
    assert_refused(musetalk("generate", *job, *sound, "--output", tmp_path / "out.mp4"), "avatar")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nothing", "/nowhere", "audio.wav"])
def test_a_model_that_is_none_is_refused(musetalk, job, sound, golden, tmp_path, monkeypatch, name):
    monkeypatch.chdir(golden)
    job[job.index("--model") + 1] = name
    assert_refused(musetalk("generate", *job, *sound, "--output", tmp_path / "out.mp4"), "no model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["generate", "realtime"])
@pytest.mark.parametrize("content", [None, b"", b"no sound", b"RIFF"])
def test_a_sound_that_is_none_is_refused(musetalk, job, tmp_path, command, content):
    path = tmp_path / "in.wav"
    if content is not None:
        path.write_bytes(content)
    result = musetalk(command, *job, "--audio", path, "--output", tmp_path / "out.mp4")
    assert_refused(result, re.escape(str(path)))
    assert [found.name for found in tmp_path.iterdir()] == ([] if content is None else ["in.wav"])


def test_a_sound_shorter_than_a_frame_is_refused(musetalk, job, tmp_path):
    soundfile.write(tmp_path / "in.wav", np.zeros(300, np.int16), 16000)
    result = musetalk("generate", *job, "--audio", tmp_path / "in.wav", "--frames-dir", tmp_path / "out")
    assert_refused(result, "shorter than one frame")
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("--output", "nowhere/out.mp4"),
        ("--output", "file/out.mp4"),
        ("--output", "."),
        ("--output", "y" * 300),
        ("--frames-dir", "nowhere/out"),
        ("--frames-dir", "file"),
        ("--output", "/proc/out.mp4"),
        ("--frames-dir", "/proc/out"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(
    musetalk, job, sound, tmp_path, monkeypatch, option, place
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert_refused(musetalk("generate", *job, *sound, option, place), "cannot be written|not there|is a")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_sound_is_not_replaced_by_its_video(musetalk, job, tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.zeros(16000, np.int16), 16000)
    before = path.read_bytes()
    for command in ("generate", "realtime"):
        result = musetalk(command, *job, "--audio", path, "--output", path)
        assert_refused(result, "is the sound itself")
    assert path.read_bytes() == before


def test_an_unforeseen_failure_is_one_sentence_and_a_traceback_with_v(
    musetalk, job, sound, tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise ValueError("[bold]two\nlines")

    monkeypatch.setattr("musetalk_cli.run.generate.generate", fail)
    arguments = ["generate", *job, *sound, "--output", tmp_path / "out.mp4"]
    assert_refused(musetalk(*arguments), re.escape("Unexpected ValueError: [bold]two lines."))
    code, out, err = musetalk(*arguments, "-v")
    assert (code, out) == (1, "")
    assert "Traceback" in err


def test_v_says_where_every_setting_came_from(musetalk, job, tmp_path, monkeypatch):
    monkeypatch.setenv("MUSETALK_MODELS", str(tmp_path))
    arguments = ["generate", *job, "--audio", "nothing.wav", "--output", tmp_path / "out.mp4", "-v"]
    code, _, err = musetalk(*arguments)
    assert code == 1
    assert f"models: {tmp_path} (environment" in err
    assert re.search(r"avatars: \S+ \(flag\)", err)
    assert "fps: 1 (flag)" in err
    assert "device: auto (default)" in err
    assert "Traceback" in err


def test_no_cuda_is_told(musetalk, job, sound, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    result = musetalk("generate", *job, *sound, "--output", tmp_path / "out.mp4", "--device", "cuda")
    assert_refused(result, "--device cuda cannot be used")


def test_json_is_one_object_on_stdout(musetalk, job, sound, tmp_path):
    outputs = ["--output", tmp_path / "out.mp4", "--frames-dir", tmp_path / "out"]
    code, out, err = musetalk("generate", *job, *sound, *outputs, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["frames"] == 1
    assert report["fps"] == 1.0
    assert report["interrupted"] is False
    assert set(report["first_frame_ms"]) == {"p50", "p95", "p99"}
    assert {"count", "p50_ms", "p95_ms", "p99_ms", "total_ms"} == set(report["stages"]["unet"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.mp4"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00000000.png"]


def test_errors_leave_stdout_empty_with_json(musetalk, job, tmp_path):
    result = musetalk("generate", *job, "--audio", "nothing.wav", "--output", tmp_path / "x.mp4", "--json")
    assert_refused(result, "no sound at")


def command(*arguments):
    return [sys.executable, "-m", "musetalk_cli", *map(str, arguments)]


@pytest.fixture
def stdin(monkeypatch):
    """The writing end of a pipe that is the commands' standard input."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as reader, os.fdopen(write_end, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", reader)
        yield writer


def test_pcm_on_stdin_in_odd_blocks_becomes_a_video(musetalk, stdin, job, tmp_path):
    path = tmp_path / "out.mp4"
    data = (np.sin(np.arange(16_001)) * 9000).astype("<i2").tobytes()[:-1]

    def speak():
        for begin, end in ((0, 1), (1, 1001), (1001, 20_002), (20_002, len(data))):
            stdin.write(data[begin:end])
        stdin.close()

    threading.Thread(target=speak, daemon=True).start()
    arguments = ["--audio", "-", "--input-rate", 8000, "--output", path, "--json"]
    code, out, err = musetalk("realtime", *job, *arguments)
    assert code == 0, err
    report = json.loads(out)
    assert (report["frames"], report["duration_s"]) == (2, 2.0)
    assert count_frames(path) == 2


def test_an_empty_stdin_is_refused(musetalk, stdin, job, tmp_path):
    stdin.close()
    result = musetalk("realtime", *job, "--audio", "-", "--output", tmp_path / "out.mp4")
    assert_refused(result, "No sound came from standard input")
    assert list(tmp_path.iterdir()) == []


def count_frames(path):
    capture = cv2.VideoCapture(str(path))
    return sum(1 for _ in iter(lambda: capture.read()[0], False))


TELLING = """
import os
import sys
from musetalk_cli.__main__ import main
from musetalk_cli.sinks import FramesSink

pipe, write = int(sys.argv.pop(1)), FramesSink.write

def telling(sink, frame):
    write(sink, frame)
    os.write(pipe, b".")

FramesSink.write = telling
sys.exit(main())
"""
"""The program, which writes a dot to a pipe for each picture that it wrote."""


def assert_completed(code, out, err, folder):
    """What an interrupt leaves of two outputs."""
    assert code == 130, err
    assert without_progress(err) == "", "nor do libraries say anything"
    report = json.loads(out)
    assert report["interrupted"] is True
    assert 2 <= report["frames"] < 600
    assert sorted(path.name for path in folder.iterdir()) == ["out", "out.mp4"]
    assert len(list((folder / "out").iterdir())) == report["frames"]
    assert count_frames(folder / "out.mp4") == report["frames"]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupt_completes_the_files(musetalk, job, long_sound, tmp_path, monkeypatch, kind):
    write, written = FramesSink.write, []

    def interrupting(sink, frame):
        write(sink, frame)
        written.append(frame)
        if len(written) == 2:
            os.kill(os.getpid(), kind)

    monkeypatch.setattr(FramesSink, "write", interrupting)
    outputs = ["--output", tmp_path / "out.mp4", "--frames-dir", tmp_path / "out"]
    result = musetalk("generate", *job, "--audio", long_sound, *outputs, "--json")
    assert_completed(*result, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupt_of_the_program_completes_the_files(job, long_sound, tmp_path, kind):
    outputs = ["--output", tmp_path / "out.mp4", "--frames-dir", tmp_path / "out"]
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", TELLING, str(write_end), "generate"]
        + [str(word) for word in (*job, "--audio", long_sound, *outputs, "--json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(write_end,),
    )
    os.close(write_end)
    with os.fdopen(read_end, "rb", buffering=0) as pictures:
        for _ in range(2):
            assert select.select([pictures], [], [], 60)[0], "no picture was written"
            assert pictures.read(1), process.communicate()
        process.send_signal(kind)
        out, err = process.communicate(timeout=60)
    assert_completed(process.returncode, out, err, tmp_path)


def test_a_dead_encoder_is_one_sentence(musetalk, job, long_sound, tmp_path, monkeypatch):
    write, killed = VideoSink.write, []

    def write_once(sink, frame):
        if not killed:
            killed[:] = encoders_of(os.getpid())
            os.kill(killed[0], signal.SIGKILL)
        write(sink, frame)

    monkeypatch.setattr(VideoSink, "write", write_once)
    result = musetalk("generate", *job, "--audio", long_sound, "--output", tmp_path / "out.mp4")
    assert_refused(result, "ended by signal 9")
    assert list(tmp_path.iterdir()) == []


def encoders_of(parent):
    """Process ids of the encoders a process has started; Linux only."""
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "libx264" in line]


def test_a_reader_that_goes_away_is_no_traceback(avatars_dir):
    process = subprocess.Popen(
        command("avatars", "list", "--json", "--avatars-dir", avatars_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 1
    assert err == ""
