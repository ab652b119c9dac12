"""`musetalk realtime` from its arguments to its exit code, and what it leaves on the disk and in pipes."""

import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from itertools import pairwise

import numpy as np
import pytest
from lives import LIMIT_S, Pipe, at_the_latest, delay_of, level, pcm, read_back, speech, write_sound
from soundcards import BUILT_IN, PlayingDevice, SoundDevice

from musetalk_cli.engine.rehearsal import TRIALS
from musetalk_cli.media import ffmpeg
from musetalk_cli.nets.generator import Generator

FPS = 10
FRAME_S = 1 / FPS


pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture
def job(models, avatars_dir):
    """A job whose frames take milliseconds, ten a second."""
    options = f"--model {models} --device cpu --sharpen off --fps {FPS} --chunk 0.2 --context 0"
    return ["--avatar", "synthetic", "--avatars-dir", avatars_dir, *options.split()]


@pytest.fixture
def control():
    """The options that give a run a control pipe, and its writing end."""
    read_end, write_end = os.pipe()
    with (
        os.fdopen(read_end, "rb"),
        os.fdopen(write_end, "wb", buffering=0) as writer,
        at_the_latest(lambda: writer.write(b"stop\n")),
    ):
        yield ["--control", read_end], writer


@pytest.fixture
def stdin(monkeypatch):
    """Gives a run bytes on its standard input, in blocks."""
    read_end, write_end = os.pipe()
    threads = []

    def give(*blocks):
        def write():
            with os.fdopen(write_end, "wb", buffering=0) as writer:
                for block in blocks:
                    writer.write(block)

        threads.append(threading.Thread(target=write))
        threads[0].start()

    with os.fdopen(read_end) as reader:
        monkeypatch.setattr(sys, "stdin", reader)
        yield give
    threads[0].join(LIMIT_S)


def report_in(text):
    """The report in JSON, and what else was said."""
    begin, end = text.index("{\n"), text.rindex("\n}") + 2
    return json.loads(text[begin:end]), text[:begin] + text[end:]


def assert_one_sentence(err, words):
    """One error, perhaps a hint, and besides them only lines that are known."""
    assert "Traceback" not in err
    said = r"chunks of|listening on|no output is named:|\S+ failed and was closed:|\S+ is \d+ frames behind:"
    known = rf"(?m)^({said}|.*: (speaking|silent);) .*\n"
    rest = re.sub(known, "", err.replace("standard output failed", "stdout failed")).strip()
    assert re.fullmatch(r"error: [^\n]+(\nhint:  [^\n]+)?", rest), err
    assert re.search(words, rest), err


def assert_together(recording, frames, tolerance_s=FRAME_S):
    """Every frame is at its time, and the sound is as long as the picture."""
    assert len(recording.times) == frames
    np.testing.assert_allclose(recording.times, np.arange(frames) * FRAME_S, atol=0.002)
    assert abs(recording.sound_s - frames * FRAME_S) < tolerance_s


@pytest.mark.parametrize("options", [[], ["--mic"], ["--mic", "usb"]])
def test_without_sounddevice_a_sentence_says_what_to_install(musetalk, job, monkeypatch, tmp_path, options):
    def load(run):
        pytest.fail("the networks were loaded")

    monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.setattr("musetalk_cli.run.kept.open_bundle", load)
    code, out, err = musetalk("realtime", *job, *options, "--output", tmp_path / "out.mp4")
    assert (code, out) == (1, "")
    assert_one_sentence(err, "needs sounddevice")
    assert "pip install 'musetalk-cli[sound]'" in err
    assert list(tmp_path.iterdir()) == []


def test_without_a_microphone_a_sentence_says_so(musetalk, job, monkeypatch):
    card = SoundDevice()
    card.infos = [info for info in card.infos if info["max_input_channels"] == 0]
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    code, out, err = musetalk("realtime", *job)
    assert (code, out) == (1, "")
    assert_one_sentence(err, "There is no microphone.")


