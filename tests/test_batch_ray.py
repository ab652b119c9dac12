"""A batch on a real Ray cluster of two workers on this machine, one of which, or the driver, is killed."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from lives import read_back
from ray_driver import NAMES, SECONDS, the_jobs
from servers import free_port

import musetalk_cli
from musetalk_cli.errors import InputError
from musetalk_cli.run.batch.resume import plan

HERE = Path(__file__)
LIMIT_S = 240

OWN = {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
"""What all processes of a cluster find: Ray starts none of its own without a token that they share."""

slow = pytest.mark.slow


@contextmanager
def started(*arguments):
    """A process of `ray_driver`, which is ended however the test ends."""
    paths = [str(HERE.parent), str(Path(musetalk_cli.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **OWN}
    command = [sys.executable, str(HERE.with_name("ray_driver.py")), *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        guard = threading.Timer(LIMIT_S, process.kill)
        guard.start()
        try:
            yield process
            process.stdin.close()
            process.wait(LIMIT_S)
        finally:
            process.kill()
            guard.cancel()
            guard.join()


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster with two cores."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    with started("cluster", 2) as process:
        yield process.stdout.readline().strip()


@pytest.fixture
def arguments(cluster, models, avatars_dir, tmp_path):
    return ["batch", cluster, models, avatars_dir, tmp_path]


def assert_each_once(folder, first_tries=None):
    """Every job has one line, and its video is whole."""
    found = [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]
    assert sorted(Path(line["output"]).stem for line in found) == list(NAMES)
    assert {line["state"] for line in found} == {"done"}
    for line in found:
        assert len(read_back(Path(line["output"])).times) == 25 * SECONDS
        assert Path(line["output"]).stat().st_size == line["output_bytes"]
    return found


@slow
def test_an_actor_that_is_killed_in_the_middle_comes_again_and_every_job_ends_once(arguments, tmp_path):
    with started(*arguments, "kill") as driver:
        report = json.loads(driver.stdout.readline())
    assert (report["done"], report["failed"], report["left"], report["workers"]) == (6, 0, 0, 2)
    assert report["retried"] >= 1
    found = assert_each_once(tmp_path)
    assert sum(line["tries"] - 1 for line in found) == report["retried"]


@slow
def test_an_actor_that_hangs_is_ended_and_every_job_ends_once(arguments, tmp_path):
    """Progress is told while jobs are done, not only as they end."""
    with started(*arguments, "stop") as driver:
        report = json.loads(driver.stdout.readline())
    assert (report["done"], report["failed"], report["left"]) == (6, 0, 0)
    assert report["retried"] == 1
    assert report["works"] > 7
    assert_each_once(tmp_path)


@slow
def test_actors_share_a_long_sound(arguments, tmp_path):
    with started(*arguments, "split") as driver:
        report = json.loads(driver.stdout.readline())
    assert (report["done"], report["failed"], report["workers"]) == (1, 0, 2)
    (line,) = [json.loads(text) for text in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert line["figures"]["parts"] == 2
    assert len(read_back(Path(line["output"])).times) == 25 * SECONDS
    assert not list(tmp_path.glob(".musetalk-*"))


@slow
def test_a_batch_whose_driver_was_killed_goes_on_and_every_job_ends_once(
    arguments, models, avatars_dir, tmp_path
):
    with started(*arguments, "tell") as driver:
        assert driver.stdout.readline() == "now\n"
        driver.kill()
    todo = plan(the_jobs(models, avatars_dir, tmp_path), tmp_path / "r.jsonl", resume=True)
    assert 1 <= len(todo) <= 4
    with started(*arguments, "nothing") as driver:
        report = json.loads(driver.stdout.readline())
    assert (report["done"], report["skipped"], report["failed"]) == (len(todo), 6 - len(todo), 0)
    assert_each_once(tmp_path)


def refused(error, cause):
    """What Ray raises where it cannot connect, with what led to it."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "hint"),
    [
        (OSError("nobody is there"), "Start one with: ray start --head"),
        (RuntimeError("ray.exceptions.AuthenticationError: the token is missing"), "RAY_AUTH_TOKEN"),
    ],
)
def test_a_cluster_that_takes_nobody_is_one_sentence(monkeypatch, cause, hint):
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    from musetalk_cli.run.batch.cluster import connect

    def init(**_):
        raise refused(ConnectionError("Failed to connect."), cause)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match="--ray auto leads to no cluster: Failed to connect") as error:
        connect("auto")
    assert hint in error.value.hint


def test_an_address_where_nobody_listens_is_one_sentence(musetalk, avatars_dir, models, tmp_path):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    the_jobs(models, avatars_dir, tmp_path)
    (tmp_path / "list.csv").write_text("avatar,audio,output\nsynthetic,a.wav,a.mp4\n")
    given = ["--model", models, "--avatars-dir", avatars_dir, "--device", "cpu"]
    nowhere = f"127.0.0.1:{free_port(socket.SOCK_STREAM)}"
    code, out, err = musetalk("batch", tmp_path / "list.csv", *given, "--ray", nowhere)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: --ray {nowhere} leads to no cluster: ")


@pytest.mark.parametrize("address", ["x", "a:b:c", "ray://host:1", "host:123456"])
def test_what_is_no_address_is_one_sentence(musetalk, avatars_dir, models, tmp_path, address):
    the_jobs(models, avatars_dir, tmp_path)
    (tmp_path / "list.csv").write_text("avatar,audio,output\nsynthetic,a.wav,a.mp4\n")
    given = ["--model", models, "--avatars-dir", avatars_dir, "--device", "cpu"]
    code, out, err = musetalk("batch", tmp_path / "list.csv", *given, "--ray", address)
    assert (code, out) == (1, "")
    assert "is no address of a cluster" in err


def test_without_ray_it_is_said_what_to_install(musetalk, avatars_dir, models, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "musetalk_cli.run.batch.cluster", raising=False)
    the_jobs(models, avatars_dir, tmp_path)
    (tmp_path / "list.csv").write_text("avatar,audio,output\nsynthetic,a.wav,a.mp4\n")
    given = ["--model", models, "--avatars-dir", avatars_dir, "--device", "cpu"]
    code, _, err = musetalk("batch", tmp_path / "list.csv", *given, "--ray", "auto")
    assert (code, err.splitlines()[:2]) == (
        1,
        ["error: Ray is not installed.", "hint:  pip install 'musetalk-cli[cluster]'"],
    )
