"""`/v1/stream`: a WebSocket for programs. PCM in, as fast as it can be sent; frames, sound and events out.

Back-pressure works in both directions. Sound that finds no room is not read from the socket, so the sender
waits. What the client does not take waits in a queue of bounded length: beyond about a second of it pictures
are left out and the sound goes on, and a client that is ten seconds behind is sent away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Annotated, Literal

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from musetalk_cli.errors import InputError, MuseTalkError
from musetalk_cli.serve.broadcast import Wants
from musetalk_cli.serve.calls import Name, reason_of
from musetalk_cli.serve.guard import client_of
from musetalk_cli.serve.inbox import Inbox
from musetalk_cli.serve.receiver import BEHIND, BEHIND_S, Outbox, Receiver
from musetalk_cli.serve.refusals import RefusedError
from musetalk_cli.serve.served import ServedSession
from musetalk_cli.serve.service import Service
from musetalk_cli.sources.s16 import CHANNELS, SAMPLE_RATES
from musetalk_cli.strict_json import JsonError, dump, parse
from musetalk_cli.timeline import FPS_RANGE, parse_fps

log = logging.getLogger(__name__)

MESSAGE_BYTES = 1 << 20
"""The longest message."""
HELLO_S = 10.0
"""How long a client may take to say what it wants."""
UNKNOWN_MESSAGES = 10
"""Messages that are not understood, after which a client is sent away."""
AGAIN, NOT_ALLOWED, DONE = 1013, 1008, 1000
"""Codes of a socket's end (RFC 6455): try again later; against the rules; all is done."""
HELLO = 'Send {"type": "hello", "avatar": NAME} first.'

KNOWN = "Send 16-bit PCM as binary messages, and as text end, interrupt or close."

router = APIRouter()


class Hello(BaseModel):
    """What a client wants.

    Attributes:
        avatar: Who is to speak.
        fps: Frames per second; None is the service's own.
        sample_rate: Samples per second of the sound that will come.
        channels: Channels of the sound that will come.
        video: How frames come; `none` where they are watched by other ways.
        sound: Each frame comes with its sound.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["hello"]
    avatar: Name
    fps: Annotated[float, Field(ge=FPS_RANGE[0], le=FPS_RANGE[1])] | None = None
    sample_rate: Annotated[int, Field(ge=SAMPLE_RATES[0], le=SAMPLE_RATES[1])] = 16_000
    channels: Annotated[int, Field(ge=CHANNELS[0], le=CHANNELS[1])] = 1
    video: Literal["jpeg", "h264", "none"] = "jpeg"
    sound: bool = True


class Control(BaseModel):
    """What a client asks for.

    Attributes:
        type: The segment is complete; discard what was not shown; show what was said, then end.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["end", "interrupt", "close"]


_HELLO: TypeAdapter[Hello] = TypeAdapter(Hello)
_CONTROL: TypeAdapter[Control] = TypeAdapter(Control)


@router.websocket("/v1/stream")
async def stream(socket: WebSocket) -> None:
    """One session, from its hello to its end."""
    await socket.accept()
    service: Service = socket.app.state.service
    events = asyncio.get_running_loop()
    outbox = Outbox(events)
    try:
        hello = await _hello(socket)
        fps = None if hello.fps is None else parse_fps(str(hello.fps))
        session = await run_in_threadpool(
            service.open,
            hello.avatar,
            client_of(socket.scope),
            fps=fps,
            sample_rate=hello.sample_rate,
            channels=hello.channels,
        )
    except MuseTalkError as error:
        await _refuse(socket, error)
        return
    except (WebSocketDisconnect, asyncio.TimeoutError):
        return
    wants = Wants(video=hello.video, sound="pcm" if hello.sound else "none")
    receiver = Receiver(wants, outbox, session.stream.fps)
    outbox.put(_ready(session))
    session.add_listener(receiver)
    session.broadcast.join(receiver)
    inbox = Inbox(session)
    session.finisher = lambda: asyncio.run_coroutine_threadsafe(inbox.end(last=True), events)
    sending = asyncio.create_task(send_all(socket, outbox))
    tasks = [sending, asyncio.create_task(_receive_all(socket, session, inbox, outbox))]
    tasks.append(asyncio.create_task(inbox.give_all()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if inbox.is_complete:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
    finally:
        session.stop()
        session.broadcast.leave(receiver)
        outbox.close()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        why = BEHIND if isinstance(ended[0], asyncio.TimeoutError) else outbox.why
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(DONE if why is None else NOT_ALLOWED, why)


async def _hello(socket: WebSocket) -> Hello:
    """What the client wants.

    Raises:
        InputError: Its first message is none that says so.
    """
    text = await asyncio.wait_for(_next_text(socket), HELLO_S)
    try:
        return _HELLO.validate_python(parse(text))
    except (JsonError, ValidationError) as error:
        raise InputError(f"The first message is no hello: {reason_of(error)}.", HELLO) from error


async def _next_text(socket: WebSocket) -> str:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", DONE))
    return message.get("text") or ""


async def _refuse(socket: WebSocket, error: MuseTalkError) -> None:
    code = AGAIN if isinstance(error, RefusedError) else NOT_ALLOWED
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.send_text(dump({"type": "refused", "error": error.message, "hint": error.hint}))
        await socket.close(code)


def _ready(session: ServedSession) -> str:
    form = session.stream
    return dump(
        {
            "type": "ready",
            "session": session.id,
            "width": form.width,
            "height": form.height,
            "fps": str(form.fps),
            "sample_rate": form.sample_rate,
            "channels": form.channels,
        }
    )


async def send_all(socket: WebSocket, outbox: Outbox) -> None:
    """Send what there is, until nothing more comes or the client takes nothing for so long."""
    while (message := await outbox.take()) is not None:
        sent = socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message)
        await asyncio.wait_for(sent, BEHIND_S)


async def _receive_all(socket: WebSocket, session: ServedSession, inbox: Inbox, outbox: Outbox) -> None:
    """Take sound and controls until the client goes away; after it was sent away they are forgotten."""
    unknown = 0
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if outbox.why is not None:
            continue
        if (data := message.get("bytes")) is not None:
            await inbox.add(data)
            continue
        try:
            kind = _CONTROL.validate_python(parse(message.get("text") or "")).type
        except (JsonError, ValidationError) as error:
            unknown += 1
            outbox.put(dump({"type": "error", "error": f"A message is not understood: {reason_of(error)}."}))
            if unknown > UNKNOWN_MESSAGES:
                outbox.send_away(f"More than {UNKNOWN_MESSAGES} messages were not understood.", KNOWN)
            continue
        if kind == "interrupt":
            session.interrupt(inbox.discard())
        else:
            await inbox.end(last=kind == "close")
