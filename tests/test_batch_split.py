"""Long sounds that workers share: what comes out is the whole, whatever happens to a piece."""

import json
import os
import signal
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from batches import jobs_of
from batches_here import HereTwice, shown
from lives import read_back, speech, write_sound

from musetalk_cli.config import JobConfig, SilenceLevel
from musetalk_cli.errors import InputError
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.media.audio import declared_seconds
from musetalk_cli.run.batch.dispatch import Dispatch, Retry
from musetalk_cli.run.batch.local import LocalPool, Seat
from musetalk_cli.run.batch.pool import Ended, Lost
from musetalk_cli.run.batch.resume import plan
from musetalk_cli.run.batch.run import run_batch
from musetalk_cli.run.batch.split import most_workers, parse_split
from musetalk_cli.run.generate import generate
from musetalk_cli.run.parts import find_cuts

AT_ONCE = Retry(tries=2, first_s=0)
STAND_IN = [sys.executable, str(Path(__file__).with_name("split_stand_in.py"))]
LONG = "0-3 3-6 6-9 "

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture
def make(models, avatars_dir, tmp_path):
    return lambda **sounds: jobs_of(models, avatars_dir, tmp_path, sounds)


@pytest.fixture
def run(tmp_path, started):
    """Runs jobs on stand-ins, on which all long sounds are split; nothing is left of the parts."""

    def call(jobs, workers=3, **options):
        pools = lambda: LocalPool([Seat(None, 1)] * workers, STAND_IN)  # noqa: E731
        report = run_batch(jobs, pools, tmp_path / "r.jsonl", retry=AT_ONCE, split_over=60.0, **options)
        assert not started()
        assert not list(tmp_path.glob(".musetalk-*"))
        return report

    return call


def lines(folder):
    return [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]


def begun(job):
    return sorted(job.audio.with_suffix(".begun").read_text().splitlines())


def test_the_last_sound_is_shared_and_has_one_line(make, run, tmp_path):
    jobs = make(a="long")
    work = []
    report = run(jobs, progress=lambda standing: work.append(standing.work / standing.total))
    assert (report.done, report.failed, report.workers, report.frames) == (1, 0, 3, 9)
    assert jobs[0].output.read_text() == LONG
    assert begun(jobs[0]) == ["join", "part 0", "part 1", "part 2", "survey"]
    (line,) = lines(tmp_path)
    assert (line["state"], line["tries"], line["output_bytes"]) == ("done", 1, len(LONG))
    figures = line["figures"]
    assert (figures["parts"], figures["frames"], figures["idle_frames"]) == (3, 9, 3)
    assert (figures["peak_host_bytes"], figures["peak_device_bytes"]) == (7, None)
    assert figures["duration_s"] == pytest.approx(0.36)
    assert work == sorted(work), "progress never goes back"
    assert work[-1] == 1
    assert plan(jobs, tmp_path / "r.jsonl", resume=True) == [], "it is finished like any other"


def test_where_there_are_as_many_jobs_as_workers_only_the_last_is_shared(make, run):
    jobs = make(a="long", b="long", c="long")
    report = run(jobs, workers=2)
    assert report.done == 3
    assert [begun(job)[0] for job in jobs] == ["whole", "whole", "join"]


def test_a_short_sound_is_done_by_who_found_that_out(make, run, tmp_path):
    jobs = make(a="short")
    assert run(jobs).done == 1
    assert begun(jobs[0]) == ["survey", "whole"]
    assert "parts" not in lines(tmp_path)[0]["figures"]


@pytest.mark.parametrize("piece", ["survey", "part 1", "join"])
def test_a_piece_whose_worker_is_killed_is_done_by_another(make, run, tmp_path, piece):
    jobs = make(a=f"long: {piece} die once", b="short")
    jobs = jobs[::-1]  # the last one is shared
    report = run(jobs)
    assert (report.done, report.failed, report.retried) == (2, 0, 1)
    assert jobs[1].output.read_text() == LONG
    tries = {line["output"]: line["tries"] for line in lines(tmp_path)}
    assert tries == {str(jobs[0].output): 1, str(jobs[1].output): 2}
    assert begun(jobs[1]).count(piece) == 2


