"""Offers to watch by WebRTC. They come from outside, so what the library reads is written here anew."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from musetalk_cli.errors import InputError

MOST_BYTES = 64 << 10
"""The longest offer: those of browsers with a camera, a microphone and all their codecs have 12 KiB."""
MOST_SECTIONS = 8
MOST_CANDIDATES = 64

_KINDS = {
    "audio": r"(?:UDP/TLS/)?RTP/SAVPF",
    "video": r"(?:UDP/TLS/)?RTP/SAVPF",
    "application": r"(?:UDP/)?DTLS/SCTP",
}
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_SHARED = {
    "ice-ufrag": r"[A-Za-z0-9+/]{4,256}",
    "ice-pwd": r"[A-Za-z0-9+/]{22,256}",
    "setup": r"actpass|active|passive",
}
"""Attributes of a transport by how their values are written: of a section, or of all of them."""
_OWN = _SHARED | {
    "mid": r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]{1,16}",
    "sctp-port": r"[0-9]{1,5}",
    "max-message-size": r"[0-9]{1,9}",
}
_FINGERPRINT = re.compile(r"(?:sha-256|sha-384|sha-512) [0-9A-Fa-f:]{95,191}", re.IGNORECASE)
_EXTENSION = re.compile(r"([1-9]|1[0-4])(?:/[a-z]+)? ([!-~]+)")
_CODEC = re.compile(r"(9[6-9]|1[01][0-9]|12[0-7]) [A-Za-z0-9.-]{1,32}/[0-9]{1,6}(?:/[0-9])?")
_FEEDBACK = re.compile(r"([0-9]{1,3}|\*) [!-~]+(?: [ -~]+)?")
_SETTINGS = re.compile(r"([0-9]{1,3}) ([ -~]+)")
_NUMBERS = re.compile(
    r"(?:apt|max-fr|max-fs|maxplaybackrate|minptime|stereo|useinbandfec|packetization-mode)(?!=[0-9]{1,9}(?:;|$))"
    r"(?:=|;|$)"
)
"""A setting that is a number, and is written as something else."""
_BASELINE = re.compile(r"(^|;)profile-level-id=42[0-9a-f]0[0-9a-f]{2}(;|$)")
_CANDIDATE = re.compile(
    r"([A-Za-z0-9+/]{1,32}) 1 udp ([0-9]{1,10}) ([0-9A-Fa-f.:]+|[A-Za-z0-9-]{1,63}\.local) ([0-9]{1,5})"
    r" typ (host|srflx|relay)(?: .*)?",
    re.IGNORECASE,
)

_HINT = "Send the offer of a browser, or of another WebRTC client, as it is."


class LaterCandidate(NamedTuple):
    """An address of the peer that is a name, as browsers hide it from pages; it takes time to resolve.

    Attributes:
        mid: The section it belongs to.
        text: The value of its line.
    """

    mid: str
    text: str


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that can be read.

    Attributes:
        sdp: What of it was understood, for the library.
        video: It asks for pictures.
        sound: It asks for sound.
        microphone: It brings sound.
        later: Addresses that are to be resolved first.
    """

    sdp: str
    video: bool
    sound: bool
    microphone: bool
    later: tuple[LaterCandidate, ...]


