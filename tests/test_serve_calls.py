"""Viewers by WebRTC through the service's own HTTP, with real peers on small networks."""

import asyncio
import json
import threading

import numpy as np
import pytest
from lives import delay_of, speech
from rtc_clients import LIMIT_S, RATE, Client, Voice, clients, in_thread
from serving import FPS, JOB, serving, wav


@pytest.fixture(scope="module")
def served(coloured_run):
    with serving(coloured_run, JOB, speakers=2, max_sessions=4) as client:
        yield client


def play(scenario):
    async def whole():
        async with asyncio.timeout(3 * LIMIT_S):
            await scenario()

    asyncio.run(whole())


async def offer(served, client, **more):
    """Watch by an offer; gives what was answered."""
    body = json.dumps({"sdp": await client.offer()} | more).encode()
    answer = await in_thread(lambda: served.ask("POST", "/v1/offer", body, content_type="application/json"))
    assert answer.status == 201, answer.body
    place = "/v1/sessions/{session}/viewers/{viewer}".format_map(answer.body)
    assert answer.headers["location"] == place
    await client.take_answer(answer.body["sdp"])
    return answer.body


async def ask(served, *words, status, **headers):
    answer = await in_thread(lambda: served.ask(*words, **headers))
    assert answer.status == status, answer.body
    return answer


async def until_ended(served, name):
    """Each session has a thread that waits for its end, and takes it from the service."""
    for thread in threading.enumerate():
        if thread.name == f"session {name[:8]}":
            await in_thread(thread.join)
    assert name not in {session.id for session in served.service.sessions}


def test_a_player_watches_by_whep_hears_a_file_and_leaves(served):
    said = speech(1.5, RATE, seed=3)

    async def scenario():
        async with clients(Client()) as (viewer,):
            answer = await ask(
                served, "POST", "/v1/whep?avatar=red", (await viewer.offer()).encode(), status=201,
                content_type="application/sdp",
            )  # fmt: skip
            assert answer.headers["content-type"].startswith("application/sdp")
            assert "H264" in answer.body.decode()
            await viewer.take_answer(answer.body.decode())
            place = answer.headers["location"]
            session = place.removesuffix(f"/viewers/{place.rsplit('/', 1)[1]}")
            await viewer.until_pictures(3)
            await ask(served, "POST", f"{session}/speak", wav(said, RATE), status=202)
            await viewer.until(
                lambda: len(viewer.sounds) > 150 and delay_of(said, viewer.sound, RATE)[1] > 0.8
            )
            colour = viewer.pictures[-1][1][2:6, 2:6].mean((0, 1))
            assert np.abs(colour - (0, 0, 200)).max() < 16
            await ask(served, "DELETE", place, status=204)
            assert (await ask(served, "GET", session, status=200)).body["viewers"] == 0
            await ask(served, "DELETE", session, status=204)
            await ask(served, "GET", session, status=404)
            await until_ended(served, session.rsplit("/", 1)[1])

    play(scenario)


@pytest.mark.slow
def test_a_browser_brings_its_microphone_and_comes_back_to_its_session(served):
    said = speech(20, RATE, seed=4)

    async def scenario():
        async with clients(Client(Voice(said), video="recvonly")) as (viewer,):
            told = await offer(served, viewer, avatar="blue")
            name = told["session"]
            assert (told["avatar"], told["fps"]) == ("blue", FPS)
            await viewer.until(
                lambda: len(viewer.sounds) > 100 and delay_of(viewer.sound[-RATE:], said, RATE)[1] > 0.7
            )
            assert (await ask(served, "GET", f"/v1/sessions/{name}", status=200)).body["utterances"] >= 1
        async with clients(Client()) as (again,):
            told = await offer(served, again, session=name)
            assert told["session"] == name
            await again.until_pictures(3)
            async with clients(Client()) as (second,):
                await offer(served, second, session=name)
                await second.until_pictures(3)
                assert (await ask(served, "GET", f"/v1/sessions/{name}", status=200)).body["viewers"] == 2
            await ask(served, "DELETE", f"/v1/sessions/{name}", status=204)
        await until_ended(served, name)

    play(scenario)


def test_an_offer_that_cannot_be_used_begins_no_session(served):
    async def scenario():
        before = {session.id for session in served.service.sessions}
        for sdp in ("v=0", "nonsense", "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"):
            body = json.dumps({"sdp": sdp, "avatar": "red"}).encode()
            told = await ask(served, "POST", "/v1/offer", body, status=400, content_type="application/json")
            assert "\n" not in told.body["error"]
            assert not {session.id for session in served.service.sessions} - before

    play(scenario)


def test_a_session_ends_when_its_last_viewer_has_gone_for_a_while(coloured_run):
    async def scenario():
        with serving(coloured_run, JOB, linger_s=0.5) as served:
            async with clients(Client()) as (viewer,):
                name = (await offer(served, viewer, avatar="red"))["session"]
                await viewer.until_pictures(3)
            await until_ended(served, name)
            await ask(served, "GET", f"/v1/sessions/{name}", status=404)

    play(scenario)


@pytest.mark.slow
def test_one_session_more_than_there_are_is_refused_with_503(coloured_run):
    async def scenario():
        with serving(coloured_run, JOB, max_sessions=1) as served:
            async with clients(Client(), Client()) as (first, second):
                await offer(served, first, avatar="red")
                body = json.dumps({"sdp": await second.offer(), "avatar": "red"}).encode()
                told = await ask(
                    served, "POST", "/v1/offer", body, status=503, content_type="application/json"
                )
                assert told.body["error"] == "All 1 sessions of this service are taken."
                assert told.headers["retry-after"]

    play(scenario)