@pytest.mark.parametrize(
    ("deed", "why"), [("fail", "The sound is bad."), ("die", "2 workers were lost with it")]
)
@pytest.mark.parametrize("piece", ["survey", "part 0", "part 1", "join"])
def test_a_piece_that_fails_fails_its_job_once_and_alone(make, run, tmp_path, piece, deed, why):
    jobs = make(a="short", b=f"long: {piece} {deed}")
    report = run(jobs)
    assert (report.done, report.failed, report.left) == (1, 1, 0)
    assert why in report.failures[0]["error"]
    assert [line["state"] for line in lines(tmp_path)].count("failed") == 1
    assert not jobs[1].output.exists()


class Scripted:
    """A pool whose second part is lost once the first has failed."""

    places, device, events = 2, "none", ()

    def ready(self, place):
        return True

    def begin(self, place, task):
        piece = task["piece"]
        if piece["kind"] == "survey":
            self.events = [Ended(place, {"state": "done", "cuts": [0, 3, 6], "fps": "25"})]
        elif piece["number"] == 1:
            failed = {"state": "failed", "error": "The sound is bad.", "hint": None}
            self.events = [Ended(1 - place, failed), Lost(place, "is gone.")]

    def wait(self, timeout_s):
        events, self.events = self.events, ()
        return events

    def close(self):
        pass


def test_a_part_that_is_lost_when_its_job_has_failed_is_not_tried_again(make, tmp_path, caplog):
    jobs = make(a="long")
    report = run_batch(jobs, Scripted, tmp_path / "r.jsonl", split_over=60.0)
    assert (report.failed, report.retried) == (1, 0)
    assert report.failures[0]["error"] == "The sound is bad."
    assert f"{jobs[0].output}: its worker is gone." in caplog.messages
    assert "tried again" not in caplog.text


def test_a_sound_that_changes_between_its_pieces_fails(make, run):
    jobs = make(a="long")

    def change(standing):
        if standing.work and jobs[0].audio.read_text() == "long":
            jobs[0].audio.write_text("long, but another")

    report = run(jobs, workers=2, progress=change)
    assert report.failed == 1
    assert "has changed meanwhile" in report.failures[0]["error"]


def test_the_first_interrupt_lets_a_shared_job_be_finished(make, run):
    handle, jobs = ControlHandle(), make(a="short", b="long")

    def stop(standing):
        if jobs[1].audio.with_suffix(".begun").exists():
            handle.stop.set()

    report = run(jobs, handle=handle, progress=stop)
    assert report.interrupted
    assert (report.done, report.left) == (2, 0)
    assert jobs[1].output.read_text() == LONG


def test_the_second_interrupt_leaves_no_part(make, tmp_path, started):
    jobs = make(a="long: part 1 wait")

    def interrupt(standing):
        if standing.work > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool = lambda: LocalPool([Seat(None, 1)] * 3, STAND_IN)  # noqa: E731
        run_batch(jobs, pool, tmp_path / "r.jsonl", split_over=60.0, progress=interrupt)
    assert not started()
    assert not list(tmp_path.glob(".musetalk-*"))
    assert lines(tmp_path) == []


def test_a_sound_is_shared_by_those_that_have_nothing_else(make):
    def sharers(jobs, places, busy=0):
        dispatch = Dispatch(make(**{f"s{n}": "" for n in range(jobs)}), places)
        for place in range(busy + 1):
            dispatch.begin(place, 0)
        return dispatch.sharers(0)

    assert sharers(jobs=1, places=1) == 1
    assert sharers(jobs=1, places=8) == 8
    assert sharers(jobs=9, places=8) == 1
    assert [sharers(3, 8, busy) for busy in range(3)] == [3, 4, 8]
    assert sharers(jobs=9, places=8, busy=7) == 1


def test_a_worker_for_each_part_that_there_may_be(make, tmp_path):
    jobs = make(a="", b="", c="no sound")
    write_sound(jobs[0].audio, speech(7))
    write_sound(jobs[1].audio, speech(1))
    assert declared_seconds(jobs[0].audio) == pytest.approx(7, abs=0.02)
    assert declared_seconds(jobs[2].audio) is None
    assert declared_seconds(tmp_path / "none.wav") is None
    assert most_workers(jobs, None) == 3
    assert most_workers(jobs, 2.0) == 4 + 1 + 1


