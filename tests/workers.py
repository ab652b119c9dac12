"""Measured preparations without the processes that they have of their own."""

import io
import subprocess
import sys
from contextlib import redirect_stdout

from musetalk_cli.bench import worker


def run_workers_here(monkeypatch):
    """They run in this process, which saves loading the libraries for each."""
    run = subprocess.run

    def run_here(command, **settings):
        if command[1:3] != ["-m", "musetalk_cli.bench.worker"]:
            return run(command, **settings)
        with monkeypatch.context() as patched, redirect_stdout(io.StringIO()) as out:
            patched.setattr(sys, "argv", command[2:])
            code = worker.main()
        return subprocess.CompletedProcess(command, code, out.getvalue(), "")

    monkeypatch.setattr(subprocess, "run", run_here)
