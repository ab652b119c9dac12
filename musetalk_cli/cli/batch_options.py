"""The options of `musetalk batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PATTERN = "{stem}.mp4"
"""What an output is called where neither the manifest nor an option says it."""

Manifest = Annotated[
    Path,
    typer.Argument(
        metavar="MANIFEST",
        help="Jobs as .csv, .jsonl or .toml: avatar or source, audio, output of each, and fps, sharpen, "
        "model where they differ. Paths begin at its folder; audio may be a pattern, like clips/*.wav.",
    ),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        help="Folder in which the outputs begin; made if it is not there.",
        show_default="the manifest's folder",
    ),
]
Pattern = Annotated[
    str,
    typer.Option(
        "--pattern",
        help="Name of an output in --output-dir that the manifest does not name: {stem} is the name of "
        "the audio without its suffix, {avatar} that of the avatar.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Processes that work side by side.",
        show_default="one for each GPU, or for every two cores",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|local|ADDRESS",
        help="Work on a Ray cluster, with an actor for each GPU: the one that runs here, one that is begun "
        "here and ends with this command, or at HOST:PORT.",
        show_default="processes on this machine",
    ),
]
HangAfter = Annotated[
    str | None,
    typer.Option(
        "--hang-after",
        metavar="off|SECONDS",
        help="End a worker that has made no frame for so long, and try its job once more; before its first "
        "frame and after its last it has six times as long.",
        show_default="600",
    ),
]
SplitOver = Annotated[
    str | None,
    typer.Option(
        "--split-over",
        metavar="off|SECONDS",
        help="Let several workers share a sound that is longer, where they would have nothing else to do: "
        "each makes a part of the frames, and the parts are joined. The frames are the same.",
        show_default="off",
    ),
]
ResultsFile = Annotated[
    Path | None,
    typer.Option(
        "--results",
        help="File that gets one line of JSON for each job that ended.",
        show_default="beside the outputs or the manifest, with its name and .results.jsonl",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Skip what --results calls done, of the same inputs and settings.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the manifest and list what would be done.")]
