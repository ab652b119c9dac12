"""Networks and an avatar that stay loaded from one job to the next."""

from __future__ import annotations

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.avatar.store import load_avatar
from musetalk_cli.config import RunConfig
from musetalk_cli.engine.failures import telling_device_errors
from musetalk_cli.nets.bundle import Bundle, open_bundle


class Kept:
    """What the last job has loaded: one avatar and one bundle, since both are large.

    What the next job does not use is let go before its own is loaded.
    """

    def __init__(self) -> None:
        self._bundle: tuple[object, Bundle] | None = None
        self._avatar: tuple[object, Avatar] | None = None

    def bundle(self, run: RunConfig) -> Bundle:
        """The networks that a command was asked for, as `open_bundle` gives them.

        Raises:
            DeviceError: The device is not there, has failed, or has no memory for them.
            ModelError: There is no such model, or its files are missing, broken or do not fit together.
        """
        key = (run.model, run.models.path, run.device, run.precision, run.vae)
        if self._bundle is None or self._bundle[0] != key:
            self._bundle = None
            with telling_device_errors():
                self._bundle = (key, open_bundle(run))
        return self._bundle[1]

    def avatar(self, run: RunConfig, name: str) -> Avatar:
        """An avatar in host memory, as `load_avatar` gives it.

        Raises:
            AvatarError: There is no such avatar, or a file of it is missing or broken.
        """
        key = (run.avatars.path, name)
        if self._avatar is None or self._avatar[0] != key:
            self._avatar = None
            self._avatar = (key, load_avatar(run.avatars.path, name))
        return self._avatar[1]
