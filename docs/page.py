"""Makes the pictures of the service's page: the embedded avatar speaks its sample in a headless Chromium.

python -m docs.page [--output docs]
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from benchmarks.demo_page import chromium, demo_service

if TYPE_CHECKING:
    from playwright.sync_api import Browser

COLOURS, ROUNDS = 256, 4
OPEN = """
async ([left, top, width, height]) => {
  const face = document.getElementById("face");
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  for (;;) {
    await new Promise((resolve) => face.requestVideoFrameCallback(resolve));
    canvas.drawImage(face, left, top, width, height, 0, 0, width, height);
    const { data } = canvas.getImageData(0, 0, width, height);
    if (data.reduce((sum, value) => sum + value) / data.length < 187) break;
  }
  face.pause();
}
"""
"""Waits for an open mouth, which makes its region darker, and lets the picture stand."""
MOUTH = (190, 350, 130, 90)
FIGURES = "#session-figures dd:has-text('ms') >> nth=3"
"""The last of the latencies, once there are any."""
VIEWS = {
    "page.png": {"viewport": {"width": 1200, "height": 780}},
    "page-phone.png": {
        "viewport": {"width": 360, "height": 690},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "dark",
    },
}
"""Names of the pictures, and the screens they are of."""


def main() -> None:
    """Serve the demo, look at it, and write what is seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    output: Path = parser.parse_args().output
    with demo_service() as url, chromium() as browser:
        for name in VIEWS:
            picture = _look(browser, url, name).quantize(COLOURS, kmeans=ROUNDS, dither=Image.Dither.NONE)
            picture.save(output / name, optimize=True)
            print(f"{output / name}: {(output / name).stat().st_size / 1e3:.0f} kB")


def _look(browser: Browser, url: str, name: str) -> Image.Image:
    page = browser.new_page(**VIEWS[name])
    page.goto(url)
    page.locator("#connect:enabled").click()
    page.locator("#state[data-state=live]").wait_for()
    page.click("#sample")
    page.locator("#state[data-state=speaking]").wait_for()
    page.mouse.move(0, 0)
    page.locator(FIGURES).wait_for(state="attached")
    page.evaluate(OPEN, MOUTH)
    data = page.screenshot()
    page.click("#stop")
    page.locator("#state[data-state=idle]").wait_for()
    page.close()
    return Image.open(io.BytesIO(data)).convert("RGB")


if __name__ == "__main__":
    main()
