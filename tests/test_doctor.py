"""First aid: what each check says of facts that are given to it, and that no check can fail the others."""

import json
import re
import shutil
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from musetalk_cli.doctor.computing import (
    Gpu,
    TorchFacts,
    check_python,
    check_torch,
    check_triton,
    runs_on,
)
from musetalk_cli.doctor.data import (
    bytes_to_fetch,
    check_avatars,
    check_cache,
    check_leftovers,
    check_models,
)
from musetalk_cli.doctor.devices import count_cards, read_smi
from musetalk_cli.doctor.environment import check_environment
from musetalk_cli.doctor.extras import check_extras, own_requirements
from musetalk_cli.doctor.findings import Check, Finding, examine
from musetalk_cli.doctor.machine import CoreFacts, Place, check_cores, check_disk, check_memory, place_of
from musetalk_cli.doctor.measure import Measured, check_speed, measure
from musetalk_cli.doctor.media import (
    ENCODERS,
    NVENC,
    FfmpegFacts,
    check_display,
    check_ffmpeg,
    check_sound,
    find_ffmpeg,
)
from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.nets import pins
from musetalk_cli.nets.published import PUBLISHED
from musetalk_cli.nets.turns import turn

GIB = 1 << 30
CUDA_13 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
H100 = Gpu("NVIDIA H100", "580.65.06", (9, 0))


def said(findings):
    """Statuses by name."""
    return {finding.name: finding.status for finding in findings}


@pytest.mark.parametrize(
    ("version", "bits", "status"),
    [
        ((3, 9, 1), 64, "problem"),
        ((3, 10, 0), 64, "ok"),
        ((3, 13, 9), 64, "ok"),
        ((3, 14, 0), 64, "warning"),
        ((3, 12, 0), 32, "problem"),
    ],
)
def test_python(version, bits, status):
    found = check_python(version, bits)
    assert found.status == status
    assert (found.fix is None) == (status == "ok")


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 6), ["sm_86"], True),
        ((8, 9), ["sm_80", "sm_86"], True),
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_75", "sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),
        ((10, 3), ["sm_100"], True),
        ((7, 0), ["sm_75", "compute_75"], False),
        ((6, 1), list(CUDA_13), False),
        ((9, 0), ["gfx942", "nonsense"], False),
    ],
)
def test_what_code_runs_on_what_gpu(capability, architectures, runs):
    assert runs_on(capability, architectures) is runs


def torch_facts(**changes):
    facts = {
        "version": "2.13.0+cu130",
        "cuda": "13.0",
        "available": True,
        "architectures": CUDA_13,
        "devices": (("NVIDIA H100", (9, 0)),),
        "gpus": (H100,),
        "driver_cuda": (13, 0),
    }
    return TorchFacts(**(facts | changes))


GPU_FAULTS = {
    "fits": ({}, "ok", r"sm_90\), driver 580"),
    "no GPU at all": ({"gpus": (), "devices": (), "available": False}, "ok", "the CPU computes"),
    "a Mac": (
        {"gpus": (), "devices": (), "available": False, "cuda": None, "mps": True},
        "ok",
        "of this Mac",
    ),
    "for the CPU": (
        {"cuda": None, "available": False, "devices": ()},
        "warning",
        "built for the CPU",
    ),
    "driver too old": (
        {"available": False, "devices": (), "driver_cuda": (12, 4)},
        "problem",
        "knows CUDA up to 12.4, and this PyTorch needs 13.0",
    ),
    "cannot be used": ({"available": False, "devices": ()}, "problem", "cannot use it"),
    "card too new": (
        {"devices": (("NVIDIA B900", (14, 0)),), "architectures": CUDA_13[:-1]},
        "problem",
        "is sm_140, and this PyTorch has code for sm_75",
    ),
    "card too old": ({"devices": (("GTX 1080", (6, 1)),)}, "problem", "is sm_61"),
    "does not compute": ({"trial": "CUDA error: out of memory"}, "problem", "does not compute: CUDA error"),
}


