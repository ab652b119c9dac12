"""The HTTP side of sessions: begun and watched by WebRTC, spoken to, interrupted, ended."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from musetalk_cli.errors import InputError
from musetalk_cli.measure.stages import Percentiles
from musetalk_cli.serve.guard import client_of
from musetalk_cli.serve.offers import read_offer
from musetalk_cli.serve.recordings import read_recording
from musetalk_cli.serve.refusals import RefusedError
from musetalk_cli.serve.rtc import Answer, Peers
from musetalk_cli.serve.served import ServedSession
from musetalk_cli.serve.service import Service
from musetalk_cli.strict_json import JsonError, parse

SDP_BYTES = 64 << 10
"""The longest offer."""
OFFER_BYTES = 2 * SDP_BYTES
"""The longest offer as JSON, in which the ends of its lines take twice as much."""
SOUND_BYTES = 64 << 20
"""The largest sound file."""
OFFER_S = 10.0
"""How long an offer may take to come."""
UPLOADS, UPLOAD_S = 4, 60.0
"""Sound files that are received at once, and how long one may take, its wait for the others included."""

Name = Annotated[str, Field(min_length=1, max_length=128)]
Identifier = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]

router = APIRouter(prefix="/v1")


class TooLargeError(InputError):
    """A body is larger than it may be."""


class Offer(BaseModel):
    """A browser's offer to watch a session, and to bring its microphone in.

    Attributes:
        sdp: The offer.
        avatar: Who is to speak, where a session is begun.
        session: A session that is joined, or None.
    """

    model_config = ConfigDict(extra="forbid")

    sdp: Annotated[str, Field(min_length=1, max_length=SDP_BYTES)]
    avatar: Name | None = None
    session: Identifier | None = None


def reason_of(error: JsonError | ValidationError) -> str:
    """What is wrong with a message, and where in it."""
    if isinstance(error, JsonError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _peers(request: Request) -> Peers:
    peers: Peers = request.app.state.peers
    return peers


async def _begin(request: Request, avatar: str | None, session: str | None) -> tuple[ServedSession, bool]:
    """The session that is named, or a new one; and whether it is new."""
    service = _service(request)
    if session is not None:
        return service.session(session), False
    if avatar is None:
        raise InputError("The request names neither an avatar nor a session.", "Pass avatar=NAME.")
    return await run_in_threadpool(service.open, avatar, client_of(request.scope)), True


async def _answer(
    request: Request, avatar: str | None, name: str | None, sdp: str, *, microphone: bool
) -> tuple[ServedSession, Answer]:
    read_offer(sdp)  # what cannot be used begins no session
    session, is_new = await _begin(request, avatar, name)
    try:
        return session, await _peers(request).answer(session, sdp, microphone=microphone)
    except BaseException:
        if is_new:
            session.stop()
        raise


def _place(session: ServedSession, answer: Answer) -> str:
    """Where a viewer leaves; a proxy learns the session from it."""
    return f"/v1/sessions/{session.id}/viewers/{answer.viewer}"


@router.post("/whep")
async def whep(
    request: Request,
    avatar: Annotated[Name | None, Query()] = None,
    session: Annotated[Identifier | None, Query()] = None,
) -> Response:
    """Watch a session, as WHEP has it: an offer in, an answer out."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/sdp":
        raise InputError("The body is no offer.", "Send it as application/sdp.")
    offer = (await _read_soon(request, SDP_BYTES)).decode("utf-8", "replace")
    found, answer = await _answer(request, avatar, session, offer, microphone=False)
    headers = {"location": _place(found, answer)}
    return Response(answer.sdp, 201, headers, media_type="application/sdp")


