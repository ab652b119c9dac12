"""The service's HTTP side, over a real socket on small networks."""

import shutil
import threading
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from lives import RATE, delay_of, speech
from prometheus_client.parser import text_string_to_metric_families
from serving import FPS, JOB, TIMEOUT_S, server_of, serving, wav

from musetalk_cli.config import DataFolder, RunConfig
from musetalk_cli.serve.calls import OFFER_BYTES, SDP_BYTES, SOUND_BYTES
from musetalk_cli.serve.service import Service
from musetalk_cli.serve.settings import ServeConfig
from musetalk_cli.types import Fate


@pytest.fixture(scope="module")
def served(coloured_run):
    with serving(coloured_run, JOB, speakers=2, max_sessions=8) as client:
        yield client


def test_it_says_that_it_lives_and_is_ready(served):
    assert served.ask("GET", "/healthz").body == {"status": "ok"}
    assert served.ask("GET", "/readyz").body == {"status": "ready"}


def test_before_it_is_ready_it_lives_and_says_what_is_missing(coloured_run):
    service = Service(coloured_run, JOB, ServeConfig())
    with server_of(service) as client:
        assert client.ask("GET", "/healthz").status == 200
        for path in ("/readyz", "/v1/service"):
            answer = client.ask("GET", path)
            assert (answer.status, answer.body["error"]) == (503, "The networks are still being loaded.")
            assert answer.headers["retry-after"] == "5"
        with client.program("red") as program:
            assert program.first["error"] == "The networks are still being loaded."


def test_a_device_that_failed_is_not_ready_and_takes_no_session(models, tmp_path):
    """Here the reason is that there is no avatar for these networks."""
    (tmp_path / "none").mkdir()
    run = RunConfig(
        DataFolder(models, "flag"), DataFolder(tmp_path / "none", "flag"), str(models), "cpu", "fp32"
    )
    service, told = Service(run, JOB, ServeConfig()), threading.Event()
    with server_of(service) as client:
        service.start(told.set)
        assert told.wait(TIMEOUT_S)
        assert "No avatar in" in str(service.failure)
        assert client.ask("GET", "/readyz").body["error"] == "The device has failed."
        assert client.ask("GET", "/healthz").status == 200
        service.end()


def test_it_describes_itself(served):
    told = served.ask("GET", "/v1/service").body
    assert told["device"] == "cpu"
    assert told["speakers"] == {"now": 0, "most": 2}
    assert told["sessions"] == {"now": 0, "most": 8}
    assert (told["fps"], told["chunk_s"], told["gpu"]) == (FPS, 0.2, None)


def test_its_avatars_have_pictures_and_a_reason_where_they_cannot_be_used(served, embedded):
    told = {each["name"]: each for each in served.ask("GET", "/v1/avatars").body["avatars"]}
    assert told["red"]["usable"]
    assert told["red"]["reason"] is None
    assert told["red"]["sample"] is False
    picture = served.ask("GET", "/v1/avatars/red/thumbnail")
    assert (picture.status, picture.headers["content-type"]) == (200, "image/jpeg")
    decoded = cv2.imdecode(np.frombuffer(picture.body, np.uint8), cv2.IMREAD_COLOR)
    assert max(decoded.shape) <= 320
    assert np.abs(decoded.mean((0, 1)) - (0, 0, 200)).max() < 4
    assert not told["demo"]["usable"]
    assert "demo networks" in told["demo"]["reason"]
    assert served.ask("GET", "/v1/avatars/demo/sample").headers["content-type"] == "audio/wav"