def test_microphones_and_loudspeakers_are_listed(musetalk, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", SoundDevice())
    code, out, err = musetalk("realtime", "--list-devices")
    assert (code, err) == (0, "")
    microphones, loudspeakers = out.split("Loudspeakers")
    assert re.search(r"\b1 +pulse +32 +48000 +\*", microphones)
    assert re.search(rf"\b3 +{BUILT_IN} +1 +16000 *\n", microphones)
    assert "HDMI" not in microphones
    assert re.search(r"\b2 +HDMI 0 \(hw:0,3\) +8 +48000 +\*", loudspeakers)
    assert re.search(r"\b1 +pulse +32 +48000 *\n", loudspeakers)
    assert "(hw:1,0)" not in loudspeakers


def test_a_terminal_is_no_sound(musetalk, job, monkeypatch):
    first, second = os.openpty()
    with os.fdopen(first), os.fdopen(second) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        code, out, err = musetalk("realtime", *job, "--audio", "-")
    assert (code, out) == (1, "")
    assert_one_sentence(err, "standard input is a terminal")


@pytest.mark.slow
def test_a_microphone_is_recorded_until_it_is_unplugged(musetalk, job, monkeypatch, tmp_path):
    """The default one, since none is named; everything it gave is made before the run ends."""
    card = PlayingDevice(lambda rate: speech(1.5, rate), lambda stream: stream.unplug())
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    code, out, err = musetalk("realtime", *job, "--output", tmp_path / "out.mp4", "--json")
    assert code == 1
    assert_one_sentence(err, "The microphone pulse ended by itself")
    report, _ = report_in(out)
    assert [stream.device for stream in card.streams] == [1]
    assert report["failures"] == ["The microphone pulse ended by itself."]
    assert 14 <= report["frames"] <= 16
    recording = read_back(tmp_path / "out.mp4", rate=48_000)
    assert_together(recording, report["frames"])
    at, alike = delay_of(speech(1.5, 48_000)[4_800:62_400], recording.sound, 48_000)
    assert abs(at - 0.1) < 2 * FRAME_S  # a card that is not served in time loses sound
    assert alike > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "device", "rate"),
    [pytest.param(["--mic"], 1, 48_000, marks=pytest.mark.slow), (["--mic", "pro"], 3, 16_000)],
)
def test_a_chosen_microphone_is_recorded_until_it_is_told_to_stop(
    musetalk, job, monkeypatch, control, watched, tmp_path, options, device, rate
):
    control_options, writer = control
    card = PlayingDevice(lambda rate: speech(1.5, rate), lambda stream: None)
    watched.when = lambda now: now.frames >= 12
    watched.then = lambda: writer.write(b"stop\n")
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    code, out, err = musetalk(
        "realtime", *job, *control_options, *options, "--output", tmp_path / "out.mp4", "--json"
    )
    assert code == 0, err
    report, _ = report_in(out)
    assert (report["interrupted"], report["failures"]) == (False, [])
    assert [stream.device for stream in card.streams] == [device]
    recording = read_back(tmp_path / "out.mp4", rate=rate)
    assert_together(recording, report["frames"])
    at, alike = delay_of(speech(1.5, rate)[rate // 10 : rate // 2], recording.sound, rate)
    assert abs(at - 0.1) < 2 * FRAME_S  # a card that is not served in time loses sound
    assert alike > 0.9


@pytest.mark.slow
def test_a_client_is_heard_and_the_face_rests_after_it(musetalk, job, control, watched, tmp_path):
    control_options, writer = control
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clients = []

    def connect():
        clients.append(socket.create_connection(("127.0.0.1", port), LIMIT_S))
        clients[0].sendall(pcm(speech(1)))

    watched.at_start = connect
    watched.when = lambda now: now.frames >= 25 and not now.speaking
    watched.then = lambda: writer.write(b"stop\n")
    arguments = [*control_options, "--listen", port, "--output", tmp_path / "out.mp4", "--json"]
    code, out, err = musetalk("realtime", *job, *arguments)
    clients[0].close()
    assert code == 0, err
    assert f"listening on 127.0.0.1:{port} for 16-bit PCM, 16000 Hz, channels: 1\n" in err
    report, _ = report_in(out)
    assert 8 <= report["frames"] - report["idle_frames"] <= 18
    recording = read_back(tmp_path / "out.mp4")
    assert_together(recording, report["frames"])
    assert delay_of(speech(1), recording.sound)[1] > 0.9
    assert level(recording.sound[-8000:]) < -80


@pytest.mark.slow
def test_sound_on_stdin_is_in_the_file_as_it_was(musetalk, job, stdin, tmp_path):
    """44.1 kHz stereo in blocks that cut samples and channels."""
    rate = 44_100
    sound = np.stack([speech(2.5, rate), speech(2.5, rate, seed=1)], axis=1)
    data = pcm(sound)
    cuts = [0, 1, 3, 4_096, 4_097, 99_999, 100_000, 300_001, len(data)]
    stdin(*(data[begin:end] for begin, end in pairwise(cuts)))
    arguments = [
        "--audio",
        "-",
        "--input-rate",
        rate,
        "--input-channels",
        2,
        "--output",
        tmp_path / "out.mp4",
    ]
    code, out, err = musetalk("realtime", *job, *arguments, "--json")
    assert code == 0, err
    report, _ = report_in(out)
    assert (report["frames"], report["duration_s"]) == (25, 2.5)
    assert (report["dropped_frames"], report["idle_frames"], report["failures"]) == (0, 0, [])
    recording = read_back(tmp_path / "out.mp4", rate=rate, channels=2)
    assert_together(recording, 25)
    for channel in (0, 1):
        at, alike = delay_of(sound[:, channel], recording.sound[:, channel], rate)
        assert at == 0
        assert alike > 0.95


def test_standard_output_is_a_video_and_nothing_else(musetalk, job, tmp_path):
    """The sound in it is the input to the sample; the report goes to stderr."""
    sound = write_sound(tmp_path / "in.wav", speech(1.5))
    outputs = ["--output", "-", "-o", tmp_path / "out.mp4", "-o", "null"]
    with Pipe() as pipe:
        code, out, err = musetalk("realtime", *job, "--audio", sound, *outputs, "--json")
    assert (code, out) == (0, ""), err
    report, said = report_in(err)
    assert report["frames"] == 15
    assert re.fullmatch(r"chunks of 0\.2 s, [^\n]+\n\s*", said)
    recording = read_back(data=pipe.data)
    assert_together(recording, 15, 0.001)
    expected = np.frombuffer(pcm(speech(1.5)), "<i2") / np.float32(32768)
    np.testing.assert_allclose(recording.sound, expected, atol=1.5 / 32768)
    assert_together(read_back(tmp_path / "out.mp4"), 15)


@pytest.mark.slow
@pytest.mark.parametrize("with_file", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_reader_that_goes_away_ends_only_its_own_output(musetalk, job, tmp_path, with_file):
    sound = write_sound(tmp_path / "in.wav", speech(2))
    outputs = ["--output", "-", *(["-o", tmp_path / "out.mp4"] if with_file else [])]
    with Pipe(most=2000):
        code, out, err = musetalk("realtime", *job, "--audio", sound, *outputs)
    assert (code, out) == (1, "")
    assert "real-time factor" in err
    assert_one_sentence(err[err.index("\nerror: ") :], "The reader of --output - went away")
    if with_file:
        assert_together(read_back(tmp_path / "out.mp4"), 20)
        assert re.search(r"\b20 frames at 10 fps, 2\.00 s", err)


@pytest.mark.slow
def test_a_server_that_refuses_leaves_the_file_complete(musetalk, job, tmp_path):
    sound = write_sound(tmp_path / "in.wav", speech(1.5))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"rtmp://127.0.0.1:{free.getsockname()[1]}/live/hunter2"
    outputs = ["--output", url, "-o", tmp_path / "out.mp4"]
    code, out, err = musetalk("realtime", *job, "--audio", sound, *outputs, "--json")
    assert code == 1
    assert "hunter2" not in out + err
    assert_one_sentence(err, r"rtmp://127\.0\.0\.1 cannot be written: Connection refused")
    report, _ = report_in(out)
    assert report["frames"] == 15
    assert len(report["failures"]) == 1
    assert "Connection refused" in report["failures"][0]
    assert_together(read_back(tmp_path / "out.mp4"), 15)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *(
            (["--silence", value], "--silence")
            for value in ("-91dB", "-9", "0", "45dB", "-45 dB", "nan", "on")
        ),
        *((["--chunk", value], f"--chunk {value}") for value in ("soon", "0", "2.1")),
        *((["--ahead", value], f"--ahead {value}") for value in ("auto", "0", "601")),
        (["--idle-avatar", "nobody"], "nobody"),
        (["--idle-avatar", "../x"], "avatar"),
        (["--control", "987"], "--control 987 is not an open"),
        (["--control", "nowhere/socket"], "--control nowhere/socket cannot be made"),
        (["--control", "in.wav"], "--control in.wav cannot be made"),
        (["--trace", "nowhere/trace.json"], "folder of --trace"),
        (["--trace", "."], "--trace"),
        (["--output", "ftp://host/x"], "--output cannot send to ftp://"),
        (["--output", "rtmp://"], "names no host"),
        (["--output", "srt://host"], "names no port"),
        (["--output", ""], "after --output is empty"),
        (["--output", "nowhere/out.mp4"], "folder of --output"),
        (["-o", "ok.mp4", "-o", "in.wav"], "--output in.wav is the sound itself"),
        (["--trace", "in.wav"], "--trace in.wav is the sound itself"),
        (["-o", "ok.mp4", "-o", "null", "-o", "./ok.mp4"], "--output ./ok.mp4 is named twice"),
        (["-o", "-", "-o", "-"], "--output - is named twice"),
        (["-o", "ok.mp4", "--trace", "ok.mp4"], "--trace ok.mp4 is named twice"),
        (["--virtual-camera"], r"pip install 'musetalk-cli\[camera\]'"),
        (["--display"], "There is no screen here|built without windows"),
    ],
)
def test_a_bad_value_is_one_sentence_and_leaves_nothing(musetalk, job, monkeypatch, tmp_path, options, words):
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    sound = write_sound(tmp_path / "in.wav", speech(0.5))
    before = sound.read_bytes()
    code, out, err = musetalk("realtime", *job, "--audio", "in.wav", *options)
    assert (code, out) == (1, "")
    assert_one_sentence(err, words)
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]
    assert sound.read_bytes() == before


