"""The cache of prepared faces: bounded by the last use, and nothing goes away under who uses it."""

import errno
import fcntl
import json
import os
import shutil
import threading

import pytest

from musetalk_cli.config import cache_folder
from musetalk_cli.errors import AvatarError, InputError, OutputError
from musetalk_cli.run import cache as caching
from musetalk_cli.run.cache import DEFAULT_BYTES, cache_limit, entries, held, remove, remove_all, trim

KIB = 1 << 10


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The user's cache is a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MUSETALK_CACHE", raising=False)
    return cache_folder()


@pytest.fixture
def put(cache):
    """Puts something of a size there, used at a time."""

    def call(name, size=100 * KIB, used=1000.0):
        (cache / name).mkdir(parents=True)
        (cache / name / "avatar.json").write_text("{}")
        (cache / name / "frames").write_bytes(bytes(size))
        lock = cache / f".{name}.lock"
        lock.touch()
        os.utime(lock, (used, used))

    return call


def nothing():
    raise AssertionError("it is there, and nobody is waited for")


def there(cache):
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


def test_the_longest_unused_goes_first_and_only_what_must(cache, put, caplog):
    for name, used in (("b", 200.0), ("a", 300.0), ("c", 100.0)):
        put(name, used=used)
    trim(cache, 400 * KIB)
    assert there(cache) == ["a", "b", "c"]
    assert caplog.messages == []
    trim(cache, 250 * KIB)
    assert there(cache) == ["a", "b"]
    assert caplog.messages == [
        "Removed from the cache of prepared faces, as the longest unused: c (0 MiB). It may hold 0 MiB; "
        "MUSETALK_CACHE says another size."
    ]
    assert not (cache / ".c.lock").exists()
    trim(cache, 0)
    assert there(cache) == []


def test_what_is_used_counts_as_new(cache, put):
    put("a", used=100.0)
    put("b", used=200.0)
    with held(cache, "a", nothing, nothing):
        pass
    assert [entry.name for entry in entries(cache)] == ["b", "a"]
    trim(cache, 150 * KIB)
    assert there(cache) == ["a"]


@pytest.mark.parametrize("begun", [False, True])
def test_what_cannot_be_made_leaves_a_lock_only_where_it_goes_on(cache, begun):
    def fail():
        if begun:
            (cache / ".a.partial").mkdir()
        raise InputError("No face.")

    with pytest.raises(InputError, match="No face"), held(cache, "a", fail, nothing):
        pass
    assert sorted(path.name for path in cache.iterdir()) == [".a.lock", ".a.partial"] * begun


def test_what_is_in_use_is_never_removed(cache, put):
    put("a", used=100.0)
    put("b", used=200.0)
    with held(cache, "a", nothing, nothing), held(cache, "a", nothing, nothing):
        trim(cache, 150 * KIB)
        assert there(cache) == ["a"], "the next longest unused goes in its place"
        trim(cache, 0)
        assert there(cache) == ["a"]
        assert not remove(cache, "a")
        assert remove_all(cache) == ([], ["a"])
    assert remove_all(cache) == (["a"], [])


def test_what_was_not_finished_counts_and_goes(cache, put):
    put("a", used=200.0)
    left = cache / ".b.partial"
    left.mkdir()
    (left / "frames").write_bytes(bytes(300 * KIB))
    os.utime(left, (100, 100))
    found = entries(cache)
    assert [(entry.name, entry.finished) for entry in found] == [("b", False), ("a", True)]
    assert found[0].bytes == 300 * KIB
    trim(cache, 200 * KIB)
    assert sorted(path.name for path in cache.iterdir()) == [".a.lock", "a"]


def test_where_nobody_can_tell_what_is_in_use_nothing_is_removed_by_itself(cache, put, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    put("a")
    monkeypatch.setattr(fcntl, "flock", refuse)
    trim(cache, 0)
    assert there(cache) == ["a"]
    with held(cache, "a", nothing, nothing):
        pass
    assert remove(cache, "a"), "somebody asked for it"


def test_what_cannot_be_removed_is_said_and_the_next_goes(cache, put, caplog, monkeypatch):
    put("a", used=100.0)
    put("b", used=200.0)
    real = caching.remove_avatar

    def fail(folder, name):
        if name == "a":
            raise OutputError("The avatar a cannot be removed: Permission denied.")
        real(folder, name)

    monkeypatch.setattr(caching, "remove_avatar", fail)
    trim(cache, 150 * KIB)
    assert there(cache) == ["a"]
    assert caplog.messages[0] == "The avatar a cannot be removed: Permission denied."
    assert len(caplog.messages) == 2


def test_who_comes_while_it_is_removed_makes_it_anew(cache, put):
    """The lock file that was waited for is gone by then: the one in its place is what counts."""
    put("a")
    made, waited = [], []
    lock = os.open(cache / ".a.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def waits():
        waited.append(True)
        shutil.rmtree(cache / "a")
        (cache / ".a.lock").unlink()
        os.close(lock)

    with held(cache, "a", lambda: made.append(put("a")), waits):
        assert (waited, made) == ([True], [None])
        assert not remove(cache, "a")


def test_what_a_removal_that_was_killed_has_left_goes_with_the_next(cache, put):
    put("a")
    (cache / ".a.old-x1").mkdir()
    (cache / ".a.old-x1" / "frames").write_bytes(bytes(KIB))
    assert entries(cache)[0].bytes == 101 * KIB + len("{}")
    assert remove(cache, "a")
    (cache / ".gone.lock").touch()
    assert remove_all(cache) == ([], [])
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "limit"), [(None, DEFAULT_BYTES), ("", DEFAULT_BYTES), ("40G", 40 << 30), ("800M", 800 << 20)]
)
def test_the_limit_is_read(cache, monkeypatch, text, limit):
    if text is not None:
        monkeypatch.setenv("MUSETALK_CACHE", text)
    assert cache_limit() == limit


