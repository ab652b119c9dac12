"""A batch with processes: each job ends exactly once, whatever happens to a worker or to the driver.

The workers stand in for the real ones and take no networks, but in the tests at the end.
"""

import errno
import fcntl
import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from batches import jobs_of, stand_ins
from batches_here import run_batches_here
from lives import LIMIT_S, read_back, speech, write_sound

import musetalk_cli
from musetalk_cli.config import DataFolder
from musetalk_cli.errors import OutputError
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.nets.files import RANDOM
from musetalk_cli.run.batch import fingerprint
from musetalk_cli.run.batch.dispatch import MAX_LOSSES, Retry
from musetalk_cli.run.batch.fingerprint import Fingerprints
from musetalk_cli.run.batch.local import LocalPool, Seat
from musetalk_cli.run.batch.pool import Ended, Lost, Prepares
from musetalk_cli.run.batch.results import Results, is_finished, read_results
from musetalk_cli.run.batch.resume import plan
from musetalk_cli.run.batch.run import run_batch
from musetalk_cli.run.batch.watchdog import Watchdog

AT_ONCE = Retry(tries=2, first_s=0)

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture
def make(models, avatars_dir, tmp_path):
    """Makes jobs of sounds by name."""
    return lambda **sounds: jobs_of(models, avatars_dir, tmp_path, sounds)


