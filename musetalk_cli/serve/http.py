"""The HTTP side of the service: what it tells of itself, its avatars and its page."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from musetalk_cli import __version__
from musetalk_cli.avatar.lookup import Edition, Home
from musetalk_cli.avatar.pictures import read_frame
from musetalk_cli.avatar.store import load_meta
from musetalk_cli.clock import Clock
from musetalk_cli.errors import AvatarError, MuseTalkError
from musetalk_cli.measure.gpu import GpuMonitor
from musetalk_cli.nets.embedded import sample_of
from musetalk_cli.serve import calls, websocket
from musetalk_cli.serve.calls import TooLargeError
from musetalk_cli.serve.guard import App, Guard
from musetalk_cli.serve.refusals import BusyError, NotFoundError, RefusedError
from musetalk_cli.serve.rtc import Peers
from musetalk_cli.serve.service import Service

log = logging.getLogger(__name__)

THUMBNAIL = 320
"""Pixels of the longer side of a thumbnail."""
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Files of the page; others in its folder are not given."""
INDEX = "index.html"
STATUS: dict[type[Exception], int] = {
    NotFoundError: 404,
    RefusedError: 503,
    BusyError: 409,
    TooLargeError: 413,
}
UNKNOWN = {
    404: ("There is nothing at this address.", "docs/server.md lists what there is."),
    405: ("This address does not take this method.", "docs/server.md lists what there is."),
}
"""What is said where no route is found."""
TICK_S = 1.0
"""How often sessions are looked for that nobody watches."""


def create_app(service: Service, peers: Peers, clock: Clock) -> App:
    """The application: routes behind the guard.

    Args:
        service: What is served; it is started here, and ended by whoever runs the server.
        peers: Viewers by WebRTC.
        clock: Where time comes from.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tidying = asyncio.create_task(_tidy(service))
        try:
            yield
        finally:
            tidying.cancel()
            await peers.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service, app.state.peers, app.state.gpu = service, peers, GpuMonitor()
    app.state.uploads = asyncio.Semaphore(calls.UPLOADS)
    for kind in (MuseTalkError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer_error)
    _add_page(app)
    _add_state(app)
    _add_avatars(app)
    app.include_router(calls.router)
    app.include_router(websocket.router)
    return Guard(app, service.config, clock)


async def _tidy(service: Service) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        service.close_unwatched()


def _answer_error(request: Request, error: Exception) -> JSONResponse:
    """One sentence, and no trace of the program's inside."""
    hint, headers = None, {}
    if isinstance(error, MuseTalkError):
        status = STATUS.get(type(error), 400)
        said, hint = error.message, error.hint
        if status == 503:
            headers["retry-after"] = "5"
    elif isinstance(error, HTTPException):
        status = error.status_code
        said, hint = UNKNOWN.get(status, (str(error.detail), None))
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        status, said = 400, f"{place}: {first['msg']}."
    else:
        log.error("%s %s failed.", request.method, request.url.path, exc_info=error)
        status, said, hint = 500, "The service failed to answer this.", "Its log says more."
    return JSONResponse({"error": said, "hint": hint}, status, headers)


def _add_page(app: FastAPI) -> None:
    for file in (resources.files("musetalk_cli.serve") / "page").iterdir():
        kind = KINDS.get(Path(file.name).suffix)
        if kind is not None:
            path = "/" if file.name == INDEX else f"/{file.name}"
            app.add_api_route(path, _fixed(file.read_bytes(), kind), methods=["GET"])


def _fixed(content: bytes, kind: str) -> Any:  # noqa: ANN401 - a route, as FastAPI takes them
    async def get() -> Response:
        return Response(content, media_type=kind)

    return get


def _add_state(app: FastAPI) -> None:
    service: Service = app.state.service
    gpu: GpuMonitor = app.state.gpu

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        service.check_ready()
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(
            service.meters.text(lambda: service.state(gpu.read())), media_type="text/plain; version=0.0.4"
        )

    @app.get("/v1/service")
    async def describe() -> dict[str, Any]:
        engine = service.engine
        use = gpu.read() if engine.bundle.device.type == "cuda" else None
        return {
            "version": __version__,
            "model": engine.bundle.name,
            "device": str(engine.bundle.device),
            "fps": float(engine.job.fps),
            "chunk_s": float(engine.job.chunk),
            "speakers": {"now": service.speakers.now, "most": service.speakers.most},
            "sessions": {"now": len(service.sessions), "most": service.most_sessions},
            "gpu": None
            if use is None
            else {
                "memory_used_mib": use.memory_bytes >> 20,
                "memory_total_mib": use.memory_total_bytes >> 20,
                "utilization": use.utilisation_percent,
            },
            "ice_servers": [
                {"urls": each.url}
                | (
                    {}
                    if each.username is None
                    else {"username": each.username, "credential": each.credential}
                )
                for each in service.config.ice_servers
            ],
        }


def _add_avatars(app: FastAPI) -> None:
    service: Service = app.state.service
    thumbnails: dict[Path, tuple[Edition, bytes]] = {}

    @app.get("/v1/avatars")
    def avatars() -> dict[str, Any]:
        return {
            "avatars": [
                {
                    "name": home.name,
                    "width": None if meta is None else meta.width,
                    "height": None if meta is None else meta.height,
                    "frames": None if meta is None else meta.frames,
                    "fps": None if meta is None else float(meta.fps),
                    "sample": sample_of(home.folder) is not None,
                    "usable": reason is None,
                    "reason": reason,
                }
                for home, meta, reason in service.gallery.all()
            ]
        }

    @app.get("/v1/avatars/{name}/thumbnail")
    async def thumbnail(name: str) -> Response:
        home = await run_in_threadpool(service.gallery.home_of, name)
        try:
            edition = home.edition
            if home.folder not in thumbnails or thumbnails[home.folder][0] != edition:
                thumbnails[home.folder] = edition, await run_in_threadpool(_thumbnail, home)
        except (AvatarError, OSError) as error:  # it was removed since, or is broken
            raise NotFoundError(
                f"Avatar {home.name} has no picture that can be read.", "Choose another, or prepare it again."
            ) from error
        return Response(thumbnails[home.folder][1], media_type="image/jpeg")

    @app.get("/v1/avatars/{name}/sample")
    def sample(name: str) -> Response:
        path = sample_of(service.gallery.home_of(name).folder)
        if path is None:
            raise NotFoundError(f"Avatar {name} has no sample.", "Pass a sound file of your own.")
        return FileResponse(path, media_type="audio/wav")


def _thumbnail(home: Home) -> bytes:
    picture = read_frame(home.folder, load_meta(home.avatars_dir, home.name), 0)
    height, width = picture.shape[:2]
    scale = min(1.0, THUMBNAIL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])