@pytest.mark.parametrize(
    "address", ["", "nonsense", "host:port", "1:2:3", "99999", ":", "127.0.0.1:-1", "[::1"]
)
def test_an_address_that_is_none_is_refused(musetalk, job, address):
    code, out, err = musetalk("realtime", *job, f"--listen={address}")
    assert (code, out) == (1, "")
    assert_one_sentence(err, "--listen")


def test_an_idle_avatar_of_another_size_is_refused(musetalk, job, avatars_dir, tmp_path):
    import cv2

    folders = tmp_path / "avatars"
    for name in ("synthetic", "small"):
        (folders / name).parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", avatars_dir / "synthetic", folders / name], check=True)
    text = (folders / "small" / "avatar.json").read_text()
    described = json.loads(text) | {"name": "small", "width": 160}
    (folders / "small" / "avatar.json").write_text(json.dumps(described))
    for path in (folders / "small" / "full_imgs").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path))[:, :160])
    job[job.index("--avatars-dir") + 1] = folders
    sound = write_sound(tmp_path / "in.wav", speech(0.5))
    arguments = ["--audio", sound, "--idle-avatar", "small", "--output", tmp_path / "out.mp4"]
    code, out, err = musetalk("realtime", *job, *arguments)
    assert (code, out) == (1, "")
    assert_one_sentence(err, "small")
    assert not (tmp_path / "out.mp4").exists()


