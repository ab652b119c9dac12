"""Offers as browsers make them."""

from pathlib import Path

CHROMIUM = (Path(__file__).parent / "data" / "offers" / "chromium-156-microphone.sdp").read_bytes().decode()
"""What Chromium 156 offered on Linux to see and hear, with its microphone."""
FINGERPRINT = ":".join(["AB"] * 32)
FIREFOX = f"""v=0
o=mozilla...THIS_IS_SDPARTA-99.0 2345678901234567890 0 IN IP4 0.0.0.0
s=-
t=0 0
a=fingerprint:sha-256 {FINGERPRINT}
a=group:BUNDLE 0 1
a=ice-options:trickle
a=msid-semantic:WMS *
m=video 9 UDP/TLS/RTP/SAVPF 120 124 126 127
c=IN IP4 0.0.0.0
a=candidate:0 1 UDP 2122252543 1b2c3d4e-5f60-7182-93a4-b5c6d7e8f901.local 50001 typ host
a=candidate:1 1 TCP 2105524479 1b2c3d4e-5f60-7182-93a4-b5c6d7e8f901.local 9 typ host tcptype active
a=recvonly
a=end-of-candidates
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:8/recvonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay
a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1
a=fmtp:127 apt=126
a=ice-pwd:0123456789abcdef0123456789abcdef
a=ice-ufrag:01234567
a=mid:0
a=rtcp-fb:126 nack pli
a=rtcp-mux
a=rtpmap:120 VP8/90000
a=rtpmap:126 H264/90000
a=rtpmap:127 rtx/90000
a=setup:actpass
a=ssrc:123456 cname:{{abc}}
m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8
c=IN IP4 0.0.0.0
a=recvonly
a=ice-pwd:0123456789abcdef0123456789abcdef
a=ice-ufrag:01234567
a=mid:1
a=rtcp-mux
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1
a=rtpmap:109 opus/48000/2
a=rtpmap:9 G722/8000/1
a=setup:actpass
"""
"""An offer in the manner of Firefox: shared attributes first, formats before the codecs that they are of."""
