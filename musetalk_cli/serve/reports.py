"""What RTCP's sender reports say of time (RFC 3550, 6.4.1): by them a receiver plays sound to pictures.

The library reports when a packet was really sent. On a busy machine that is tenths of a second after its
time, and never the same for pictures and for sound; a browser that believes it moves one against the other.
So both are reported by the stream's own clock, which they share.
"""

from __future__ import annotations

from typing import Protocol

from aiortc import RTCRtpSender
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket

NTP_EPOCH = 2_208_988_800
"""Seconds from the beginning of NTP's time, 1900, to that of `time.time`."""
_WRAP = 1 << 32


class Sent(Protocol):
    """What a track tells of its packets.

    Attributes:
        ticks: Of its timestamps in a second.
        last: Timestamp of the last packet that the sender took, in ticks from the start of the stream.
        is_waiting: True while the sender waits for the next one, so that the last was sent.
    """

    ticks: int
    last: int | None
    is_waiting: bool

    @property
    def began(self) -> float | None:
        """The start of the stream in seconds of `time.time`, the same for all tracks of a viewer."""


class Reports:
    """Puts the stream's time into a sender's reports.

    Args:
        sender: Whose reports they are; from now on they go through here.
        track: What it sends.
    """

    def __init__(self, sender: RTCRtpSender, track: Sent) -> None:
        self._track = track
        self._send = sender._send_rtcp  # noqa: SLF001 - the library offers no other place
        # RTP counts from a number of the library's choice
        self._origin: int | None = None
        sender._send_rtcp = self.send  # type: ignore[method-assign]  # noqa: SLF001

    async def send(self, packets: list[AnyRtcpPacket]) -> None:
        """Correct what is to be sent, and send it."""
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                info = packet.sender_info
                info.ntp_timestamp = self._time_of(info.rtp_timestamp) or info.ntp_timestamp
        await self._send(packets)

    def _time_of(self, timestamp: int) -> int | None:
        """NTP's time of a packet, or None where its place in the stream is not known yet."""
        track, began = self._track, self._track.began
        if track.last is None or began is None:
            return None
        if track.is_waiting:
            self._origin = (timestamp - track.last) % _WRAP
        if self._origin is None:
            return None
        # both are near each other: the difference is taken the short way round
        since = (timestamp - self._origin - track.last + _WRAP // 2) % _WRAP - _WRAP // 2
        return int((began + NTP_EPOCH) * _WRAP) + (track.last + since) * _WRAP // track.ticks