def test_silence_is_counted_and_every_stage_is_traced(musetalk, job, tmp_path):
    """Two seconds of digital silence between two halves of a second of speech."""
    parts = speech(0.5), np.zeros(32_000, np.float32), speech(0.5)
    sound = write_sound(tmp_path / "in.wav", *parts)
    trace = tmp_path / "trace.json"
    arguments = ["--audio", sound, "--no-pace", "--trace", trace, "--json"]
    code, out, err = musetalk("realtime", *job, *arguments, "--output", tmp_path / "out.mp4")
    assert code == 0, err
    report, _ = report_in(out)
    assert (report["frames"], report["dropped_frames"], report["failures"]) == (30, 0, [])
    assert 12 <= report["idle_frames"] <= 18
    assert report["idle_share"] == pytest.approx(report["idle_frames"] / 30)
    assert report["settings"]["silence"] == "-45dB"
    events = json.loads(trace.read_text())
    spans = [event for event in events if event["ph"] == "X"]
    assert {"audio", "features", "unet", "vae", "blend", "sink"} <= {event["name"] for event in spans}
    assert all(event["dur"] >= 0 for event in spans)
    counters = {event["name"] for event in events if event["ph"] == "C"}
    assert counters == {"sound", "requests", "frames"}
    assert sum(event["name"] == "sink" for event in spans) == 30
    recording = read_back(tmp_path / "out.mp4")
    assert_together(recording, 30)
    assert level(recording.sound[12_000:36_000]) < -80
    arguments[-3:] = ["--silence", "off", "--json"]
    code, out, err = musetalk("realtime", *job, *arguments)
    assert code == 0, err
    assert report_in(out)[0]["idle_frames"] == 0


