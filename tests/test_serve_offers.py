"""Offers of WebRTC: what is understood of them, and that nothing else reaches the library."""

import pytest
from sdp_offers import CHROMIUM, FINGERPRINT, FIREFOX

from musetalk_cli.errors import InputError
from musetalk_cli.serve.offers import MOST_BYTES, MOST_CANDIDATES, read_offer


def without(text, *names):
    return "\n".join(line for line in text.splitlines() if not line.startswith(tuple(names)))


def test_an_offer_of_chromium():
    offer = read_offer(CHROMIUM)
    assert (offer.video, offer.sound, offer.microphone, offer.later) == (True, True, True, ())
    lines = offer.sdp.splitlines()
    assert "a=group:BUNDLE 0 1" in lines
    assert sum(line.startswith("a=candidate") and " udp " in line for line in lines) == 4
    assert "a=rtpmap:108 H264/90000" in lines
    assert "a=fmtp:109 apt=108" in lines
    assert "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time" in lines
    assert not any(" tcp " in line or line.startswith(("a=ssrc", "a=msid", "a=rtpmap:35")) for line in lines)


def test_an_offer_in_the_manner_of_firefox():
    offer = read_offer(FIREFOX)
    assert (offer.video, offer.sound, offer.microphone) == (True, True, False)
    (later,) = offer.later
    assert later.mid == "0"
    assert later.text.split()[4:6] == ["1b2c3d4e-5f60-7182-93a4-b5c6d7e8f901.local", "50001"]
    lines = offer.sdp.splitlines()
    assert not any(line.startswith(("a=candidate", "a=end-of")) for line in lines)
    assert lines.count(f"a=fingerprint:sha-256 {FINGERPRINT}") == 2
    assert "a=rtcp-fb:126 nack pli" in lines


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_lines_end_as_they_like_and_come_out_as_they_should(ends):
    offer = read_offer(FIREFOX.replace("\n", ends))
    assert offer == read_offer(FIREFOX)
    assert offer.sdp.count("\r\n") == offer.sdp.count("\n")


@pytest.mark.parametrize(
    ("video", "audio", "expected"),
    [
        ("sendrecv", "recvonly", (True, True, False)),
        ("recvonly", "sendrecv", (True, True, True)),
        ("inactive", "sendrecv", (False, True, True)),
        ("recvonly", "sendonly", (True, False, True)),
        ("recvonly", "inactive", (True, False, False)),
    ],
)
def test_directions_say_what_is_asked_for(video, audio, expected):
    offer = read_offer(FIREFOX.replace("recvonly", audio).replace(f"a={audio}\n", f"a={video}\n", 1))
    assert (offer.video, offer.sound, offer.microphone) == expected


def test_without_a_direction_a_stream_goes_both_ways():
    offer = read_offer(without(FIREFOX, "a=recvonly"))
    assert (offer.video, offer.sound, offer.microphone) == (True, True, True)
    assert offer.sdp.count("a=sendrecv") == 2


@pytest.mark.parametrize(
    "name", ["a=ice-ufrag", "a=ice-pwd", "a=setup", "a=mid", "a=fingerprint", "a=rtcp-mux"]
)
def test_what_is_needed_and_missing_is_named(name):
    with pytest.raises(InputError, match=rf"^The offer cannot be read: {name} is not as it should be\.$"):
        read_offer(without(FIREFOX, name))


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("v=0", "v=1"),
        ("a=mid:1", "a=mid:0"),
        ("a=mid:1", "a=mid:one two"),
        ("a=ice-pwd:0123456789abcdef0123456789abcdef", "a=ice-pwd:short"),
        ("a=ice-ufrag:01234567", "a=ice-ufrag:\N{SNOWMAN}"),
        ("a=setup:actpass", "a=setup:holdconn"),
        ("a=fmtp:127 apt=126", "a=fmtp:127 apt=x"),
        ("a=fmtp:127 apt=126", "a=fmtp:126 packetization-mode"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF", "m=image 9 UDP/TLS/RTP/SAVPF"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF", "m=audio 9 RTP/AVP"),
    ],
)
def test_what_is_not_as_it_should_be_is_refused_in_one_sentence(line, other):
    assert line in FIREFOX
    with pytest.raises(InputError, match=r"^The offer cannot be read: .{2,30} is not as it should be\.$"):
        read_offer(FIREFOX.replace(line, other))