@pytest.fixture
def run(tmp_path, started):
    """Runs jobs on stand-ins; gives the report. No process is left."""

    def call(jobs, workers=2, results=None, **options):
        report = run_batch(
            jobs, lambda: stand_ins(workers), results or tmp_path / "r.jsonl", retry=AT_ONCE, **options
        )
        assert not started()
        return report

    return call


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_gone(pid):
    """True where a process has ended; who takes its exit code may come later."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "XZ"


def begun(job):
    """The processes that began a job."""
    return job.audio.with_suffix(".begun").read_text().split()


def test_every_job_gets_one_line_and_its_video(make, run, tmp_path):
    jobs = make(**{f"s{n}": f"sound {n}" for n in range(7)})
    report = run(jobs)
    assert (report.done, report.failed, report.left, report.workers) == (7, 0, 0, 2)
    assert report.sound_s == pytest.approx(7 * 0.16)
    found = lines(tmp_path / "r.jsonl")
    assert sorted(line["output"] for line in found) == sorted(str(job.output) for job in jobs)
    for line in found:
        content = Path(line["output"]).read_bytes()
        assert content == Path(line["audio"]).read_bytes()
        assert line["output_sha256"] == line["inputs"]["audio"] == hashlib.sha256(content).hexdigest()
        assert (line["state"], line["tries"], line["settings"]["fps"]) == ("done", 1, "25")
    assert len({line["key"] for line in found}) == 7


@pytest.mark.parametrize("content", ["die once", "lose"])
def test_a_job_whose_worker_is_lost_is_done_by_another(make, run, tmp_path, content, caplog):
    jobs = make(a="fine", b=content, c="fine too", d="and this")
    report = run(jobs)
    assert (report.done, report.failed, report.retried) == (4, 0, 1)
    assert len(set(begun(jobs[1]))) == 2
    tries = {line["output"]: line["tries"] for line in lines(tmp_path / "r.jsonl")}
    assert tries == {str(job.output): 1 + (job is jobs[1]) for job in jobs}
    why = {"die once": "was ended by SIGKILL", "lose": "could not go on: No memory."}
    assert why[content] in caplog.text


def test_programs_of_a_worker_that_is_killed_end_with_it(make, run):
    jobs = make(a="leave a program")
    assert run(jobs).done == 1
    assert is_gone(int(jobs[0].audio.with_suffix(".left").read_text()))


@pytest.mark.parametrize(("content", "why"), [("die", "SIGKILL"), ("end", "no such module")])
def test_a_job_that_ends_every_worker_fails_alone(make, run, content, why):
    jobs = make(a="fine", b=content, c="fine too")
    report = run(jobs)
    assert (report.done, report.failed, report.left) == (2, 1, 0)
    (failure,) = report.failures
    assert failure["output"] == str(jobs[1].output)
    assert "2 workers were lost with it" in failure["error"]
    assert why in failure["error"]
    assert len(begun(jobs[1])) == 2


def test_a_worker_that_hangs_is_ended_and_its_job_begun_anew(make, run, caplog):
    """One that hangs each time fails its job, with the reason."""
    jobs = make(a="fine", b="hang once", c="hang")
    report = run(jobs, watchdog=Watchdog(0.5))
    assert (report.done, report.failed, report.left, report.retried) == (2, 1, 0, 2)
    assert [len(begun(job)) for job in jobs] == [1, 2, 2]
    (failure,) = report.failures
    assert "the last one hung: nothing came from it for 0.5 s." in failure["error"]
    assert "its worker hung: nothing came from it for 0.5 s. It is tried again." in caplog.text


def test_what_a_worker_says_after_its_end_counts_no_more(make):
    """It may have ended its job at the last moment: the job is lost nevertheless, and told once."""
    pool = stand_ins(1)
    job = make(a="fine")[0].to_json()
    pool.begin(0, job)
    assert pool.wait(LIMIT_S)
    pool.end(0, "hung.")
    assert pool.wait(LIMIT_S) == [Lost(0, "hung.")]
    assert pool.pids == {}
    pool.begin(0, job)
    events = []
    while not any(isinstance(event, Ended) for event in events):
        events += pool.wait(LIMIT_S)
    assert not any(isinstance(event, Lost) for event in events)
    pool.close()


def test_what_others_say_while_a_worker_is_ended_is_heard_at_once(make, monkeypatch):
    """Ending one that the system cannot end takes long, and nobody is to be taken for hanging for it."""
    said, wait = threading.Event(), subprocess.Popen.wait

    class Noted(queue.Queue):
        def put(self, item, **options):
            super().put(item, **options)
            if isinstance(item[1], Ended):
                said.set()

    def slowly(process, timeout=None):
        assert said.wait(LIMIT_S)
        return wait(process, timeout)

    monkeypatch.setattr(queue, "Queue", Noted)
    monkeypatch.setattr(subprocess.Popen, "wait", slowly)
    with closing(stand_ins(2)) as pool:
        hangs, works = make(a="hang", b="fine")
        pool.begin(0, hangs.to_json())
        assert pool.wait(LIMIT_S)
        pool.end(0, "hung.")
        pool.begin(1, works.to_json())
        events = pool.wait(LIMIT_S)
    assert events[0] == Lost(0, "hung.")
    assert isinstance(events[-1], Ended)


def test_a_face_that_is_prepared_is_told(make):
    pool = stand_ins(1)
    pool.begin(0, make(a="prepare")[0].to_json())
    events = []
    while not any(isinstance(event, Ended) for event in events):
        events += pool.wait(LIMIT_S)
    assert Prepares(0) in events
    pool.close()


def test_a_fault_of_the_input_is_not_tried_again(make, run, tmp_path):
    jobs = make(a="fail", b="fine")
    report = run(jobs)
    assert (report.done, report.failed, report.retried) == (1, 1, 0)
    assert report.failures[0]["error"] == "The sound is bad."
    assert len(begun(jobs[0])) == 1
    states = {line["state"]: line for line in lines(tmp_path / "r.jsonl")}
    assert states["failed"]["hint"] == "Record it again."


def test_a_sound_that_goes_away_fails_its_job_alone(make, run):
    jobs = make(a="fine", b="gone")
    jobs[1].audio.unlink()
    report = run(jobs)
    assert (report.done, report.failed) == (1, 1)
    assert "cannot be read" in report.failures[0]["error"]


def test_workers_that_never_live_end_the_batch(make, run):
    jobs = make(**{f"s{n}": "die" for n in range(9)})
    report = run(jobs, workers=1)
    assert report.left == 9 - report.failed > 0
    assert sum(len(begun(job)) for job in jobs if job.audio.with_suffix(".begun").exists()) == MAX_LOSSES


def test_a_worker_that_the_system_does_not_start_is_lost(make, tmp_path, caplog):
    """For want of memory or of processes, say; what others make is kept."""
    jobs = make(a="fine")
    pool = lambda: LocalPool([Seat(None, 1)], [str(tmp_path / "no program")])  # noqa: E731
    report = run_batch(jobs, pool, tmp_path / "r.jsonl", retry=AT_ONCE)
    assert (report.failed, report.retried) == (1, 1)
    assert "the last one could not be started: No such file or directory." in report.failures[0]["error"]
    assert "its worker could not be started: No such file or directory. It is tried again." in caplog.text


def test_what_a_worker_says_is_told_once_and_noise_is_passed_over(make, run, caplog):
    report = run(make(a="chat", b="chat", c="chat"))
    assert report.done == 3
    assert caplog.text.count("The cascade is rough.") == 1


def test_what_is_finished_is_skipped_and_the_rest_done(make, run, tmp_path):
    """A video that was changed, removed, or is of another sound is made again, and so is a failed one."""
    results = tmp_path / "r.jsonl"
    jobs = make(same="one", changed="two", gone="three", damaged="four", bad="fail")
    run(jobs)
    assert plan(jobs, results, resume=False) == jobs
    assert plan(jobs, results, resume=True) == [jobs[4]]
    jobs[1].audio.write_text("another sound")
    jobs[2].output.unlink()
    jobs[3].output.write_text("five")
    assert plan(jobs, results, resume=True) == jobs[1:]
    report = run(plan(jobs, results, resume=True), skipped=1)
    assert (report.jobs, report.done, report.failed, report.skipped) == (5, 3, 1, 1)
    assert len(begun(jobs[0])) == 1
    assert plan(jobs, results, resume=True) == [jobs[4]]


def test_other_settings_make_a_finished_job_open_again(make, run, tmp_path):
    jobs = make(a="one")
    run(jobs)
    other = replace(jobs[0], job=replace(jobs[0].job, sharpen=None))
    assert plan([other], tmp_path / "r.jsonl", resume=True) == [other]


def test_the_first_interrupt_lets_what_is_begun_be_finished(make, run, tmp_path):
    handle = ControlHandle()
    jobs = make(**{f"s{n}": "fine" for n in range(6)})

    def stop(standing):
        if standing.ended == 1:
            handle.stop.set()

    report = run(jobs, handle=handle, progress=stop)
    assert report.interrupted
    assert report.done == len(lines(tmp_path / "r.jsonl"))
    assert 1 <= report.done <= 3
    assert report.left == 6 - report.done


def test_the_second_interrupt_ends_what_is_begun_and_leaves_nothing(make, tmp_path, started):
    jobs = make(a="wait", b="wait")

    def interrupt(standing):
        if standing.work:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(jobs, lambda: stand_ins(2), tmp_path / "r.jsonl", progress=interrupt)
    assert not started()
    assert lines(tmp_path / "r.jsonl") == []
    assert not list(tmp_path.glob("*.mp4"))


def test_a_signal_for_the_terminals_programs_reaches_no_worker(make):
    """Each has a session of its own; the driver says what is to be done about Ctrl-C."""
    pool = stand_ins(1)
    pool.begin(0, make(a="wait")[0].to_json())
    assert pool.wait(LIMIT_S)
    assert os.getsid(pool.pids[0]) != os.getsid(0)
    pool.close()


DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from batches import jobs_of, stand_ins
from musetalk_cli.run.batch.run import run_batch
models, avatars, folder = map(Path, sys.argv[3:])
def tell(standing):
    if standing.ended == 2 and standing.work > standing.ended:
        print("now", flush=True)
jobs = jobs_of(models, avatars, folder, {"a": "x", "b": "y", "c": "wait", "d": "z"})
run_batch(jobs, lambda: stand_ins(1), folder / "r.jsonl", progress=tell)
"""