@pytest.mark.slow
def test_an_interrupt_silences_what_was_said_and_the_file_goes_on(musetalk, job, watched, tmp_path):
    path = tmp_path / "socket"
    sound = write_sound(tmp_path / "in.wav", speech(3))

    def interrupt():
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"interrupt\n")

    watched.when = lambda now: now.frames >= 8
    watched.then = interrupt
    arguments = ["--audio", sound, "--control", path, "--output", tmp_path / "out.mp4", "--json"]
    code, out, err = musetalk("realtime", *job, *arguments)
    assert code == 0, err
    report, _ = report_in(out)
    assert report["frames"] == 30
    assert not path.exists()
    recording = read_back(tmp_path / "out.mp4")
    assert_together(recording, 30)
    windows = np.array([level(part) for part in np.split(recording.sound[: 150 * 320], 150)])
    silent = np.flatnonzero(windows < -60)
    assert 10 <= silent[0] <= 110
    assert 10 <= len(silent) <= 90
    np.testing.assert_array_equal(silent, np.arange(silent[0], silent[0] + len(silent)))
    after = (silent[-1] + 5) * 320
    assert delay_of(speech(3)[after:47_000], recording.sound) == (
        pytest.approx(after / 16_000, abs=0.001), pytest.approx(1, abs=0.1)
    )  # fmt: skip


@pytest.fixture
def slow(monkeypatch):
    """Networks that take a fifth of a second for a batch; the frames they made."""
    made, real, never = [], Generator.unet, threading.Event()

    def unet(self, tokens, latents):
        made.append(len(tokens))
        never.wait(0.2)
        return real(self, tokens, latents)

    monkeypatch.setattr(Generator, "unet", unet)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("when_late", [pytest.param("wait", marks=pytest.mark.slow), "drop"])
