"""Avatars in memory: loaded once, shared by sessions, let go least recently used first."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from musetalk_cli.serve.refusals import RefusedError
from musetalk_cli.types import Clip

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar

log = logging.getLogger(__name__)

LOADS = 2
"""Avatars that are loaded at once: what does not fit in the end takes memory until then."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """An avatar that is ready to be shown.

    Attributes:
        avatar: The avatar.
        idle: Pictures shown in silence; None is its own frames.
    """

    avatar: Avatar
    idle: Clip | None

    @property
    def size(self) -> int:
        """Bytes in host memory, and on a CPU what stands for the device's."""
        idle = sum(picture.nbytes for picture in self.idle.pictures) if self.idle is not None else 0
        memory = self.avatar.memory()
        return memory.host_bytes + memory.device_bytes + idle


class Faces:
    """Loads avatars and keeps them within a bound; safe to use from any thread, and not for the device's.

    An avatar that was prepared anew is loaded anew by who takes it next; who shows the old one keeps that.

    Args:
        load: Loads one by its name; called by several threads at once, and by no two for the same name.
        edition: Tells by its name what is changed where an avatar is prepared anew.
        limit: Bytes that all of them may take.
    """

    def __init__(self, load: Callable[[str], Face], edition: Callable[[str], Hashable], limit: int) -> None:
        self._load = load
        self._edition = edition
        self._limit = limit
        # with the edition that each is of, least recently used first
        self._faces: OrderedDict[str, tuple[Hashable, Face]] = OrderedDict()
        # an old edition that is shown is here alone
        self._uses: Counter[Face] = Counter()
        self._loading: set[str] = set()
        self._loads = threading.BoundedSemaphore(LOADS)
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """Bytes that are in memory."""
        # of lists: another thread may add or remove some meanwhile
        newest = [face for _, face in list(self._faces.values())]
        return sum(face.size for face in {*newest, *list(self._uses)})

    def take(self, name: str) -> Face:
        """An avatar, which stays in memory until `give_back` was called as often.

        Args:
            name: Its name, in its own spelling.

        Raises:
            RefusedError: It does not fit beside those in use.
            MuseTalkError: It cannot be loaded.
        """
        while True:
            edition = self._edition(name)
            with self._changed:
                # so that two sessions that begin together do not load the same twice
                if name in self._loading:
                    self._changed.wait_for(lambda: name not in self._loading)
                    continue
                if name in self._faces and self._faces[name][0] == edition:
                    return self._use(name)
                self._loading.add(name)
            return self._loaded(name, edition)

    def _loaded(self, name: str, edition: Hashable) -> Face:
        """Load an avatar, without the lock: who takes another one does not wait."""
        try:
            with self._loads:
                face = self._load(name)
        except BaseException:
            with self._changed:
                self._has_loaded(name)
            raise
        with self._changed:
            self._has_loaded(name)
            self._faces[name] = edition, face
            return self._use(name)

    def _has_loaded(self, name: str) -> None:
        self._loading.remove(name)
        self._changed.notify_all()

    def _use(self, name: str) -> Face:
        face = self._faces[name][1]
        self._faces.move_to_end(name)
        self._uses[face] += 1
        self._evict()
        if self.held > self._limit:
            self._drop_use(face)
            self._evict()
            raise RefusedError(
                f"Avatar {name} takes {face.size >> 20} MiB, and those in use leave no room for it.",
                "Try again when other sessions have ended, or start the service with more --memory.",
            )
        return face

    def give_back(self, face: Face) -> None:
        """A session does not show it any more."""
        with self._changed:
            self._drop_use(face)
            self._evict()

    def _drop_use(self, face: Face) -> None:
        self._uses[face] -= 1
        if not self._uses[face]:
            del self._uses[face]

    def _evict(self) -> None:
        for name in [name for name, (_, face) in self._faces.items() if face not in self._uses]:
            if self.held <= self._limit:
                return
            del self._faces[name]
            log.info("Avatar %s was let go.", name)
