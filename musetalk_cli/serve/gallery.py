"""The avatars that the service can show: found, judged, and loaded into memory when they are needed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from musetalk_cli.avatar.lookup import Home, find_all, find_avatar
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
        self.faces = Faces(self._load, memory)

    def all(self) -> list[tuple[Home, AvatarMeta | None, str | None]]:
        """Every avatar: where it is, its description, and why it cannot be used, or None where it can."""
        found: list[tuple[Home, AvatarMeta | None, str | None]] = []
        for home in find_all(self._run.avatars.path):
            meta, reason = None, None
            try:
                meta = load_meta(home.avatars_dir, home.name)
                settle(self._run, home.name)
            except MuseTalkError as error:
                reason = _without_place(error.message, home)
            found.append((home, meta, reason))
        return found

    def any(self) -> Avatar:
        """One that can be used, to warm up with.

        Raises:
            AvatarError: There is none.
        """
        for home, _, reason in self.all():
            if reason is None:
                face = self.faces.take(home.name)
                self.faces.give_back(home.name)
                return face.avatar
        raise AvatarError(
            f"No avatar in {self._run.avatars.path} was made for model {self._run.model}.",
            "Prepare one, or choose another --model.",
        )

    def home_of(self, name: str) -> Home:
        """Where an avatar is.

        Raises:
            NotFoundError: There is none of that name.
        """
        try:
            return find_avatar(self._run.avatars.path, name)
        except AvatarError as error:
            raise NotFoundError(f"There is no avatar {name!r:.60}.", "Choose one of /v1/avatars.") from error

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