def test_what_is_no_length_is_one_sentence():
    assert parse_split(None) is None
    assert parse_split("off") is None
    assert parse_split("600") == 600
    for text in ("29", "x", "-5", "1e9"):
        with pytest.raises(InputError, match="--split-over"):
            parse_split(text)


SAID = [(1.4, 0.4), (0.9, 0), (1.2, 0.3), (0.8, 0), (0.5, 0.2)]


@pytest.fixture
def sound(tmp_path):
    """Speech with two silences, 4.8 s."""
    pieces = [level * speech(seconds, 16_000, number) for number, (seconds, level) in enumerate(SAID)]
    return write_sound(tmp_path / "said.wav", *pieces)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30_000, 1001)])
def test_a_sound_is_cut_in_silence_where_that_is_near(sound, fps):
    job = JobConfig(fps=fps)
    cuts = find_cuts(sound, job, 2.5, 9)
    assert (cuts[0], cuts[-1], len(cuts)) == (0, int(4.8 * fps), 3)
    assert 1.4 + 0.3 <= cuts[1] / fps <= 2.3
    assert len(find_cuts(sound, job, 2.0, 9)) == 4, "also where none is near"
    whole = find_cuts(sound, job, 4.9, 9)
    assert whole == [0, cuts[-1]]
    assert find_cuts(sound, job, 2.0, 1) == whole
    assert find_cuts(sound, replace(job, fps=Fraction(25_000_001, 1_000_000)), 2.0, 9)[1:] == [120], "inexact"


def test_parts_have_equal_work_where_nothing_is_silent(tmp_path):
    path = write_sound(tmp_path / "always.wav", speech(8))
    cuts = np.diff(find_cuts(path, JobConfig(silence=None), 1.0, 3))
    assert cuts.tolist() == [67, 67, 66]


@pytest.mark.slow
@pytest.mark.parametrize("silence", [SilenceLevel(), pytest.param(None, marks=pytest.mark.slow)])
def test_a_shared_sound_gives_the_same_frames_time_stamps_and_sound(
    make, sound, tmp_path, monkeypatch, silence
):
    (job,) = make(a="")
    job = replace(job, audio=sound, job=replace(job.job, silence=silence, fps=Fraction(30_000, 1001)))
    whole = tmp_path / "whole.mp4"
    expected, _, _ = shown(monkeypatch, lambda: generate(job.run, job.job, job.avatar, job.audio, whole))
    ours, parts, report = shown(
        monkeypatch, lambda: run_batch([job], HereTwice, tmp_path / "r.jsonl", split_over=2.5)
    )
    assert (report.done, report.frames, parts) == (1, len(expected), 2)
    assert [frame.request.index for frame in ours] == list(range(len(expected)))
    assert all(np.array_equal(one.image, other.image) for one, other in zip(ours, expected, strict=True))
    one, other = read_back(job.output), read_back(whole)
    assert np.array_equal(one.times, other.times)
    assert np.array_equal(one.sound, other.sound)
    assert not list(tmp_path.glob(".musetalk-*"))
    assert lines(tmp_path)[0]["figures"]["parts"] == 2


@pytest.mark.slow
def test_a_real_worker_that_is_killed_with_a_part_is_replaced(make, tmp_path, started):
    (job,) = make(a="")
    write_sound(job.audio, speech(8))
    pools, killed = [], []

    def kill(standing):
        if 0 < standing.work < standing.total / 3 and not killed:
            place, pid = max(pools[0].pids.items())
            killed.append(place)
            os.kill(pid, signal.SIGKILL)

    def pool():
        pools.append(LocalPool([Seat(None, 1)] * 2))
        return pools[0]

    report = run_batch([job], pool, tmp_path / "r.jsonl", retry=AT_ONCE, split_over=4.0, progress=kill)
    assert killed
    assert (report.done, report.failed, report.retried) == (1, 0, 1)
    (line,) = lines(tmp_path)
    assert (line["tries"], line["figures"]["parts"]) == (2, 2)
    assert len(read_back(job.output).times) == 200
    assert not list(tmp_path.glob(".musetalk-*"))
    assert not started()


def test_the_command_refuses_what_is_no_length_before_it_reads_the_manifest(musetalk, tmp_path):
    code, out, err = musetalk("batch", tmp_path / "none.csv", "--split-over", "5")
    assert (code, out) == (1, "")
    assert "--split-over 5 is outside 30..86400 s." in err
