"""A headless Chromium and what a visitor sees of the service's page."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

EXECUTABLE = shutil.which("chromium")
LIMIT_MS = 60_000
SOUND_FLAGS = ("--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required")

_WATCH = """
async ({ frames, box }) => {
  const face = document.getElementById("face");
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 4096 });
  context.createMediaStreamSource(new MediaStream(face.srcObject.getAudioTracks())).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const [left, top, right, bottom] = box;
  const [width, height] = [right - left, bottom - top];
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const seen = [];
  while (seen.length < frames) {
    await new Promise((resolve) => face.requestVideoFrameCallback(resolve));
    canvas.drawImage(face, left, top, width, height, 0, 0, width, height);
    const { data } = canvas.getImageData(0, 0, width, height);
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
    const light = data.reduce((sum, value, at) => sum + (at % 4 < 3 ? value : 0), 0) / (3 * width * height);
    seen.push([light, 10 * Math.log10(power + 1e-12)]);
  }
  await context.close();
  return seen;
}
"""


@contextmanager
def playwright():
    """Playwright; one at a time in a thread. Skips where it or Chromium is missing."""
    module = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
    if EXECUTABLE is None:
        pytest.skip("needs the program chromium: apt-get install chromium")
    with module.sync_playwright() as started:
        yield started


@contextmanager
def browser(started, *flags):
    """A Chromium with more flags."""
    launched = started.chromium.launch(
        executable_path=EXECUTABLE, args=["--no-sandbox", *SOUND_FLAGS, *flags]
    )
    try:
        yield launched
    finally:
        launched.close()


class Visit:
    """One visit of the page.

    Args:
        chromium: The browser.
        url: Where the service listens.
        options: Of the visit, as Playwright has them.

    Attributes:
        page: As Playwright has it.
        complaints: What the browser's console said, warnings and errors.
    """

    def __init__(self, chromium, url, **options):
        self.page = chromium.new_page(**options)
        self.page.set_default_timeout(LIMIT_MS)
        self.complaints = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)

    def _hear(self, message):
        if message.type in {"warning", "error"}:
            self.complaints.append(message.text)

    def until(self, state):
        """Wait for a state: idle, connecting, live, speaking or reconnecting."""
        self.page.locator(f"#state[data-state={state}]").wait_for()

    def connect(self):
        self.page.locator("#connect:enabled").click()
        self.until("live")

    def press(self, name):
        self.page.locator(f"#{name}:enabled").click()

    @property
    def notice(self):
        """The refusal that is shown, once one is."""
        self.page.locator("#notice").wait_for()
        return self.page.locator("#notice p").inner_text()

    def watch(self, frames, box):
        """The next pictures: light of a region, and level of the sound in dB, one row for each.

        Args:
            frames: How many.
            box: Left, top, right and bottom of the region.
        """
        return self.page.evaluate(_WATCH, {"frames": frames, "box": box})


def sound_file(path):
    """A flag: the microphone hears this WAV, again and again."""
    return f"--use-file-for-fake-audio-capture={Path(path)}"
