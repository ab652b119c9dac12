"""What is loaded is left out of garbage collection while streams run, and no longer."""

import gc
import weakref

import pytest

from musetalk_cli.live import garbage


class Thing:
    """Something that refers to itself, so that only the collector frees it."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def freezing(monkeypatch):
    """The collector's calls, in order; what the tests have frozen stays so."""
    done = []
    for name in ("collect", "freeze", "unfreeze"):
        monkeypatch.setattr(garbage.gc, name, lambda name=name: done.append(name))
    return done


def test_what_is_loaded_is_collected_once_then_frozen_and_free_again_at_the_end(freezing, monkeypatch):
    monkeypatch.setattr(garbage, "FEW", 0)
    with pytest.raises(KeyError), garbage.frozen():
        assert freezing == ["collect", "freeze"]
        raise KeyError
    assert freezing == ["collect", "freeze", "unfreeze"]


def test_what_comes_meanwhile_is_collected_as_ever(monkeypatch):
    monkeypatch.setattr(garbage, "FEW", 0)
    monkeypatch.setattr(garbage.gc, "unfreeze", lambda: None)  # the tests' own objects stay frozen
    with garbage.frozen():
        thing = weakref.ref(Thing())
        gc.collect()
        assert thing() is None


def test_a_caller_who_has_frozen_everything_finds_it_so_afterwards(freezing):
    """Here the tests have: what is left are few objects, and freezing is not undone."""
    with garbage.frozen():
        assert freezing == []
    assert freezing == []
