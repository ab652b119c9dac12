"""What a connection of aiortc needs besides: one codec a stream, a sign of life, and an end without rests."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Literal

from aiortc import RTCPeerConnection, RTCRtpSender, RTCRtpTransceiver

from musetalk_cli.serve.reports import Reports
from musetalk_cli.serve.tracks import PictureTrack, SoundTrack

CONSTRAINED_BASELINE = "42e01f"
SETTLE_S = 5.0
"""How long what was begun for a connection may go on when it is closed."""


def add_stream(
    connection: RTCPeerConnection,
    track: PictureTrack | SoundTrack,
    direction: Literal["sendrecv", "sendonly"],
    codec: Literal["H264", "opus"],
) -> RTCRtpTransceiver:
    """Add a stream with one codec: said before the offer is read, or another is agreed on in silence.

    Args:
        connection: A connection that has no offer yet.
        track: What is sent; packets of the codec.
        direction: Whether something is received, too.
        codec: The name of the codec.
    """
    transceiver = connection.addTransceiver(track, direction)
    Reports(transceiver.sender, track)
    fit = [
        each
        for each in RTCRtpSender.getCapabilities(track.kind).codecs
        if each.name in {codec, "rtx"} and each.parameters.get("packetization-mode", "1") == "1"
    ]
    # what is sent is constrained baseline; plain baseline, which some offer alone, can hold it too
    fit.sort(key=lambda each: each.parameters.get("profile-level-id") != CONSTRAINED_BASELINE)
    transceiver.setCodecPreferences(fit)
    return transceiver


async def received(connection: RTCPeerConnection) -> int:
    """Packets that came from the peer."""
    stats = await connection.getStats()
    return sum(each.packetsReceived for each in stats.values() if each.type == "transport")


async def close_connection(connection: RTCPeerConnection) -> None:
    """Close a connection and all that belongs to it; safe to call twice.

    Where it is closed while it is made, the library goes on for a moment with making it, and begins what it
    would never end: reports and checks of a peer that is gone.
    """
    making = _tasks_of(connection)
    await connection.close()
    if not making:
        return
    done, _ = await asyncio.wait(making, timeout=SETTLE_S)
    for task in done:
        if not task.cancelled():
            task.exception()  # that it was closed is no news, and is not to be logged
    for transceiver in connection.getTransceivers():
        await transceiver.stop()
        await transceiver.receiver.transport.stop()
        await transceiver.receiver.transport.transport.stop()
    if connection.sctp is not None:
        await connection.sctp.stop()
        await connection.sctp.transport.stop()
        await connection.sctp.transport.transport.stop()


def _tasks_of(connection: RTCPeerConnection) -> list[asyncio.Task[Any]]:
    """Tasks that run a method of a connection, which nobody waits for."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return [task for task in others if _self_of(task) is connection]


def _self_of(task: asyncio.Task[Any]) -> object:
    coroutine = task.get_coro()
    return inspect.getcoroutinelocals(coroutine).get("self") if inspect.iscoroutine(coroutine) else None
