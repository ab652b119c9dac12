"""Any text in place of an offer: an answer, or one sentence; and nothing of it is left."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from processes import open_descriptors
from sdp_offers import CHROMIUM, FIREFOX

from musetalk_cli.errors import InputError
from musetalk_cli.serve.offers import read_offer

pytest.importorskip("aiortc", reason="the extra serve is not installed")

from rtc_clients import LIMIT_S, Session

from musetalk_cli.serve.rtc import Answer, Peers

SESSION = Session()
# nothing may be sent to an address that a mutation made up
BROWSERS = [
    [line for line in text.splitlines() if not line.startswith("a=candidate")] for text in (CHROMIUM, FIREFOX)
]
CHANNEL = """m=application 9 UDP/DTLS/SCTP webrtc-datachannel
a=ice-ufrag:01234567
a=ice-pwd:0123456789abcdef0123456789abcdef
a=mid:2
a=setup:actpass
a=sctp-port:5000
a=max-message-size:262144""".splitlines()
BROWSERS.append([*BROWSERS[1], *CHANNEL])

PIECES = st.sampled_from([*CHROMIUM.splitlines(), *FIREFOX.splitlines()])
LINES = PIECES | st.text(max_size=30) | st.tuples(PIECES, st.text(max_size=10)).map("".join)
WORDS = st.sampled_from(
    ["0", "1", "-1", "127", "65536", "9" * 12, "a", "=", ";", ":", " ", "/", "\t", "\N{SNOWMAN}"]
)


def check_refusal(error):
    assert error.message.endswith(".")
    assert error.message.isprintable()
    assert len(error.message) < 200


def read(text):
    try:
        return read_offer(text)
    except InputError as error:
        return error


@given(st.lists(LINES, max_size=60).map("\r\n".join) | st.text())
@example("v=0\r\nm=video 9 RTP/SAVPF 0\x0b1\r\n")
def test_any_text_is_an_offer_or_refused_in_one_sentence(text):
    result = read(text)
    if isinstance(result, InputError):
        check_refusal(result)
    else:
        assert result.sdp.isascii()
        assert len(result.sdp.splitlines()) == result.sdp.count("\r\n")


@st.composite
def mutated(draw):
    """An offer of a browser with some lines changed, left out, doubled or moved."""
    lines = list(draw(st.sampled_from(BROWSERS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(1, len(lines) - 1))
        what = draw(st.sampled_from(["leave out", "double", "swap", "change", "cut", "other"]))
        if what == "leave out":
            del lines[at]
        elif what == "double":
            lines.insert(draw(st.integers(1, len(lines))), lines[at])
        elif what == "swap":
            other = draw(st.integers(1, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif what == "change":
            place = draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:place] + draw(WORDS) + lines[at][place + draw(st.integers(0, 3)) :]
        elif what == "cut":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
        else:
            lines[at] = draw(PIECES.filter(lambda line: not line.startswith("a=candidate")))
    return "\r\n".join([*lines, ""])


async def answer(text, *, microphone):
    peers = Peers()
    try:
        result = await peers.answer(SESSION, text, microphone=microphone)
        assert peers.count == 1
    except InputError as error:
        result = error
        assert peers.count == 0
    await peers.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    left = (await asyncio.wait(others, timeout=LIMIT_S))[1] if others else ()
    return result, left


@given(mutated(), st.booleans())
@example("\r\n".join([*BROWSERS[0], ""]), True)
@example("\r\n".join([*BROWSERS[2], ""]), False)
def test_a_mutated_offer_is_answered_or_refused_and_nothing_is_left(text, microphone):
    before = open_descriptors()
    result, left = asyncio.run(answer(text, microphone=microphone))
    assert not left
    assert open_descriptors() == before
    assert SESSION.broadcast.viewers == 0
    if isinstance(result, InputError):
        check_refusal(result)
    else:
        assert isinstance(result, Answer)
        assert result.sdp.count("m=") == text.count("\r\nm=")
