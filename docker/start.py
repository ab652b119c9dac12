"""What the container runs: it fetches a published model where it is missing, then becomes `musetalk`.

docker run IMAGE                 the service
docker run IMAGE --linger 60     the service, with options of `musetalk serve`
docker run IMAGE avatars list    any other command of musetalk
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from musetalk_cli.nets.published import LAYOUTS, missing
from musetalk_cli.serve.settings import why_refused

HOST = "0.0.0.0"  # noqa: S104 - who else could reach it in here; the command wants a token for it
AUTO = "auto"
"""As `MUSETALK_MODEL`: nothing is fetched, and `musetalk serve` takes what is there, else the demo."""


def main(arguments: list[str]) -> NoReturn:
    """Become the service, or the command that was named."""
    if arguments and not arguments[0].startswith("-"):
        become(arguments)
    model = os.environ.get("MUSETALK_MODEL") or AUTO
    command = ["serve", "--host", HOST, "--port", os.environ["MUSETALK_PORT"], "--log-json"]
    command += [] if model == AUTO else ["--model", model]
    if will_start(arguments):
        fetch(model)
    become([*command, *arguments])


def will_start(arguments: list[str]) -> bool:
    """False where `musetalk serve` will only say something, so that nobody waits for gigabytes before it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--token", default=os.environ.get("MUSETALK_TOKEN"))
    known, _ = parser.parse_known_args(arguments)
    return "--help" not in arguments and why_refused(known.host, known.token) is None


def fetch(model: str) -> None:
    """Fetch a published model where a file of it is missing; ends the program where that fails."""
    folder = Path(os.environ["MUSETALK_MODELS"])
    if model not in LAYOUTS or not missing(model, folder):
        return
    say(f"model {model} is not complete in {folder}: fetching it, about 4 GB; MUSETALK_MODEL=demo needs none")
    loader = subprocess.Popen(["musetalk", "models", "download", model])
    # the first process of a container gets no signal that it does not ask for
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loader.terminate())
    if code := loader.wait():
        sys.exit(code)


def become(arguments: list[str]) -> NoReturn:
    """Go on as `musetalk`, in this process, so that signals are its own."""
    os.execvp("musetalk", ["musetalk", *arguments])


def say(text: str) -> None:
    """Write a line to the log."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
