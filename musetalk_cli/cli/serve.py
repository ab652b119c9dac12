"""`musetalk serve`."""

from __future__ import annotations

import functools
import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from musetalk_cli.cli.interrupt import INTERRUPTED
from musetalk_cli.cli.options import Common, common_options, log
from musetalk_cli.cli.render import put, say
from musetalk_cli.config import JobConfig
from musetalk_cli.errors import MissingError
from musetalk_cli.serve import settings
from musetalk_cli.serve.settings import ServeConfig
from musetalk_cli.strict_json import dump

if TYPE_CHECKING:
    from collections.abc import Callable

    from musetalk_cli.serve.service import Service

_place = functools.partial(typer.Option, rich_help_panel="Where it listens, and who may come")
_bound = functools.partial(typer.Option, rich_help_panel="How much it takes")

_DEFAULT = ServeConfig()
_GIB = 1 << 30
MOST = 1_000_000
"""More GiB, sessions or seconds than any service has."""

Host = Annotated[str, _place("--host", help="Address to listen at; beyond this machine it wants --token.")]
Port = Annotated[int, _place("--port", min=0, max=65535, help="Port to listen at; 0 is any free one.")]
Token = Annotated[
    str | None,
    _place(
        "--token",
        envvar="MUSETALK_TOKEN",
        metavar="TEXT",
        help="What every request must bring, as Authorization: Bearer TEXT. The environment hides it from "
        "the list of processes.",
    ),
]
Origin = Annotated[
    list[str] | None,
    _place(
        "--origin", metavar="URL", help="Page that may use the service besides its own, like https://me.net."
    ),
]
IceServers = Annotated[
    list[str] | None,
    _place(
        "--ice-server",
        metavar="stun:HOST|turn:USER:PASSWORD@HOST",
        help="STUN or TURN server, for viewers that UDP does not reach; may be repeated.",
    ),
]
MaxSessions = Annotated[
    int | None,
    _bound(
        "--max-sessions",
        min=1,
        max=MOST,
        help="Sessions at once.",
        show_default="4 for each speaker that the machine sustains",
    ),
]
PerClient = Annotated[
    int, _bound("--sessions-per-client", min=1, max=MOST, help="Sessions of one address at once.")
]
Memory = Annotated[
    float, _bound("--memory", metavar="GIB", min=0.1, max=MOST, help="Memory that avatars may take, in GiB.")
]
Linger = Annotated[
    float,
    _bound(
        "--linger", metavar="SECONDS", min=1, max=MOST, help="How long a session goes on without a viewer."
    ),
]
Drain = Annotated[
    float,
    _bound(
        "--drain",
        metavar="SECONDS",
        min=0,
        max=MOST,
        help="How long sessions may go on when the service is ended.",
    ),
]
LogJson = Annotated[bool, typer.Option("--log-json", help="Write the log as one JSON object a line.")]


@common_options(
    job=(
        "fps",
        "live_chunk",
        "alignment",
        "ahead",
        "context",
        "window",
        "silence",
        "sharpen",
        "image_ops",
        "no_graphs",
        "batch_size",
    ),
    model="the published weights that are there, else demo",
)
def serve(
    common: Common,
    host: Host = _DEFAULT.host,
    port: Port = _DEFAULT.port,
    token: Token = None,
    origin: Origin = None,
    ice_server: IceServers = None,
    max_sessions: MaxSessions = None,
    sessions_per_client: PerClient = _DEFAULT.sessions_per_client,
    memory: Memory = _DEFAULT.memory / _GIB,
    linger: Linger = _DEFAULT.linger_s,
    drain: Drain = _DEFAULT.drain_s,
    log_json: LogJson = False,
    *,
    job: JobConfig,
) -> None:
    """Serve many faces at once, by WebRTC, WebSocket and HTTP, with a page to try them."""
    if (refused := settings.why_refused(host, token)) is not None:
        raise typer.BadParameter(refused)
    config = ServeConfig(
        host=host,
        port=port,
        token=token,
        origins=tuple(settings.parse_origin(each) for each in origin or ()),
        max_sessions=max_sessions,
        memory=round(memory * _GIB),
        linger_s=linger,
        drain_s=drain,
        sessions_per_client=sessions_per_client,
        ice_servers=tuple(settings.parse_ice_server(each) for each in ice_server or ()),
    )
    _set_up_log()
    _serve(common, job, config, log.info if log_json else say)


def _serve(common: Common, job: JobConfig, config: ServeConfig, tell: Callable[[str], None]) -> None:
    try:
        from musetalk_cli.serve.server import serve as run
    except ImportError as error:
        raise MissingError(
            f"musetalk serve needs {error.name}, which is not installed.",
            "pip install 'musetalk-cli[serve]' brings it, with Python 3.11 or newer.",
        ) from error

    def ready(url: str, service: Service) -> None:
        told = {
            "url": url,
            "model": service.engine.bundle.name,
            "speakers": service.speakers.most,
            "sessions": service.most_sessions,
            "chunk_s": float(service.engine.job.chunk),
        }
        if common.json:
            put(dump(told))  # on one line, for who reads line by line while the service runs
            sys.stdout.flush()
        # without its scheme it is left whole where addresses are shortened, as in a log
        where = url if tell is say else url.partition("//")[2]
        tell(
            f"{where}: {told['speakers']} may speak at once, in chunks of {told['chunk_s']:g} s; "
            f"{told['sessions']} sessions"
        )

    if run(common.run, job, config, tell, ready):
        raise typer.Exit(INTERRUPTED)


def _set_up_log() -> None:
    """What the server's libraries say goes where ours does; sessions that begin and end are told."""
    log.setLevel(min(log.level, logging.INFO))
    for handler in log.handlers:
        for name in ("uvicorn", "aiortc", "aioice"):
            library = logging.getLogger(name)
            library.handlers, library.propagate = [handler], False
            library.setLevel(logging.WARNING)
    # said of every WebSocket that was answered with a status in place of a handshake, as ASGI allows
    logging.getLogger("uvicorn.error").addFilter(lambda record: "completing handshake" not in record.msg)
