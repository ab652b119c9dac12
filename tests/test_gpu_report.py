"""`make gpu-report`: what fails, hangs or loses the GPU in one step is that step's result, and no other's."""

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.gpu import report as script
from benchmarks.gpu.render import FIRST_FRAMES, goals, markdown, plot
from benchmarks.gpu.report import Report, run, steps
from benchmarks.gpu.step import GRACE_S, SAID_CHARS, Step, run_step
from musetalk_cli.engine.engine import FIRST_FRAMES_ON_CUDA

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-c"]
LIMIT_S = 60
NO_MEMORY = "error: There is not enough memory on the GPU."
GONE = "error: --device cuda cannot be used: no NVIDIA GPU was found."
WRITES = "import sys, json; json.dump({'batches': []}, open(sys.argv[1], 'w')); print('done')"


def step(name, program, limit_s=LIMIT_S):
    """A step that is a program; its argument is the file that it is to write."""
    return Step(name, limit_s, (program, "{json}"))


def says(text, code):
    return f"import sys; print({text!r}, file=sys.stderr); sys.exit({code})"


def test_what_a_step_measured_is_kept(tmp_path):
    done = run_step(step("bench", WRITES), PYTHON, tmp_path, LIMIT_S)
    assert (done.status, done.exit_code, done.said) == ("ok", 0, "done")
    assert done.figures == {"batches": []}
    assert 0 <= done.seconds < LIMIT_S


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        (says(NO_MEMORY, 1), 1, NO_MEMORY),
        (says(GONE, 1), 1, GONE),
        ("import os; os.abort()", -signal.SIGABRT, ""),
        ("raise SystemExit(3)", 3, ""),
    ],
)
def test_a_failure_is_the_steps_result(tmp_path, program, code, said):
    done = run_step(step("bench", program), PYTHON, tmp_path, LIMIT_S)
    assert (done.status, done.exit_code, done.figures) == ("failed", code, None)
    assert said in done.said


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path):
    hangs = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); "
    done = run_step(step("soak", hangs + "time.sleep(600)"), PYTHON, tmp_path, 3)
    assert (done.status, done.exit_code, done.figures) == ("timed out", None, None)
    [child] = done.said.split()
    ended = time.monotonic() + LIMIT_S
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < ended


def test_a_file_of_an_earlier_run_or_half_a_file_is_no_result(tmp_path):
    (tmp_path / "bench.json").write_text('{"old": 1}')
    assert run_step(step("bench", says("", 1)), PYTHON, tmp_path, LIMIT_S).figures is None
    half = "import sys; open(sys.argv[1], 'w').write('{\"batches\": [')"
    assert run_step(step("bench", half), PYTHON, tmp_path, LIMIT_S).figures is None


def test_nothing_that_a_step_says_is_obeyed_by_a_terminal(tmp_path):
    done = run_step(
        step("bench", "print('\\x1b[2Jred\\x07'); print('x' * 100000)"), PYTHON, tmp_path, LIMIT_S
    )
    assert "\x1b" not in done.said
    assert len(done.said) <= SAID_CHARS


def report():
    return Report({"gpu": "NVIDIA H100 80GB HBM3", "torch": "2.13"}, False, "2026-11-27 00:00:00")


def test_a_failing_step_costs_the_others_nothing_and_all_is_written_after_each(tmp_path):
    known = []

    class Telling(list):
        def __iter__(self):
            for one in list.__iter__(self):
                yield one
                [path] = (tmp_path / "out").glob("*.json")
                known.append([done["status"] for done in json.loads(path.read_text())["steps"]])

    chosen = Telling([step("soak", says(NO_MEMORY, 1)), step("bench", WRITES), step("tests-", "print(1)")])
    path = run(report(), chosen, PYTHON, tmp_path / "steps", tmp_path / "out", 600)
    assert path == tmp_path / "out" / "nvidia-h100-80gb-hbm3.json"
    assert known == [["failed"], ["failed", "ok"], ["failed", "ok", "ok"]]
    names = sorted(path.suffix for path in (tmp_path / "out").iterdir())
    assert names == [".json", ".md", ".svg"]
    page = path.with_suffix(".md").read_text()
    assert f"| soak | failed | {known and json.loads(path.read_text())['steps'][0]['seconds']:g} of" in page
    assert NO_MEMORY in page