@dataclass(slots=True)
class _Section:
    """What is said of one stream, or before all of them, as far as it is understood."""

    kind: str
    profile: str = ""
    direction: str = ""
    values: dict[str, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    fingerprints: list[str] = field(default_factory=list)
    extensions: list[str] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)
    codecs: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    feedback: list[str] = field(default_factory=list)
    bundle: list[str] = field(default_factory=list)

    def take(self, name: str, value: str) -> None:
        """Read an attribute; one that is not needed is passed over.

        Raises:
            InputError: It is needed, and cannot be read.
        """
        if name in _DIRECTIONS:
            self.direction = name
        elif name in {"rtcp-mux", "ice-lite"}:
            self.flags.add(name)
        elif name in (_OWN if self.kind else _SHARED):
            if not re.fullmatch(_OWN[name], value):
                raise _unreadable(f"a={name}")
            self.values[name] = value
        elif name == "group" and value.startswith("BUNDLE ") and not self.bundle:
            self.bundle = value.split()[1:]
        elif name == "fingerprint" and _FINGERPRINT.fullmatch(value):
            self.fingerprints.append(value)
        elif self.kind:
            self._take_format(name, value)

    def _take_format(self, name: str, value: str) -> None:
        if name == "candidate":
            self._take_candidate(value)
        elif name == "extmap" and (found := _EXTENSION.match(value)):
            self.extensions.append(f"{found[1]} {found[2]}")
        elif name == "rtpmap" and (found := _CODEC.fullmatch(value)):
            self.codecs.setdefault(found[1], value)
        elif name == "rtcp-fb" and _FEEDBACK.fullmatch(value):
            self.feedback.append(value)
        elif name == "fmtp" and (found := _SETTINGS.fullmatch(value)):
            parts = [part.strip() for part in found[2].split(";")]
            if any(map(_NUMBERS.match, parts)):
                raise _unreadable("a=fmtp")
            self.settings[found[1]] = ";".join(parts)

    def _take_candidate(self, value: str) -> None:
        found = _CANDIDATE.fullmatch(value)
        if found is None or len(self.candidates) >= MOST_CANDIDATES:
            return
        foundation, priority, address, port, kind = found.groups()
        if not address.lower().endswith(".local"):
            try:
                place = ipaddress.ip_address(address)
            except ValueError:
                return
            if place.is_multicast or place.is_unspecified:
                return
            address = str(place)
        if 0 < int(port) < 1 << 16:
            text = f"{foundation} 1 udp {int(priority) % (1 << 31)} {address} {int(port)} typ {kind.lower()}"
            self.candidates.append(text)

    def is_baseline(self, codec: str) -> bool:
        """True for an H.264 that can be sent: packets of more than one frame's part, and of a fit profile."""
        settings = self.settings.get(codec, "").lower()
        return (
            self.codecs[codec].lower().endswith(" h264/90000")
            and bool(re.search(r"(^|;)packetization-mode=1(;|$)", settings))
            and ("profile-level-id=" not in settings or bool(_BASELINE.search(settings)))
        )

    @property
    def later(self) -> list[LaterCandidate]:
        """Candidates whose address is a name."""
        mid = self.values["mid"]
        return [LaterCandidate(mid, text) for text in self.candidates if ".local " in text]

    def lines(self) -> list[str]:
        """The section for the library; no end of the candidates, since some come later."""
        if self.kind == "application":
            formats = "webrtc-datachannel" if self.profile.startswith("UDP") else "5000"
            told = [f"sctp-port:{self.values.get('sctp-port', '5000')}"]
            told.append(f"max-message-size:{self.values.get('max-message-size', '65536')}")
        else:
            formats = " ".join(self.codecs)
            told = [self.direction, "rtcp-mux"]
            told += [f"extmap:{text}" for text in self.extensions]
            told += [f"rtpmap:{text}" for text in self.codecs.values()]
            told += [f"rtcp-fb:{text}" for text in self.feedback]
            told += [f"fmtp:{codec} {text}" for codec, text in self.settings.items() if codec in self.codecs]
        told += [f"{name}:{self.values[name]}" for name in (*_SHARED, "mid")]
        told += [f"fingerprint:{text}" for text in self.fingerprints]
        told += [f"candidate:{text}" for text in self.candidates if ".local " not in text]
        return [f"m={self.kind} 9 {self.profile} {formats}", *(f"a={text}" for text in told)]


