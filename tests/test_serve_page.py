"""The page of the service in a real browser: chosen, seen, heard, spoken to, interrupted, and refused."""

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browsers import Visit, browser, playwright, sound_file
from lives import write_sound
from serving import FPS, JOB, serving

from musetalk_cli.config import DataFolder, JobConfig, RunConfig

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "avatars" / "demo" / "sample.wav"
MOUTH = (190, 350, 320, 440)
DEMO = RunConfig(
    DataFolder(ROOT / "models", "flag"), DataFolder(ROOT / "avatars", "flag"), "demo", "cpu", "auto"
)


@pytest.fixture(scope="module")
def started():
    with playwright() as made:
        yield made


@pytest.fixture(scope="module")
def chromium(started):
    with browser(started, "--use-fake-ui-for-media-stream", sound_file(SAMPLE)) as launched:
        yield launched


@pytest.fixture(scope="module")
def demo(started):
    with serving(
        DEMO, JobConfig(fps=Fraction(FPS), chunk=Fraction(1, 2)), speakers=1, max_sessions=8
    ) as client:
        yield client


@pytest.fixture
def visit(chromium):
    """Visits pages; they end with the test, and with the sessions they began."""
    visits = []

    def begin(url, **options):
        visits.append(Visit(options.pop("chromium", chromium), url, **options))
        return visits[-1]

    yield begin
    for each in visits:
        if not each.page.is_closed() and each.page.locator("#stop").is_visible():
            each.press("stop")
            each.until("idle")
        each.page.close()


def moves(rows):
    """How far the light of a region goes, in levels."""
    return np.ptp([light for light, _ in rows])


def loudest(rows):
    return max(level for _, level in rows)


def rests(rows):
    return moves(rows) < 3 and loudest(rows) < -55