def test_a_slow_model_drops_frames_or_waits_and_keeps_every_place(musetalk, job, slow, tmp_path, when_late):
    sound = write_sound(tmp_path / "in.wav", speech(2))
    arguments = ["--audio", sound, "--when-late", when_late, "--batch-size", 1, "--json"]
    code, out, err = musetalk("realtime", *job, *arguments, "--output", tmp_path / "out.mp4")
    assert code == 0, err
    report, _ = report_in(out)
    recording = read_back(tmp_path / "out.mp4")
    assert report["frames"] == 20
    assert_together(recording, 20)
    assert delay_of(speech(2), recording.sound) == (0, pytest.approx(1, abs=0.1))
    if when_late == "wait":
        assert report["dropped_frames"] == 0
        assert len(set(recording.hashes)) == 20
    else:
        assert 1 <= report["dropped_frames"] <= 19
        warm_up = sum(slow) - (20 - report["dropped_frames"])
        assert 0 <= warm_up <= 1 + TRIALS


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_what_was_written_is_playable(musetalk, job, tmp_path):
    sound = write_sound(tmp_path / "in.wav", speech(6))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        code, out, err = musetalk(
            "realtime", *job, "--audio", sound, "--no-pace", "--output", tmp_path / "out.mp4", "--json"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1, err
    assert_one_sentence(err, "out.mp4 cannot be written: ")
    report, _ = report_in(out)
    assert len(report["failures"]) == 1
    assert (tmp_path / "out.mp4").stat().st_size <= 200_000
    recording = read_back(tmp_path / "out.mp4")
    assert 10 <= len(recording.times) <= report["frames"] < 60
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.wav", "out.mp4"]


@contextmanager
def child(*arguments, **pipes):
    """`musetalk realtime` as a process of its own; killed at the end if it is still there."""
    command = [sys.executable, "-m", "musetalk_cli", "realtime", *map(str, arguments)]
    kinds = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    kinds["env"] = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, bufsize=0, **kinds) as process:
        try:
            yield process
        finally:
            process.kill()


def has(stream, most=LIMIT_S):
    assert select.select([stream], [], [], most)[0], "nothing came"
    return stream


@contextmanager
def every_ffmpeg_of(process):
    """The ffmpegs that a process has started; all are gone soon after the statement."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout
    pids = [int(line.split()[0]) for line in listed.splitlines() if ffmpeg.executable() in line]
    assert pids
    found = []
    for pid in pids:
        with suppress(ProcessLookupError):
            found.append(os.pidfd_open(pid))
    try:
        yield pids
        for descriptor in found:
            has(descriptor)
    finally:
        for descriptor in found:
            os.close(descriptor)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_in_the_middle_leaves_a_playable_file_and_no_process(job, tmp_path, kind):
    """SIGKILL comes to the encoders as well, as where the memory is full."""
    sound = write_sound(tmp_path / "in.wav", speech(30))
    outputs = ["--output", "-", "-o", tmp_path / "out.mp4", "--json"]
    with child(*job, "--audio", sound, *outputs) as process:
        data = b""
        while len(data) < (120_000 if kind == signal.SIGKILL else 40_000):
            data += has(process.stdout).read(1 << 16)
        with every_ffmpeg_of(process) as encoders:
            for pid in encoders if kind == signal.SIGKILL else ():
                os.kill(pid, kind)
            process.send_signal(kind)
            while block := has(process.stdout).read(1 << 16):
                data += block
        err = process.stderr.read().decode()
        code = process.wait(LIMIT_S)
    streamed = read_back(data=data)
    recorded = read_back(tmp_path / "out.mp4")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.wav", "out.mp4"]
    if kind == signal.SIGKILL:
        assert code == -kind
        assert len(streamed.times) >= 10
        assert len(recorded.times) >= 10
        return
    assert code == 130, err
    report, said = report_in(err)
    assert "Traceback" not in said
    assert report["interrupted"] is True
    assert 5 <= report["frames"] < 300
    assert_together(streamed, report["frames"], 0.001)
    assert_together(recorded, report["frames"])


@pytest.mark.slow
def test_a_signal_before_the_first_frame_leaves_no_file(job, tmp_path):
    arguments = ["--audio", "-", "--output", tmp_path / "out.mp4", "--json"]
    with child(*job, *arguments, stdin=subprocess.PIPE) as process:
        assert has(process.stderr).read(1 << 12).startswith(b"chunks of 0.2 s")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert out == b""
    assert list(tmp_path.iterdir()) == []