def test_figures_of_another_form_cost_the_page_and_not_the_figures(tmp_path, capsys):
    odd = WRITES.replace("[]", "[1]")
    path = run(report(), [step("bench", odd)], PYTHON, tmp_path / "steps", tmp_path / "out", 600)
    assert json.loads(path.read_text())["steps"][0]["figures"] == {"batches": [1]}
    assert "cannot be made of what was measured" in capsys.readouterr().err


def test_where_no_time_is_left_steps_are_left_out(tmp_path):
    path = run(report(), [step("bench", WRITES)], PYTHON, tmp_path / "steps", tmp_path / "out", 0)
    assert [done["status"] for done in json.loads(path.read_text())["steps"]] == ["left out"]


def test_all_steps_fit_into_the_time_and_each_has_its_own_limit():
    everything = steps("random-v15")
    assert [one.name for one in everything] == [
        *("bench", "soak", "tests", "profile", "response", "bf16", "taesd", "fp32")
    ]
    # of the first four, what has to be measured, none can take the time of another
    assert sum(one.limit_s for one in everything[:4]) <= 60 * script.MINUTES - 2 * GRACE_S
    assert script.MINUTES <= 9


def test_a_page_of_nothing_says_so():
    plain = asdict(report())
    page, picture = markdown(plain, "name"), plot(plain)
    assert page.startswith("# NVIDIA H100 80GB HBM3")
    assert "not measured" in picture
    xml.etree.ElementTree.fromstring(picture)


def test_what_an_utterance_begins_with_is_held_to_the_goal():
    """In the chunks of the bench nobody waits for the first frame, which comes with the last."""
    assert FIRST_FRAMES == FIRST_FRAMES_ON_CUDA
    batches = [
        {"size": size, "frames_per_s": 400.0, "image_ms": {"gpu": {"compose": 1.0}}} for size in (4, 13)
    ]
    late = {"first_frame_ms": {"p99": 32.0}, "last_frame_ms": {"p99": 32.5}, "chunk_s": 0.5}
    lines = goals({"gpu": "NVIDIA H100"}, {"batches": batches, "features_ms": 0.5, "chunks": [late]})
    assert "| first frame p99, chunk of 0.5 s as one batch, ms | 15.0 | 32.0 | not met |" in lines
    assert "| window and 4 frames, which an utterance begins with, ms | 15.0 | 10.5 | met |" in lines


@pytest.mark.slow
def test_without_a_gpu_one_sentence_and_1(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/gpu/report.py", "--out", tmp_path], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (1, "", [])
    [line] = done.stderr.splitlines()
    assert line.startswith("error: Nothing can be measured here: PyTorch ")


@pytest.mark.slow
def test_the_dry_run_measures_all_of_it_on_the_pretended_gpu(tmp_path, models):
    """It says that it is one; no figure of it stands for a GPU's."""
    from pretended.guard import why_not

    if reason := why_not():
        pytest.skip(reason)
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks/gpu/report.py",
            "--dry-run",
            "--model",
            models,
            "--out",
            tmp_path,
        ],
        capture_output=True,
        text=True,
    )
    found = json.loads((tmp_path / "dry-run.json").read_text())
    wrong = {one["name"]: one["said"] for one in found["steps"] if one["status"] != "ok"}
    # random weights are what --vae taesd is made for without its files
    assert set(wrong) <= {"taesd"}, wrong
    assert done.returncode == (3 if wrong else 0)
    assert found["dry_run"] is True
    page = (tmp_path / "dry-run.md").read_text()
    assert "no figure here is one of a GPU" in page
    for title in (
        "By batch size",
        "Stages of a batch",
        "Image steps",
        "Chunks",
        "Response",
        "Sessions",
        "Steps",
    ):
        assert f"## {title}" in page
    bench = next(one for one in found["steps"] if one["name"] == "bench")["figures"]
    assert [batch["size"] for batch in bench["batches"]] == [1, 2]
    for batch in bench["batches"]:
        assert "gpu" in batch["image_ms"]
        assert batch["graph_ms"] > 0
    xml.etree.ElementTree.fromstring((tmp_path / "dry-run.svg").read_text())
