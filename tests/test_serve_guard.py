import asyncio

import pytest
from clocks import FakeClock

from musetalk_cli.serve.guard import BEGUN_AT_ONCE, BEGUN_PER_S, CLIENTS, HEADERS, Guard, Refill
from musetalk_cli.serve.settings import ServeConfig
from musetalk_cli.strict_json import parse

TOKEN = "a-token-that-is-long-enough"


class Ask:
    """One application that answers 200, behind a guard."""

    def __init__(self, **config):
        self.clock = FakeClock(50.0)
        self.reached = []
        self.guard = Guard(self.app, ServeConfig(**config), self.clock)

    async def app(self, scope, receive, send):
        self.reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def __call__(self, path, method="GET", *, kind="http", client="10.0.0.7", **headers):
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            return {"type": "websocket.connect"}

        given = {"host": "127.0.0.1:2160"} | headers
        scope = {
            "type": kind,
            "path": path,
            "method": method,
            "client": (client, 5000),
            "headers": [(key.encode(), value.encode()) for key, value in given.items()],
            "extensions": {"websocket.http.response": {}},
        }
        asyncio.run(self.guard(scope, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.mark.parametrize("path", ["/v1/service", "/v1/avatars", "/metrics", "/v1/sessions/x/speak"])
def test_what_is_protected_wants_the_token(path):
    ask = Ask(token=TOKEN)
    for given in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
    ):
        status, headers, body = ask(path, **given)
        assert status == 401
        assert headers[b"www-authenticate"] == b"Bearer"
        assert TOKEN not in body.decode()
        assert parse(body)["error"]
    assert ask.reached == []
    assert ask(path, authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(path, authorization=f"bearer {TOKEN}")[0] == 200


def test_a_token_in_letters_of_another_script_is_wrong_and_no_failure():
    assert Ask(token=TOKEN)("/v1/service", authorization="Bearer é")[0] == 401


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/healthz", "/readyz"])
def test_the_page_and_the_probes_are_open(path):
    assert Ask(token=TOKEN)(path)[0] == 200


def test_a_websocket_wants_the_token_too():
    ask = Ask(token=TOKEN)
    assert ask("/v1/stream", kind="websocket")[0] == 401
    assert ask.reached == []


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:2160", True),
        ("https://me.example", True),
        ("https://me.example.evil.net", False),
        ("http://127.0.0.1:8000", False),
        ("null", False),
        ("https://evil.net", False),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_pages_of_others_are_sent_away(origin, allowed, kind):
    ask = Ask(origins=("https://me.example",))
    status = ask("/v1/stream", "POST", kind=kind, origin=origin)[0]
    assert status == (200 if allowed else 403)
    assert bool(ask.reached) is allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:2160", True),
        ("localhost:2160", True),
        ("[::1]:2160", True),
        ("evil.net:2160", False),
        ("", False),
    ],
)
def test_without_a_token_a_name_that_was_led_here_is_none_of_ours(host, allowed):
    """DNS rebinding: the page of evil.net asks evil.net, which has become 127.0.0.1."""
    status, _, body = Ask()("/v1/service", host=host, origin=f"http://{host}")
    assert status == (200 if allowed else 403), body


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("given", [{"host": "["}, {"host": "[::1"}, {"origin": "http://["}, {"origin": ""}])
def test_what_is_no_host_or_origin_is_refused_and_no_failure(given, kind):
    ask = Ask()
    assert ask("/v1/stream", kind=kind, **given)[0] == 403
    assert ask.reached == []


def test_no_origin_is_that_of_a_request_without_a_host():
    assert Ask(token=TOKEN)("/v1/service", host="", origin="null", authorization=f"Bearer {TOKEN}")[0] == 403


def test_a_browser_shows_answers_to_pages_of_the_origins_that_are_let_in_and_to_no_other():
    ask, page = Ask(token=TOKEN, origins=("https://me.example",)), {"origin": "https://me.example"}
    status, headers, _ = ask("/v1/offer", "OPTIONS", **page)
    assert (status, ask.reached) == (204, []), "a browser asks first, and without the token"
    assert headers[b"access-control-allow-origin"] == b"https://me.example"
    assert b"authorization" in headers[b"access-control-allow-headers"]
    for method in (b"POST", b"DELETE"):
        assert method in headers[b"access-control-allow-methods"]
    for given, status in ((page | {"authorization": f"Bearer {TOKEN}"}, 200), (page, 401)):
        answer = ask("/v1/offer", "POST", **given)
        assert answer[0] == status
        assert answer[1][b"access-control-allow-origin"] == b"https://me.example"
        assert b"location" in answer[1][b"access-control-expose-headers"]
        assert answer[1][b"vary"] == b"origin"
    for other in ({}, {"origin": "http://127.0.0.1:2160"}, {"origin": "https://evil.net"}):
        headers = ask("/v1/offer", "OPTIONS", **other)[1]
        assert b"access-control-allow-origin" not in headers


def test_every_answer_has_the_headers():
    ask = Ask(token=TOKEN)
    for path in ("/", "/v1/service"):
        headers = ask(path)[1]
        for key, value in HEADERS:
            assert headers[key] == value
    policy = headers[b"content-security-policy"].decode()
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_sessions_are_begun_at_a_bounded_rate_by_each_client_alone():
    ask, most = Ask(sessions_per_client=8), round(8 * BEGUN_AT_ONCE)
    statuses = [ask("/v1/offer", "POST")[0] for _ in range(most + 5)]
    assert statuses == [200] * most + [429] * 5
    assert ask("/v1/offer", "POST", client="10.0.0.8")[0] == 200
    assert ask("/v1/sessions/x/interrupt", "POST")[0] == 200, "what begins nothing is not counted"
    status, headers, _ = ask("/v1/whep", "POST")
    assert (status, headers[b"retry-after"]) == (429, b"5")
    ask.clock.time += 3 / (8 * BEGUN_PER_S)
    assert [ask("/v1/offer", "POST")[0] for _ in range(4)] == [200, 200, 200, 429]


def test_many_clients_take_bounded_memory():
    refill = Refill(FakeClock(), at_once=1, per_s=0)
    assert refill.take("first")
    assert not refill.take("first")
    for number in range(CLIENTS):
        refill.take(str(number))
    assert refill.take("first"), "the oldest was forgotten"
