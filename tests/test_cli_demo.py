"""The embedded demo from the command line: what is taken, what is said, and what is refused."""

import json
import re

import pytest

SMALL = ["--sharpen", "off", "--fps", "1", "--batch-size", "1", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def empty(tmp_path):
    """Options that name folders without anything in them."""
    for name in ("models", "avatars"):
        (tmp_path / name).mkdir()
    return ["--models-dir", tmp_path / "models", "--avatars-dir", tmp_path / "avatars"]


def test_nothing_but_an_output_makes_the_demo_speak(musetalk, embedded, empty, tmp_path):
    arguments = [*empty, *SMALL, "--output", tmp_path / "out.mp4", "--json"]
    code, out, err = musetalk("generate", *arguments)
    assert code == 0, err
    report = json.loads(out)
    assert (report["settings"]["avatar"], report["settings"]["model"]) == ("demo", "demo")
    assert report["settings"]["precision"] == "float32"
    assert report["frames"] == 1
    lines = [line for line in err.splitlines() if not line.startswith("speaking")]
    assert lines == [
        f"no model chosen and no published weights in {tmp_path / 'models'}: "
        "using the embedded demo (drawn faces only); "
        f"no --audio: speaking the sample {embedded / 'avatars' / 'demo' / 'sample.wav'}"
    ]
    assert (tmp_path / "out.mp4").stat().st_size > 0


def test_v_says_what_was_taken_and_why(musetalk, embedded, empty, tmp_path):
    code, _, err = musetalk("generate", *empty, "--fps", "1", "--batch-size", "1", "--device", "cpu",
                            "--output", tmp_path / "out.mp4", "-v")  # fmt: skip
    assert code == 0, err
    for line in (
        "avatar: demo (embedded)",
        f"audio: {embedded / 'avatars' / 'demo' / 'sample.wav'} (embedded)",
        f"avatars: {embedded / 'avatars'} (embedded)",
        "model: demo (what avatar demo was made for)",
        "fps: 1 (flag)",
    ):
        assert f"DEBUG: {line}\n" in err
    assert re.search(r"DEBUG: precision: (float32|bfloat16) \(what suits the model on cpu\)", err)
    assert "None" not in re.sub(r"(frames_dir|output|source): None", "", err)


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["generate", "--audio", "a.wav"], "--avatar"),
        (["realtime", "--audio", "-"], "--avatar"),
        (["generate", "--avatar", "demo2"], "--audio"),
    ],
)
def test_with_weights_what_is_missing_is_asked_for(musetalk, golden, empty, tmp_path, arguments, missing):
    output = ["--output", tmp_path / "out.mp4"]
    code, out, err = musetalk(*arguments, *empty, "--models-dir", golden / "models", *output)
    assert (code, out) == (2, "")
    assert "Usage: musetalk" in err
    assert f"{missing} is missing" in err


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("command", ["generate", "realtime"])
def test_a_mixed_pair_is_one_sentence(musetalk, golden, avatars_dir, tmp_path, command):
    sound = ["--audio", golden / "audio.wav", "--output", tmp_path / "out.mp4"]
    for pair in (("demo", str(golden / "models")), ("synthetic", "demo")):
        avatar, model = pair
        code, out, err = musetalk(
            command, "--avatar", avatar, "--model", model, "--avatars-dir", avatars_dir, *sound
        )
        assert (code, out) == (1, "")
        err = re.sub(r"(?m)^chunks of .*\n", "", err)
        assert re.fullmatch(r"error: Avatar .*made for the demo networks.*\nhint:  [^\n]+\n", err), err
    assert list(tmp_path.iterdir()) == []


def test_avatars_are_listed_with_where_they_are(musetalk, embedded, avatars_dir):
    code, out, _ = musetalk("avatars", "list", "--avatars-dir", avatars_dir)
    assert code == 0
    assert re.search(r"demo +demo .*embedded", out)
    assert re.search(r"synthetic +v15 .*in the folder", out)
    code, out, _ = musetalk("avatars", "list", "--avatars-dir", avatars_dir, "--json")
    listed = {entry["name"]: (entry["folder"], entry["embedded"]) for entry in json.loads(out)}
    assert listed == {
        "demo": (str(embedded / "avatars" / "demo"), True),
        "demo2": (str(embedded / "avatars" / "demo2"), True),
        "synthetic": (str(avatars_dir / "synthetic"), False),
    }
    code, out, _ = musetalk("avatars", "list", "--avatars-dir", embedded / "avatars", "--json")
    assert [entry["name"] for entry in json.loads(out)] == ["demo", "demo2"]


def test_an_embedded_avatar_is_shown_and_verified_and_not_removed(musetalk, embedded, empty):
    code, out, err = musetalk("avatars", "show", "demo", *empty, "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert shown["folder"] == str(embedded / "avatars" / "demo")
    assert (shown["embedded"], shown["latents"]) == (True, "fp32")
    assert "fp32" in musetalk("avatars", "show", "demo", *empty)[1]
    assert musetalk("avatars", "verify", "demo", *empty)[:2] == (0, "demo is complete.\n")
    code, out, err = musetalk("avatars", "remove", "demo", *empty)
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: Avatar demo came with the program, in [^\n]+, and is not removed\.\n", err)
    assert (embedded / "avatars" / "demo" / "avatar.json").is_file()


@pytest.mark.usefixtures("embedded")
def test_the_demo_networks_load(musetalk, empty):
    code, out, err = musetalk("models", "verify", "demo", *empty)
    assert code == 0, err
    assert out.startswith("Model demo is complete: v15")


def test_help_says_what_is_taken(musetalk):
    for command, taken in (
        ("generate", "what the avatar was made for"),
        ("bench", "the published weights, else demo"),
        ("prepare-avatar", "[default: (v15)]"),
    ):
        shown = re.sub(r"[│\s]+", " ", musetalk(command, "--help")[1])
        assert taken in shown
