"""Golden data and what is made of it, shared by the tests."""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import logging
import os
import shutil
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer.main
from hypothesis import HealthCheck, settings

from musetalk_cli.threads import bound_spinning

# Before torch loads, as in the product: test processes side by side need each other's cores.
bound_spinning()

# Before torch loads: on AVX-512 processors its matrix library adds in an order that depends on the sizes, and
# what is held to a reference to the last bit would not be.
os.environ.setdefault("MKL_CBWR", "AVX2")

# Before Triton loads: without a GPU its interpreter runs the kernels, in this process and nowhere else.
if not any(Path("/dev", gpu).exists() for gpu in ("nvidiactl", "dxg")):  # the other one is WSL's
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A default run tries the same few examples each time; the others look for new ones.
settings.register_profile("default", max_examples=25, derandomize=True, deadline=None)
for _profile, _examples in (("minute", 100), ("fuzz", 2000)):
    settings.register_profile(
        _profile, max_examples=_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("default")


GROWN = 1 << 29
"""Bytes by which a process of tests grows before it gives back what it can: to look takes long."""
KEPT = pytest.StashKey[int]()
"""Bytes that were left when it last did."""
TRIALS = 2
"""How often work is timed as an engine warms up: more often, and most of a short stream is its warm-up."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Give torch one thread before the fixtures of a test, and all of the machine where it is marked so.

    Threads of small networks mostly wait for each other, and test processes have the other cores.
    """
    if (torch := sys.modules.get("torch")) is None:
        return
    default = _default_threads()  # before the first change
    torch.set_num_threads(default if item.get_closest_marker("all_threads") else 1)
    if (rehearsal := sys.modules.get("musetalk_cli.engine.rehearsal")) is not None:
        rehearsal.TRIALS = TRIALS


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item, nextitem):
    """An error that is a parameter forgets where it was raised.

    It lives as long as the process, and so would what stood in those frames: engines, streams, resamplers.
    """
    done = yield
    for value in item.callspec.params.values() if hasattr(item, "callspec") else ():
        if isinstance(value, BaseException):
            value.__traceback__ = value.__context__ = None
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Give back what a test of large networks has let go, which the C library else keeps for this process.

    Processes that grow side by side fill a machine, and the system then ends one of them in whatever it does.
    """
    done = yield
    if _resident_bytes() > item.config.stash.get(KEPT, 0) + GROWN:
        gc.collect()
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
            trim(0)
        item.config.stash[KEPT] = _resident_bytes()
    return done


def _resident_bytes():
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux
        return 0


@functools.cache
def _default_threads():
    import torch

    return torch.get_num_threads()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Half as many test processes again as cores, since tests of streams in real time mostly wait."""
    cores = len(os.sched_getaffinity(0))
    return cores + (cores + 1) // 2


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session):
    """What is loaded and collected stays: the garbage collector need not go through it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def golden() -> Path:
    """Upstream's results on a small random-weight bundle."""
    return Path(__file__).parent / "data" / "golden"


@pytest.fixture(scope="session")
def avatars_dir(golden, tmp_path_factory):
    """A folder with the golden avatar, imported as `synthetic`; read only."""
    from musetalk_cli.avatar.upstream import import_avatar

    folder = tmp_path_factory.mktemp("avatars")
    import_avatar(golden / "avatar", folder, "synthetic")
    return folder


@pytest.fixture(scope="session")
def golden_bundle(golden):
    """The golden networks on the CPU in fp32."""
    import torch

    from musetalk_cli.nets.bundle import load_bundle

    return load_bundle(str(golden / "models"), Path(), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def golden_avatar(avatars_dir):
    """The golden avatar, loaded."""
    from musetalk_cli.avatar.store import load_avatar

    return load_avatar(avatars_dir, "synthetic")


@pytest.fixture(scope="session")
def golden_sound(golden):
    """The golden sound, float32 `[n]` at 16 kHz, read by a library of its own."""
    import soundfile

    return soundfile.read(golden / "audio.wav", dtype="float32")[0]


@pytest.fixture(scope="session")
def installation(golden, avatars_dir, tmp_path_factory):
    """Embedded data: the golden networks, avatar and sound under the names of the demo; read only."""
    root = tmp_path_factory.mktemp("installation")
    shutil.copytree(golden / "models", root / "models" / "demo")
    card = {"name": "demo", "cpu_precision": "bf16", "made": "of random numbers"}
    (root / "models" / "demo" / "bundle.json").write_text(json.dumps(card))
    for name in ("demo", "demo2"):
        folder = root / "avatars" / name
        shutil.copytree(avatars_dir / "synthetic", folder)
        description = json.loads((folder / "avatar.json").read_text())
        description |= {"name": name, "model": {"version": "v15", "name": "demo"}}
        (folder / "avatar.json").write_text(json.dumps(description))
    shutil.copy(golden / "audio.wav", root / "avatars" / "demo" / "sample.wav")
    return root


@pytest.fixture(scope="session")
def tiny_installation(installation, models, tmp_path_factory):
    """The same with the tiny networks; read only."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "models").mkdir()
    (root / "models" / "demo").symlink_to(models)
    (root / "avatars").symlink_to(installation / "avatars")
    return root


@pytest.fixture
def embedded(installation, monkeypatch):
    """The program finds its embedded data in `installation`, and only there."""
    monkeypatch.setattr("musetalk_cli.nets.embedded.places", lambda: (installation,))
    return installation


@pytest.fixture
def nothing_embedded(tmp_path, monkeypatch):
    """The program finds no embedded data, as if it had been installed without them."""
    monkeypatch.setattr("musetalk_cli.nets.embedded.places", lambda: (tmp_path / "nowhere",))


_built_once = functools.cache(typer.main.get_command)


@pytest.fixture
def own_log():
    """What a command does to the program's log is undone."""
    log = logging.getLogger("musetalk_cli")
    before = (log.handlers, log.propagate, log.level)
    yield
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])


