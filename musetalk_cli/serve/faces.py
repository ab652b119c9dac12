"""Avatars in memory: loaded once, shared by sessions, let go least recently used first."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from musetalk_cli.serve.refusals import RefusedError
from musetalk_cli.types import Clip

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar

log = logging.getLogger(__name__)


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

    Args:
        load: Loads one by its name.
        limit: Bytes that all of them may take.
    """

    def __init__(self, load: Callable[[str], Face], limit: int) -> None:
        self._load = load
        self._limit = limit
        # least recently used first
        self._faces: OrderedDict[str, Face] = OrderedDict()
        self._uses: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes that are in memory."""
        # of a list: another thread may add or remove some meanwhile
        return sum(face.size for face in list(self._faces.values()))

    def take(self, name: str) -> Face:
        """An avatar, which stays in memory until `give_back` was called as often.

        Args:
            name: Its name, in its own spelling.

        Raises:
            RefusedError: It does not fit beside those in use.
            MuseTalkError: It cannot be loaded.
        """
        # one at a time, so that two sessions that begin together do not load the same twice
        with self._lock:
            face = self._faces.pop(name, None) or self._load(name)
            self._faces[name] = face
            self._uses[name] = self._uses.get(name, 0) + 1
            self._evict()
            if self.held > self._limit:
                self._drop_use(name)
                self._evict()
                raise RefusedError(
                    f"Avatar {name} takes {face.size >> 20} MiB, and those in use leave no room for it.",
                    "Try again when other sessions have ended, or start the service with more --memory.",
                )
            return face

    def give_back(self, name: str) -> None:
        """A session does not show it any more."""
        with self._lock:
            self._drop_use(name)
            self._evict()

    def _drop_use(self, name: str) -> None:
        self._uses[name] -= 1
        if not self._uses[name]:
            del self._uses[name]

    def _evict(self) -> None:
        for name in [name for name in self._faces if name not in self._uses]:
            if self.held <= self._limit:
                return
            del self._faces[name]
            log.info("Avatar %s was let go.", name)