@pytest.mark.parametrize("text", ["", "v=0", "v=0\r\n" * 9, "hello", "\0", "m=", FIREFOX.partition("m=")[0]])
def test_what_is_no_offer_is_refused(text):
    with pytest.raises(InputError, match=r"^The offer cannot be read: "):
        read_offer(text)


def test_too_many_streams_are_refused():
    head, *sections = FIREFOX.split("m=")
    more = [f"m={sections[1].replace('a=mid:1', f'a=mid:{number}')}" for number in range(10, 18)]
    with pytest.raises(InputError, match="the number of its streams"):
        read_offer("".join([head, "m=", sections[0], *more]))


def test_a_long_offer_is_refused():
    with pytest.raises(InputError, match=r"^The offer is longer than 64 KiB\.$"):
        read_offer(FIREFOX + "a=x\n" * (MOST_BYTES // 4))


@pytest.mark.parametrize(
    ("setting", "other"),
    [
        ("packetization-mode=1", "packetization-mode=0"),
        ("packetization-mode=1", "packetization-mode=10"),
        ("profile-level-id=42e01f", "profile-level-id=64001f"),
        ("profile-level-id=42e01f", "profile-level-id=42e11f"),
    ],
)
def test_h264_must_be_of_the_kind_that_is_sent(setting, other):
    with pytest.raises(InputError, match=r"^The offer has no H\.264 with packetization-mode=1"):
        read_offer(FIREFOX.replace(setting, other))


def test_opus_must_be_there():
    with pytest.raises(InputError, match=r"^The offer has no Opus\.$"):
        read_offer(FIREFOX.replace("opus/48000/2", "red/48000/2"))


@pytest.mark.parametrize(
    "candidate",
    [
        "1 1 udp 1 224.0.0.251 5353 typ host",
        "1 1 udp 1 0.0.0.0 5000 typ host",
        "1 1 udp 1 example.com 5000 typ host",
        "1 1 udp 1 fe80::1%lo 5000 typ host",
        "1 1 udp 1 192.0.2.1 0 typ host",
        "1 1 udp 1 192.0.2.1 70000 typ host",
        "1 2 udp 1 192.0.2.1 5000 typ host",
        "1 1 tcp 1 192.0.2.1 5000 typ host",
        "1 1 udp 1 192.0.2.1 5000 typ prflx",
        "1 1 udp -1 192.0.2.1 5000 typ host",
        "1 1 udp 1 192.0.2.1",
        "",
    ],
)
def test_addresses_that_nothing_can_be_sent_to_are_passed_over(candidate):
    offer = read_offer(FIREFOX.replace("a=mid:0", f"a=mid:0\na=candidate:{candidate}"))
    assert offer == read_offer(FIREFOX)


def test_addresses_are_bounded():
    many = "".join(f"a=candidate:1 1 udp 1 192.0.2.1 {port} typ host\n" for port in range(1000, 1200))
    offer = read_offer(FIREFOX.replace("a=mid:1\n", f"a=mid:1\n{many}"))
    assert offer.sdp.count("a=candidate") == MOST_CANDIDATES


@pytest.mark.parametrize("group", ["BUNDLE 0", "LS 0 1", "BUNDLE"])
def test_streams_that_are_not_bundled_are_refused(group):
    with pytest.raises(InputError, match=r"^The offer does not bundle its streams\.$"):
        read_offer(FIREFOX.replace("BUNDLE 0 1", group))


def test_a_bundle_names_only_streams_that_are_there():
    lines = read_offer(FIREFOX.replace("BUNDLE 0 1", "BUNDLE 9 1 0 1")).sdp.splitlines()
    assert "a=group:BUNDLE 1 0" in lines