def test_the_picture_of_an_avatar_that_was_removed_is_not_there(coloured_run, tmp_path):
    folder = tmp_path / "avatars"
    shutil.copytree(coloured_run.avatars.path, folder)
    run = replace(coloured_run, avatars=DataFolder(folder, "flag"))
    with server_of(Service(run, JOB, ServeConfig())) as client:
        assert client.ask("GET", "/v1/avatars/red/thumbnail").status == 200
        shutil.rmtree(folder / "blue" / "full_imgs")
        answer = client.ask("GET", "/v1/avatars/blue/thumbnail")
        assert (answer.status, answer.body["error"]) == (404, "Avatar blue has no picture that can be read.")
        home = client.service.gallery.home_of("red")
        shutil.rmtree(folder / "red")
        assert client.ask("GET", "/v1/avatars/red/thumbnail").status == 404
        # it was there when its name was looked up
        client.service.gallery.home_of = lambda _: home
        answer = client.ask("GET", "/v1/avatars/red/thumbnail")
        assert (answer.status, answer.body["error"]) == (404, "Avatar red has no picture that can be read.")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/avatars/nobody/thumbnail", 404),
        ("GET", "/v1/avatars/..%2f..%2fetc/thumbnail", 404),
        ("GET", "/v1/avatars/red/sample", 404),
        ("GET", "/v1/sessions/none", 404),
        ("POST", "/v1/sessions/none/speak", 404),
        ("POST", "/v1/sessions/none/interrupt", 404),
        ("DELETE", "/v1/sessions/none", 404),
        ("DELETE", "/v1/sessions/none/viewers/none", 404),
        ("GET", "/v1/sessions/" + "x" * 100, 400),
        ("GET", "/v1/sessions/a%20b", 400),
        ("GET", "/v1/whep", 405),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(served, method, path, status):
    answer = served.ask(method, path)
    assert answer.status == status
    assert set(answer.body) == {"error", "hint"}
    assert "\n" not in answer.body["error"]
    assert answer.body["error"].endswith(".")


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/avatars/red/thumbnail"])
def test_what_can_be_asked_for_can_be_asked_about(served, path):
    """Many that look whether a service is there ask by HEAD."""
    about, whole = served.ask("HEAD", path), served.ask("GET", path)
    assert about.status == 200
    assert not about.body
    assert about.headers["content-length"] == whole.headers["content-length"]


def test_a_body_that_is_too_large_or_no_offer_is_refused(served):
    sdp = {"content_type": "application/sdp"}
    assert served.ask("POST", "/v1/whep?avatar=red", b"v=0", content_type="text/plain").status == 400
    assert served.ask("POST", "/v1/whep?avatar=red", b"x" * (SDP_BYTES + 1), **sdp).status == 413
    assert served.ask("POST", "/v1/whep", b"v=0", **sdp).status == 400
    assert served.ask("POST", "/v1/whep?avatar=nobody", b"v=0", **sdp).status == 400, (
        "the offer is read first"
    )
    for body in (
        b"",
        b"{",
        b"[]",
        b'{"sdp": "v=0", "avatar": 3}',
        b'{"sdp": "v=0", "more": 1}',
        b'{"sdp": ""}',
    ):
        answer = served.ask("POST", "/v1/offer", body, content_type="application/json")
        assert answer.status == 400, body
        assert "\n" not in answer.body["error"]
    assert served.service.sessions == []