def read_offer(text: str) -> Offer:
    """Read an offer of SDP.

    Only the first stream of pictures and the first of sound count; others are to be answered as inactive.

    Raises:
        InputError: It is too long, no offer of a WebRTC client, or asks for nothing that can be sent.
    """
    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise InputError(f"The offer is longer than {MOST_BYTES >> 10} KiB.", _HINT)
    shared, sections = _split(text)
    for section in sections:
        _complete(section, shared)
    mids = [section.values["mid"] for section in sections]
    if len(set(mids)) < len(mids) or sum(section.kind == "application" for section in sections) > 1:
        raise _unreadable("m=")
    bundle = [mid for mid in dict.fromkeys(shared.bundle) if mid in mids]
    # the library answers every offer with one transport
    if len(mids) > 1 and set(bundle) != set(mids):
        raise InputError("The offer does not bundle its streams.", _HINT)
    head = ["v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    head += [f"a=group:BUNDLE {' '.join(bundle)}"] if bundle else []
    head += ["a=ice-lite"] if "ice-lite" in shared.flags else []
    video = next((each for each in sections if each.kind == "video"), None)
    sound = next((each for each in sections if each.kind == "audio"), None)
    offer = Offer(
        "".join(f"{line}\r\n" for line in chain(head, *(section.lines() for section in sections))),
        video is not None and video.direction in {"recvonly", "sendrecv"},
        sound is not None and sound.direction in {"recvonly", "sendrecv"},
        sound is not None and sound.direction in {"sendonly", "sendrecv"},
        tuple(chain.from_iterable(section.later for section in sections)),
    )
    _check_codecs(offer, video, sound)
    return offer


def _unreadable(what: str) -> InputError:
    return InputError(f"The offer cannot be read: {what} is not as it should be.", _HINT)


def _split(text: str) -> tuple[_Section, list[_Section]]:
    """What is said before all streams, and each stream."""
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[0] != "v=0":
        raise _unreadable("the first line")
    shared, sections = _Section(""), []
    for line in lines:
        if line.startswith("m="):
            sections.append(_begin(line))
        elif line.startswith("a=") and line.isascii() and line.isprintable():
            name, _, value = line[2:].partition(":")
            (sections[-1] if sections else shared).take(name, value)
    if not 0 < len(sections) <= MOST_SECTIONS:
        raise _unreadable("the number of its streams")
    return shared, sections


def _begin(line: str) -> _Section:
    kind, _, rest = line[2:].partition(" ")
    found = re.match(rf"[0-9]{{1,5}} ({_KINDS[kind]}) [!-~]", rest) if kind in _KINDS else None
    if found is None:
        raise _unreadable("m=")
    return _Section(kind, found[1])


def _complete(section: _Section, shared: _Section) -> None:
    """Give a section what is said for all, and look whether anything is missing."""
    section.values = shared.values | section.values
    section.fingerprints = section.fingerprints or shared.fingerprints
    section.direction = section.direction or shared.direction or "sendrecv"
    for name in (*_SHARED, "mid"):
        if name not in section.values:
            raise _unreadable(f"a={name}")
    if not section.fingerprints:
        raise _unreadable("a=fingerprint")
    if section.kind != "application" and "rtcp-mux" not in section.flags:
        raise _unreadable("a=rtcp-mux")


def _check_codecs(offer: Offer, video: _Section | None, sound: _Section | None) -> None:
    if not (offer.video or offer.sound):
        raise InputError("The offer asks for neither pictures nor sound.", "Make it with recvonly streams.")
    if offer.video and video is not None and not any(map(video.is_baseline, video.codecs)):
        raise InputError(
            "The offer has no H.264 with packetization-mode=1 and the baseline profile.",
            "Use a browser or a client that decodes H.264.",
        )
    if (
        (offer.sound or offer.microphone)
        and sound is not None
        and not any(text.lower().endswith(" opus/48000/2") for text in sound.codecs.values())
    ):
        raise InputError("The offer has no Opus.", "Use a browser or a client that decodes Opus.")
