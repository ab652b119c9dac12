"""What hostile files take of the memory: the same as harmless ones that are refused."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from musetalk_cli.avatar.store import load_avatar
from musetalk_cli.budget import VARIABLE
from musetalk_cli.errors import AvatarError, ModelError
from musetalk_cli.media.video import read_frames
from musetalk_cli.nets.torch_files import open_torch

GOLDEN = Path(__file__).parent / "data" / "golden"
MOST = 1.25
"""Times the memory of the same command on a harmless file that is refused as well."""
MEASURED = """
import sys
from musetalk_cli.cli.app import run
code = run()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak", peak.split()[1], file=sys.stderr)
sys.exit(code)
"""


def measured(*arguments, **environment):
    """Exit code, stderr, and peak resident size in KiB of a command in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment,
    )  # fmt: skip
    *said, peak = ended.stderr.splitlines()
    return ended.returncode, "\n".join(said), int(peak.split()[1])


def deflated(path):
    """The same torch file with its records compressed."""
    with zipfile.ZipFile(path) as archive:
        records = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records:
            archive.writestr(name, data)


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(GOLDEN / "avatar", tmp_path / "upstream"))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """Peak of an import that is refused for its latents."""
    root = tmp_path_factory.mktemp("baseline")
    harmless = Path(shutil.copytree(GOLDEN / "avatar", root / "upstream"))
    torch.save(torch.load(harmless / "latents.pt")[:3], harmless / "latents.pt")
    return measured("avatars", "import", harmless, "--name", "a", "--avatars-dir", root)[2]


def one_number(path, whole):
    torch.save(torch.zeros(1, 1, 1, 1).expand(10**9, 8, 32, 32) if whole else [], path)


def one_number_many_times(path):
    entry = torch.zeros(1, 1, 1, 1).expand(1, 8, 32, 32)
    torch.save([entry] * 60_000, path)


def large_and_deflated(path):
    torch.save([torch.zeros(1, 8, 32, 32).repeat(1 << 12, 1, 1, 1)[:1]] * 8, path)
    deflated(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: one_number(path, True), "latents.pt ends|latents.pt 1000000000"),
        (one_number_many_times, "latents.pt 60000|describes more than"),
        (large_and_deflated, "is compressed, as torch writes no file"),
    ],
    ids=["stride 0", "one number in a list", "deflated"],
)
def test_latents_take_no_memory_before_they_are_believed(folder, tmp_path, baseline, write, said):
    import re

    write(folder / "latents.pt")
    code, err, peak = measured(
        "avatars", "import", folder, "--name", "a", "--avatars-dir", tmp_path / "avatars"
    )
    assert code == 1
    assert re.search(said, err)
    assert len(err) < 1500
    assert peak < MOST * baseline
    assert not (tmp_path / "avatars").exists()


@pytest.mark.parametrize("name", ["musetalkV15/unet.pth", "whisper/pytorch_model.bin"])
def test_deflated_weights_are_refused_before_they_are_inflated(tmp_path, name):
    path = tmp_path / Path(name).name
    torch.save({"a": torch.zeros(1 << 22)}, path)
    deflated(path)
    with pytest.raises(Exception, match="is compressed, as torch writes no file"):
        open_torch(path, ModelError)


@pytest.mark.slow
def test_a_description_of_many_megabytes_is_not_read(avatars_dir, tmp_path):
    avatar = Path(shutil.copytree(avatars_dir / "synthetic", tmp_path / "a"))
    small = measured("avatars", "list", "--avatars-dir", tmp_path)[2]
    with (avatar / "avatar.json").open("r+b") as file:
        file.write(b"[" + b"[]," * (20 << 20))
    code, _, peak = measured("avatars", "list", "--avatars-dir", tmp_path)
    assert code == 0
    assert peak < MOST * small
    with pytest.raises(AvatarError, match=r"avatar\.json is larger than 8 MB"):
        load_avatar(tmp_path, "a")


def large_avatar(source, folder, side, frames):
    """An avatar whose frames are all links to one picture."""
    avatar = Path(shutil.copytree(source, folder / "large"))
    meta = json.loads((avatar / "avatar.json").read_text())
    first = meta["boxes"][0], meta["crop_boxes"][0]
    meta |= {"name": "large", "width": side, "height": side, "frames": frames, "rest_frames": []}
    meta |= {"boxes": [first[0]] * frames, "crop_boxes": [first[1]] * frames}
    (avatar / "avatar.json").write_text(json.dumps(meta))
    Image.fromarray(np.zeros((side, side), np.uint8)).save(folder / "black.png")
    for picture in (avatar / "full_imgs").iterdir():
        picture.unlink()
    for number in range(frames):
        place = avatar / "full_imgs" / f"{number:08}.png"
        place.hardlink_to(folder / "black.png")
        mask = avatar / "masks" / f"{number:08}.png"
        if not mask.exists():
            mask.hardlink_to(avatar / "masks" / "00000000.png")
    for mask in sorted((avatar / "masks").iterdir())[frames:]:
        mask.unlink()
    return avatar


@pytest.mark.slow
def test_many_links_to_one_large_picture_are_over_the_budget(avatars_dir, tmp_path):
    large_avatar(avatars_dir / "synthetic", tmp_path, 2048, 100)
    arguments = (
        "generate",
        "--avatar",
        "large",
        "--audio",
        GOLDEN / "audio.wav",
        "--output",
        tmp_path / "a.mp4",
    )
    arguments += ("--model", GOLDEN / "models", "--avatars-dir", tmp_path)
    small = measured(*arguments, **{VARIABLE: "1M"})
    code, err, peak = measured(*arguments, **{VARIABLE: "1G"})
    assert code == small[0] == 1
    assert "Avatar large would take 1.2 GiB of memory, more than the 1.0 GiB it may." in err
    assert VARIABLE in err
    assert peak < MOST * small[2]


def test_a_picture_that_is_too_large_is_not_called_broken(avatars_dir, tmp_path):
    large_avatar(avatars_dir / "synthetic", tmp_path, 8448, 4)
    with pytest.raises(AvatarError) as caught:
        load_avatar(tmp_path, "large")
    assert "more than 64 million pixels" in caught.value.message


def test_a_video_of_huge_frames_is_refused_as_a_still_is(tmp_path):
    from musetalk_cli.media.ffmpeg import executable

    path = tmp_path / "huge.avi"
    command = [executable(), "-v", "error", "-f", "lavfi", "-i", "color=s=8208x8208:r=1", "-frames:v", "1"]
    subprocess.run([*command, "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", str(path)], check=True, timeout=60)
    with pytest.raises(Exception, match="frames of 8208x8208, more than the 64 million pixels"):
        read_frames(path)
