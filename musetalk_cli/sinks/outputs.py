"""What `--output` may name."""

from __future__ import annotations

import re
from pathlib import Path

from musetalk_cli.errors import OutputError
from musetalk_cli.sinks.null import NullSink
from musetalk_cli.sinks.stream import SCHEMES, NetworkSink, PipeSink, RecordingSink
from musetalk_cli.types import Sink

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ALMOST = re.compile(r"(?:(?:rtmp\w*|srt):(?!//)|(?:rtmps?|srt)//)", re.IGNORECASE)
"""A server's address with a slash or a colon left out: a file of that name was not meant."""
_UNDERSTOOD = (
    "Pass FILE.mp4, .mov, .mkv or .webm, - for standard output, rtmp://..., rtmps://..., srt://... or null."
)


def parse_output(text: str) -> Sink:
    """The sink that a value of `--output` names: a file, `-`, a server, or `null`.

    Raises:
        OutputError: It names none, or one that cannot be written.
    """
    if not text:
        raise OutputError("--output is empty.", _UNDERSTOOD)
    if text == "-":
        return PipeSink()
    if text == "null":
        return NullSink()
    if _ALMOST.match(text):
        scheme = re.split(r"[:/]", text)[0]
        raise OutputError(f"--output {scheme}:... is no URL.", _UNDERSTOOD)
    found = _SCHEME.match(text)
    if found is None:
        return RecordingSink(Path(text))
    if found.group(1).lower() not in SCHEMES:
        raise OutputError(f"--output cannot send to {found.group(1)}://.", _UNDERSTOOD)
    return NetworkSink(text)
