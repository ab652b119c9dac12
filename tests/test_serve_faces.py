import threading

import pytest

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.errors import AvatarError
from musetalk_cli.serve.faces import Face, Faces
from musetalk_cli.serve.refusals import RefusedError
from musetalk_cli.types import Clip

TIMEOUT_S = 10


def face(frames=2):
    return Face(synthetic_avatar(96, 72, 40, frames), None)


SIZE = face().size


class Shelf:
    """Loads what is asked for, and notes it."""

    def __init__(self, faces=3.0):
        self.loaded = []
        self.edition = 1
        self.faces = Faces(self.load, lambda _: self.edition, round(faces * SIZE))

    def load(self, name):
        if name == "broken":
            raise AvatarError("It is broken.")
        self.loaded.append(name)
        return face()


def test_an_avatar_is_loaded_once_and_shared():
    shelf = Shelf()
    assert shelf.faces.take("anna") is shelf.faces.take("anna")
    assert shelf.loaded == ["anna"]
    anna = shelf.faces.take("anna")
    for _ in range(3):
        shelf.faces.give_back(anna)
    shelf.faces.take("anna")
    assert shelf.loaded == ["anna"], "while there is room it stays"


def test_two_that_come_at_once_load_it_once():
    shelf, gate, results = Shelf(), threading.Event(), []
    inner = shelf.load

    def load(name):
        assert gate.wait(TIMEOUT_S)
        return inner(name)

    faces = Faces(load, len, 10 * SIZE)
    threads = [threading.Thread(target=lambda: results.append(faces.take("anna"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert shelf.loaded == ["anna"]
    assert len(set(map(id, results))) == 1


def test_the_least_recently_used_goes_first_and_never_one_in_use():
    shelf = Shelf(2.5)
    shelf.faces.take("anna")
    shelf.faces.give_back(shelf.faces.take("ben"))
    cleo = shelf.faces.take("cleo")
    assert shelf.faces.held == 2 * SIZE
    shelf.faces.give_back(cleo)
    shelf.faces.take("anna")
    assert shelf.faces.take("cleo") is cleo
    assert shelf.loaded == ["anna", "ben", "cleo"]
    shelf.faces.give_back(cleo)
    shelf.faces.take("ben")
    assert shelf.loaded == ["anna", "ben", "cleo", "ben"]


def test_one_that_does_not_fit_beside_those_in_use_is_refused_and_does_not_stay():
    shelf = Shelf(1.5)
    anna = shelf.faces.take("anna")
    with pytest.raises(RefusedError, match="ben"):
        shelf.faces.take("ben")
    assert shelf.faces.held == SIZE
    shelf.faces.give_back(anna)
    shelf.faces.take("ben")


def test_what_cannot_be_loaded_leaves_nothing():
    shelf = Shelf()
    for _ in range(2):
        with pytest.raises(AvatarError):
            shelf.faces.take("broken")
    shelf.faces.take("anna")
    assert shelf.faces.held == SIZE


def test_the_pictures_shown_in_silence_are_counted():
    plain = face()
    with_idle = Face(plain.avatar, Clip([plain.avatar.frames[0]] * 3, plain.avatar.meta.fps))
    assert with_idle.size == plain.size + 3 * 96 * 72 * 3


def test_while_one_is_loaded_another_is_loaded_too_and_one_that_is_there_is_had_at_once():
    """The two that are loaded wait for each other, and for whoever takes the one that is there."""
    meeting = threading.Barrier(3)

    def load(name):
        if name != "anna":
            meeting.wait(TIMEOUT_S)
        return face()

    faces = Faces(load, len, 10 * SIZE)
    anna = faces.take("anna")
    threads = [threading.Thread(target=faces.take, args=(name,)) for name in ("ben", "cleo")]
    for thread in threads:
        thread.start()
    while meeting.n_waiting < 2 and not meeting.broken:
        pass
    assert faces.take("anna") is anna
    faces.give_back(anna)
    meeting.wait(TIMEOUT_S)
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert faces.held == 3 * SIZE


def test_who_waited_for_one_that_cannot_be_loaded_is_told_so_too():
    loading, goes_on = threading.Event(), threading.Event()
    told = []

    def load(name):
        loading.set()
        goes_on.wait(TIMEOUT_S)
        raise AvatarError("It is broken.")

    def take():
        with pytest.raises(AvatarError):
            faces.take("anna")
        told.append(True)

    faces = Faces(load, len, 10 * SIZE)
    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert loading.wait(TIMEOUT_S)
    goes_on.set()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert len(told) == 3


def test_one_that_was_prepared_anew_is_loaded_anew_and_who_shows_it_keeps_the_old():
    shelf = Shelf()
    old = shelf.faces.take("anna")
    shelf.edition = 2
    new = shelf.faces.take("anna")
    assert new is not old
    assert shelf.faces.take("anna") is new
    assert shelf.loaded == ["anna", "anna"]
    assert shelf.faces.held == 2 * SIZE, "the old one takes its memory as long as it is shown"
    shelf.faces.give_back(old)
    assert shelf.faces.held == SIZE
    assert shelf.faces.take("anna") is new
