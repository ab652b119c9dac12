import errno
import io
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from musetalk_cli.cli.options import set_up_log
from musetalk_cli.cli.panel import live_panel, render
from musetalk_cli.cli.render import after_log
from musetalk_cli.live.observe import Depths, Snapshot
from musetalk_cli.measure.gpu import GpuUse
from musetalk_cli.measure.stages import Percentiles

ROOT = Path(__file__).parents[1]
log = logging.getLogger("musetalk_cli")


def snapshot(elapsed_s=90061.9, **changes):
    values = {
        "frames": 2_250_123,
        "fps": 24.97,
        "real_time_factor": 0.3125,
        "first_frame_ms": Percentiles(111.1, 222.2, 0.0),
        "last_frame_ms": Percentiles(333.3, 444.4, 0.0),
        "mouth_to_eye_ms": Percentiles(555.5, 666.6, 0.0),
        "response_ms": Percentiles(777.7, 888.8, 0.0),
        "waiting": Depths(61, 26, 32),
        "late": 7,
        "dropped": 9,
        "idle": 562_531,
        "utterances": 1_234,
        "stalls": 3,
        "speaking": True,
        "failed": (),
    }
    return Snapshot(elapsed_s=elapsed_s, **(values | changes))


class Terminal(io.StringIO):
    """Standard error that is a terminal; keeps what stands on it, as far as the panel writes."""

    def isatty(self):
        return True

    def screen(self):
        lines, row, column = [""], 0, 0
        for piece in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", self.getvalue()):
            if piece == "\r":
                column = 0
            elif piece == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif piece.startswith("\x1b"):
                if piece.endswith("A"):
                    row -= int(piece[2:-1] or 1)
                elif piece.endswith("K"):
                    lines[row] = ""
                else:
                    assert piece[-1] in "mhl", f"{piece!r} is not understood"
            else:
                lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
                column += len(piece)
        return lines


