"""Titles, tags and descriptions may say anything: no terminal obeys them, and no sound is refused for it."""

import json
import shutil
import struct
import subprocess
import unicodedata
import zlib
from itertools import product

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageCms, PngImagePlugin
from upstreams import lay_out, upstream

from musetalk_cli.media import ffmpeg
from musetalk_cli.media.audio import probe_sound
from musetalk_cli.media.video import read_frames

ESCAPES = "\x1b]0;owned\x07 \x1b[2J \x9b31m \x9d0;owned\x9c \x85 \u202e \x00 \x7f \r\n\t".replace("\x00", "")
SPOOFS = (
    "partial file; ended prematurely; CRC mismatch; corrupt input packet; Decoding error: none",
    "found duplicated MOOV",
    "Reconfiguring filter graph because audio parameters changed to 8000 Hz, mono, s16",
    "x\n[info] Input #0, concat, from 'y'\n[error] Cannot allocate memory",
    "Duration: 99:00:00.00, start: 0.000000",
    "Picture size 60000x60000 is invalid",
)
"""What ffmpeg itself says of damage, in a title."""


PARTS = ("name", "parameters", "model", "source", "report", "format", "fps")
"""What a description of an avatar consists of."""


def of_each(kinds, cases, few=1):
    """The first few cases of each kind, and the rest where slow tests run too."""
    usual = {*product(kinds, cases[:few])}
    return [
        pytest.param(*each, marks=[] if each in usual else [pytest.mark.slow])
        for each in product(kinds, cases)
    ]


def check_clean(*streams):
    """Nothing that a terminal obeys but line ends, and nothing that is no text."""
    for text in streams:
        text.encode()
        raw = {letter for letter in text if unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
        assert raw <= {"\n"}
        assert "Unexpected" not in text


def tagged(source, path, tag, *more):
    """A copy of a sound or video with a tag in every place that its format has for one, and more inputs."""
    keys = [("-metadata", f"{key}={tag}") for key in ("title", "artist", "comment", "album")]
    keys += [("-metadata:s:0", f"title={tag}"), ("-metadata:s:0", f"handler_name={tag}")]
    command = [ffmpeg.executable(), "-v", "error", "-y", "-i", source, *more]
    subprocess.run([*command, *(part for key in keys for part in key), path], check=True)
    return path


@pytest.fixture(scope="module")
def tone(tmp_path_factory):
    path = tmp_path_factory.mktemp("tone") / "tone.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(8_000) * 0.2), 16_000, subtype="PCM_16")
    return path


@pytest.mark.parametrize(("name", "title"), of_each(["mkv", "wav", "mp3", "m4a", "ogg"], SPOOFS))
def test_a_title_that_speaks_of_damage_is_a_title(tone, tmp_path, name, title):
    assert probe_sound(tagged(tone, tmp_path / f"a.{name}", title)).duration == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("name", "title"), of_each(["mp4", "mkv", "avi"], SPOOFS))
def test_a_videos_title_that_speaks_of_damage_is_a_title(tmp_path, name, title):
    source = tmp_path / "a.avi"
    command = [ffmpeg.executable(), "-v", "error", "-f", "lavfi", "-i", "testsrc=s=32x32:r=5:d=1", source]
    subprocess.run(command, check=True)
    with read_frames(tagged(source, tmp_path / f"b.{name}", title)) as video:
        assert (video.fps, video.expected, len(list(video))) == (5, 5, 5)


@pytest.fixture
def chapters(tmp_path):
    """A file of chapters with hostile names, as ffmpeg reads it."""
    path = tmp_path / "chapters.txt"
    title = ESCAPES.replace("\r\n", "\\\n")
    path.write_text(f";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=400\ntitle={title}\n")
    return path


SOUNDS = ["m4a", "wav", "mp3", "mkv", "flac"]