@pytest.mark.parametrize("text", ["much", "0G", "-1G", "10", "10K"])
def test_what_is_no_limit_is_one_sentence(cache, monkeypatch, text):
    monkeypatch.setenv("MUSETALK_CACHE", text)
    with pytest.raises(InputError, match=f"MUSETALK_CACHE={text} is no size"):
        cache_limit()


def test_the_command_tells_sizes_and_last_uses(cache, put, musetalk):
    put("a", used=86_400.0)
    (cache / ".b.partial").mkdir()
    os.utime(cache / ".b.partial", (172_800, 172_800))
    code, out, _ = musetalk("avatars", "list", "--cache", "--json")
    found = json.loads(out)
    assert (code, [entry["name"] for entry in found]) == (0, ["a", "b"])
    assert found[0]["used"] == "1970-01-02T00:00:00+00:00"
    assert "broken" in found[0]
    assert found[1] == {"name": "b", "unfinished": True, "bytes": 0, "used": "1970-01-03T00:00:00+00:00"}
    out = musetalk("avatars", "list", "--cache")[1]
    for words in ("0 MiB of 20.0 GiB", "last used", "1970-01-0", "not finished"):
        assert words in out


def test_the_command_says_what_is_in_use(cache, put, musetalk):
    put("a")
    put("b")
    with held(cache, "a", nothing, nothing):
        code, out, err = musetalk("avatars", "remove", "--cache", "a")
        assert (code, out) == (1, "")
        assert "is used by a running program" in err
        assert musetalk("avatars", "remove", "--cache")[1] == f"Removed 1 from {cache}; 1 in use stay.\n"
    with pytest.raises(AvatarError, match="no avatar nobody"):
        remove(cache, "nobody")


def test_what_goes_away_while_it_is_looked_at_takes_nothing(cache, put, monkeypatch):
    """Another program may remove it at any moment."""
    put("a")
    (cache / "a" / "full_imgs").mkdir()
    put("b")
    look = os.scandir

    def go_away(path):
        if str(path).endswith("full_imgs"):
            (cache / "a" / "full_imgs").rmdir()
        return look(path)

    monkeypatch.setattr(os, "scandir", go_away)
    assert [entry.name for entry in entries(cache)] == ["a", "b"]


def test_programs_that_trim_at_once_remove_no_more_than_one_would(cache, put, caplog, monkeypatch):
    for number, name in enumerate("abcd"):
        put(name, used=100.0 + number)
    real, second = caching.remove_avatar, threading.Thread(target=trim, args=(cache, 250 * KIB))

    def slowly(folder, name):
        if not second.ident:
            second.start()
            second.join(0.2)
        real(folder, name)

    monkeypatch.setattr(caching, "remove_avatar", slowly)
    trim(cache, 250 * KIB)
    second.join()
    assert there(cache) == ["c", "d"]
    assert len(caplog.messages) == 1


def test_what_somebody_removes_meanwhile_is_gone_and_nothing_to_tell(cache, put, caplog, monkeypatch):
    put("a", used=100.0)
    put("b", used=200.0)
    found = entries(cache)
    monkeypatch.setattr(caching, "entries", lambda _: found)
    assert remove(cache, "a")
    trim(cache, 150 * KIB)
    assert there(cache) == ["b"]
    assert caplog.messages == []


def test_two_programs_may_remove_everything_at_once(cache, put, monkeypatch):
    put("a")
    put("b")
    real = caching.remove_avatar

    def both(folder, name):
        real(folder, name)
        shutil.rmtree(cache / "b", ignore_errors=True)

    monkeypatch.setattr(caching, "remove_avatar", both)
    assert remove_all(cache) == (["a", "b"], [])
    assert list(cache.iterdir()) == []