@pytest.fixture
def stderr(monkeypatch):
    """Puts something in the place of standard error, and sets the log up on it as a command does."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "100"), ("LINES", "40")):
        monkeypatch.setenv(name, value)
    before = (log.handlers, log.propagate, log.level)

    def replace(stream):
        monkeypatch.setattr(sys, "stderr", stream)
        set_up_log(verbose=False)
        return stream

    yield replace
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])


def text_of(panel, width=100):
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(panel)
    return console.export_text()


FIGURES = {
    "elapsed": "25:01:01",
    "frames": "2,250,123 at 25.0 fps",
    "real-time factor": "0.312",
    "utterances": "1,234",
    "stalls": "3",
    "late": "7",
    "dropped": "9",
    "saved by silence": "25.0 %",
    "first frame": "111.1 222.2",
    "last frame": "333.3 444.4",
    "mouth to eye": "555.5 666.6",
    "response": "777.7 888.8",
    "waiting": "61 sound, 26 requests, 32 frames",
    "GPU": "20.0 of 80.0 GiB, 83 %",
    "failed": "rtmp://host/[bold]key, a.mp4",
}


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_panel_holds_every_figure_beside_its_name(width):
    state = snapshot(failed=("rtmp://host/[bold]key", "a.mp4"))
    text = text_of(render("demo, [red]mic", state, GpuUse(20 * 2**30, 80 * 2**30, 83)), width)
    assert "demo, [red]mic: speaking" in text
    plain = re.sub(r" +", " ", text)
    for name, value in FIGURES.items():
        assert f" {name} {value} " in plain, name
    assert {len(line) for line in text.splitlines()} == {width}


def test_a_latency_that_was_not_measured_is_no_zero():
    nothing = dict.fromkeys(("first_frame_ms", "last_frame_ms", "response_ms"), Percentiles.of([]))
    plain = re.sub(r" +", " ", text_of(render("demo, mic", snapshot(**nothing), None)))
    for line in ("first frame - -", "last frame - -", "mouth to eye 555.5 666.6", "response - -"):
        assert f" {line} " in plain


def test_the_panel_leaves_out_what_is_not_known():
    text = text_of(render("demo, mic", snapshot(speaking=False, frames=0, idle=0), None))
    assert "demo, mic: silent" in text
    assert "saved by silence  0.0 %" in text
    assert "GPU" not in text
    assert "failed" not in text
    assert "%" not in text_of(render("x", snapshot(), GpuUse(1, 2, None))).replace("25.0 %", "")


def test_a_panel_is_drawn_over_itself_and_goes_away(stderr):
    terminal = stderr(Terminal())
    with live_panel("demo, mic", enabled=True) as show:
        for second in range(5):
            show(snapshot(float(second), frames=25 * second))
            screen = "\n".join(terminal.screen())
            assert screen.count("demo, mic: speaking") == 1
            assert f"0:00:0{second}" in screen
            assert f"{25 * second} at" in screen
    assert not "".join(terminal.screen()).strip(), "the report is printed where the panel was"
    assert terminal.getvalue().rpartition("\x1b[?25")[2].startswith("h"), "the cursor is shown again"


def test_a_panel_is_drawn_four_times_a_second_at_most(stderr):
    terminal = stderr(Terminal())

    class Gpu:
        reads = 0

        def read(self):
            self.reads += 1

    gpu = Gpu()
    with live_panel("demo, mic", enabled=True, gpu=gpu) as show:
        for frame in range(25 * 20):
            show(snapshot(frame / 25))
    assert 60 <= gpu.reads <= 80
    assert terminal.getvalue().count("demo, mic") == gpu.reads + 1, "and once at the end"


def test_log_lines_stand_above_the_panel(stderr):
    terminal = stderr(Terminal())
    before = [handler.stream for handler in log.handlers]
    with live_panel("demo, mic", enabled=True) as show:
        for second in range(3):
            show(snapshot(float(second)))
            log.warning("The output [bold]%d[/] failed, and the others go on.", second)
        after_log()
        show(snapshot(3.0))
        screen = terminal.screen()
    said = [f"The output [bold]{second}[/] failed, and the others go on." for second in range(3)]
    assert [line.rstrip() for line in screen[:3]] == said
    assert "demo, mic" in screen[3]
    assert sum("demo, mic" in line for line in screen) == 1
    assert [handler.stream for handler in log.handlers] == before == [terminal]
    assert sys.stderr is terminal
    log.warning("After it.")
    after_log()
    assert [line.rstrip() for line in terminal.screen() if line.strip()] == [*said, "After it."]


def test_a_run_that_fails_leaves_the_terminal_as_it_was(stderr):
    terminal = stderr(Terminal())
    with pytest.raises(KeyError), live_panel("demo, mic", enabled=True) as show:
        show(snapshot(0.0))
        raise KeyError
    assert sys.stderr is terminal
    assert [handler.stream for handler in log.handlers] == [terminal]
    assert not "".join(terminal.screen()).strip()


def test_a_terminal_that_goes_away_does_not_end_the_run(stderr, monkeypatch):
    terminal = stderr(Terminal())
    with live_panel("demo, mic", enabled=True) as show:
        show(snapshot(0.0))

        def gone(text):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(terminal, "write", gone)
        for second in range(1, 5):
            show(snapshot(float(second)))
        assert sys.stderr is terminal
        assert [handler.stream for handler in log.handlers] == [terminal]


@pytest.mark.parametrize("why", ["no terminal", "--no-live", "dumb terminal"])
def test_elsewhere_there_is_a_line_every_five_seconds(why, stderr, monkeypatch):
    shown_on = stderr(io.StringIO() if why == "no terminal" else Terminal())
    if why == "dumb terminal":
        monkeypatch.setenv("TERM", "dumb")

    class Gpu:
        def read(self):
            return GpuUse(20 * 2**30, 80 * 2**30, 83)

    with live_panel("demo, mic", enabled=why != "--no-live", gpu=Gpu()) as show:
        for frame in range(25 * 16):
            show(snapshot(frame / 25, failed=("a.mp4",), speaking=frame < 200))
    after_log()
    lines = shown_on.getvalue().splitlines()
    assert len(lines) == 3
    assert [line.split("; ")[:2] for line in lines] == [
        ["demo, mic: speaking", "0:00:05"],
        ["demo, mic: silent", "0:00:10"],
        ["demo, mic: silent", "0:00:15"],
    ]
    assert lines[0].split("; ")[2:] == [
        "2250123 frames at 25.0 fps",
        "real-time factor 0.312",
        "first frame 111/222, last frame 333/444, mouth to eye 556/667, response 778/889 ms (p50/p95)",
        "waiting 61 sound, 26 requests, 32 frames",
        "utterances 1234, stalls 3",
        "late 7, dropped 9, saved by silence 25.0 %",
        "GPU 20.0 of 80.0 GiB, 83 %",
        "failed: a.mp4",
    ]


def test_the_panel_needs_no_torch_to_be_imported():
    program = "import sys, musetalk_cli.cli.panel, musetalk_cli.measure.gpu; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0
