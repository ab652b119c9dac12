"""ffmpeg and its encoders, sound cards, the screen, and the camera that others can choose."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from musetalk_cli.doctor.findings import Finding
from musetalk_cli.errors import MuseTalkError
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.soundcards import LOUDSPEAKER, MICROPHONE, Direction, list_devices
from musetalk_cli.text import counted

ENCODERS = ("libx264", "aac")
"""What no output with pictures or sound can do without."""
NVENC = "h264_nvenc"
OLDEST_FFMPEG = 9
"""The major version that the oldest imageio-ffmpeg carries which is admitted."""
_OWN_FFMPEG = "pip install --force-reinstall imageio-ffmpeg; unset IMAGEIO_FFMPEG_EXE"
_VERSION = re.compile(r"ffmpeg version n?(?:(\d+)\.)?")
_TRIAL_S = 15.0
_PIECE = "color=black:size=256x256:rate=25:duration=0.04"


@dataclass(frozen=True, slots=True)
class FfmpegFacts:
    """What the ffmpeg in use can do.

    Attributes:
        path: Where it is.
        version: What it calls itself, like `ffmpeg version 9.0`.
        failed: Why each encoder failed on one frame, by name; None where it worked.
    """

    path: str
    version: str
    failed: dict[str, str | None] = field(default_factory=dict)


def check_ffmpeg(facts: FfmpegFacts, *, gpu: bool) -> Iterator[Finding]:
    """Whether ffmpeg encodes; NVENC counts where there is a GPU."""
    yield _check_ffmpeg_itself(facts)
    why = facts.failed.get(NVENC)
    if why is None:
        yield Finding("NVENC", "ok", "The GPU encodes H.264.")
    elif gpu:
        detail = f"The GPU does not encode H.264 here ({why}); libx264 does it."
        fix = "Data centre GPUs like A100 and H100 have no encoder; on others update the driver."
        yield Finding("NVENC", "warning", detail, fix)
    else:
        yield Finding("NVENC", "ok", "Not needed without a GPU; libx264 encodes.")


def _check_ffmpeg_itself(facts: FfmpegFacts) -> Finding:
    name, said = "ffmpeg", _VERSION.match(facts.version)
    if said is None:
        detail = f"{facts.path} is no ffmpeg: it does not say which version it is."
        return Finding(name, "problem", detail, _OWN_FFMPEG)
    if broken := [encoder for encoder in ENCODERS if facts.failed.get(encoder)]:
        detail = f"{facts.path} ({facts.version}) cannot encode with {' and '.join(broken)}."
        return Finding(name, "problem", detail, _OWN_FFMPEG)
    if said[1] and int(said[1]) < OLDEST_FFMPEG:
        detail = (
            f"{facts.path} ({facts.version}) is older than {OLDEST_FFMPEG}: it mistakes lengths of sounds."
        )
        return Finding(name, "warning", detail, _OWN_FFMPEG)
    return Finding(name, "ok", f"{facts.version}; {' and '.join(ENCODERS)} encode.")


def find_ffmpeg() -> FfmpegFacts:
    """Ask ffmpeg, and encode one frame or one moment with each encoder.

    Raises:
        MuseTalkError: There is none, or it cannot be started.
    """
    lines = _run(["-version"])[1].splitlines()
    version = " ".join(lines[0].split()[:3]) if lines else ""
    failed = {
        "libx264": _try(["-f", "lavfi", "-i", _PIECE, "-frames:v", "1", "-c:v", "libx264"]),
        "aac": _try(["-f", "lavfi", "-i", "anullsrc", "-t", "0.1", "-c:a", "aac"]),
        NVENC: _try(["-f", "lavfi", "-i", _PIECE, "-frames:v", "1", "-c:v", NVENC]),
    }
    return FfmpegFacts(ffmpeg.executable(), version, failed)


def _try(arguments: list[str]) -> str | None:
    """Why something cannot be encoded, in a line; None where it can."""
    code, _, said = _run(["-v", "error", *arguments, "-f", "null", "-"])
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return None if code == 0 else (lines[0][-120:].rstrip(".") if lines else f"exit code {code}")


def _run(arguments: list[str]) -> tuple[int, str, str]:
    process = ffmpeg.start(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = process.communicate(timeout=_TRIAL_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return 1, "", f"it took longer than {_TRIAL_S:g} s"
    return process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def names_of(way: Direction) -> list[str]:
    """Names of the devices that sound takes this way through, the default one first.

    Raises:
        MuseTalkError: sounddevice or PortAudio is missing, or cannot say.
    """
    return [device.name for device in sorted(list_devices(way), key=lambda device: not device.is_default)]


def check_sound(installed: bool, devices: Callable[[Direction], list[str]] = names_of) -> Finding:
    """Whether sound can be recorded and played here.

    Args:
        installed: The extra `sound` is there.
        devices: Gives the names of the devices of a direction; raises where nobody can say.
    """
    if not installed:
        detail = "Not installed: no microphone and no loudspeaker, but files, pipes and TCP."
        return Finding("sound", "ok", detail, "pip install 'musetalk-cli[sound]'")
    try:
        found = {way.noun: devices(way) for way in (MICROPHONE, LOUDSPEAKER)}
    except MuseTalkError as error:
        return Finding("sound", "warning", error.message, error.hint)
    detail = "; ".join(
        f"{counted(len(names), noun)}{f' ({names[0]})' if names else ''}" for noun, names in found.items()
    )
    return Finding("sound", "ok", f"PortAudio works: {detail}.")


def check_display(look: Callable[[], None], *, local: bool) -> Finding:
    """Whether a window can be opened.

    Args:
        look: Raises a `MuseTalkError` where it cannot.
        local: A screen is named in the environment, or the system always has one.
    """
    try:
        look()
    except MuseTalkError as error:
        if local:
            return Finding("display", "warning", error.message, error.hint)
        return Finding("display", "ok", "There is no screen; --display needs one, the other outputs do not.")
    return Finding("display", "ok", "A window can be opened.")