def test_a_batch_whose_driver_was_killed_goes_on(make, run, models, avatars_dir, tmp_path):
    """The worker ends by itself, and what it was at is begun anew."""
    here = Path(__file__).parent
    given = [here, Path(musetalk_cli.__file__).parents[1], models, avatars_dir, tmp_path]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *map(str, given)], stdout=subprocess.PIPE)
    guard = threading.Timer(LIMIT_S, driver.kill)
    guard.start()
    assert driver.stdout.readline() == b"now\n"
    driver.kill()
    driver.wait()
    guard.cancel()
    guard.join()
    driver.stdout.close()
    jobs = make(a="x", b="y", c="wait", d="z")
    with (tmp_path / "r.jsonl").open("ab") as torn:
        torn.write(b'{"output":"' + str(jobs[2].output).encode())
    todo = plan(jobs, tmp_path / "r.jsonl", resume=True)
    assert todo == jobs[2:]
    assert run(todo, skipped=2).done == 2
    assert sorted(line["output"] for line in lines(tmp_path / "r.jsonl")) == [str(job.output) for job in jobs]
    assert [len(begun(job)) for job in jobs] == [1, 1, 2, 1]


def test_two_batches_do_not_write_the_same_results(tmp_path):
    with Results(tmp_path / "r.jsonl"), pytest.raises(OutputError, match="another batch"):
        Results(tmp_path / "r.jsonl")
    with pytest.raises(OutputError, match="cannot be written"):
        Results(tmp_path / "nowhere" / "r.jsonl")


