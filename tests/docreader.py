"""Whoever reads the documentation and types what it shows, on a machine with stand-ins for what a test lacks.

What is replaced in a line is what a machine has once: a free port, the server, the folder of the user's
sockets.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from dockerlines import check_docker
from doclines import ROOT
from lives import LIMIT_S, Pipe, pcm, read_back, run_ffmpeg, speech
from servers import free_port, serving

from musetalk_cli.avatar.upstream import import_avatar
from musetalk_cli.live.control import ControlHandle, ControlLines
from musetalk_cli.serve import server
from musetalk_cli.serve.guard import PROTECTED
from musetalk_cli.serve.settings import DEFAULT_PORT

FRAMES = 5
"""Frames after which somebody has seen enough of a stream without an end."""
SPOKEN_S = 0.4
INPUTS = ("--audio", "--source", "--idle", "--landmarks", "-i")
OUTPUTS = ("--output", "-o", "--preview", "--json", "--frames-dir", "--profile")
RUNTIME = "/run/user/1000/"


class Window:
    """Stands for the window: somebody looks at a few frames and presses `q`."""

    name, watched = "window", True

    def __init__(self, overlay, on_interrupt, on_close):
        self._overlay, self._close, self.shown = overlay, on_close, 0

    def open(self, stream):
        assert self._overlay() == ""

    def write(self, frame):
        self.shown += 1
        if self.shown == FRAMES:
            self._close()

    def finish(self):
        pass

    abort = finish


class Reader:
    """Types lines in a clone of this repository with tiny networks.

    Args:
        place: The working folder.
        files: What the lines read.
        models: Tiny networks in the layout of the published ones.
        musetalk: Runs a command in this process.
        watched: Stands where the live panel is.
        monkeypatch: Puts the standard input in its place.
    """

    def __init__(self, place, files, models, musetalk, watched, monkeypatch):
        self.place, self._files, self._models = place, files, models
        self._musetalk, self._watched, self._monkeypatch = musetalk, watched, monkeypatch
        self._port = str(free_port(socket.SOCK_STREAM))

    def type(self, line):
        """Type a line; every command in it ends as the documentation says."""
        for pipeline in line.pipelines():
            data = None
            for number, words in enumerate(pipeline):
                assert words[0] in TOOLS, f"{line.place}: nothing stands in for {words[0]}"
                data = TOOLS[words[0]](self, words, data, number < len(pipeline) - 1)

    def ours(self, words, data, piped):
        self._provide(words)
        url = next((word for word in words if re.match(r"rtmp://|srt://", word)), None)
        if url is None:
            return self._run(words, data, piped)
        taken = self.place / "taken.mkv"
        with serving(url.partition(":")[0], taken, re.sub(r"^\w+://[^/]+", "", url)) as address:
            out = self._run([address if word == url else word for word in words], data, piped)
        assert len(read_back(taken).times) >= FRAMES
        return out

    def _run(self, words, data, piped):
        words = [word.replace(RUNTIME, "run/") for word in words]
        if "--listen" in words:
            words[words.index("--listen") + 1] = self._port
        endless = words[1] == "realtime" and not {"--audio", "--list-devices", "--help"} & set(words)
        self._look_on(words, endless=endless)
        if words[1] == "serve":
            self._end_when_ready()
        with self._stdin(data):
            if piped:
                with Pipe() as pipe:
                    code, out, err = self._musetalk(*words[1:])
            else:
                code, out, err = self._musetalk(*words[1:])
        assert code == (130 if endless and "--display" not in words else 0), err
        for surprise in ("Unexpected", "Traceback", "error:"):
            assert surprise not in out + err
        self._expect(words)
        return pipe.data if piped else None

    def _look_on(self, words, *, endless):
        """Be the synthesiser that connects, and whoever ends with Ctrl-C what has no end of its own."""

        def connect():
            client = socket.create_connection(("127.0.0.1", int(self._port)), LIMIT_S)
            client.sendall(pcm(speech(SPOKEN_S)))
            client.close()

        if "--listen" in words:
            self._watched.at_start = connect
        self._watched.when = lambda now: endless and "--display" not in words and now.frames >= FRAMES
        self._watched.then = lambda: os.kill(os.getpid(), signal.SIGINT)

    def _end_when_ready(self):
        """Be whoever sees that the service is ready, and ends it; its port is any free one."""
        real = server.serve

        def serve(run, job, config, notice, ready):
            def told(url, service):
                ready(url, service)
                os.kill(os.getpid(), signal.SIGTERM)

            return real(run, job, replace(config, port=0), notice, told)

        self._monkeypatch.setattr(server, "serve", serve)

    def _stdin(self, data):
        read_end, write_end = os.pipe()
        if data is not None:
            assert os.write(write_end, data) == len(data), "more than a pipe holds"
        os.close(write_end)
        reader = os.fdopen(read_end)
        self._monkeypatch.setattr(sys, "stdin", reader)
        return reader

    def _provide(self, words):
        """What a line takes to be there: its files, and anna with the networks she was made for."""
        known = [word for before, word in pairwise(words) if before in INPUTS]
        known += words[2:3] if words[1] == "prepare-avatar" else []
        known += words[3:4] if words[1:3] == ["avatars", "import"] else []
        self._bring(known)
        if words[1] == "batch":
            self._bring_manifest(words[2])
        if {"anna", "--source"} & set(words) or words[1:3] in (["models", "verify"], ["models", "convert"]):
            for part in ("musetalkV15", "sd-vae", "whisper"):
                if not (self.place / "models" / part).exists():
                    (self.place / "models" / part).symlink_to(self._models / part)
            if {"anna", "--name"} & set(words) == {"anna"} and not (self.place / "avatars" / "anna").exists():
                import_avatar(self._files / "any", self.place / "avatars", "anna")

    def _bring_manifest(self, name):
        """One of the examples as it is, or any."""
        self._bring(["any.wav"])
        if (ROOT / name).exists() and not (self.place / name).exists():
            (self.place / name).parent.mkdir()
            shutil.copy(ROOT / name, self.place / name)
        self._bring([name])

    def _bring(self, names):
        for name in names:
            path = self.place / name
            if name != "-" and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(self._files / f"any{path.suffix}")

    def _expect(self, words):
        """Every result that a line names is there."""
        for before, word in pairwise(words):
            if before in OUTPUTS and "://" not in word and word != "-":
                assert (self.place / word).stat().st_size > 0, word
                if word.endswith(".mp4"):
                    assert len(read_back(self.place / word).times) >= FRAMES
        if words[1] == "batch" and "--dry-run" not in words:
            assert any((self.place / words[words.index("--output-dir") + 1]).glob("*.mp4"))
        if "--name" in words:
            name = words[words.index("--name") + 1]
            assert (self.place / "avatars" / name / "avatar.json").is_file()

    def make(self, words, data, piped):
        """Tells what it would do; what of that is this program runs."""
        make = shutil.which("make") or pytest.skip("there is no make here")
        command = [make, "--dry-run", "--always-make", *words[1:]]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        told = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=LIMIT_S)
        assert told.returncode == 0, told.stderr
        for line in told.stdout.replace("\\\n", " ").splitlines():
            before, ours, after = line.partition("/musetalk ")
            if ours:
                assert before.endswith("bin")
                self.ours(["musetalk", *after.split()], None, False)

    def source(self, words, data, piped):
        """The environment is the one of `make install`."""
        assert words[1:] == [".venv/bin/activate"]
        assert "\nVENV := .venv\n" in (ROOT / "Makefile").read_text()

    def pip(self, words, data, piped):
        """What is installed is what the project asks for, or an extra it has."""
        project = (ROOT / "pyproject.toml").read_text()
        for word in words[2:]:
            extra = re.fullmatch(r"musetalk-cli\[(\w+)\]", word)
            assert (f"\n{extra[1]} = [" if extra else f'"{word}"') in project, word

    def ffmpeg(self, words, data, piped):
        self._bring([words[words.index("-i") + 1]])
        done = run_ffmpeg(*words[1:])
        assert done.returncode == 0, done.stderr
        return done.stdout

    def docker(self, words, data, piped):
        check_docker(words)

    def curl(self, words, data, piped):
        """The service is asked for something that it answers."""
        *options, url = words[1:]
        port, path = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/\w+)", url).groups()
        assert int(port) == DEFAULT_PORT
        assert path in ("/healthz", "/readyz") or (path in PROTECTED and "--header" in options)

    def nvidia_smi(self, words, data, piped):
        """There may be no GPU; what it tells is what its manual names."""
        fields = next(word for word in words if word.startswith("--query-gpu="))
        assert set(fields.partition("=")[2].split(",")) <= {"utilization.gpu", "memory.used", "memory.total"}

    def tts(self, words, data, piped):
        return pcm(speech(SPOKEN_S))

    def ffplay(self, words, data, piped):
        played = read_back(data=data)
        assert len(played.times) >= FRAMES
        assert len(played.sound)

    def echo(self, words, data, piped):
        return (" ".join(words[1:]) + "\n").encode()

    def nc(self, words, data, piped):
        """A stream is at the other end of the socket, and is interrupted."""
        interrupted, path = [], words[-1].replace(RUNTIME, "run/")
        handle = ControlHandle()
        handle.bind(type("Session", (), {"interrupt": lambda self: interrupted.append(True)})())
        with ControlLines(path, handle), socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            client.settimeout(LIMIT_S)
            assert client.recv(1) == b""
        assert interrupted == [True]


TOOLS = {
    "musetalk": Reader.ours,
    "make": Reader.make,
    "source": Reader.source,
    "pip": Reader.pip,
    "docker": Reader.docker,
    "curl": Reader.curl,
    "nvidia-smi": Reader.nvidia_smi,
    "ffmpeg": Reader.ffmpeg,
    "tts": Reader.tts,
    "ffplay": Reader.ffplay,
    "echo": Reader.echo,
    "nc": Reader.nc,
}
"""What a line may call: each is given its words, its standard input, and whether its output is read."""
