"""A video and a sound into a video: prepared once, found again, played forward in its own time."""

import fcntl
import json
import os
import shutil
import threading
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from batches_here import HereTwice, run_batches_here
from batches_here import shown as shown_frames
from face_graphs import with_dwpose
from films import film
from lives import LIMIT_S, read_back, speech, write_sound

from musetalk_cli.avatar.store import list_avatars, load_meta
from musetalk_cli.config import DataFolder, JobConfig, RunConfig, cache_folder
from musetalk_cli.errors import InputError
from musetalk_cli.run import dub as dubbing
from musetalk_cli.run.batch import work
from musetalk_cli.run.batch.job import BatchJob
from musetalk_cli.run.batch.run import run_batch
from musetalk_cli.run.batch.work import do_job
from musetalk_cli.run.kept import Kept

SIZE, FRAMES, FPS = (320, 240), 6, 10
FACE = (90, 255, 90)


def disc_frame(number):
    """A green disc, which the tests' DWPose takes for a face, on noise of its own."""
    frame = np.random.default_rng(number).integers(0, 30, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    return cv2.circle(frame, (150, 110), 40, FACE, -1)


@pytest.fixture(scope="module")
def models(models, tmp_path_factory):
    """The tiny networks, with a DWPose that takes a green disc for a face."""
    return with_dwpose(models, tmp_path_factory.mktemp("with-dwpose"), FACE)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """The user's cache is a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def clip(tmp_path):
    return film(tmp_path / "clip.avi", map(disc_frame, range(FRAMES)), FPS)


@pytest.fixture
def prepared(models, clip):
    """The name in the cache of the clip, prepared as a command does."""
    return name_of(RunConfig(DataFolder(models, "flag"), model=str(models), device="cpu"), clip)


@pytest.fixture
def generate(musetalk, models, clip, tmp_path):
    """Runs `generate --source`; gives code, report and stderr."""

    def call(seconds, *more, source=clip):
        sound = write_sound(tmp_path / "speech.wav", speech(seconds))
        arguments = ["--source", source, "--audio", sound, "--model", models, "--models-dir", models]
        arguments += ["--sharpen", "off", "--device", "cpu", "--json", *more]
        code, out, err = musetalk("generate", *arguments)
        return code, json.loads(out) if out else None, err

    return call


def name_of(run, source):
    """What a source is called in the cache, prepared where it is not there."""
    with dubbing.prepared(run, source) as (_, name):
        return name


def shown(folder):
    """Which frame of the clip each picture is, told by its noise outside the face."""
    clip = [disc_frame(number)[:40].astype(int) for number in range(FRAMES)]
    pictures = [cv2.imread(str(path))[:40] for path in sorted(folder.iterdir())]
    return [int(np.argmin([np.abs(picture - frame).mean() for frame in clip])) for picture in pictures]


def test_the_clip_plays_forward_and_back_where_the_sound_is_longer(generate, clip, tmp_path):
    code, report, err = generate(0.9, "--frames-dir", tmp_path / "out")
    assert code == 0, err
    assert shown(tmp_path / "out") == [0, 1, 2, 3, 4, 5, 5, 4, 3]
    assert (report["fps"], report["frames"], report["idle_frames"]) == (FPS, 9, 0)
    assert report["settings"]["silence"] == "off"


@pytest.mark.slow
def test_the_clip_keeps_its_time_at_another_rate_and_in_silence(generate, prepared, tmp_path, cache):
    """Also where the mouth is closed in some frames, on which an avatar rests."""
    name = prepared
    description = json.loads((cache / name / "avatar.json").read_text())
    (cache / name / "avatar.json").write_text(json.dumps(description | {"rest_frames": [0, 1, 2, 3]}))
    write = ["--frames-dir", tmp_path / "out", "--fps", "20", "--silence", "-45dB"]
    sound = write_sound(tmp_path / "silence.wav", np.zeros(16_000 * 6 // 10))
    code, report, err = generate(0.6, *write, "--audio", sound)
    assert code == 0, err
    assert shown(tmp_path / "out") == [number // 2 for number in range(12)]
    assert report["idle_frames"] == 12


def test_what_is_prepared_is_found_again_by_its_content(models, clip, cache, tmp_path, monkeypatch):
    prepared = []
    real = dubbing.prepare
    monkeypatch.setattr(dubbing, "prepare", lambda *a, **k: (prepared.append(a[1].path), real(*a, **k)))
    run = RunConfig(DataFolder(models, "flag"), model=str(models), device="cpu")
    copy = tmp_path / "the same.avi"
    shutil.copy(clip, copy)
    other = film(tmp_path / "other.avi", map(disc_frame, range(1, 4)), FPS)
    names = [name_of(run, source) for source in (clip, copy, other, clip)]
    assert prepared == [clip, other]
    assert names[0] == names[1] == names[3] != names[2]
    assert {load_meta(cache, name).frames for name in list_avatars(cache)} == {FRAMES, 3}
    assert {load_meta(cache, name).fps for name in list_avatars(cache)} == {Fraction(FPS)}


@pytest.mark.parametrize("hint", ["Pass --landmarks FILE.", "Show one from the front.", None])
def test_options_that_are_none_of_this_command_are_told_with_the_one_that_has_them(
    models, clip, cache, monkeypatch, hint
):
    def fail(*_, **__):
        raise InputError("No face.", hint)

    monkeypatch.setattr(dubbing, "prepare", fail)
    with pytest.raises(InputError, match="No face") as refused:
        name_of(RunConfig(DataFolder(models, "flag"), model=str(models), device="cpu"), clip)
    told = refused.value.hint or ""
    assert ("`musetalk prepare-avatar` has these options" in told) == ("--" in told)
    assert told.startswith(hint or "")


def test_a_cache_that_is_not_there_holds_nothing(musetalk):
    assert musetalk("avatars", "list", "--cache")[:2] == (0, "")
    assert musetalk("avatars", "remove", "--cache", "--json")[:2] == (
        0,
        '{\n  "removed": [],\n  "in_use": []\n}\n',
    )


def test_the_cache_is_listed_and_cleared(prepared, musetalk, cache):
    code, out, _ = musetalk("avatars", "list", "--cache", "--json")
    (entry,) = json.loads(out)
    assert (code, entry["source"], entry["frames"], entry["fps"]) == (0, "clip.avi", FRAMES, FPS)
    assert entry["bytes"] > SIZE[0] * SIZE[1]
    assert "clip.avi" in musetalk("avatars", "list", "--cache")[1]
    (cache / f".{'0' * 32}.partial").mkdir()
    code, out, err = musetalk("avatars", "remove", "--cache", "nobody")
    assert (code, out) == (1, "")
    assert "nobody" in err
    code, out, _ = musetalk("avatars", "remove", "--cache", "--json")
    assert (code, json.loads(out)["removed"]) == (0, sorted(["0" * 32, entry["name"]]))
    assert not list(cache.iterdir())
    code, _, err = musetalk("avatars", "remove")
    assert code == 2
    assert "NAME is missing" in err


@pytest.mark.slow
def test_after_a_preparation_the_cache_is_within_its_limit(generate, cache, tmp_path, monkeypatch):
    """What was prepared for this very run stays, however small the limit is."""
    monkeypatch.setenv("MUSETALK_CACHE", "1M")
    old = cache / ("0" * 32)
    old.mkdir(parents=True)
    (old / "avatar.json").write_text("{}")
    (old / "frames").write_bytes(bytes(2 << 20))
    code, _, err = generate(0.2, "--frames-dir", tmp_path / "out")
    assert code == 0, err
    assert len(list_avatars(cache)) == 1
    assert not old.exists()
    assert f"as the longest unused: {'0' * 32} (2 MiB). It may hold 1 MiB" in err
    monkeypatch.setenv("MUSETALK_CACHE", "little")
    code, _, err = generate(0.2, "--frames-dir", tmp_path / "out")
    assert (code, "MUSETALK_CACHE=little is no size" in err) == (1, True)


def test_two_who_want_the_same_prepare_it_once(models, clip, monkeypatch):
    """The second one waits for the first, and finds what it made."""
    entered, go, made = threading.Event(), threading.Event(), []
    real = dubbing.prepare

    def slowly(*arguments, **options):
        made.append(1)
        entered.set()
        assert go.wait(LIMIT_S)
        return real(*arguments, **options)

    monkeypatch.setattr(dubbing, "prepare", slowly)
    run = RunConfig(DataFolder(models, "flag"), model=str(models), device="cpu")
    found = []
    threads = [threading.Thread(target=lambda: found.append(name_of(run, clip))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.wait(LIMIT_S)
    go.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert made == [1]
    assert len(found) == 2
    assert len(set(found)) == 1


@pytest.mark.slow
def test_a_worker_tells_that_it_prepares_a_face_and_that_it_waits_for_one(
    models, clip, tmp_path, monkeypatch
):
    """So that it is not taken for one that hangs."""
    write_sound(tmp_path / "a.wav", speech(0.2))
    run = RunConfig(DataFolder(models, "flag"), model=str(models), device="cpu")
    output = tmp_path / "a.mp4"
    job = BatchJob(
        "line 1", "clip", tmp_path / "a.wav", output, run, JobConfig(), clip, own_rate=True
    ).to_json()
    monkeypatch.setattr(work, "TELL_S", 0)
    signs, frames = [], []
    assert (
        do_job(job, Kept(), lambda *counts: frames.append(counts), lambda: signs.append(1))["state"] == "done"
    )
    assert len(signs) >= FRAMES
    assert frames[-1] == (2, 2)

    name = next(iter(list_avatars(cache_folder())))
    lock = os.open(cache_folder() / f".{name}.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    waited = []

    def waits():
        waited.append(1)
        if len(waited) == 2:
            os.close(lock)

    assert do_job(job, Kept(), None, waits)["state"] == "done"
    assert len(waited) == 2


@pytest.mark.slow
def test_a_batch_takes_sources(musetalk, models, clip, tmp_path, cache, monkeypatch):
    run_batches_here(monkeypatch)
    for name in "ab":
        write_sound(tmp_path / f"{name}.wav", speech(0.4))
    (tmp_path / "list.csv").write_text(
        "source,audio,output,fps\nclip.avi,a.wav,a.mp4,\nclip.avi,b.wav,b.mp4,20\n"
    )
    arguments = ["batch", tmp_path / "list.csv", "--model", models, "--models-dir", models]
    code, out, err = musetalk(*arguments, "--sharpen", "off", "--device", "cpu", "--json")
    assert code == 0, err
    assert json.loads(out)["done"] == 2
    assert [len(read_back(tmp_path / f"{name}.mp4").times) for name in "ab"] == [4, 8]
    assert len(list_avatars(cache)) == 1
    assert musetalk(*arguments, "--sharpen", "off", "--resume", "--dry-run")[1].count("skip") == 2


@pytest.mark.slow
def test_workers_share_a_long_sound_for_a_source(models, clip, tmp_path, cache, monkeypatch):
    """The clip plays through the cut as it does without one, at its own rate."""
    sound = write_sound(tmp_path / "a.wav", speech(3.9))
    run = RunConfig(DataFolder(models, "flag"), model=str(models), device="cpu")
    how = JobConfig(sharpen=None, silence=None)
    job = BatchJob("line 1", "clip", sound, tmp_path / "a.mp4", run, how, clip, own_rate=True)
    whole = tmp_path / "whole.mp4"
    expected, _, _ = shown_frames(monkeypatch, lambda: dubbing.dub(run, how, clip, sound, whole))
    ours, parts, report = shown_frames(
        monkeypatch, lambda: run_batch([job], HereTwice, tmp_path / "r.jsonl", split_over=2.0)
    )
    assert (report.done, report.frames, parts) == (1, 39, 2)
    for one, other in zip(ours, expected, strict=True):
        assert one.request.source == other.request.source
        assert np.array_equal(one.image, other.image)
    assert np.array_equal(read_back(job.output).times, read_back(whole).times)
    assert len(list_avatars(cache)) == 1


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--avatar", "anna", "--output", "out.mp4"], 2, "not both"),
        (["--output", "out.avi"], 1, "which is not written"),
        (["--output", "clip.avi"], 1, "--output clip.avi is the source itself"),
        (["--output", "out.mp4", "--audio", "clip.avi"], 1, "clip.avi"),
        (["--output", "out.mp4", "--source", "nothing.mp4"], 1, "There is no video or image"),
        (["--output", "out.mp4", "--model", "v15"], 1, "is incomplete"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_before_any_preparation(
    generate, cache, tmp_path, monkeypatch, more, code, said
):
    monkeypatch.chdir(tmp_path)
    found, _, err = generate(0.2, "--models-dir", tmp_path, *more)
    assert found == code
    assert said in err
    assert not cache.exists() or not list_avatars(cache)


def test_the_key_depends_on_content_networks_and_options(models, clip, tmp_path):
    run = RunConfig(DataFolder(models, "flag"), DataFolder(tmp_path, "flag"), str(models))
    key = dubbing.source_key(run, clip)
    assert dubbing.source_key(run, shutil.copy(clip, tmp_path / "copy.avi")) == key
    assert dubbing.source_key(replace(run, precision="fp16"), clip) != key
    bare = shutil.copytree(models, tmp_path / "bare")
    shutil.rmtree(bare / "dwpose")
    assert dubbing.source_key(replace(run, models=DataFolder(bare, "flag")), clip) != key


def test_the_key_depends_on_the_bytes_of_networks_and_not_on_where_or_when_they_came(models, clip, tmp_path):
    def key_in(folder):
        return dubbing.source_key(RunConfig(DataFolder(folder, "flag"), model=str(folder)), clip)

    same, other = (shutil.copytree(models, tmp_path / place / models.name) for place in ("same", "other"))
    for folder in (same, other):
        weights = max((folder / "sd-vae").iterdir(), key=lambda path: path.stat().st_size)
        data = weights.read_bytes()
        weights.write_bytes(data if folder == same else data[:-1] + bytes([data[-1] ^ 1]))
        os.utime(weights, (1, 1))
    assert key_in(same) == key_in(models)
    assert key_in(other) != key_in(models)