@router.post("/offer", status_code=201)
async def offer(request: Request, response: Response) -> dict[str, Any]:
    """Watch a session, and let it hear the microphone where the offer sends sound."""
    # not as a parameter, which would be read whole however long it is
    body = await _read_soon(request, OFFER_BYTES)
    try:
        offer = Offer.model_validate(parse(body))
    except (JsonError, ValidationError) as error:
        raise InputError(f"The body is no offer: {reason_of(error)}.", 'Send {"sdp", "avatar"}.') from error
    session, answer = await _answer(request, offer.avatar, offer.session, offer.sdp, microphone=True)
    response.headers["location"] = _place(session, answer)
    return {
        "session": session.id,
        "viewer": answer.viewer,
        "sdp": answer.sdp,
        "avatar": session.avatar,
        "width": session.stream.width,
        "height": session.stream.height,
        "fps": float(session.stream.fps),
    }


@router.delete("/sessions/{name}/viewers/{viewer}", status_code=204)
async def leave(request: Request, name: Identifier, viewer: Identifier) -> None:
    """Stop watching."""
    _service(request).session(name)
    await _peers(request).leave(viewer)


@router.get("/sessions/{name}")
async def describe(request: Request, name: Identifier) -> dict[str, Any]:
    """How a session goes."""
    session = _service(request).session(name)
    told: dict[str, Any] = {
        "session": session.id,
        "avatar": session.avatar,
        "viewers": session.broadcast.viewers,
        "refused": session.refused,
    }
    if (snapshot := session.snapshot) is None:
        return told
    return told | {
        "speaking": snapshot.speaking,
        "elapsed_s": snapshot.elapsed_s,
        "fps": snapshot.fps,
        "frames": snapshot.frames,
        "late": snapshot.late,
        "dropped": snapshot.dropped,
        "stalls": snapshot.stalls,
        "utterances": snapshot.utterances,
        "response_ms": _told(snapshot.response_ms),
        "first_frame_ms": _told(snapshot.first_frame_ms),
        "last_frame_ms": _told(snapshot.last_frame_ms),
        "mouth_to_eye_ms": _told(snapshot.mouth_to_eye_ms),
    }


def _told(times: Percentiles) -> dict[str, float] | None:
    return {"p50": times.p50, "p95": times.p95, "p99": times.p99} if times.is_measured else None


@router.post("/sessions/{name}/speak", status_code=202)
async def speak(request: Request, name: Identifier) -> dict[str, str]:
    """Speak a sound file from its start, as fast as it can be."""
    session = _service(request).session(name)
    # before the body, which may be large, is read for nothing
    session.check_may_speak()
    try:
        body = await asyncio.wait_for(_receive_sound(request), UPLOAD_S)
    except asyncio.TimeoutError:
        raise RefusedError("The sound did not come in time.", "Send it faster, or less of it.") from None
    stream = session.stream
    await run_in_threadpool(session.speak, read_recording(body, stream.sample_rate, stream.channels))
    return {"session": session.id}


async def _receive_sound(request: Request) -> bytes:
    uploads: asyncio.Semaphore = request.app.state.uploads
    async with uploads:
        return await _read(request, SOUND_BYTES)


@router.post("/sessions/{name}/interrupt", status_code=204)
async def interrupt(request: Request, name: Identifier) -> None:
    """Discard everything that was said and not yet shown."""
    _service(request).session(name).interrupt()


@router.delete("/sessions/{name}", status_code=204)
async def end(request: Request, name: Identifier) -> None:
    """End a session at once."""
    _service(request).session(name).stop()


async def _read_soon(request: Request, most: int) -> bytes:
    """A short body, which must not take long.

    Raises:
        InputError: It is larger, or did not come in time.
    """
    try:
        return await asyncio.wait_for(_read(request, most), OFFER_S)
    except asyncio.TimeoutError:
        raise InputError("The body did not come in time.", "Send it at once.") from None


async def _read(request: Request, most: int) -> bytes:
    """A body of so many bytes at the most.

    Raises:
        TooLargeError: It is larger, or says so.
    """
    told = request.headers.get("content-length", "0")
    body = bytearray()
    if told.isdecimal() and int(told) > most:
        raise TooLargeError(f"The body has {int(told)} bytes, at most {most} are taken.")
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise TooLargeError(f"The body has more than {most} bytes.", "Send less at once.")
    return bytes(body)
