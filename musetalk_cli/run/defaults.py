"""What is taken where nothing was chosen, and which networks and avatars belong together.

Whoever has neither weights nor an avatar gets the embedded demo; whoever has weights is asked for an avatar.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from musetalk_cli.config import DEFAULT_MODEL, DataFolder, RunConfig
from musetalk_cli.errors import AvatarError, MissingError
from musetalk_cli.nets.embedded import DEMO, demo_sample
from musetalk_cli.nets.files import RANDOM, is_demo, resolve
from musetalk_cli.nets.published import LAYOUTS, complete

if TYPE_CHECKING:
    from pathlib import Path

    from musetalk_cli.avatar.description import AvatarMeta

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AvatarAndAudio:
    """Who speaks what.

    Attributes:
        avatar: Name of the avatar.
        audio: The sound, as it was given, or the path of the demo's sample.
        notice: One line that says what was taken by itself; None where everything was given.
    """

    avatar: str
    audio: str
    notice: str | None


def fill_in(run: RunConfig, avatar: str | None, audio: str | None) -> AvatarAndAudio:
    """Decide who speaks and what, where one of them was left out.

    The avatar `demo` is taken where the demo networks were chosen, or no networks and there are no published
    weights. Its sample is spoken where the avatar is `demo` and no sound was given.

    Args:
        run: Where things are and what was chosen.
        avatar: Name of an avatar, or None.
        audio: The sound in whatever way the caller names it, or None.

    Raises:
        MissingError: The avatar or the sound is missing and nothing is taken by itself.
        AvatarError: The folder of avatars, or the avatar `demo` in it, is broken.
        ModelError: The chosen model is not there.
    """
    taken = []
    if avatar is None:
        taken.append(_why_demo(run))
        log.debug("avatar: %s (embedded)", DEMO)
    if audio is None:
        sample = demo_sample() if _is_demo_avatar(avatar) and _has_demo(run) else None
        if sample is None:
            raise MissingError("--audio is missing.", "Pass the sound to speak.")
        taken.append(f"no --audio: speaking the sample {sample}")
        log.debug("audio: %s (embedded)", sample)
        audio = str(sample)
    return AvatarAndAudio(DEMO if avatar is None else avatar, audio, "; ".join(taken) or None)


def _is_demo_avatar(avatar: str | None) -> bool:
    from musetalk_cli.avatar.names import same_name

    return avatar is None or same_name(avatar, DEMO)


def settle(run: RunConfig, avatar: str) -> RunConfig:
    """Decide which networks an avatar speaks with, and refuse a pair that does not belong together.

    Args:
        run: Where things are and what was chosen; left as it is where everything was.
        avatar: Name of the avatar.

    Returns:
        The same with a model, and with the folder that holds the avatar.

    Raises:
        AvatarError: There is no such avatar, its description is broken, or it was made for other networks.
        ModelError: There is no such model, a file of it is missing, or its card is broken.
    """
    from musetalk_cli.avatar.lookup import find_avatar
    from musetalk_cli.avatar.store import load_meta

    home = find_avatar(run.avatars.path, avatar)
    if home.avatars_dir != run.avatars.path:
        run = replace(run, avatars=DataFolder(home.avatars_dir, "embedded"))
        log.debug("avatars: %s (embedded)", home.avatars_dir)
    meta = load_meta(home.avatars_dir, avatar)
    model = run.model
    if model is None:
        model = _model_of(meta)
        log.debug("model: %s (what avatar %s was made for)", model, avatar)
    _check_pair(run.models.path, model, avatar, meta)
    return replace(run, model=model)


def settle_alone(run: RunConfig, doing: str) -> tuple[RunConfig, str | None]:
    """Decide which networks are used, where no avatar says so.

    Args:
        run: Where things are and what was chosen.
        doing: What is done with them, for the line that says which were taken.

    Returns:
        The same with a model, and one line that says which one was taken; None where it was chosen.

    Raises:
        ModelError: The card of the models folder is broken.
    """
    if run.model is not None:
        return run, None
    folder = run.models.path
    published = _published(run)
    model = published[0] if published else DEMO
    found = f"{model} is in {folder}" if published else f"no published weights in {folder}"
    log.debug("model: %s (%s)", model, found)
    what = model if published else "the embedded demo"
    return replace(run, model=model), f"no model chosen, and {found}: {doing} {what}"


def _why_demo(run: RunConfig) -> str:
    """Why the avatar `demo` is taken.

    Raises:
        MissingError: It is not to be taken, or not there.
    """
    reason = ""
    if run.model is None:
        if published := _published(run):
            reason = f" Model {published[0]} is in {run.models.path}, so the demo is not taken by itself."
        why = f"no model chosen and no published weights in {run.models.path}"
    else:
        if not is_demo(run.model, run.models.path):
            reason = f" Model {run.model} needs an avatar that was made for it."
        why = "no --avatar"
    if reason or not _has_demo(run):
        raise MissingError(f"--avatar is missing.{reason}", "`musetalk avatars list` shows what there is.")
    return f"{why}: using the embedded demo (drawn faces only)"


def _published(run: RunConfig) -> list[str]:
    """The published models that are there; the demo bundle has the same files and is none of them."""
    found = complete(run.models.path)
    return [] if found and is_demo(found[0], run.models.path) else found


def _has_demo(run: RunConfig) -> bool:
    """True where the name `demo` leads to an avatar for the demo networks, not to somebody's own."""
    from musetalk_cli.avatar.lookup import find_avatar
    from musetalk_cli.avatar.store import load_meta

    try:
        home = find_avatar(run.avatars.path, DEMO)
    except AvatarError:
        return False
    return _made_for_demo(load_meta(home.avatars_dir, DEMO))


def _made_for_demo(meta: AvatarMeta) -> bool:
    return meta.model.get("name") == DEMO


def _model_of(meta: AvatarMeta) -> str:
    """The model an avatar speaks with by itself."""
    if _made_for_demo(meta):
        return DEMO
    version = str(meta.model["version"])
    return version if version in LAYOUTS else DEFAULT_MODEL


def _check_pair(models_dir: Path, model: str, avatar: str, meta: AvatarMeta) -> None:
    """Refuse an avatar whose latents mean nothing to the networks.

    Raises:
        AvatarError: It was made for another family of networks or for another version.
        ModelError: There is no such model, a file of it is missing, or its card is broken.
    """
    demo = is_demo(model, models_dir)
    if _made_for_demo(meta) and not demo:
        raise AvatarError(
            f"Avatar {avatar} was made for the demo networks: its latents mean nothing to model {model}.",
            f"Leave --model out, or prepare the face again with --model {model}.",
        )
    if demo and not _made_for_demo(meta):
        raise AvatarError(
            f"Avatar {avatar} was not made for the demo networks: its latents mean nothing to model {model}.",
            "Leave --model out, or use an avatar that was made for them, like --avatar demo.",
        )
    made_for = str(meta.model["version"])
    version = "v15" if model == RANDOM else resolve(model, models_dir).version
    if made_for != version:
        raise AvatarError(
            f"Avatar {avatar} was made for {made_for}, and model {model} is {version}.",
            f"{f'Use --model {made_for}, or prepare' if made_for in LAYOUTS else 'Prepare'} the face again "
            f"with --model {model}.",
        )