@pytest.mark.parametrize(("damaged", "name"), of_each([False, True], SOUNDS))
def test_tags_of_a_sound_are_not_obeyed(
    musetalk, models, avatars_dir, tone, chapters, tmp_path, name, damaged
):
    path = tagged(tone, tmp_path / f"{ESCAPES.strip()}.{name}", ESCAPES, "-i", chapters)
    if damaged:
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    code, out, err = musetalk(
        "generate", "-v", "--avatar", "synthetic", "--avatars-dir", avatars_dir, "--audio", path,
        "--model", models, "--device", "cpu", "--output", tmp_path / "a.mp4",
    )  # fmt: skip
    assert code == (damaged and name != "wav")
    check_clean(out, err)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def picture(path, *, broken=False):
    """A PNG with hostile texts, keywords, and the name of its colour profile."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", ESCAPES)
    info.add_itxt("Comment", ESCAPES, ESCAPES, ESCAPES, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB" if broken else "sRGB")).tobytes()
    Image.new("RGB", (64, 64)).save(path, pnginfo=info, icc_profile=profile)
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk(b"tEXt", ESCAPES.encode("latin-1", "replace") + b"\0x") + data[33:])


@pytest.mark.parametrize("kind", ["png", "broken.png", "mp4", "mkv"])
def test_texts_of_pictures_and_videos_are_not_obeyed(musetalk, models, chapters, tmp_path, kind):
    path = tmp_path / f"{ESCAPES.strip()}.{kind}"
    if kind.endswith("png"):
        picture(path, broken=kind.startswith("broken"))
    else:
        source = tmp_path / "a.avi"
        command = [ffmpeg.executable(), "-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x64:r=5:d=1", source]
        subprocess.run(command, check=True)
        tagged(source, path, ESCAPES, "-i", chapters)
    code, out, err = musetalk(
        "prepare-avatar", path, "-v", "--name", "a", "--avatars-dir", tmp_path / "avatars",
        "--model", models, "--device", "cpu", "--detector", "haar", "--parser", "outline",
    )  # fmt: skip
    assert code == 1
    assert "shows a face" in err
    check_clean(out, err)


@pytest.mark.parametrize("text", [ESCAPES, "\udc80\ud800", ESCAPES + "\udc1b"])
def test_what_upstream_wrote_of_an_avatar_is_not_obeyed(musetalk, tmp_path, text):
    files = upstream(2, mirrored=True)
    files["avator_info.json"] = json.dumps({"video_path": text, "avatar_id": text, text: text}).encode()
    lay_out(files, tmp_path / "upstream")
    avatars = ("--avatars-dir", tmp_path / "avatars")
    for command in (
        ("import", tmp_path / "upstream", "--name", "a"), ("list",), ("list", "--json"), ("show", "a"),
        ("show", "a", "--json"), ("verify", "a"),
    ):  # fmt: skip
        code, out, err = musetalk("avatars", *command, *avatars, "-v")
        assert code == 0, err
        check_clean(out, err)
    files["avator_info.json"] = json.dumps({"version": text}).encode()
    shutil.rmtree(tmp_path / "upstream")
    lay_out(files, tmp_path / "upstream")
    code, out, err = musetalk("avatars", "import", tmp_path / "upstream", "--name", "b", *avatars)
    assert code == 1
    check_clean(out, err)


def spoiled(value, text):
    """The same with every text in it, but the names of keys, replaced."""
    if isinstance(value, dict):
        return {key: spoiled(part, text) for key, part in value.items()} | {text: text}
    if isinstance(value, list):
        return [spoiled(part, text) for part in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize(("text", "part"), of_each([ESCAPES, "\udc80\ud800"], PARTS, few=2))
def test_what_stands_in_a_description_is_not_obeyed(
    musetalk, avatars_dir, models, tone, tmp_path, part, text
):
    folder = tmp_path / "avatars" / "a"
    shutil.copytree(avatars_dir / "synthetic", folder)
    description = json.loads((folder / "avatar.json").read_text())
    description["report"] |= {"notes": [text], "source": {"notes": [text]}, "memory": {text: 1}}
    description[part] = spoiled(description[part], text) if isinstance(description[part], dict) else text
    (folder / "avatar.json").write_text(json.dumps(description))
    avatars = ("--avatars-dir", tmp_path / "avatars")
    for command in (("list",), ("list", "--json"), ("show", "a"), ("show", "a", "--json"), ("verify", "a")):
        _, out, err = musetalk("avatars", *command, *avatars, "-v")
        check_clean(out, err)
    _, out, err = musetalk(
        "generate", "-v", "--avatar", "a", *avatars, "--audio", tone, "--device", "cpu",
        "--model", models, "--output", tmp_path / "a.mp4",
    )  # fmt: skip
    check_clean(out, err)