@pytest.mark.parametrize("fault", GPU_FAULTS)
def test_pytorch_and_the_gpu(fault):
    changes, status, words = GPU_FAULTS[fault]
    torch, gpu = check_torch(torch_facts(**changes))
    assert (torch.name, torch.status) == ("PyTorch", "ok")
    assert (gpu.name, gpu.status) == ("GPU", status)
    assert re.search(words, gpu.detail)
    assert (gpu.fix is None) == (status == "ok")


def test_every_gpu_is_looked_at():
    devices = (("NVIDIA H100", (9, 0)), ("GTX 1080", (6, 1)))
    assert [found.status for found in check_torch(torch_facts(devices=devices))] == ["ok", "ok", "problem"]


def test_a_pytorch_that_cannot_be_imported():
    (found,) = check_torch(TorchFacts(None, "OSError: libcudart.so: no such file"))
    assert (found.status, "libcudart" in found.detail) == ("problem", True)
    assert "pip install" in found.fix


def test_a_card_without_a_driver(tmp_path):
    for name, vendor, kind in (
        ("0", "0x10de", "0x030200"),
        ("1", "0x10de", "0x040300"),
        ("2", "0x8086", "0x030000"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    (tmp_path / "3").mkdir()
    assert count_cards(tmp_path) == 1
    assert count_cards(tmp_path / "none") == 0
    _, found = check_torch(TorchFacts("2.9", cuda="13.0", cards=1))
    assert (found.name, found.status) == ("GPU", "warning")
    assert "driver" in found.fix


def test_what_nvidia_smi_writes_is_read():
    text = "NVIDIA H100 80GB HBM3, 580.65.06, 9.0\nOld, odd card, 390.157, [N/A]\nnonsense\n"
    assert read_smi(text) == (
        Gpu("NVIDIA H100 80GB HBM3", "580.65.06", (9, 0)),
        Gpu("Old, odd card", "390.157", None),
    )


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ((False, "ImportError", None), "ok"),
        ((True, None, "gcc"), "ok"),
        ((True, "ModuleNotFoundError: No module named 'triton'", "gcc"), "warning"),
        ((True, None, None), "warning"),
    ],
)
def test_triton(facts, status):
    found = check_triton(*facts)
    assert found.status == status
    assert (found.fix is None) == (status == "ok")


@pytest.mark.parametrize(
    ("failed", "gpu", "statuses"),
    [
        ({}, True, ["ok", "ok"]),
        ({NVENC: "Cannot load libcuda.so.1"}, False, ["ok", "ok"]),
        ({NVENC: "No capable devices found"}, True, ["ok", "warning"]),
        ({"libx264": "Unknown encoder", NVENC: "Unknown encoder"}, False, ["problem", "ok"]),
        ({"aac": "Unknown encoder"}, False, ["problem", "ok"]),
    ],
)
def test_ffmpeg(failed, gpu, statuses):
    facts = FfmpegFacts("/bin/ffmpeg", "ffmpeg version 9", dict.fromkeys((*ENCODERS, NVENC)) | failed)
    found = list(check_ffmpeg(facts, gpu=gpu))
    assert [each.status for each in found] == statuses
    for name in failed:
        if name in ENCODERS:
            assert name in found[0].detail


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("ffmpeg version n9.0.2-17-g2a571b6068-20260930", "ok"),
        ("ffmpeg version 10.1", "ok"),
        ("ffmpeg version N-118", "ok"),
        ("ffmpeg version 7.0.2-static", "warning"),
        ("ffmpeg version n4.2.2", "warning"),
        ("", "problem"),
        ("GNU bash, version 5.2", "problem"),
    ],
)
def test_the_version_of_ffmpeg(version, status):
    found = next(check_ffmpeg(FfmpegFacts("/bin/ffmpeg", version), gpu=False))
    assert (found.status, found.fix is None) == (status, status == "ok")


