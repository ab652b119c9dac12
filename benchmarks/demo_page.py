"""The page of `musetalk serve` with the demo, for a headless Chromium to look at."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def demo_service(*options: str) -> Iterator[str]:
    """`musetalk serve` with the demo, in a process of its own; its address."""
    command = [sys.executable, "-m", "musetalk_cli", "serve", "--model", "demo", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            addresses = (re.search(r"http://[\d.:]+\d", line) for line in process.stderr or ())
            yield next(address[0] for address in addresses if address)
        finally:
            process.terminate()
            process.communicate()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
