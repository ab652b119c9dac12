"""One recording through one ffmpeg: its samples on their own time line, and whether it was whole."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path
from typing import IO, NoReturn

from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.segments import Segment
from musetalk_cli.media.stills import MAX_PIXELS

CHANNELS = 64
"""What ffmpeg can mix and resample."""
SAMPLE_RATES = (1_000, 768_000)
HOLE = "0.02"
"""Seconds that time stamps may be off before silence is put in or sound is left out: more than a container
that counts in milliseconds rounds, less than a frame of any picture."""
_LONGEST_GAP_S = 600
"""Jumps of the clock of an Ogg or MPEG stream up to here are gaps; it is joined from two streams beyond."""
_MEMORY = 1 << 30
"""Bytes that ffmpeg may ask for at once, so that a forged time stamp is no hour of silence in memory."""

_INPUT = re.compile(r"^\[info\] Input #0, (\S+), from ", re.MULTILINE)
_PICTURES = re.compile(r"^\[info\]\s+Stream #0.*: Video: (?!.*attached pic)", re.MULTILINE)
_DAMAGED = re.compile(
    r"Error submitting packet to decoder|Decoding error:|corrupt input packet|Error during demuxing"
    r"|CRC mismatch|ended prematurely|invalid as first byte of an EBML|partial file|incomplete frame",
    re.IGNORECASE,
)
_CHANGED = re.compile(r"Reconfiguring filter graph because audio parameters changed to (\d+ Hz, [^,]*)")
PLAYLISTS = frozenset(
    {"concat", "concatf", "dash", "hls", "imf", "rtsp", "sap", "sdp", "tedcaptions", "webm_dash_manifest"}
)
"""Formats that name other files, or hosts, which would be read in place of the file that was given."""
_RAW = re.compile(r"[suf](8|16|24|32|64)([bl]e)?|alaw|mulaw|vidc|data")
"""Formats that ffmpeg takes by the name of a file alone, at a rate that it makes up."""
_EXACT = {"wav", "flac", "aiff", "w64", "au"}
"""Containers whose length is exact to the sample."""
FORMATS = (
    "WAV, FLAC, MP3, M4A, OGG and most others work; raw PCM is read by: musetalk realtime --audio - "
    "--input-rate 16000 < FILE"
)

# A recording that starts a little before the file does keeps all of its sound. One whose time stamps begin
# again was joined to the one before it, and follows it. Then gaps become silence, overlaps are left out, and
# a start after that of the file is silence too. In the expression, 0 holds what is added to a time stamp,
# 1 where the next frame should begin, 2 where this one does.
_ON_TIME = (
    "asetpts='"
    "if(eq(N,0),st(0,-min(STARTPTS,0)),"
    "if(lt(PTS,PREV_INPTS)*lt(PTS,STARTPTS+0.1/TB),st(0,ld(1)-PTS)));"
    "st(2,PTS+ld(0));st(1,ld(2)+NB_SAMPLES/SR/TB);ld(2)',"
    f"aresample=async=1:min_hard_comp={HOLE}:first_pts=0"
)


class SoundDecoder:
    """Decodes one segment of a file.

    Args:
        path: Any file with an audio stream.
        segment: Which bytes of it, as `segments.find_segments` found them.
        whole: True where the segment is the whole file.
        form: Sample rate and channels to convert to, or None to keep those of the file.

    Attributes:
        process: The running ffmpeg.
        sample_rate: Samples per second.
        channels: Channels.

    Raises:
        InputError: It holds no sound, or none that can be read.
    """

    def __init__(self, path: Path, segment: Segment, *, whole: bool, form: tuple[int, int] | None) -> None:
        self._path, self._segment = path, segment
        command = [
            "-v",
            "level+info",
            "-nostats",
            "-max_alloc",
            str(_MEMORY),
            *ffmpeg.pixel_bound(MAX_PIXELS),
        ]
        command += ["-protocol_whitelist", "file,pipe,subfile", "-dts_delta_threshold", str(_LONGEST_GAP_S)]
        command += ["-format_whitelist", ",".join(sorted(ffmpeg.listed("-demuxers") - PLAYLISTS))]
        url = ffmpeg.file_url(path)
        if not whole:
            url = f"subfile,,start,{segment.begin},end,{segment.end},,:{url}"
        command += ["-i", url, "-map", "0:a:0", "-c:a", "pcm_f32le"]
        if segment.timed:
            command += ["-af", _ON_TIME]
        if form is not None:
            command += ["-ar", str(form[0]), "-ac", str(form[1])]
        # Some containers begin with the first stream that is used, so the picture is used too, and lost.
        pictures = ["-map", "0:a:0", "-frames:a", "1", "-map", "0:V:0?", "-c", "copy", "-f", "null", "-"]
        self.process = ffmpeg.start(
            [*command, "-f", "wav", "pipe:1", *pictures],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert self.process.stdout is not None  # noqa: S101 - says to the type checker what PIPE means
        assert self.process.stderr is not None  # noqa: S101
        self._stdout = self.process.stdout
        self._messages = ffmpeg.Messages(self.process.stderr)
        header = _read_wav_header(self._stdout)
        if header is None:
            self._refuse()
        self.sample_rate, self.channels = header
        self._check_form()

    def read(self, size: int) -> bytes:
        """Interleaved little-endian float32, `size` bytes of it unless it ends before."""
        return self._stdout.read(size)

    def check_end(self, samples: int) -> None:
        """Judge the segment, once it was read to its end, by what ffmpeg said of it.

        Args:
            samples: Samples of each channel that were read.

        Raises:
            InputError: It was damaged or cut off, or is no recording.
        """
        code = self.process.wait()
        lines = self._messages.lines()
        text = "\n".join(lines)
        # What the file says of itself, in titles and tags, has no sender; what is said of it has one.
        said = "\n".join(line for line in lines if not line.startswith("[info]"))
        found = _INPUT.search(text)
        container = found.group(1) if found else ""
        if _RAW.fullmatch(container):
            raise InputError(f"{self._path} has no header that says what it is.", FORMATS)
        if "duplicated MOOV" in said:
            raise InputError(
                f"{self._path} is joined from several recordings, of which only the first can be read.",
                "Join them with an audio program instead, or pass one of them.",
            )
        changed = _CHANGED.search(said)
        if changed is not None and self._segment.timed:  # the filters began anew, and lost the time
            raise InputError(
                f"{self._path} changes to {changed[1]} in its middle, which is not read.",
                "Convert it first, like ffmpeg -i FILE -ar 48000 -ac 2 SOUND.wav",
            )
        if code != 0 and "Cannot allocate memory" in said:
            raise InputError(f"{self._path} has a gap that is too long.", "Cut the sound into parts.")
        seconds = samples / self.sample_rate
        estimated = "Estimating duration from bitrate" in said
        declared = 0.0 if estimated else _declared_seconds(text, container)
        whole = self._segment.open_ended or len(_DAMAGED.findall(said)) <= self._segment.joins
        tolerance = 0.02 if container in _EXACT or not whole else max(0.5, 0.02 * seconds)
        missing = declared - seconds > tolerance and not self._segment.open_ended
        if code != 0 or self._segment.cut or missing or not whole:
            raise InputError(
                f"{self._path} is damaged or cut off after {seconds:.2f} s.",
                "Copy or export the sound again.",
            )

    def close(self) -> None:
        """End ffmpeg; safe to call twice."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._stdout.close()
        self._messages.lines()

    def _refuse(self) -> NoReturn:
        self.process.wait()
        reason = self._messages.reason()
        self.close()
        said = "\n".join(self._messages.lines())
        if "Format not on whitelist" in said:
            raise InputError(f"{self._path} is a playlist, not a sound.", "Pass one sound file.")
        if "matches no streams" in said:
            raise InputError(
                f"{self._path} holds no sound.", "Pass a recording or a video with an audio track."
            )
        raise InputError(f"{self._path} is not a sound that can be read: {reason}.", FORMATS)

    def _check_form(self) -> None:
        least, most = SAMPLE_RATES
        wrong = ""
        if not least <= self.sample_rate <= most:
            wrong = f"{self.sample_rate} samples per second, outside {least}..{most}"
        elif self.channels > CHANNELS:
            wrong = f"{self.channels} channels, more than {CHANNELS}"
        if wrong:
            self.close()
            raise InputError(
                f"{self._path} says that it has {wrong}.", "Export the sound again, at 48000 Hz."
            )


def _read_wav_header(stream: IO[bytes]) -> tuple[int, int] | None:
    """Sample rate and channels, with the stream left at the first sample; None where there is no header."""
    if len(riff := stream.read(12)) < 12 or riff[8:] != b"WAVE":
        return None
    rate = channels = 0
    while len(head := stream.read(8)) == 8:
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data":
            return (rate, channels) if rate and channels else None
        body = stream.read(size + size % 2)
        if name == b"fmt ":
            channels, rate = struct.unpack("<HI", body[2:8])
    return None


def _declared_seconds(text: str, container: str) -> float:
    """Length the container claims; 0 where it claims none that concerns the sound alone."""
    length = ffmpeg.declared_length(text)
    if length is None or _PICTURES.search(text.partition("\n[info] Output #0")[0]):
        return 0.0
    end, start = length
    return float(end - start if container.startswith("matroska") else end)  # there it is the time of the end