def test_the_real_ffmpeg_encodes(monkeypatch):
    facts = find_ffmpeg()
    assert facts.version.startswith("ffmpeg version")
    assert [facts.failed[name] for name in ENCODERS] == [None, None]
    monkeypatch.setattr("musetalk_cli.doctor.media._PIECE", "nonsense=1")
    assert find_ffmpeg().failed["libx264"]


def test_sound():
    def none(way):
        raise OutputError(f"A {way.noun} needs PortAudio.", "Install libportaudio2.")

    assert check_sound(False, none).status == "ok"
    assert check_sound(False, none).fix == "pip install 'musetalk-cli[sound]'"
    broken = check_sound(True, none)
    assert (broken.status, broken.fix) == ("warning", "Install libportaudio2.")
    there = check_sound(True, lambda way: ["USB", "other"] if way.kind == "input" else [])
    assert (there.status, there.detail) == ("ok", "PortAudio works: 2 microphones (USB); 0 loudspeakers.")


@pytest.mark.parametrize(("local", "status"), [(False, "ok"), (True, "warning")])
def test_a_screen_that_cannot_be_reached_is_told_where_there_should_be_one(local, status):
    def no_screen():
        raise OutputError("The screen :0 cannot be reached.", "Log in.")

    found = check_display(no_screen, local=local)
    assert found.status == status
    assert check_display(lambda: None, local=local).detail == "A window can be opened."


EXTRA = ['a>=2; extra == "two"', 'b>=1.5; extra == "two"', 'c; extra == "one"', "d>=1"]


@pytest.mark.parametrize(
    ("there", "one", "two", "words"),
    [
        ({}, "ok", "ok", "Not installed"),
        ({"a": "2.1", "b": "1.5", "c": "0"}, "ok", "ok", "Installed"),
        ({"b": "1.5"}, "ok", "ok", "Not installed"),
        ({"a": "2.1"}, "ok", "warning", "b missing"),
        ({"a": "2.1", "b": "1.4"}, "ok", "warning", r"b 1.4 \(not >=1.5\) of another version"),
        ({"a": "1", "b": "1.5"}, "ok", "warning", r"a 1 \(not >=2\)"),
    ],
)
def test_extras(there, one, two, words):
    found = {finding.name: finding for finding in check_extras(EXTRA, there.get)}
    assert set(found) == {"extra one", "extra two"}
    assert (found["extra one"].status, found["extra two"].status) == (one, two)
    assert re.search(words, found["extra two"].detail)
    whole = found["extra two"].detail.startswith("Installed")
    assert found["extra two"].fix == (None if whole else "pip install 'musetalk-cli[two]'")


def test_a_requirement_for_another_python_is_none_of_this_one():
    old = ['a; python_version < "3" and extra == "two"', 'b; python_version >= "3" and extra == "two"']
    (found,) = check_extras(old, {"b": "1"}.get)
    assert found.detail.startswith("Installed")


def test_the_extras_of_this_program_are_known():
    names = {finding.name for finding in check_extras(own_requirements(), lambda name: None)}
    assert {"extra serve", "extra sound", "extra dwpose", "extra camera"} <= names
    assert not {"extra dev", "extra training"} & names
    assert all(
        "an optional part" not in found.detail for found in check_extras(own_requirements(), lambda _: None)
    )


