"""A sound server on this machine whose only loudspeaker is heard by nobody but its monitor."""

import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from lives import LIMIT_S

RATE, CHANNELS = 48_000, 2
_FRAME = 4 * CHANNELS
_PLUGIN = "libasound_module_pcm_pulse.so"


def missing():
    """What a sound server needs that is not here, or nothing."""
    tools = [tool for tool in ("pulseaudio", "parec") if shutil.which(tool) is None]
    folders = [Path("/usr/lib"), Path("/usr/lib64")]
    has_plugin = any(next(folder.glob(f"**/alsa-lib/{_PLUGIN}"), None) for folder in folders)
    return tools + ([] if has_plugin else [_PLUGIN])


class Monitor:
    """What the server plays, as it is recorded, until the end of a `with` statement.

    Args:
        environment: Of processes that shall find the server.
    """

    def __init__(self, environment):
        self._environment = environment
        self._data = []
        self._began = []

    def __enter__(self):
        command = ["parec", "--device=nowhere.monitor", "--latency-msec=10", "--raw", "--format=float32le"]
        command += [f"--rate={RATE}", f"--channels={CHANNELS}"]
        self._process = subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._record)
        self._thread.start()
        assert self._first.wait(LIMIT_S), "the monitor gives nothing"
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._thread.join(LIMIT_S)
        self._process.stdout.close()

    def _record(self):
        total = 0
        while data := self._process.stdout.read(1 << 16):
            total += len(data)
            self._data.append(data)
            self._began.append(time.perf_counter() - total / _FRAME / RATE)
            self._first.set()

    @property
    def sound(self):
        """float32 `[n, channels]`."""
        data = b"".join(self._data)
        return np.frombuffer(data[: len(data) // _FRAME * _FRAME], "<f4").reshape(-1, CHANNELS)

    @property
    def began(self):
        """When its first sample was played: delivery can be late but never early."""
        return min(self._began)


@contextmanager
def sound_server(folder):
    """A PulseAudio with a null sink; gives the environment in which PortAudio finds it through ALSA."""
    if what := missing():
        pytest.skip(f"no sound server for tests: {', '.join(what)} not found")
    folder.mkdir()
    (folder / "asound.conf").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    environment = os.environ | {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "PULSE_RUNTIME_PATH": str(folder),
        "PULSE_SERVER": f"unix:{folder}/socket",
        "ALSA_CONFIG_PATH": str(folder / "asound.conf"),
    }
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
    command += ["-L", f"module-native-protocol-unix auth-anonymous=1 socket={folder}/socket"]
    command += ["-L", f"module-null-sink sink_name=nowhere rate={RATE} channels={CHANNELS}"]
    server = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=folder,
    )
    try:
        _wait_for(server, folder / "socket")
        yield environment
    finally:
        server.terminate()
        server.wait(LIMIT_S)


def _wait_for(server, path):
    """Until the server's socket is there; bounded by a number of looks."""
    for _ in range(1_000_000):
        if path.exists():
            return
        if server.poll() is not None:
            pytest.skip(f"PulseAudio does not start: exit code {server.returncode}")
        os.sched_yield()
    pytest.skip("PulseAudio does not start")