def test_results_are_written_where_there_are_no_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Results(tmp_path / "r.jsonl") as results:
        results.append({"output": "/a.mp4"})
    assert list(read_results(tmp_path / "r.jsonl")) == ["/a.mp4"]


def test_a_torn_line_is_removed_and_a_strange_one_passed_over(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"output": "/a.mp4", "state": "done"}\nnonsense\n[1]\n{"output": "/b.mp4", "sta')
    with Results(path) as results:
        results.append({"output": "/c.mp4", "state": "failed", "rate": float("nan")})
    assert path.read_text().endswith('[1]\n{"output":"/c.mp4","state":"failed","rate":null}\n')
    assert list(read_results(path)) == ["/a.mp4", "/c.mp4"]
    assert read_results(tmp_path / "none.jsonl") == {}
    assert not is_finished(None, "key")


@pytest.mark.parametrize("content", [b"avatar,audio\ndemo,a.wav", b"RIFF" + bytes(5000), b"{}\n{}", b"\n"])
def test_a_file_that_holds_no_results_is_never_written(tmp_path, content):
    """A manifest or a sound that was named by mistake stays as it is."""
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="holds no results of a batch"):
        Results(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("left", range(11))
def test_a_first_line_that_is_torn_is_begun_anew(tmp_path, left):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"output":"/a'[:left])
    with Results(path) as results:
        results.append({"output": "/c.mp4"})
    assert path.read_text() == '{"output":"/c.mp4"}\n'


def test_the_results_are_no_output(make, run, tmp_path):
    jobs = make(a="one")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="is an output of a job too"):
        run(jobs, results=tmp_path / "link" / "a.mp4")
    assert not jobs[0].output.exists()


def test_what_a_source_becomes_is_told_for_each_model(make, tmp_path):
    """Whichever of the jobs is looked at first: by its key a job is known again."""
    (tmp_path / "face.png").write_bytes(b"picture")
    one = replace(make(a="one")[0], source=tmp_path / "face.png")
    other = replace(one, run=replace(one.run, model=RANDOM))
    prints = Fingerprints()
    assert prints.inputs(other) == Fingerprints().inputs(other)
    assert prints.inputs(one) == Fingerprints().inputs(one)


def test_a_sound_is_read_again_only_where_its_dates_may_be_others(make, monkeypatch):
    job, read = make(a="one")[0], []
    real = fingerprint.digest_of
    monkeypatch.setattr(fingerprint, "digest_of", lambda files: (read.extend(files), real(files))[1])
    prints = Fingerprints()
    prints.inputs(job)
    prints.inputs(job)
    assert read.count(job.audio) == 2  # it was written just now
    monkeypatch.setattr(fingerprint, "SETTLED_S", -1e6)
    first = prints.inputs(job)
    assert prints.inputs(job) == first == Fingerprints().inputs(job)
    assert read.count(job.audio) == 4
    dates = job.audio.stat()
    job.audio.write_text("two")
    os.utime(job.audio, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert prints.inputs(job)["audio"] == hashlib.sha256(b"two").hexdigest()


def test_pictures_of_an_avatar_behind_a_link_count(make, avatars_dir, tmp_path):
    home = tmp_path / "avatars" / "synthetic"
    shutil.copytree(avatars_dir / "synthetic", home)
    (home / "full_imgs").rename(tmp_path / "elsewhere")
    (home / "full_imgs").symlink_to(tmp_path / "elsewhere")
    one = make(a="one")[0]
    one = replace(one, run=replace(one.run, avatars=DataFolder(tmp_path / "avatars", "flag")))
    before = Fingerprints().inputs(one)
    next((tmp_path / "elsewhere").iterdir()).write_bytes(b"another picture")
    assert Fingerprints().inputs(one)["avatar"] != before["avatar"]


@pytest.fixture
def arguments(models, avatars_dir, tmp_path):
    """Arguments of a batch on tiny networks: a second of sound, and a file that is none."""
    write_sound(tmp_path / "a.wav", speech(1))
    write_sound(tmp_path / "b.wav", speech(0.4))
    (tmp_path / "c.wav").write_text("no sound")
    (tmp_path / "list.csv").write_text("avatar,audio\nsynthetic,[ab].wav\nsynthetic,c.wav\n")
    given = ["batch", tmp_path / "list.csv", "--output-dir", tmp_path / "out", "--device", "cpu"]
    return [*given, "--model", models, "--avatars-dir", avatars_dir, "--sharpen", "off"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["here", pytest.param("processes", marks=pytest.mark.slow)])
def test_the_command_makes_what_it_can_and_says_what_it_cannot(
    musetalk, arguments, tmp_path, monkeypatch, workers
):
    """The real work: two videos, and one sentence about the sound that is none."""
    if workers == "here":
        run_batches_here(monkeypatch)
    code, out, err = musetalk(*arguments, "--json", "--workers", "1")
    assert code == 3, err
    told = json.loads(out)
    assert (told["done"], told["failed"], told["skipped"]) == (2, 1, 0)
    assert "c.wav" in told["failures"][0]["error"]
    assert len(read_back(tmp_path / "out" / "a.mp4").times) == 25
    assert len(read_back(tmp_path / "out" / "b.mp4").times) == 10
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.mp4",
        "b.mp4",
        "list.results.jsonl",
    ]
    code, out, _ = musetalk(*arguments, "--resume", "--dry-run", "--json")
    assert [row["action"] for row in json.loads(out)] == ["skip", "skip", "make"]


