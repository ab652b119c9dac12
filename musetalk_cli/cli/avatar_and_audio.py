"""Who speaks what: the one place where the options `--avatar` and `--audio` may be left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from musetalk_cli.cli.render import say
from musetalk_cli.config import RunConfig
from musetalk_cli.errors import MissingError

if TYPE_CHECKING:
    from musetalk_cli.run.defaults import AvatarAndAudio

AvatarOption = Annotated[
    str | None,
    typer.Option(
        "--avatar", help="Name of the prepared avatar.", show_default="demo, where there are no weights"
    ),
]
SAMPLE_SHOWN = "the sample of the avatar demo"


def fill_in(run: RunConfig, avatar: str | None, audio: str | None) -> AvatarAndAudio:
    """Decide who speaks, and say on stderr what was taken where an option was left out.

    Raises:
        typer.BadParameter: An option was left out that has no default here.
        MuseTalkError: The chosen model or the folder of avatars cannot be used.
    """
    from musetalk_cli.run import defaults

    try:
        spoken = defaults.fill_in(run, avatar, audio)
    except MissingError as error:
        raise typer.BadParameter(" ".join(filter(None, (error.message, error.hint)))) from None
    if spoken.notice is not None:
        say(spoken.notice)
    return spoken