def test_no_more_of_an_offer_is_taken_than_an_offer_has(served):
    """Else whoever sends one without an end fills the memory."""

    def parts():
        yield b'{"sdp": "'
        for _ in range(OFFER_BYTES // 1024 + 1):
            yield b"x" * 1024
        yield b'"}'

    json = {"content_type": "application/json"}
    assert served.ask("POST", "/v1/offer", parts(), **json).status == 413
    assert served.ask("POST", "/v1/offer", b"x" * (OFFER_BYTES + 1), **json).status == 413


@pytest.mark.parametrize(
    ("rate", "channels", "form"), [(RATE, 1, "WAV"), (44_100, 2, "FLAC"), (48_000, 1, "OGG")]
)
def test_a_file_is_spoken_from_its_start_and_its_end_is_told(served, rate, channels, form):
    said = speech(1.0, rate, seed=3)
    body = wav(np.repeat(said[:, None], channels, axis=1), rate, form)
    with served.program("red", video="none", sample_rate=RATE) as program:
        name = program.first["session"]
        assert served.ask("POST", f"/v1/sessions/{name}/speak", body).status == 202
        program.until("segment_finished")
        reference = said if rate == RATE else speech_at(said, rate)
        assert delay_of(reference, program.heard)[1] > 0.9


def speech_at(sound, rate):
    """By straight lines: noise below 4 kHz needs no better."""
    at = np.arange(round(len(sound) * RATE / rate)) * rate / RATE
    return np.interp(at, np.arange(len(sound)), sound).astype(np.float32)


def test_what_is_no_sound_is_refused_and_leaves_the_session_free(served):
    with served.program("red", video="none") as program:
        path = f"/v1/sessions/{program.first['session']}/speak"
        for body in (b"", b"not a sound at all", wav(speech(1), RATE)[:30]):
            answer = served.ask("POST", path, body)
            assert answer.status == 400, answer.body
            assert answer.body["error"].startswith("The file is ")
            assert "/tmp" not in answer.body["error"]
            assert "musetalk" not in answer.body["hint"]
        assert served.ask("POST", path, bytes(SOUND_BYTES + 1)).status == 413
        assert served.ask("POST", path, wav(speech(0.3), RATE)).status == 202
        program.until("segment_finished")


def test_a_damaged_file_is_spoken_up_to_there_and_that_is_told(served):
    whole = wav(speech(4), RATE, "FLAC")
    with served.program("red", video="none") as program:
        path = f"/v1/sessions/{program.first['session']}"
        assert served.ask("POST", f"{path}/speak", whole[: len(whole) // 2]).status == 202
        program.until("segment_finished")
        refused = served.ask("GET", path).body["refused"]
        assert "The file is damaged or cut off" in refused
        assert "/tmp" not in refused


def test_one_file_at_a_time_until_it_is_interrupted(served):
    with served.program("red", video="none") as program:
        path = f"/v1/sessions/{program.first['session']}"
        assert served.ask("POST", f"{path}/speak", wav(speech(60), RATE)).status == 202
        program.until("speaking")
        busy = served.ask("POST", f"{path}/speak", wav(speech(1), RATE))
        assert (busy.status, busy.body["error"]) == (409, "Another file is being spoken.")
        assert served.ask("POST", f"{path}/interrupt").status == 204
        program.until("interrupted")
        program.until("idle")
        assert not any(frame.speaking for frame in program.watch(2 * FPS))
        assert served.ask("POST", f"{path}/speak", wav(speech(0.3), RATE)).status == 202
        program.until("segment_finished")


def test_a_file_is_refused_while_all_places_are_taken(coloured_run):
    with (
        serving(coloured_run, JOB, speakers=1, max_sessions=3) as client,
        client.program("red", video="none") as first,
        client.program("blue", video="none") as second,
    ):
        path = f"/v1/sessions/{first.first['session']}/speak"
        assert client.ask("POST", path, wav(speech(5), RATE)).status == 202
        first.until("speaking")
        answer = client.ask("POST", f"/v1/sessions/{second.first['session']}/speak", wav(speech(1), RATE))
        assert answer.status == 503
        assert "sustains 1 speaker at once" in answer.body["error"]
        assert answer.headers["retry-after"] == "5"
        assert not any(frame.speaking for frame in second.watch(FPS))


def test_a_session_says_how_it_goes_and_can_be_ended(served):
    with served.program("blue", video="none") as program:
        path = f"/v1/sessions/{program.first['session']}"
        program.say(speech(0.5))
        program.tell("end")
        program.until("segment_finished")
        program.watch(FPS)
        told = served.ask("GET", path).body
        assert (told["avatar"], told["viewers"], told["utterances"], told["refused"]) == ("blue", 1, 1, None)
        assert told["response_ms"]["p50"] > 0
        assert served.ask("DELETE", path).status == 204
        assert program.until("closed")["error"] is None
    assert served.ask("GET", path).status == 404


def values_of(served):
    """The figures for Prometheus, read by its own parser: `{(name, label, ...): value}`."""
    text = served.ask("GET", "/metrics").body.decode()
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return {(each.name, *each.labels.values()): each.value for each in samples}


def test_every_counter_is_there_from_the_start(coloured_run):
    """What appears with its first count hides that count from whoever asks how much was added."""
    service = Service(coloured_run, JOB, ServeConfig())
    with server_of(service) as client:
        values = values_of(client)
    for fate in Fate:
        assert values["musetalk_frames_total", fate.name.lower()] == 0
    assert values["musetalk_refused_total", "session"] == values["musetalk_refused_total", "speech"] == 0
    for name in ("late_frames", "stalls", "batches", "batch_frames", "batch_rows"):
        assert values[f"musetalk_{name}_total",] == 0
    for name in ("response", "frame_latency", "mouth_to_eye"):
        assert values[f"musetalk_{name}_seconds_count",] == 0


def test_nothing_is_told_of_what_was_not_measured(served):
    with served.program("red", video="none") as program:
        path = f"/v1/sessions/{program.first['session']}"
        while "response_ms" not in (told := served.ask("GET", path).body):
            program.watch(1)
    assert [told[f"{name}_ms"] for name in ("response", "first_frame", "last_frame")] == [None] * 3


def test_metrics_count_what_happened(served):
    with served.program("red", video="none") as program:
        program.say(speech(0.5))
        program.tell("end")
        program.until("segment_finished")
        values = values_of(served)
    assert (values["musetalk_sessions",], values["musetalk_sessions_most",]) == (1, 8)
    assert values["musetalk_viewers",] == 1
    assert values["musetalk_speakers_most",] == 2
    assert values["musetalk_frames_total", "speaking"] > 3
    assert values["musetalk_response_seconds_count",] >= 1
    assert 0 < values["musetalk_batch_frames_total",] <= values["musetalk_batch_rows_total",]
    assert values["musetalk_avatar_bytes",] > 0


def test_a_failure_that_nobody_foresaw_shows_nothing_of_the_inside(served, monkeypatch):
    def fails():
        raise KeyError("secret")

    monkeypatch.setattr(served.service.gallery, "all", fails)
    answer = served.ask("GET", "/v1/avatars")
    assert (answer.status, answer.body["error"]) == (500, "The service failed to answer this.")


def test_a_service_that_ends_takes_no_session_and_lets_those_that_speak_finish(coloured_run):
    with serving(coloured_run, JOB) as client, client.program("red", video="none") as program:
        program.say(speech(1.0))
        program.tell("end")
        program.until("speaking")
        draining = threading.Thread(target=client.service.drain)
        draining.start()
        while client.ask("GET", "/readyz").status == 200:
            pass
        assert "about to end" in client.ask("GET", "/readyz").body["error"]
        with client.program("blue") as late:
            assert "about to end" in late.first["error"]
        assert program.until("segment_finished")["segment"] == 0
        assert program.until("closed")["error"] is None
        draining.join(TIMEOUT_S)
        assert not draining.is_alive()


@pytest.mark.slow
def test_what_a_program_sent_before_the_end_of_the_service_is_shown_though_it_waits_for_room(coloured_run):
    """Half a second is taken ahead here, and one second more waits in front of that."""
    job = replace(JOB, ahead=Fraction(1, 2))
    with serving(coloured_run, job) as client, client.program("red", video="none") as program:
        program.say(said := speech(3.0))
        program.tell("end")
        program.until("speaking")
        draining = threading.Thread(target=client.service.drain)
        draining.start()
        assert program.until("segment_finished")["segment"] == 0
        assert program.until("closed")["error"] is None
        assert delay_of(said, program.heard)[1] > 0.95
        draining.join(TIMEOUT_S)
        assert not draining.is_alive()


def test_a_session_that_nobody_watches_is_ended_after_its_time(coloured_run):
    with serving(coloured_run, JOB, linger_s=0.0) as client:
        session = client.service.open("red", "10.0.0.7")
        over = threading.Event()
        for _ in range(10_000):
            if over.wait(0.005) or not client.service.sessions:
                break
        assert client.service.sessions == []
        assert session.is_over
