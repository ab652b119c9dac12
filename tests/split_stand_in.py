"""A worker of a batch that does pieces of jobs without networks; the sound says how it behaves.

The sound is `short`, or `long` and then what one piece does: `part 2 die`, `survey fail`, `join wait`. With
`once` it does so in its first try alone. A part is its first frame and its end, and the video all of them.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

FIGURES = {
    "frames": 3, "duration_s": 0.12, "idle_frames": 1, "broken_frames": 0, "remade_frames": 0, "fallbacks": 0,
    "peak_host_bytes": 7, "peak_device_bytes": None, "fps": 25.0, "device": "none",
}  # fmt: skip


def tell(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def fail():
    tell({"state": "failed", "error": "The sound is bad.", "hint": "Record it again.", "seconds": 0.1})


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def wait():
    sys.stdin.read()
    sys.exit(1)


def video(output, content):
    output.write_text(content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"state": "done", "output_bytes": len(content), "output_sha256": digest}


def do(task):
    audio, output, piece = Path(task["audio"]), Path(task["output"]), task.get("piece")
    kind = "whole" if piece is None else piece["kind"] + (f" {piece['number']}" * (piece["kind"] == "part"))
    length, *deed = audio.read_text().split(": ")
    with audio.with_suffix(".begun").open("a+") as begun:
        begun.seek(0)
        again = kind in begun.read().splitlines()
        begun.write(kind + "\n")
    for told in deed:
        what, _, way = told.rpartition(" ") if "once" not in told else told[:-5].rpartition(" ")
        if what == kind and not ("once" in told and again):
            return {"fail": fail, "die": die, "wait": wait}[way]()
    if piece is None:
        return tell(video(output, "whole") | {"seconds": 0.1, "figures": FIGURES})
    if kind == "survey":
        cuts = [0, 4] if length == "short" else [3 * number for number in range(piece["most"] + 1)]
        return tell({"state": "done", "cuts": cuts, "fps": "25"})
    if kind == "join":
        content = "".join(Path(path).read_text() for path in piece["paths"])
        return tell(video(output, content))
    tell({"frames": 1, "total": 3})
    Path(piece["paths"][0]).write_text(f"{piece['first']}-{piece['stop']} ")
    return tell({"state": "done", "figures": FIGURES})


for line in sys.stdin:
    do(json.loads(line))
