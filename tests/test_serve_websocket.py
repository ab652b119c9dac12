"""Programs that speak to the service and watch it, over a real socket on small networks."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lives import RATE, delay_of, speech, write_sound
from serving import FPS, JOB, TIMEOUT_S, serving, wav
from websockets.exceptions import ConnectionClosed, InvalidStatus

from musetalk_cli.serve import websocket
from musetalk_cli.serve.broadcast import Unit, Wants
from musetalk_cli.serve.inbox import MESSAGE_COSTS, PENDING_BYTES, Inbox
from musetalk_cli.serve.receiver import BEHIND, Outbox, Receiver
from musetalk_cli.serve.service import Service
from musetalk_cli.types import Fate, Frame, FrameRequest

EXAMPLE = Path(__file__).parents[1] / "examples" / "stream_client.py"
TOKEN = "a-token-that-is-long-enough"


@pytest.fixture(scope="module")
def served(coloured_run):
    with serving(coloured_run, JOB, speakers=4, max_sessions=8) as client:
        yield client


def test_a_program_hears_and_sees_what_it_said_and_is_told_when(served):
    said = [speech(1.0, seed=1), speech(0.6, seed=2)]
    with served.program("red") as program:
        assert program.first == {
            "type": "ready",
            "fps": "10",
            "sample_rate": RATE,
            "channels": 1,
        } | {key: program.first[key] for key in ("session", "width", "height")}
        for number, sound in enumerate(said):
            program.say(sound)
            program.tell("end")
            finished = program.until("segment_finished")
            assert finished["segment"] == number
            at, alike = delay_of(sound, program.heard)
            assert alike > 0.95, "all of it, as it was"
            # the frame that holds the last sample ends the segment
            last = finished["pts"][0] / finished["pts"][1]
            assert last < at + len(sound) / RATE <= last + 1 / FPS + 1e-3
            program.until("idle")
        program.tell("close")
        assert program.until("closed")["error"] is None
    assert [frame.index for frame in program.frames] == list(range(len(program.frames)))
    assert all(Fraction(*frame.pts) == Fraction(frame.index, FPS) for frame in program.frames)
    kinds = [event["type"] for event in program.events]
    assert kinds[0] == "speaking"
    assert kinds.count("speaking") == 2
    speaking = [frame.speaking for frame in program.frames]
    assert not speaking[-1]
    size = (program.first["height"], program.first["width"], 3)
    assert all(frame.picture for frame in program.frames if frame.speaking)
    for frame in program.frames:
        if not frame.picture:  # silence that an utterance passed over
            continue
        assert cv2.imdecode(np.frombuffer(frame.picture, np.uint8), cv2.IMREAD_COLOR).shape == size


def test_each_gets_the_form_that_it_asked_for(served):
    with served.program("red", video="none") as program:
        frames = program.watch(3)
        assert all(not frame.picture and frame.sound for frame in frames)
    with served.program("red", video="h264", sound=False) as program:
        frames = program.watch(FPS + 3)
        assert frames[0].key
        assert sum(frame.key for frame in frames) >= 2, "one that can stand alone each second"
        assert all(frame.picture.startswith(b"\x00\x00\x00\x01") and not frame.sound for frame in frames)


def test_the_rate_of_frames_and_sound_is_the_clients(served):
    with served.program("red", fps=5, sample_rate=48_000, channels=2) as program:
        assert (program.first["fps"], program.first["sample_rate"], program.first["channels"]) == (
            "5",
            48_000,
            2,
        )
        assert [len(frame.sound) for frame in program.watch(4)] == [48_000 // 5 * 4] * 4


def test_an_interrupt_ends_what_was_said_though_more_waits_behind_it(served):
    """Also where the sender is so far ahead that its sound waits."""
    with served.program("red", video="none") as program:
        program.say(speech(5, seed=3))
        program.until("speaking")
        for number in range(8):
            program.say(speech(10, seed=10 + number))
        program.tell("interrupt")
        assert program.until("interrupted")["segment"] == 1, "all of it was one, and the next follows it"
        program.until("idle")
        rest = program.watch(2 * FPS)
        assert not any(frame.speaking for frame in rest)
        assert np.abs(np.frombuffer(b"".join(frame.sound for frame in rest[2:]), "<i2")).max() == 0
        program.say(after := speech(0.6, seed=4))
        program.tell("end")
        assert program.until("segment_finished")["segment"] == 1, "what was cut off is never finished"
        assert delay_of(after, program.heard)[1] > 0.95


def test_a_segment_keeps_its_senders_number_whatever_became_of_those_before(served):
    """Two are finished, three are cut off, so is one that was begun, and two more are finished."""
    with served.program("red", video="none") as program:

        def finished():
            return [event["segment"] for event in program.events if event["type"] == "segment_finished"]

        for number in range(2):
            program.say(speech(0.4, seed=number))
            program.tell("end")
            program.until("segment_finished")
            program.until("idle")
        for number in range(3):
            program.say(speech(20, seed=number))
            program.tell("end")
        program.say(speech(0.3))
        program.until("speaking")
        program.tell("interrupt")
        assert program.until("interrupted")["segment"] == 6
        program.tell("interrupt")
        assert program.until("interrupted")["segment"] == 6, "nothing was sent in between"
        for number in (6, 7):
            program.say(speech(0.4, seed=number))
            program.tell("end")
            told = program.until("segment_finished")
            assert told["segment"] == number
        program.tell("close")
        program.until("closed")
        assert finished() == [0, 1, 6, 7]


def test_what_another_way_interrupts_or_speaks_does_not_change_the_numbers(served):
    with served.program("red", video="none") as program:
        path = f"/v1/sessions/{program.first['session']}"
        program.say(speech(0.4))
        program.tell("end")
        assert program.until("segment_finished")["segment"] == 0
        assert served.ask("POST", f"{path}/speak", wav(speech(0.4), RATE)).status == 202
        assert program.until("segment_finished")["segment"] is None
        program.until("idle")
        program.say(speech(2))
        program.until("speaking")
        assert served.ask("POST", f"{path}/interrupt").status == 204
        assert program.until("interrupted")["segment"] == 1, "it goes on with what is still to come of it"
        program.say(speech(0.4))
        program.tell("end")
        assert program.until("segment_finished")["segment"] == 1


def test_a_frame_on_its_way_finishes_nothing_that_was_cut_off():
    async def scenario():
        outbox = Outbox(asyncio.get_running_loop())
        receiver = Receiver(Wants("none", "none"), outbox, Fraction(FPS))
        receiver.interrupted(3)
        request = FrameRequest(0, None, np.zeros((0, 1), np.float32), 0.0, 0.0, 0, ends=(2, 3, None))
        frame = Frame(request, np.zeros((2, 2, 3), np.uint8), Fraction(1, 2), 0.0, Fate.IDLE)
        receiver.show(Unit(frame, b"", key=True, sound=()))
        outbox.close()
        return [json.loads(await outbox.take()) for _ in range(outbox.waiting)]

    assert asyncio.run(scenario()) == [
        {"type": "interrupted", "segment": 3},
        {"type": "segment_finished", "segment": 3, "pts": [1, 2]},
        {"type": "segment_finished", "segment": None, "pts": [1, 2]},
    ]


def test_sound_comes_back_bit_for_bit_and_what_is_too_loud_is_clipped():
    numbers = np.arange(-32768, 32768).astype("<i2")
    loud = np.float32([-1.5, 1.5])
    audio = np.concatenate([numbers.astype(np.float32) / np.float32(32768), loud])[:, None]

    async def scenario():
        outbox = Outbox(asyncio.get_running_loop())
        receiver = Receiver(Wants("none", "pcm"), outbox, Fraction(FPS))
        request = FrameRequest(0, None, audio, 0.0, 0.0, 0)
        frame = Frame(request, np.zeros((2, 2, 3), np.uint8), Fraction(0), 0.0, Fate.IDLE)
        receiver.show(Unit(frame, b"", key=True, sound=()))
        return await outbox.take()

    sound = asyncio.run(scenario())[-2 * len(audio) :]
    assert np.array_equal(np.frombuffer(sound, "<i2"), [*numbers, -32768, 32767])


def test_two_that_speak_at_once_never_see_or_hear_each_other(served):
    """Avatars of one colour each; sounds that are told apart."""
    colours, results = {"red": (0, 0, 200), "blue": (200, 0, 0)}, {}

    def speak(name, seed):
        said = speech(2.0, seed=seed)
        with served.program(name) as program:
            program.say(said)
            program.tell("end")
            program.until("segment_finished")
            results[name] = (program, said)

    threads = [threading.Thread(target=speak, args=each) for each in (("red", 21), ("blue", 22))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    for name, colour in colours.items():
        program, said = results[name]
        other = results["blue" if name == "red" else "red"][1]
        assert delay_of(said, program.heard)[1] > 0.95
        assert delay_of(other, program.heard)[1] < 0.3
        for frame in program.frames:
            if not frame.picture:  # silence that the utterance passed over
                continue
            corner = cv2.imdecode(np.frombuffer(frame.picture, np.uint8), cv2.IMREAD_COLOR)[:6, :6].mean(
                (0, 1)
            )
            assert np.abs(corner - colour).max() < 12


def test_one_speaker_more_than_there_are_places_is_told_so_and_may_try_again(coloured_run):
    with serving(coloured_run, JOB, speakers=1, max_sessions=3) as client:
        with client.program("red", video="none") as first, client.program("blue", video="none") as second:
            first.say(speech(2.0, seed=5))
            first.until("speaking")
            second.say(speech(0.5, seed=6))
            second.tell("end")
            refused = second.until("refused")
            assert refused["segment"] == 0
            assert refused["error"] == "All places are taken: this machine sustains 1 speaker at once."
            assert client.ask("GET", "/v1/service").body["speakers"] == {"now": 1, "most": 1}
            assert not any(frame.speaking for frame in second.watch(5))
            first.tell("interrupt")
            first.until("idle")
            while client.ask("GET", "/v1/service").body["speakers"]["now"]:
                first.watch(1)
            second.say(speech(0.5, seed=6))
            second.tell("end")
            assert second.until("segment_finished")["segment"] == 1, "the first one was refused"
        metrics = client.ask("GET", "/metrics").body.decode()
        assert 'musetalk_refused_total{what="speech"} 1.0' in metrics


def test_one_session_more_than_there_are_is_refused_with_the_reason(coloured_run):
    with (
        serving(coloured_run, JOB, max_sessions=1) as client,
        client.program("red", video="none"),
        client.program("red") as second,
    ):
        assert second.first["type"] == "refused"
        assert "All 1 sessions of this service are taken." in second.first["error"]
        with pytest.raises(ConnectionClosed) as closed:
            second.next()
        assert closed.value.rcvd.code == 1013


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        ({"avatar": "nobody"}, "There is no avatar 'nobody'"),
        ({"avatar": "../red"}, "There is no avatar"),
        ({"avatar": ""}, "avatar"),
        ({"avatar": "red", "fps": 1000}, "fps"),
        ({"avatar": "red", "fps": 10.5}, "10.5 frames per second are more than the 10 of this service."),
        ({"avatar": "red", "sample_rate": 10}, "sample_rate"),
        ({"avatar": "red", "channels": 99}, "channels"),
        ({"avatar": "red", "video": "gif"}, "video"),
        ({"avatar": "red", "colour": "green"}, "colour"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(served, hello, reason):
    with served.socket() as socket:
        socket.send(json.dumps({"type": "hello"} | hello))
        told = json.loads(socket.recv(TIMEOUT_S))
        assert told["type"] == "refused"
        assert reason in told["error"]
        assert "Traceback" not in told["error"]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(TIMEOUT_S)
        assert closed.value.rcvd.code == 1008


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(max_size=200), st.binary(max_size=200), st.from_regex(r'\{"type": *"[a-z]*"[^}]{0,20}\}?')
    )
)
def test_garbage_before_the_hello_is_refused(served, garbage):
    with served.socket() as socket:
        socket.send(garbage)
        assert json.loads(socket.recv(TIMEOUT_S))["type"] == "refused"
    assert served.ask("GET", "/healthz").status == 200


def test_garbage_after_it_is_told_and_does_not_end_the_session_at_once(served):
    with served.program("red", video="none") as program:
        for garbage in ("", "[]", "{", '{"type": "sing"}', '{"type": "end", "more": 1}', '{"a": 1e999}'):
            program.socket.send(garbage)
            assert "not understood" in program.until("error")["error"]
        program.say(speech(0.5))
        program.tell("end")
        program.until("segment_finished")


def test_who_sends_nothing_but_garbage_is_sent_away(served):
    with served.program("red", video="none") as program:
        for _ in range(12):
            program.socket.send("garbage")
        with pytest.raises(ConnectionClosed) as ended:
            while True:
                last = program.next()
    assert (last["type"], last["error"]) == ("closed", "More than 10 messages were not understood.")
    assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (1008, last["error"])


@pytest.mark.slow
def test_the_smallest_messages_are_bounded_too():
    """A session that has no room, and a client that sends ends of segments, or nothing, without an end."""
    session = SimpleNamespace(stream=SimpleNamespace(channels=1, sample_rate=RATE))

    async def flood(send):
        count = 0
        while True:
            sending = asyncio.ensure_future(send())
            await asyncio.sleep(0)
            if not sending.done():  # it waits for room
                sending.cancel()
                return count
            count += 1

    def senders():
        inbox = Inbox(session)
        yield lambda: inbox.add(b"")
        other = Inbox(session)
        yield lambda: other.end(last=False)

    async def scenario():
        return [await flood(send) for send in senders()]

    assert asyncio.run(scenario()) == [PENDING_BYTES // MESSAGE_COSTS] * 2


def test_who_stops_reading_is_told_why_it_is_sent_away(served, monkeypatch):
    """Its socket takes the first message, and nothing more."""
    monkeypatch.setattr(websocket, "BEHIND_S", 0.05)
    ended = []

    class Stuck:
        scope = MappingProxyType({"client": ("127.0.0.1", 1)})
        app = SimpleNamespace(state=SimpleNamespace(service=served.service))
        come = iter([{"type": "websocket.receive", "text": json.dumps({"type": "hello", "avatar": "red"})}])

        async def accept(self):
            pass

        async def receive(self):
            return next(self.come, None) or await asyncio.Event().wait()

        async def send_text(self, text):
            assert json.loads(text)["type"] == "ready"

        async def send_bytes(self, _):
            await asyncio.Event().wait()

        async def close(self, *told):
            ended.append(told)

    asyncio.run(asyncio.wait_for(websocket.stream(Stuck()), TIMEOUT_S))
    assert ended == [(1008, BEHIND)]


def test_who_takes_nothing_for_long_is_sent_away(monkeypatch):
    """Else one that stops to read keeps its session, and all that waits for it."""
    monkeypatch.setattr(websocket, "BEHIND_S", 0.05)

    async def scenario():
        async def never(_):
            await asyncio.Event().wait()

        outbox = Outbox(asyncio.get_running_loop())
        outbox.put(b"a frame")
        sending = websocket.send_all(SimpleNamespace(send_bytes=never), outbox)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sending, TIMEOUT_S)

    before = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - before < TIMEOUT_S / 2


def test_the_end_of_all_is_no_segment_of_its_own(served):
    with served.program("red", video="none") as program:
        program.say(speech(0.5))
        program.tell("end")
        program.tell("close")
        program.until("closed")
        assert [event["type"] for event in program.events].count("segment_finished") == 1


@pytest.mark.parametrize("said", [0.0, 0.01])
def test_who_closes_before_the_first_frame_is_told_of_no_error(served, said):
    """A frame lasts 0.1 s here."""
    with served.program("red", video="none") as program:
        if said:
            program.say(speech(said))
        program.tell("close")
        assert program.until("closed")["error"] is None


def test_a_session_that_ends_before_its_client_is_told_is_told_so(served, monkeypatch):
    opened = Service.open

    def opens_what_ends(service, *arguments, **options):
        session = opened(service, *arguments, **options)
        session.stop()
        while not session.is_over:
            threading.Event().wait(0.005)
        return session

    monkeypatch.setattr(Service, "open", opens_what_ends)
    with served.program("red", video="none") as program:
        assert program.first["type"] == "ready"
        assert program.until("closed")["error"] is None


def test_samples_may_be_cut_anywhere(served):
    sound = np.round(speech(0.5, seed=9) * 32767).astype("<i2").tobytes()
    with served.program("red", video="none") as program:
        for start in range(0, len(sound), 333):
            program.socket.send(sound[start : start + 333])
        program.tell("end")
        program.until("segment_finished")
        assert delay_of(speech(0.5, seed=9), program.heard)[1] > 0.95


def test_a_client_that_goes_away_leaves_nothing(served):
    before = len(served.service.sessions)
    with served.program("red") as program:
        program.say(speech(5))
        name = program.first["session"]
        program.socket.socket.close()
    ended = threading.Event()
    for _ in range(10_000):
        if name not in {session.id for session in served.service.sessions}:
            ended.set()
            break
        ended.wait(0.005)
    assert ended.is_set()
    assert len(served.service.sessions) <= before


def test_the_example_speaks_and_keeps_the_pictures(served, tmp_path):
    write_sound(tmp_path / "in.wav", speech(0.5))
    program = EXAMPLE.read_text().replace('"avatar": "demo"', '"avatar": "red"')
    url = f"ws://{served.address}/v1/stream"
    command = [sys.executable, "-c", program, str(tmp_path / "in.wav"), str(tmp_path / "out")]
    ended = subprocess.run(
        command, env=os.environ | {"MUSETALK_URL": url}, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert ended.returncode == 0, ended.stderr
    kinds = [json.loads(line)["type"] for line in ended.stdout.splitlines()]
    assert kinds[0] == "ready"
    assert {"speaking", "segment_finished"} <= set(kinds)
    assert kinds[-1] == "closed"
    assert len(list((tmp_path / "out").iterdir())) >= 5


def test_it_wants_the_token_before_anything_else(coloured_run):
    with serving(coloured_run, JOB, token=TOKEN) as client:
        with pytest.raises(InvalidStatus) as refused:
            client.socket()
        assert refused.value.response.status_code == 401
        with client.socket(Authorization=f"Bearer {TOKEN}") as socket:
            socket.send(json.dumps({"type": "hello", "avatar": "red"}))
            assert json.loads(socket.recv(TIMEOUT_S))["type"] == "ready"