@pytest.mark.parametrize(
    ("free", "to_fetch", "status"),
    [
        (50 * GIB, 4 * GIB, "ok"),
        (3 * GIB, 4 * GIB, "warning"),
        (4 * GIB + (64 << 20) - 1, 4 * GIB, "warning"),
        (4 * GIB + (64 << 20), 4 * GIB, "ok"),
        (3 * GIB, 0, "ok"),
        (GIB // 2, 0, "warning"),
        (50 << 20, 0, "problem"),
    ],
)
def test_disk(free, to_fetch, status):
    (found,) = check_disk({"models": Place(Path("/m"), free)}, to_fetch)
    assert (found.name, found.status) == ("disk, models", status)
    assert (found.fix is None) == (status == "ok")


@pytest.mark.parametrize(
    ("what", "fix"),
    [
        ("avatars", "chmod u+w '/m y', or --avatars-dir with another folder"),
        ("temporary files", "chmod u+w '/m y'"),
    ],
)
def test_a_folder_that_cannot_be_written_to(what, fix):
    (found,) = check_disk({what: Place(Path("/m y"), 50 * GIB, writable=False)}, 0)
    assert (found.status, found.fix) == ("warning", fix)


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_the_one_above(tmp_path):
    place = place_of(tmp_path / "not" / "yet")
    assert place.path == tmp_path
    assert place.free > 0
    assert place.writable


@pytest.mark.parametrize(
    ("available", "status"),
    [(None, "ok"), (8 * GIB, "ok"), (GIB, "warning"), (GIB // 4, "problem")],
)
def test_memory(available, status):
    assert check_memory(16 * GIB, available).status == status


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        (CoreFacts(8, 8, None, 0.2), "ok", "8 cores; a load of 0.2"),
        (CoreFacts(8, 2, None, 0.2), "ok", "2 of 8 cores"),
        (CoreFacts(8, 8, 1.5, 0.2), "ok", "1.5 of 8 cores"),
        (CoreFacts(8, 8, None, 7.0), "warning", "load of 7.0"),
        (CoreFacts(1, 1, None, None), "ok", "1 core."),
    ],
)
def test_cores(facts, status, words):
    found = check_cores(facts)
    assert (found.status, words in found.detail) == (status, True)


def place(name, root):
    """Put a file of the right size where each of a name's is looked for; large ones take no room."""
    for part in PUBLISHED[name]:
        path = root / part.folder / part.sources()[0].name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(part.sources()[0].pin.bytes or 10)


def test_models_that_are_missing_half_there_and_of_another_size(embedded, tmp_path):
    statuses = said(check_models(tmp_path, None))
    assert statuses == {
        "model v15": "warning",
        "tool taesd": "ok",
        "tool dwpose": "ok",
        "tool face-parsing": "ok",
        "model demo": "ok",
    }
    assert bytes_to_fetch(tmp_path) > 3_800_000_000
    before = bytes_to_fetch(tmp_path)
    digest = pins.PINS[pins.VAE, "config.json"].sha256
    for name in (f".config.json.{digest[:16]}.partial", ".config.json.0000000000000000.partial"):
        (tmp_path / "sd-vae").mkdir(exist_ok=True)
        (tmp_path / "sd-vae" / name).write_bytes(bytes(100))
    assert bytes_to_fetch(tmp_path) == before - 100, "of another file nothing is gone on with"
    place("v15", tmp_path)
    place("dwpose", tmp_path)
    assert said(check_models(tmp_path, None))["model v15"] == "ok"
    assert "model v1" not in said(check_models(tmp_path, None)), "what it shares with v15 does not begin it"
    assert bytes_to_fetch(tmp_path) == 0
    unet = tmp_path / "musetalkV15" / "unet.pth"
    with unet.open("r+b") as file:
        file.truncate(1000)
    found = {finding.name: finding for finding in check_models(tmp_path, None)}
    assert found["model v15"].status == "problem"
    assert "musetalkV15/unet.pth (1000 bytes, not 3400074924)" in found["model v15"].detail
    assert found["model v15"].fix.startswith("musetalk models download v15")
    (tmp_path / "bundle.json").write_text('{"name": "mine"}')
    assert said(check_models(tmp_path, None))["model v15"] == "ok", (
        "a folder with a card has its own networks"
    )
    unet.unlink()
    found = {finding.name: finding for finding in check_models(tmp_path, None)}
    assert (found["model v15"].status, found["tool dwpose"].status) == ("problem", "ok")
    assert "no musetalkV15/unet.pth" in found["model v15"].detail


def test_a_model_that_was_named(embedded, golden, tmp_path):
    here = str(golden / "models")
    assert said(check_models(tmp_path, here))[f"model {here}"] == "ok"
    assert said(check_models(tmp_path, str(tmp_path)))[f"model {tmp_path}"] == "problem"


@pytest.mark.parametrize("damaged", ["sd-vae/.safetensors", "musetalkV15/unet.pth", "whisper/config.json"])
def test_a_model_that_is_damaged(golden, tmp_path, damaged):
    """Of whose sizes nothing is known: weights that were cut, and a configuration."""
    own = tmp_path / "own model"
    shutil.copytree(golden / "models", own)
    if damaged.endswith(".safetensors"):
        damaged = "sd-vae/diffusion_pytorch_model.safetensors"
        save_file({"a": np.zeros(100)}, own / damaged)
    whole = (own / damaged).read_bytes()
    (own / damaged).write_bytes(whole[: len(whole) // 2])
    found = {finding.name: finding for finding in check_models(tmp_path, str(own))}[f"model {own}"]
    assert (found.status, found.fix) == ("problem", f"musetalk models verify '{own}'")
    assert damaged in found.detail


@pytest.mark.usefixtures("nothing_embedded")
def test_a_demo_that_is_not_there(tmp_path):
    found = {finding.name: finding for finding in check_models(tmp_path, None)}["model demo"]
    assert found.status == "warning"
    assert "install it again" in found.fix
    (avatars,) = check_avatars(tmp_path, tmp_path)
    assert (avatars.status, "prepare-avatar" in avatars.fix) == ("warning", True)


def test_avatars(embedded, avatars_dir, tmp_path):
    folder = tmp_path / "avatars"
    for name in ("anna", "broken", "lacking"):
        shutil.copytree(avatars_dir / "synthetic", folder / name)
    (folder / "broken" / "avatar.json").write_text("{")
    next((folder / "lacking" / "masks").iterdir()).unlink()
    (folder / ".bert.partial").mkdir()
    found = {finding.name: finding for finding in check_avatars(folder, tmp_path)}
    assert (found["avatar broken"].status, found["avatar lacking"].status) == ("problem", "problem")
    assert "masks/" in found["avatar lacking"].detail
    assert found["avatar anna"].status == "warning", "v15 is not here"
    assert found["avatar anna"].fix == "musetalk models download v15"
    place("v15", tmp_path)
    found = list(check_avatars(folder, tmp_path))
    assert "avatar anna" not in said(found)
    assert "3 can speak: anna, demo, demo2." in [finding.detail for finding in found]


def test_what_a_download_that_was_ended_has_left_is_named(tmp_path):
    assert list(check_leftovers(tmp_path / "nowhere")) == []
    left = tmp_path / "dwpose" / ".dw.onnx.0123456789abcdef.partial"
    left.parent.mkdir()
    left.write_bytes(bytes(3 << 20))
    (found,) = check_leftovers(tmp_path)
    assert (found.name, found.status) == ("models, unfinished", "warning")
    assert found.detail == f"A download that was ended has left 1 file, 3 MiB: {left}."
    assert found.fix == f"musetalk models download dwpose goes on with it; rm {left} removes it."
    with turn(tmp_path, pytest.fail):
        (found,) = check_leftovers(tmp_path)
        assert (found.status, "writes to" in found.detail) == ("ok", True)


def test_what_a_conversion_that_was_ended_has_left_is_named(tmp_path):
    folder = tmp_path / "two words" / "sd-vae"
    folder.mkdir(parents=True)
    for name in "ab":
        (folder / f".partial.{name}.safetensors").write_bytes(bytes(1 << 20))
    found = list(check_models(folder.parent, "demo"))[-1]
    assert found.detail.startswith("A conversion that was ended has left 2 files, 2 MiB: ")
    assert found.fix.startswith("rm '/")
    assert found.fix.count("'") == 4


def test_what_was_prepared_on_the_way_is_told(tmp_path):
    assert list(check_cache(tmp_path / "nowhere", GIB)) == []
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "avatar.json").write_text("{}")
    (tmp_path / "a" / "frames").write_bytes(bytes(3 << 20))
    (found,) = check_cache(tmp_path, GIB)
    assert (found.name, found.status) == ("cache", "ok")
    assert found.detail == f"1 face prepared by --source, 3 MiB of 1.0 GiB in {tmp_path}."
    (tmp_path / ".b.partial").mkdir()
    (found,) = check_cache(tmp_path, GIB)
    assert (found.status, "1 not finished" in found.detail) == ("warning", True)
    assert "musetalk avatars remove --cache" in found.fix


ENVIRONMENT = {
    "models folder": ({"MUSETALK_MODELS": "/nowhere"}, "problem", "is no folder"),
    "avatars folder": ({"MUSETALK_AVATARS": "/nowhere"}, "problem", "is no folder"),
    "memory": ({"MUSETALK_MEMORY": "much"}, "problem", "MUSETALK_MEMORY=much is no size"),
    "ffmpeg": ({"IMAGEIO_FFMPEG_EXE": "/nowhere/ffmpeg"}, "problem", "is no file"),
    "hub": ({"HF_ENDPOINT": "huggingface.co"}, "problem", "is no address"),
    "hub's port": ({"HF_ENDPOINT": "http://a:99999999"}, "problem", "is no address"),
    "token in quotes": ({"HF_TOKEN": "'hf_verysecret'"}, "problem", "HF_TOKEN stands in quotes"),
    "token with a line end": ({"HF_TOKEN": "hf_very\nsecret"}, "problem", "that no token has"),
    "offline": ({"HF_HUB_OFFLINE": "1"}, "warning", "no weights are fetched"),
    "misspelt": ({"MUSETALK_MODLES": "x"}, "warning", "Nothing reads"),
    "threads": ({"OMP_NUM_THREADS": "many"}, "problem", "is no number"),
    "too many threads": ({"OMP_NUM_THREADS": "16"}, "warning", "wait for each other"),
    "hidden GPU": ({"CUDA_VISIBLE_DEVICES": ""}, "warning", "hides the GPU"),
}


@pytest.mark.parametrize("fault", ENVIRONMENT)
def test_variables_that_are_wrong(fault):
    variables, status, words = ENVIRONMENT[fault]
    (found,) = check_environment(variables, 8, gpu=True)
    assert (found.status, words in found.detail) == (status, True), found
    assert found.name == f"environment {next(iter(variables))}"
    assert found.fix
    assert "secret" not in f"{found}"


def test_variables_that_are_right(tmp_path):
    right = {"MUSETALK_MODELS": str(tmp_path), "MUSETALK_MEMORY": "24G", "OMP_NUM_THREADS": "8", "HOME": "x"}
    (found,) = check_environment(right, 8, gpu=False)
    assert (found.status, found.detail) == ("ok", "MUSETALK_MEMORY, MUSETALK_MODELS can be used.")
    (found,) = check_environment({"CUDA_VISIBLE_DEVICES": ""}, 8, gpu=False)
    assert (found.status, found.detail) == ("ok", "No variable of this program is set.")
    secret = check_environment({"MUSETALK_TOKEN": "very-secret", "HF_TOKEN": " hf_secret\n"}, 8, gpu=False)
    (found,) = secret
    assert (found.status, found.detail) == ("ok", "HF_TOKEN, MUSETALK_TOKEN can be used.")


def test_a_check_that_raises_or_hangs_is_a_problem_of_its_own():
    held = threading.Event()

    def raises():
        yield Finding("first", "ok", "fine")
        raise RuntimeError("no such thing\nsecond line")

    def refuses():
        raise InputError("It is broken.", "Mend it.")

    def hangs():
        held.wait()
        return []

    checks = [
        Check("raises", raises),
        Check("refuses", refuses),
        Check("hangs", hangs),
        Check("works", lambda: [Finding("works", "ok", "fine")]),
    ]
    try:
        found = list(examine(checks, limit_s=0.2))
    finally:
        held.set()
    assert said(found) == {"raises": "problem", "refuses": "problem", "hangs": "problem", "works": "ok"}
    assert found[0].detail == "RuntimeError: no such thing."
    assert (found[1].detail, found[1].fix) == ("It is broken.", "Mend it.")
    assert "longer than 0.2 s" in found[2].detail


@pytest.fixture
def given(monkeypatch):
    """The command looks at these findings only."""

    def give(*findings):
        checks = [Check("given", lambda: findings)]
        monkeypatch.setattr("musetalk_cli.doctor.checks.all_checks", lambda run: checks)

    return give


def test_the_command_shows_what_was_found_and_what_to_type(given, musetalk):
    given(Finding("one", "ok", "Fine."), Finding("two", "warning", "\x1b[2J[bold]less[/]", "type this"))
    code, out, err = musetalk("doctor")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["ok", "one", "Fine."]
    assert lines[1] == ["warning", "two", r"\x1b[2J[bold]less[/]"]
    assert lines[2] == ["->", "type", "this"]
    assert out.endswith("1 ok, 1 warning, 0 problems.\n")


def test_a_problem_is_an_exit_code_and_json_stays_json(given, musetalk):
    given(Finding("one", "problem", "Bad.", "mend it"), Finding("two", "ok", "Fine."))
    code, out, err = musetalk("doctor", "--json")
    assert code == 1
    assert json.loads(out) == [
        {"name": "one", "status": "problem", "detail": "Bad.", "fix": "mend it"},
        {"name": "two", "status": "ok", "detail": "Fine.", "fix": None},
    ]
    assert err.startswith("error: There is 1 problem: one.")


def test_this_machine_is_looked_at_whole(musetalk, embedded, tmp_path):
    """Whatever is found here: every check says something, in sentences."""
    code, out, err = musetalk("doctor", "--json", "--models-dir", tmp_path, "--avatars-dir", tmp_path)
    found = json.loads(out)
    names = {entry["name"].partition(" ")[0].rstrip(",") for entry in found}
    assert names >= {
        *("Python", "PyTorch", "GPU", "Triton", "ffmpeg", "NVENC", "sound", "display", "extra", "disk"),
        *("memory", "cores", "model", "tool", "avatars", "environment"),
    }
    assert all(entry["detail"].endswith(".") for entry in found), found
    assert code == (1 if any(entry["status"] == "problem" for entry in found) else 0), err


FAST = Measured("demo on cuda:0 in float16", Fraction(25), 123.4, True, 0.16, 87.0, 3)


def test_a_machine_that_keeps_up():
    found = list(check_speed(FAST))
    assert [finding.status for finding in found] == ["ok"] * 3
    assert found[0].detail == "123 frames/s with demo on cuda:0 in float16; real time at 25 fps: yes."
    assert found[1].detail == "87 ms to the first speaking frame, in chunks of 0.16 s."
    assert found[2].detail == "3 faces may speak at once."


def test_a_machine_that_does_not():
    slow = Measured("v15 on cpu in float32", Fraction(25), 0.23, False, 0.5, None, 1)
    found = list(check_speed(slow))
    assert [finding.status for finding in found] == ["warning"] * 3
    assert found[0].detail == "0.23 frames/s with v15 on cpu in float32; real time at 25 fps: no."
    assert "--model demo" in found[0].fix
    (found, *_) = check_speed(replace(slow, what="demo on cpu in bfloat16"))
    assert found.fix == "Use a GPU (--device cuda), or generate, which may take its time."


def test_a_model_that_cannot_be_measured_is_a_problem(given, musetalk, tmp_path):
    given()
    code, out, err = musetalk("doctor", "--measure", "--model", tmp_path / "none", "--json")
    assert code == 1
    (found,) = json.loads(out)
    assert (found["name"], found["status"]) == ("speed", "problem")
    assert "There is no model" in found["detail"]
    assert "error: There is 1 problem: speed." in err


@pytest.mark.slow
def test_a_model_is_measured(coloured_run):
    lines = []
    found = measure(coloured_run, lines.append)
    assert found.what.endswith("on cpu in float32")
    assert found.frames_per_s > 0
    assert found.sustained == (found.response_ms is not None)
    assert found.speakers >= 1
    assert any("measuring" in line for line in lines)
