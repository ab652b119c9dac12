"""Small networks on disk for whole runs, and readers of what these recorded."""

import json
import os
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import soundfile
from safetensors.torch import save_file

from musetalk_cli.media import ffmpeg

LIMIT_S = 60
RATE = 16_000


def save_bundle(bundle, golden, folder):
    """Write a bundle in upstream's layout, with the mel filters of the golden one; gives its folder."""
    from musetalk_cli.nets import random_v15  # the libraries of the networks take seconds to load

    configs = {
        "musetalkV15/musetalk.json": random_v15.unet_config() | dict(bundle.unet.config),
        "sd-vae/config.json": random_v15.vae_config() | dict(bundle.vae.config),
        "whisper/config.json": bundle.audio_encoder.config.to_dict(),
    }
    weights = {
        "musetalkV15/unet.safetensors": bundle.unet,
        "sd-vae/diffusion_pytorch_model.safetensors": bundle.vae,
        "whisper/model.safetensors": bundle.audio_encoder,
    }
    for name, config in configs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        plain = {key: value for key, value in config.items() if not key.startswith("_")}
        (folder / name).write_text(json.dumps(plain))
    for name, network in weights.items():
        prefix = "encoder." if name.startswith("whisper") else ""
        tensors = {prefix + key: value.contiguous() for key, value in network.state_dict().items()}
        save_file(tensors, folder / name)
    shutil.copy(golden / "models" / "whisper" / "preprocessor_config.json", folder / "whisper")
    (folder / "bundle.json").write_text('{"name": "tiny"}')
    return folder


def is_same_picture(one, other):
    """Equal but for a few values: on some processors a face rounds otherwise in another batch."""
    return one.shape == other.shape and np.count_nonzero(one != other) <= 20


def take_all(session):
    """The finished frames of a session, taken from it."""
    return [session.take() for _ in range(session.untaken)]


def speech(seconds, rate=RATE, seed=0):
    """Noise below 4 kHz with the rhythm of syllables that never falls silent, float32 `[n]`."""
    count = round(seconds * rate)
    noise = np.random.default_rng(seed).uniform(-1, 1, round(seconds * 8000) + 2)
    time = np.arange(count) / rate
    loud = 0.25 + 0.15 * np.sin(2 * np.pi * 4 * time)
    return (np.interp(time * 8000, np.arange(len(noise)), noise) * loud).astype(np.float32)


def pcm(samples):
    """Little-endian 16-bit PCM."""
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def write_sound(path, *parts, rate=RATE):
    """Write a WAV of parts, one after the other; gives its path."""
    soundfile.write(path, np.concatenate(parts), rate, subtype="PCM_16")
    return path


def run_ffmpeg(*arguments, data=None):
    command = [ffmpeg.executable(), "-hide_banner", *map(str, arguments)]
    given = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
    return subprocess.run(command, capture_output=True, timeout=LIMIT_S, **given)


def read_back(path=None, data=None, rate=RATE, channels=1):
    """What ffmpeg finds in a recording: seconds of each picture, pictures as hashes, sound as it is laid out.

    Attributes of the result: `times`, `hashes`, `sound` float32 `[n]` or `[n, channels]`, `sound_s`.
    """
    source = "-" if path is None else path
    told = run_ffmpeg(
        "-i", source, "-map", "0:v", "-fps_mode", "passthrough", "-f", "framemd5", "-", data=data
    )
    assert told.returncode == 0, told.stderr.decode()
    text = told.stdout.decode()
    base = re.search(r"#tb 0: (\d+)/(\d+)", text)
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")]
    unit = int(base[1]) / int(base[2])
    laid = f"aresample={rate}:async=1:first_pts=0"
    sound = run_ffmpeg(
        "-v", "error", "-i", source, "-vn", "-af", laid, "-ac", channels, "-f", "f32le", "-", data=data
    )
    assert sound.returncode == 0, sound.stderr.decode()
    samples = np.frombuffer(sound.stdout, "<f4")
    samples = samples if channels == 1 else samples.reshape(-1, channels)
    return SimpleNamespace(
        times=np.array([int(row[2]) * unit for row in rows]),
        hashes=[row[5].strip() for row in rows],
        sound=samples,
        sound_s=len(samples) / rate,
    )


def delay_of(part, whole, rate=RATE):
    """Seconds into `whole` at which `part` is found, and how alike they are there, -1..1."""
    size = 1 << (len(whole) + len(part)).bit_length()
    product = np.fft.irfft(np.fft.rfft(whole, size) * np.conj(np.fft.rfft(part, size)), size)
    power = np.cumsum(np.square(np.pad(whole, (1, len(part))), dtype=np.float64))
    power = power[len(part) :][: len(whole)] - power[: len(power) - len(part)][: len(whole)]
    at = int(np.argmax((product[: len(whole)] / np.sqrt(power + 1e-6))[: max(1, len(whole) - len(part) + 1)]))
    found = whole[at : at + len(part)]
    return at / rate, float(np.corrcoef(found, part[: len(found)])[0, 1])


def level(samples):
    """RMS in dB of full scale."""
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20)


class Pipe:
    """What a run writes to its standard output while a `with` statement lasts.

    Args:
        most: Bytes after which the reader goes away, or None.
    """

    def __init__(self, most=None):
        self.data, self._most = b"", most

    def __enter__(self):
        self._before = os.dup(1)
        self._read_end, write_end = os.pipe()
        os.dup2(write_end, 1)
        os.close(write_end)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *_):
        os.dup2(self._before, 1)
        os.close(self._before)
        self._thread.join(LIMIT_S)

    def _read(self):
        with os.fdopen(self._read_end, "rb", buffering=0) as reader:
            while (self._most is None or len(self.data) < self._most) and (data := reader.read(1 << 16)):
                self.data += data


@contextmanager
def at_the_latest(stop):
    """Call `stop` where the statement takes longer than a live run of a test may."""
    timer = threading.Timer(LIMIT_S, stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
