"""Sessions of the whole service side by side: each viewer sees and hears its own."""

import asyncio
import json

import numpy as np
import pytest
from lives import RATE, delay_of, speech, write_sound

pytest.importorskip("aiortc", reason="the extra serve is not installed")

from rtc_clients import RATE as OPUS_RATE
from rtc_clients import Client, clients, in_thread
from serving import JOB, serving

RED, BLUE = (0, 0, 200), (200, 0, 0)


@pytest.fixture(scope="module")
def served(coloured_run):
    with serving(coloured_run, JOB, speakers=2, max_sessions=8) as client:
        yield client


async def offer(served, client, **where):
    """Watch by `/v1/offer`; gives what it answered."""
    body = json.dumps({"sdp": await client.offer()} | where)
    answer = await in_thread(lambda: served.ask("POST", "/v1/offer", body, content_type="application/json"))
    assert answer.status == 201, answer.body
    await client.take_answer(answer.body["sdp"])
    return answer.body


def corners(client):
    """The colour of each picture far from the face."""
    return [image[2:6, 2:6].reshape(-1, 3).mean(axis=0) for _, image in client.pictures]


@pytest.mark.slow
def test_two_watch_one_session_and_a_third_another_and_each_sees_and_hears_its_own(served, tmp_path):
    said = speech(2, RATE, seed=3)
    body = write_sound(tmp_path / "said.wav", said).read_bytes()
    reference = np.interp(np.arange(2 * OPUS_RATE) / OPUS_RATE, np.arange(len(said)) / RATE, said)

    async def scenario():
        async with clients(Client(), Client(), Client()) as (first, second, other):
            begun = await offer(served, first, avatar="red")
            path = f"/v1/sessions/{begun['session']}"
            answer = await in_thread(
                lambda text: served.ask(
                    "POST",
                    f"/v1/whep?avatar=red&session={begun['session']}",
                    text,
                    content_type="application/sdp",
                ),
                await second.offer(),
            )
            assert answer.status == 201
            await second.take_answer(answer.body.decode())
            await offer(served, other, avatar="blue")
            for client in (first, second, other):
                await client.until_pictures(2)
            assert (await in_thread(served.ask, "GET", path)).body["viewers"] == 2
            assert (await in_thread(served.ask, "POST", f"{path}/speak", body)).status == 202
            count = len(first.sounds) + 50 * 4
            await first.until(lambda: len(first.sounds) >= count)
            assert (await in_thread(served.ask, "DELETE", answer.headers["location"])).status == 204
            assert (await in_thread(served.ask, "GET", path)).body["viewers"] == 1
            assert (await in_thread(served.ask, "DELETE", path)).status == 204
            await first.until(lambda: first.connection.connectionState in {"closed", "failed"})
        for client, colour in ((first, RED), (second, RED), (other, BLUE)):
            assert all(np.abs(corner - colour).max() < 12 for corner in corners(client))
        for client in (first, second):
            assert delay_of(reference[9_600:60_000].astype(np.float32), client.sound, OPUS_RATE)[1] > 0.7
        assert np.abs(other.sound).max() < 0.01

    asyncio.run(scenario())
