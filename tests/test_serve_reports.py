"""What receivers are told of time, by the library's own reports."""

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("aiortc", reason="the extra serve is not installed")

from aiortc import RTCRtpSender
from aiortc.rtp import RtcpSenderInfo, RtcpSrPacket

from musetalk_cli.serve.reports import NTP_EPOCH, Reports

BEGAN = 1_700_000_000.25
WRAP = 1 << 32


class Sender:
    """Keeps what it is given to send, with an origin of its own."""

    def __init__(self, origin):
        self.origin, self.sent = origin, []

    async def _send_rtcp(self, packets):
        self.sent += packets

    def report(self, pts):
        info = RtcpSenderInfo(
            ntp_timestamp=7, rtp_timestamp=(self.origin + pts) % WRAP, packet_count=1, octet_count=1
        )
        asyncio.run(self._send_rtcp([RtcpSrPacket(ssrc=1, sender_info=info)]))
        ntp = self.sent[-1].sender_info.ntp_timestamp
        return ntp if ntp == 7 else ntp / WRAP - NTP_EPOCH - BEGAN


def sent(ticks, last=None, *, is_waiting=True, began=BEGAN):
    return SimpleNamespace(ticks=ticks, last=last, is_waiting=is_waiting, began=began)


def test_the_library_still_sends_its_reports_there():
    assert asyncio.iscoroutinefunction(RTCRtpSender._send_rtcp)  # noqa: SLF001 - what is leant on


@pytest.mark.parametrize("ticks", [48_000, 90_000])
@pytest.mark.parametrize("origin", [0, 12_345, WRAP - 1000])
def test_a_report_tells_the_streams_own_time_of_a_packet(ticks, origin):
    sender, track = Sender(origin), sent(ticks)
    Reports(sender, track)
    assert sender.report(0) == 7, "nothing is known yet"
    track.last = 5 * ticks
    assert sender.report(5 * ticks) == pytest.approx(5.0, abs=1e-4)
    # the next one was taken and not sent: the report is still of the one before
    track.last, track.is_waiting = 6 * ticks, False
    assert sender.report(5 * ticks) == pytest.approx(5.0, abs=1e-4)
    assert sender.report(6 * ticks) == pytest.approx(6.0, abs=1e-4)


def test_pictures_and_sound_of_one_time_are_told_the_same_time():
    told = []
    for ticks, origin in ((48_000, 99), (90_000, WRAP - 5)):
        sender, track = Sender(origin), sent(ticks, 3 * ticks)
        Reports(sender, track)
        told.append(sender.report(3 * ticks))
    assert told[0] == pytest.approx(told[1], abs=1e-6)


def test_a_stream_of_days_wraps_and_keeps_its_time():
    sender, day = Sender(1), 86_400 * 90_000
    track = sent(90_000, day)
    Reports(sender, track)
    assert sender.report(day) == pytest.approx(86_400, abs=1e-3)


def test_other_packets_pass():
    sender, other = Sender(0), object()
    Reports(sender, sent(48_000, 0))
    asyncio.run(sender._send_rtcp([other]))  # noqa: SLF001 - it is put there
    assert sender.sent == [other]