def test_an_interrupted_command_ends_with_130_and_its_results(musetalk, arguments, tmp_path, monkeypatch):
    signals = []

    @contextmanager
    def interrupting():
        def advance(standing):
            if standing.ended and not signals:
                signals.append(os.kill(os.getpid(), signal.SIGINT))

        yield advance

    monkeypatch.setattr("musetalk_cli.cli.batch.batch_progress", interrupting)
    monkeypatch.setattr("musetalk_cli.run.batch.pools.pool_maker", lambda *_: lambda: stand_ins(1))
    code, out, err = musetalk(*arguments)
    assert code == 130, err
    assert "made 1, failed 0, finished before 0, left 2;" in out
    assert len(lines(tmp_path / "out" / "list.results.jsonl")) == 1
    assert "Stopping" not in err, "nobody was at work"


@pytest.mark.slow
def test_a_real_worker_that_is_killed_in_the_middle_is_replaced(models, avatars_dir, tmp_path, started):
    jobs = jobs_of(models, avatars_dir, tmp_path, dict.fromkeys("abcd", ""))
    for job in jobs:
        write_sound(job.audio, speech(2))
    pools, killed = [], []

    def kill(standing):
        if standing.work and not killed:
            place, pid = next(iter(pools[0].pids.items()))
            killed.append(place)
            os.kill(pid, signal.SIGKILL)

    def pool():
        pools.append(LocalPool([Seat(None, 1)] * 2))
        return pools[0]

    report = run_batch(jobs, pool, tmp_path / "r.jsonl", retry=AT_ONCE, progress=kill)
    assert (report.done, report.failed) == (4, 0)
    assert killed
    assert sorted(line["output"] for line in lines(tmp_path / "r.jsonl")) == [str(job.output) for job in jobs]
    for job in jobs:
        assert len(read_back(job.output).times) == 50
    assert not list(tmp_path.glob(".musetalk-*"))
    assert not started()


def test_the_command_lists_what_it_would_do(musetalk, arguments, tmp_path):
    code, out, _ = musetalk(*arguments, "--dry-run")
    assert code == 0
    assert out.count("make") == 3
    assert not (tmp_path / "out").exists()


def test_the_manifest_is_no_place_for_the_results(musetalk, arguments, tmp_path):
    """As JSON lines it may begin like them."""
    arguments[1] = manifest = tmp_path / "list.jsonl"
    manifest.write_text('{"output":"a.mp4","avatar":"synthetic","audio":"a.wav"}\n')
    code, _, err = musetalk(*arguments, "--results", manifest, "--dry-run")
    assert code == 1
    assert "is the manifest itself" in err


def test_the_command_names_every_bad_line(musetalk, arguments, tmp_path):
    bad = "".join(f"nobody{number},a.wav\n" for number in range(25))
    (tmp_path / "list.csv").write_text(f"avatar,audio\n{bad}")
    code, out, err = musetalk(*arguments)
    assert (code, out) == (1, "")
    assert err.count("There is no avatar") == 20
    assert "... and 5 more." in err
    assert err.splitlines()[-2].endswith("list.csv has 25 lines that cannot be used, and nothing was done.")
