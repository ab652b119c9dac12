"""Viewers by WebRTC, with real peers on this machine."""

import asyncio
import gc
import itertools
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from lives import delay_of, speech
from processes import open_descriptors

from musetalk_cli.errors import InputError
from musetalk_cli.serve.refusals import RefusedError

pytest.importorskip("aiortc", reason="the extra serve is not installed")

from aiortc import RTCRtpSender
from rtc_clients import (
    FPS,
    LIMIT_S,
    RATE,
    Client,
    Session,
    Voice,
    clients,
    in_thread,
    picture,
    shade_of,
)

from musetalk_cli.serve.rtc import CONNECT_S, Peers

HERE = Path(__file__).parent


def run(scenario):
    """Run a scenario with its peers; nothing of it is left in the loop."""

    async def whole():
        peers = Peers()
        try:
            async with asyncio.timeout(3 * LIMIT_S):
                await scenario(peers)
        finally:
            await peers.close()
        assert peers.count == 0
        await settle()

    asyncio.run(whole())


async def settle():
    """Until no task is left but this one: the library starts some that nobody waits for."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, left = await asyncio.wait(others, timeout=LIMIT_S)
        assert not left


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


def section(sdp, kind):
    return next(part for part in sdp.split("m=") if part.startswith(kind))


def test_pictures_and_sound_arrive_as_they_were_sent_and_together():
    session = Session()

    async def scenario(peers):
        async with clients(Client()) as (client,):
            with session.running():
                await client.watch(peers, session)
                await client.until(lambda: len(client.pictures) >= 40 and len(client.sounds) >= 80)
        numbers = client.numbers
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        for number, (_, image) in zip(numbers, client.pictures, strict=True):
            assert psnr(image, picture(number)) > 30
        times = [pts for pts, _ in client.pictures]
        assert [pts - times[0] for pts in times] == [90_000 // FPS * n for n in range(len(times))]
        heard = client.sound
        assert [pts for pts, _ in client.sounds] == [
            client.sounds[0][0] + 960 * n for n in range(len(client.sounds))
        ]
        place, likeness = delay_of(heard[RATE // 2 : RATE], session.sound, RATE)
        assert likeness > 0.8
        # what came first of each was sent with the same frame
        assert abs((place - 0.5) - numbers[0] / FPS) < 0.5 / FPS

    run(scenario)


def test_who_is_still_being_connected_when_the_session_ends_is_let_go():
    session = Session()
    session.is_over = True

    async def scenario(peers):
        async with clients(Client()) as (client,):
            await peers.answer(session, await client.offer(), microphone=False)
            async with asyncio.timeout(CONNECT_S / 2):
                while peers.count:
                    await asyncio.sleep(0.005)

    run(scenario)


def test_a_second_viewer_does_not_disturb_the_first():
    session = Session()

    async def scenario(peers):
        async with clients(Client(), Client()) as (first, second):
            with session.running():
                await first.watch(peers, session)
                await first.until_pictures(10)
                await second.watch(peers, session)
                await second.until_pictures(20)
                await first.until_pictures(40)
        for client in (first, second):
            numbers = client.numbers
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            times = [pts for pts, _ in client.pictures]
            assert set(np.diff(times)) == {90_000 // FPS}
            for number, (_, image) in zip(numbers, client.pictures, strict=True):
                assert psnr(image, picture(number)) > 30

    run(scenario)


@pytest.mark.slow
def test_sessions_do_not_see_each_other():
    one, other = Session(40, seed=1), Session(200, seed=2)

    async def scenario(peers):
        async with clients(*(Client() for _ in range(4))) as watching:
            with one.running(), other.running():
                for number, client in enumerate(watching):
                    await client.watch(peers, (one, other)[number % 2])
                for client in watching:
                    await client.until(lambda: len(client.pictures) >= 15 and len(client.sounds) >= 60)  # noqa: B023
        for number, client in enumerate(watching):
            assert all(abs(shade_of(image) - (40, 200)[number % 2]) < 10 for _, image in client.pictures)
            likeness = [
                delay_of(client.sound[9600:33600], session.sound, RATE)[1] for session in (one, other)
            ]
            assert likeness[number % 2] > 0.8
            assert likeness[1 - number % 2] < 0.3

    run(scenario)


def test_h264_and_opus_are_agreed_on_whatever_else_is_offered():
    async def scenario(peers):
        async with clients(Client()) as (client,):
            with Session().running() as session:
                answer = await client.watch(peers, session)
        video = re.findall(r"a=rtpmap:\d+ (\S+)", section(answer.sdp, "video"))
        assert set(video) == {"H264/90000", "rtx/90000"}
        settings = re.findall(r"a=fmtp:\d+ (level\S+)", section(answer.sdp, "video"))
        assert "packetization-mode=1;profile-level-id=42e01f" in settings[0]
        assert all("packetization-mode=1" in each for each in settings)
        assert re.findall(r"a=rtpmap:\d+ (\S+)", section(answer.sdp, "audio")) == ["opus/48000/2"]
        assert "a=candidate" in answer.sdp

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "codec", "words"),
    [
        ("video", "VP8", r"^The offer has no H\.264 with packetization-mode=1 and the baseline profile\.$"),
        ("audio", "PCMU", r"^The offer has no Opus\.$"),
    ],
)
def test_an_offer_without_the_codec_is_refused(kind, codec, words):
    async def scenario(peers):
        async with clients(Client()) as (client,):
            for transceiver in client.connection.getTransceivers():
                if transceiver.kind == kind:
                    codecs = RTCRtpSender.getCapabilities(kind).codecs
                    transceiver.setCodecPreferences([each for each in codecs if each.name == codec])
            with pytest.raises(InputError, match=words) as caught:
                await peers.answer(Session(), await client.offer(), microphone=False)
            assert caught.value.hint
            assert peers.count == 0

    run(scenario)


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_one_may_ask_for_pictures_or_sound_alone(kind):
    async def scenario(peers):
        async with clients(Client(**{kind: "recvonly"})) as (client,):
            with Session().running() as session:
                answer = await client.watch(peers, session)
                await client.until(lambda: len(client.pictures) + len(client.sounds) >= 10)
        assert bool(client.pictures) == (kind == "video")
        assert answer.sdp.count("m=") == 1

    run(scenario)


def test_one_that_asks_for_nothing_is_refused():
    async def scenario(peers):
        async with clients(Client(video="sendonly", audio="inactive")) as (client,):
            with pytest.raises(InputError, match="asks for neither pictures nor sound"):
                await peers.answer(Session(), await client.offer(), microphone=True)

    run(scenario)


def test_a_data_channel_and_further_streams_are_no_harm():
    async def scenario(peers):
        client = Client()
        client.connection.createDataChannel("chat")
        for kind in ("video", "audio"):
            client.connection.addTransceiver(kind, "sendrecv")
        async with clients(client):
            with Session().running() as session:
                answer = await client.watch(peers, session, microphone=True)
                await client.until_pictures(10)
        assert [
            line for line in answer.sdp.splitlines() if line in {"a=sendonly", "a=inactive", "a=recvonly"}
        ] == [
            *["a=sendonly"] * 2,
            *["a=inactive"] * 2,
        ]

    run(scenario)


def test_the_session_hears_the_microphone():
    voice = speech(4, RATE, seed=5)

    async def scenario(peers):
        async with clients(Client(Voice(voice), video="recvonly")) as (client,):
            with Session().running() as session:
                answer = await client.watch(peers, session, microphone=True)
                await client.until(lambda: len(session.heard) >= 60 and len(client.sounds) >= 10)
        assert "a=sendrecv" in section(answer.sdp, "audio")
        assert {part.dtype for part in session.heard} == {np.dtype(np.float32)}
        heard = np.concatenate(session.heard)
        assert heard.shape[1] == 1
        _, likeness = delay_of(heard[9600:33600, 0], voice, RATE)
        assert likeness > 0.8

    run(scenario)


def test_a_microphone_that_is_not_wanted_is_not_received():
    async def scenario(peers):
        async with clients(Client(Voice(speech(4, RATE)), video="recvonly")) as (client,):
            with Session().running() as session:
                answer = await client.watch(peers, session, microphone=False)
                await client.until_pictures(25)
        assert "a=sendonly" in section(answer.sdp, "audio")
        assert session.heard == []

    run(scenario)


@pytest.fixture
def names(monkeypatch):
    """Addresses that multicast DNS would find; nothing is asked on the network."""
    found = {}

    async def resolve(_, hostname, timeout=None):
        return found.get(hostname)

    monkeypatch.setattr("aioice.mdns.MDnsProtocol.resolve", resolve)
    return found


def hidden(offer, names):
    """An offer whose addresses are names, as browsers hide them, and what each name stands for."""

    def hide(found):
        name = f"{len(names)}-hidden.local"
        names[name] = found[2]
        return f"{found[1]}{name}{found[3]}"

    return re.sub(r"(a=candidate:\S+ 1 udp \d+ )(\S+)( )", hide, offer)


def test_addresses_that_are_names_are_resolved(names):
    async def scenario(peers):
        async with clients(Client()) as (client,):
            with Session().running() as session:
                offer = hidden(await client.offer(), names)
                answer = await peers.answer(session, offer, microphone=False)
                # the client knows no address of the service, so it is the service that must call
                mute = re.sub(r"a=(candidate:.*|end-of-candidates)\r\n", "", answer.sdp)
                await client.take_answer(mute)
                await client.until_pictures(3)
        assert names

    run(scenario)


def test_a_peer_whose_address_cannot_be_resolved_is_found_when_it_calls(names):
    async def scenario(peers):
        async with clients(Client()) as (client,):
            with Session().running() as session:
                offer = hidden(await client.offer(), names)
                names.clear()
                answer = await peers.answer(session, offer, microphone=False)
                await client.take_answer(answer.sdp)
                await client.until_pictures(3)

    run(scenario)


def test_a_service_that_cannot_ask_for_names_lets_the_peer_call(names, monkeypatch):
    async def refuse():
        raise OSError("Address already in use")

    monkeypatch.setattr("aioice.mdns.create_mdns_protocol", refuse)

    async def scenario(peers):
        async with clients(Client()) as (client,):
            with Session().running() as session:
                answer = await peers.answer(session, hidden(await client.offer(), names), microphone=False)
                await client.take_answer(answer.sdp)
                await client.until_pictures(3)

    run(scenario)


def test_a_session_that_ends_before_the_viewer_is_connected_ends_the_viewer():
    async def scenario(peers):
        async with clients(Client()) as (client,):
            session = Session()
            with session.running():
                offer = await client.offer()
            await client.take_answer((await peers.answer(session, offer, microphone=False)).sdp)
            await client.until(lambda: client.connection.connectionState in {"closed", "failed"})

    run(scenario)


@pytest.mark.parametrize("way", ["client", "service", "session"])
def test_who_goes_leaves_nothing_and_the_others_go_on(way):
    session, going = Session(), Session()

    async def scenario(peers):
        async with clients(Client(), Client()) as (gone, staying):
            with session.running():
                await staying.watch(peers, session)
                with going.running():
                    answer = await gone.watch(peers, going)
                    await gone.until_pictures(3)
                    if way == "client":
                        await gone.close()
                        await in_thread(going.broadcast.wait_for_viewers, 0)
                    elif way == "service":
                        await peers.leave(answer.viewer)
                        await peers.leave(answer.viewer)
                        assert going.broadcast.viewers == 0
                await gone.until(lambda: gone.connection.connectionState in {"closed", "failed"})
                count = len(staying.pictures)
                await staying.until_pictures(count + 10)
                assert peers.count == 1

    run(scenario)


ANY = {"new", "checking", "connecting", "completed", "connected"}
STEPS = [(ANY, ANY), ({"completed"}, ANY), ({"completed"}, {"connected"})]
"""Of a connection on its way: just begun, a path is found, keys are agreed upon."""


@pytest.mark.parametrize("first", ["service", "client"])
def test_one_that_leaves_while_it_is_connected_leaves_nothing(first, caplog):
    session = Session()

    async def scenario(peers):
        for (ice, whole), turns in itertools.product(STEPS, (0, 1, 2, 5, 13)):
            async with clients(Client()) as (client,):
                answer = await client.watch(peers, session)
                connection = client.connection
                await client.until(
                    lambda: connection.iceConnectionState in ice and connection.connectionState in whole  # noqa: B023
                )
                for _ in range(turns):  # of the loop, which both ends share: a packet or two each
                    await asyncio.sleep(0)
                if first == "client":
                    await client.close()
                await peers.leave(answer.viewer)
            await settle()
        gc.collect()

    run(scenario)
    assert session.broadcast.viewers == 0
    assert not caplog.records


def test_one_that_vanishes_is_noticed():
    session = Session()

    async def scenario(_):
        peers = Peers(silent_s=3)
        viewer = await in_thread(start_viewer)
        try:
            with session.running():
                offer = json.loads(await in_thread(viewer.stdout.readline))
                answer = await peers.answer(session, offer, microphone=False)
                viewer.stdin.write(json.dumps(answer.sdp) + "\n")
                viewer.stdin.flush()
                assert await in_thread(viewer.stdout.readline) == "seen\n"
                assert session.broadcast.viewers == 1
                viewer.kill()
                await in_thread(session.broadcast.wait_for_viewers, 0)
        finally:
            viewer.kill()
            viewer.communicate()
            await peers.close()

    run(scenario)


def start_viewer():
    command = [sys.executable, str(HERE / "rtc_clients.py")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_viewers_are_bounded():
    async def scenario(_):
        peers = Peers(most=1)
        async with clients(Client(), Client()) as (first, second):
            with Session().running() as session:
                answer = await first.watch(peers, session)
                with pytest.raises(RefusedError, match=r"^All 1 places of viewers by WebRTC are taken\.$"):
                    await second.watch(peers, session)
                await peers.leave(answer.viewer)
                await peers.answer(session, await second.offer(), microphone=False)
        await peers.close()

    run(scenario)


def test_nobody_is_let_in_when_the_service_ends():
    async def scenario(peers):
        async with clients(Client()) as (client,):
            await peers.close()
            with pytest.raises(RefusedError, match=r"^The service is ending\.$"):
                await peers.answer(Session(), await client.offer(), microphone=False)
            assert peers.count == 0

    run(scenario)


@pytest.mark.parametrize("times", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_many_that_come_and_go_leave_nothing(times):
    session = Session()

    async def visit(peers):
        async with clients(Client()) as (client,):
            await client.watch(peers, session)
            await client.until_pictures(1)

    async def scenario(peers):
        first = None
        for _ in range(times + 1):
            await visit(peers)
            await in_thread(session.broadcast.wait_for_viewers, 0)
            await settle()
            # the pool of threads belongs to the test
            threads = {each.name for each in threading.enumerate() if not each.name.startswith("asyncio")}
            left = threads, len(open_descriptors())
            first = first or left
        assert left == first

    with session.running():
        run(scenario)
