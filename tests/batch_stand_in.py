"""A worker of a batch that copies the sound where the video should be; the sound says how it behaves."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def tell(value):
    sys.stdout.write((value if isinstance(value, str) else json.dumps(value)) + "\n")
    sys.stdout.flush()


for line in sys.stdin:
    task = json.loads(line)
    audio, output = Path(task["audio"]), Path(task["output"])
    content = audio.read_bytes()
    mark = audio.with_suffix(".begun")
    again = mark.exists()
    with mark.open("a") as begun:
        begun.write(f"{os.getpid()}\n")
    if content == b"leave a program" and not again:  # which nobody would end
        command = [sys.executable, "-c", "import signal; signal.pause()"]
        left = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        audio.with_suffix(".left").write_text(str(left.pid))
        os.kill(os.getpid(), signal.SIGKILL)
    if content == b"die" or (content == b"die once" and not again):
        sys.stderr.write("Killed by the test\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if content == b"end":
        sys.stderr.write("no such module\n")
        sys.exit(1)
    if content == b"lose" and not again:
        tell({"state": "lost", "error": "No memory.", "hint": None, "seconds": 0.1})
        sys.exit(1)
    if content == b"fail":
        tell({"state": "failed", "error": "The sound is bad.", "hint": "Record it again.", "seconds": 0.1})
        continue
    tell({"frames": 1, "total": 4})
    if content == b"hang" or (content == b"hang once" and not again):
        signal.pause()
    if content == b"prepare":
        tell({"prepares": True})
    if content == b"wait" and not again:
        sys.stdin.read()
        sys.exit(1)
    if content == b"chat":
        for noise in ("no JSON at all", "[1]", "5", "{}", '"text"'):
            tell(noise)
        tell({"said": "The cascade is rough."})
    output.write_bytes(content)
    tell(
        {
            "state": "done",
            "output_bytes": len(content),
            "output_sha256": hashlib.sha256(content).hexdigest(),
            "seconds": 0.1,
            "figures": {"frames": 4, "duration_s": 0.16},
        }
    )