@pytest.fixture
def no_devices(monkeypatch):
    """No screen, and no sound card but what a test stands in for."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if getattr(sys.modules.get("sounddevice", sys), "__name__", None) in {"sys", "sounddevice"}:
        monkeypatch.setitem(sys.modules, "sounddevice", None)


@pytest.fixture
def musetalk(monkeypatch, capfd, own_log, no_devices):
    """Runs a command in this process; gives its exit code, stdout and stderr."""
    from musetalk_cli.cli.app import run

    # The tree of commands is the same for every call, and takes longer to build than most calls to run.
    monkeypatch.setattr(typer.main, "get_command", _built_once)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["musetalk", *map(str, arguments)])
        code = run()
        return (code, *capfd.readouterr())

    return call


@pytest.fixture
def watched(monkeypatch):
    """Stands where the live panel is: calls `at_start`, and once `then` when `when` is true of a snapshot."""

    class Watched:
        at_start = staticmethod(lambda: None)
        when = staticmethod(lambda snapshot: False)
        then = staticmethod(lambda: None)
        done = False

    @contextmanager
    def panel(title, *, enabled, gpu=None):
        Watched.at_start()
        yield watch

    def watch(snapshot):
        if not Watched.done and Watched.when(snapshot):
            Watched.done = True
            Watched.then()

    monkeypatch.setattr("musetalk_cli.cli.realtime.live_panel", panel)
    return Watched


@pytest.fixture(scope="session")
def coloured_avatars(golden, tmp_path_factory):
    """A folder with the golden avatar as `red` and `blue`, told apart by its pictures; read only."""
    import cv2
    import numpy as np

    from musetalk_cli.avatar.upstream import import_avatar

    folder = tmp_path_factory.mktemp("coloured")
    for name, colour in (("red", (0, 0, 200)), ("blue", (200, 0, 0))):
        import_avatar(golden / "avatar", folder, name)
        for path in (folder / name / "full_imgs").iterdir():
            cv2.imwrite(str(path), np.full_like(cv2.imread(str(path)), colour))
    return folder


@pytest.fixture(scope="session")
def coloured_run(models, coloured_avatars):
    """What a service of small networks and coloured avatars is run with."""
    from musetalk_cli.config import DataFolder, RunConfig

    folders = DataFolder(models, "flag"), DataFolder(coloured_avatars, "flag")
    return RunConfig(*folders, str(models), "cpu", "fp32")


@pytest.fixture
def no_thread_is_left():
    """Whatever a test started has ended with it."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


@pytest.fixture
def started():
    """Gives the process ids of what was started since and is not gone, its exit code fetched and all."""
    from processes import children

    before = children()
    return lambda: children() - before


@pytest.fixture(scope="session")
def models(tiny_bundle, golden, tmp_path_factory):
    """The tiny networks in a folder of their own; read only."""
    from lives import save_bundle

    return save_bundle(tiny_bundle, golden, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def tiny_bundle():
    """Networks of the real classes, so small that a frame takes milliseconds; seeded random weights.

    Attention, which costs most, is where the picture is smallest.
    """
    import torch

    from musetalk_cli.nets import modules, random_v15
    from musetalk_cli.nets.bundle import Bundle

    here = Path(__file__)
    slim = {"norm_num_groups": 1, "layers_per_block": 1}
    unet = random_v15.unet_config() | slim | {"block_out_channels": [4, 4, 4, 4]}
    unet |= {"cross_attention_dim": 8, "attention_head_dim": 2}
    unet["down_block_types"] = ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
    unet["up_block_types"] = ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"]
    vae = random_v15.vae_config() | slim | {"block_out_channels": [2, 2, 2, 2]}
    whisper = random_v15.encoder_config() | {"d_model": 8, "encoder_layers": 1}
    whisper |= {"encoder_attention_heads": 1, "encoder_ffn_dim": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Bundle(
            "tiny",
            "v15",
            modules.build_unet(unet, here).eval(),
            modules.build_vae(vae | {"mid_block_add_attention": False}, here).eval(),
            modules.build_encoder(whisper, here).eval(),
            modules.build_feature_extractor({"feature_size": 80}, here),
            torch.device("cpu"),
            torch.float32,
        )
