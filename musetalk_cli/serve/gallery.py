"""The avatars that the service can show: found, judged, and loaded into memory when they are needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from musetalk_cli.avatar.lookup import Edition, Home, find_all, find_avatar
from musetalk_cli.avatar.store import load_avatar, load_meta
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.errors import AvatarError, MuseTalkError
from musetalk_cli.run.defaults import settle
from musetalk_cli.run.job import find_idle
from musetalk_cli.serve.faces import Face, Faces
from musetalk_cli.serve.refusals import NotFoundError

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.avatar.description import AvatarMeta

log = logging.getLogger(__name__)


class Gallery:
    """Avatars for the networks of one model.

    Args:
        run: Where things are; with a model.
        job: Whose pictures are shown in silence.
        memory: Bytes that avatars may take.

    Attributes:
        faces: Those in memory.
    """

    def __init__(self, run: RunConfig, job: JobConfig, memory: int) -> None:
        self._run = run
        self._job = job
        self.faces = Faces(self._load, self._edition, memory)
        # what they could not be shown for as the service began, as they were then
        self._broken: dict[str, tuple[Edition, str]] = {}

    def all(self) -> list[tuple[Home, AvatarMeta | None, str | None]]:
        """Every avatar: where it is, its description, and why it cannot be used, or None where it can."""
        found: list[tuple[Home, AvatarMeta | None, str | None]] = []
        for home in find_all(self._run.avatars.path):
            meta, reason = None, None
            try:
                meta = load_meta(home.avatars_dir, home.name)
                settle(self._run, home.name)
                reason = self._reason(home)
            except MuseTalkError as error:
                reason = _without_place(error.message, home)
            found.append((home, meta, reason))
        return found

    def usable(self) -> list[Home]:
        """Those that can be used.

        Raises:
            AvatarError: There is none.
        """
        found = [home for home, _, reason in self.all() if reason is None]
        if not found:
            raise AvatarError(
                f"No avatar in {self._run.avatars.path} was made for model {self._run.model}.",
                "Prepare one, or choose another --model.",
            )
        return found

    def rehearse(self, warm_up: Callable[[Avatar], None]) -> Avatar:
        """Warm up with the first avatar that can be shown, and give it; those before it are not offered.

        Args:
            warm_up: Makes faces of it.

        Raises:
            MuseTalkError: There is none; why the first one cannot.
        """
        broken: dict[str, tuple[Edition, str]] = {}
        first: MuseTalkError | None = None
        for home in self.usable():
            edition = home.edition
            try:
                avatar = self._try(home.name, warm_up)
            except MuseTalkError as error:
                first = first or error
                broken[home.name] = edition, error.message
                continue
            for name, (_, reason) in broken.items():
                log.warning("Avatar %s is not offered: %s", name, reason)
            self._broken = broken
            return avatar
        assert first is not None  # noqa: S101 - there is one that was tried
        raise first

    def _try(self, name: str, warm_up: Callable[[Avatar], None]) -> Avatar:
        face = self.faces.take(name)
        try:
            warm_up(face.avatar)
            return face.avatar
        finally:
            self.faces.give_back(face)

    def home_of(self, name: str) -> Home:
        """Where an avatar is.

        Raises:
            NotFoundError: There is none of that name.
        """
        try:
            return find_avatar(self._run.avatars.path, name)
        except AvatarError as error:
            raise NotFoundError(f"There is no avatar {name!r:.60}.", "Choose one of /v1/avatars.") from error

    def _reason(self, home: Home) -> str | None:
        """Why an avatar cannot be shown, as far as was tried; None once it was prepared anew."""
        edition, reason = self._broken.get(home.name, (None, None))
        return reason if edition == home.edition else None

    def _edition(self, name: str) -> tuple[Edition, ...]:
        """Of an avatar, and of the one whose pictures are shown in silence.

        Raises:
            AvatarError: It is not offered.
        """
        homes = [self.home_of(name)]
        if (reason := self._reason(homes[0])) is not None:
            raise AvatarError(reason, "Choose another avatar, or prepare this one again.")
        if self._job.idle_avatar is not None:
            homes.append(self.home_of(self._job.idle_avatar))
        return tuple(home.edition for home in homes)

    def _load(self, name: str) -> Face:
        home = self.home_of(name)
        try:
            run = settle(self._run, name)
            avatar = load_avatar(run.avatars.path, name)
            return Face(avatar, find_idle(run, self._job, avatar))
        except MuseTalkError as error:
            raise AvatarError(_without_place(error.message, home), error.hint) from error


def _without_place(text: str, home: Home) -> str:
    """What is said of an avatar, for those who are not to learn where it is."""
    return text.replace(f"{home.folder}{os.sep}", "").replace(f"{home.avatars_dir}{os.sep}", "")