def comes_to_rest(visit):
    """Soon: what a busy machine shows late comes before it."""
    return any(rests(visit.watch(FPS // 2, MOUTH)) for _ in range(10))


@pytest.mark.slow
def test_an_avatar_is_chosen_and_seen_by_keyboard(visit, demo):
    here = visit(demo.url)
    page = here.page
    page.locator("#connect:enabled").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "demo"
    page.keyboard.press("ArrowDown")
    assert page.locator(".avatar input:checked").input_value() == "demo2"
    page.locator("#poster").wait_for()
    assert page.locator("#poster").get_attribute("src").startswith("blob:")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    here.until("live")
    assert page.evaluate("document.activeElement.id") == "stop", "who pressed it keeps the focus"
    before = page.evaluate("face.currentTime")
    assert len(here.watch(5, MOUTH)) == 5
    assert page.evaluate("[face.videoWidth, face.videoHeight]") == [512, 640]
    assert page.evaluate("face.currentTime") > before
    assert [session.avatar for session in demo.service.sessions] == ["demo2"]
    page.keyboard.press("Enter")
    here.until("idle")
    assert here.complaints == []


def test_the_sample_is_spoken_and_the_mouth_rests_afterwards(visit, demo):
    here = visit(demo.url)
    here.connect()
    assert rests(here.watch(FPS, MOUTH))
    here.page.locator("#session-figures div:has-text('Viewers') dd:has-text('1')").wait_for()
    assert "ms" not in here.page.locator("#session-figures div:has-text('Response time') dd").inner_text()
    here.press("sample")
    here.until("speaking")
    spoken = here.watch(3 * FPS, MOUTH)
    assert moves(spoken) > 8
    assert loudest(spoken) > -35
    here.page.locator("#session-figures div:has-text('Response time') dd:has-text('ms')").wait_for()
    here.until("live")
    assert comes_to_rest(here)
    assert here.complaints == []


@pytest.mark.slow
def test_escape_interrupts(visit, demo, tmp_path):
    """A second file is refused while a long one is spoken, and taken after an interrupt."""
    samples, rate = soundfile.read(SAMPLE)
    long = write_sound(tmp_path / "long.wav", *[samples] * 10, rate=rate)
    here = visit(demo.url)
    here.connect()
    with here.page.expect_file_chooser() as chooser:
        here.press("choose")
    chooser.value.set_files(long)
    here.until("speaking")
    here.press("sample")
    assert here.notice.startswith("Another file is being spoken.")
    here.page.keyboard.press("Escape")
    here.until("live")
    assert comes_to_rest(here)
    here.press("sample")
    here.until("speaking")
    assert not here.page.locator("#notice").is_visible()


@pytest.mark.slow
def test_the_microphone_is_heard_in_the_same_session(visit, demo):
    here = visit(demo.url)
    here.connect()
    (session,) = demo.service.sessions
    here.press("microphone")
    here.until("speaking")
    assert here.page.locator("#microphone").get_attribute("aria-pressed") == "true"
    spoken = here.watch(3 * FPS, MOUTH)
    assert moves(spoken) > 8
    assert loudest(spoken) > -35
    assert [each.id for each in demo.service.sessions] == [session.id]
    here.press("microphone")
    here.page.locator("#microphone[aria-pressed=false]").wait_for()
    here.until("live")
    assert here.complaints == []


def connect_known(here):
    """Connect; the names of the session and of its viewer, as the service told them."""
    with here.page.expect_response("**/v1/offer") as answer:
        here.connect()
    return answer.value.json()


def lose_viewer(demo, told):
    assert demo.ask("DELETE", f"/v1/sessions/{told['session']}/viewers/{told['viewer']}").status == 204


@pytest.mark.slow
def test_a_viewer_that_was_lost_comes_back_to_its_session(visit, demo):
    here = visit(demo.url)
    told = connect_known(here)
    lose_viewer(demo, told)
    here.until("reconnecting")
    here.until("live")
    assert len(here.watch(3, MOUTH)) == 3
    assert [each.id for each in demo.service.sessions] == [told["session"]]


@pytest.mark.slow
def test_a_connection_that_stands_while_nothing_comes_is_noticed_and_can_be_made_anew(visit, demo):
    here = visit(demo.url)
    here.connect()
    (session,) = demo.service.sessions
    notice = here.page.locator("#notice")
    session.broadcast.write = lambda frame: None
    assert here.notice.startswith("No picture has come for some seconds, though the connection is up.")
    del session.broadcast.write
    notice.wait_for(state="hidden")
    assert here.page.locator("#state[data-state=live]").is_visible()
    session.broadcast.write = lambda frame: None
    notice.wait_for()
    here.press("notice-action")
    here.until("reconnecting")
    del session.broadcast.write
    here.until("live")
    assert len(here.watch(3, MOUTH)) == 3
    assert [each.id for each in demo.service.sessions] == [session.id]
    assert here.complaints == []


@pytest.mark.slow
def test_a_connection_that_is_lost_is_not_said_to_stand(visit, demo):
    here = visit(demo.url)
    told = connect_known(here)
    (session,) = demo.service.sessions
    session.broadcast.write = lambda frame: None
    assert "though the connection is up" in here.notice
    lose_viewer(demo, told)
    here.until("reconnecting")
    assert not here.page.locator("#notice").is_visible()
    del session.broadcast.write
    here.until("live")


def test_a_session_that_was_ended_is_not_waited_for(visit, demo):
    here = visit(demo.url)
    here.connect()
    (session,) = demo.service.sessions
    assert demo.ask("DELETE", f"/v1/sessions/{session.id}").status == 204
    here.until("idle")
    assert "session" in here.notice
    here.press("notice-action")
    here.until("live")


def test_a_refusal_is_shown_in_the_words_of_the_service(visit, coloured_run):
    with serving(coloured_run, JOB, max_sessions=1) as client, client.program("red") as program:
        assert program.first["type"] == "ready"
        here = visit(client.url)
        here.press("connect")
        assert "All 1 sessions of this service are taken." in here.notice
        here.until("idle")
        assert here.page.locator("#connect:enabled").is_visible()


@pytest.mark.slow
def test_the_keyboard_goes_as_the_eye_does_where_the_face_stands_first(visit, demo):
    page = visit(demo.url, viewport={"width": 360, "height": 740}).page
    page.locator("#connect:enabled").wait_for()
    went = []
    for _ in range(5):
        page.keyboard.press("Tab")
        went.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert went == ["connect", "microphone", "sample", "choose", "avatar"]


@pytest.mark.slow
def test_an_avatar_that_cannot_be_used_says_why_and_is_not_asked_for_a_picture(visit, coloured_run, tmp_path):
    shutil.copytree(coloured_run.avatars.path / "red", tmp_path / "red")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "avatar.json").write_text("{")
    run = replace(coloured_run, avatars=DataFolder(tmp_path, "flag"))
    with serving(run, JOB) as client:
        here = visit(client.url)
        here.page.locator(".avatar img").nth(1).wait_for()
        assert "is not JSON" in here.page.locator(".avatar:has([value=bad]) small").inner_text()
        assert here.complaints == []


@pytest.mark.slow
def test_the_token_is_asked_for_until_it_is_right(visit, coloured_run):
    with serving(coloured_run, JOB, token="a-long-secret-word") as client:
        here = visit(client.url)
        page = here.page
        page.locator("#state-text", has_text="A token is needed").wait_for()
        page.fill("#token", "пароль-пароль-пароль")
        page.keyboard.press("Enter")
        assert page.locator("#token:invalid").is_visible(), "no header carries it"
        for wrong, said in (("wrong", "started with"), ("a-long-secret-word", "not accepted")):
            page.locator("#gate-text", has_text=said).wait_for()
            page.fill("#token", wrong)
            page.keyboard.press("Enter")
        page.locator(".avatar img").first.wait_for()
        page.reload()
        page.locator("#connect:enabled").wait_for()
        assert not page.locator("#gate").is_visible()
        refused = [each for each in here.complaints if "401" not in each]
        assert refused == []


@pytest.mark.slow
def test_a_microphone_that_is_refused_is_explained(visit, started, coloured_run):
    with serving(coloured_run, JOB) as client, browser(started) as careful:
        here = visit(client.url, chromium=careful)
        here.press("microphone")
        assert here.notice.startswith("The browser refused the microphone.")
        assert client.service.sessions == []
        here.page.close()


@pytest.mark.slow
def test_a_service_that_is_gone_is_not_waited_for(visit, coloured_run):
    with serving(coloured_run, JOB) as client:
        here = visit(client.url)
        here.page.locator("#connect:enabled").wait_for()
    here.press("connect")
    assert here.notice.startswith("The service cannot be reached.")
    here.until("idle")


@pytest.mark.slow
@pytest.mark.parametrize("loading", [False, True])
def test_a_service_that_is_back_is_not_called_unreachable_any_more(visit, demo, loading):
    here = visit(demo.url)
    page = here.page
    page.locator("#connect:enabled").wait_for()
    page.route("**/v1/**", lambda route: route.abort())
    here.press("connect")
    assert here.notice.startswith("The service cannot be reached.")
    page.locator("#state-text", has_text="The service does not answer").wait_for()
    assert page.locator("#notice").is_visible()
    page.unroute("**/v1/**")
    if loading:
        page.route("**/v1/**", lambda route: route.fulfill(status=503, json={"error": "It loads."}))
    page.locator("#state-text", has_text="Not connected").wait_for()
    assert not page.locator("#notice").is_visible()
    page.unroute("**/v1/**")
    here.connect()
