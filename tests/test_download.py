"""Files from the hub: whole, proven, and going on where they stopped, whatever the hub does."""

import json
import os
import resource
import shutil
import socket
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from hubs import COMMIT, Fault, HubServer, a_hub, git_blob, sha256
from lives import LIMIT_S

from musetalk_cli.errors import InputError, ModelError, OutputError
from musetalk_cli.nets import pins, record
from musetalk_cli.nets.fetching import download
from musetalk_cli.nets.hub import Hub
from musetalk_cli.nets.hub_settings import hub_of_environment
from musetalk_cli.nets.patience import TRIES
from musetalk_cli.nets.pins import DWPOSE_HUB, FACE_PARSING_HUB, Pin
from musetalk_cli.nets.proof import look
from musetalk_cli.text import PROGRESS

ONNX = "dw-ll_ucoco_384.onnx"
DATA = os.urandom(300_000)
REVISION = "0123456789abcdef0123456789abcdef01234567"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def hub(monkeypatch):
    """A hub with a DWPose of random bytes, which the table knows."""
    monkeypatch.setitem(pins.PINS, (DWPOSE_HUB, ONNX), Pin(len(DATA), sha256(DATA), REVISION))
    with a_hub() as hub:
        hub.publish(DWPOSE_HUB, ONNX, DATA)
        hub.publish(FACE_PARSING_HUB, "config.json", b"{}", small=True)
        hub.publish(FACE_PARSING_HUB, "preprocessor_config.json", b"{ }", small=True)
        hub.publish(FACE_PARSING_HUB, "model.safetensors", DATA[:5000])
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def client(hub):
    """The same hub as the program sees it; its waits are noted and take no time."""
    waits = []
    client = Hub(hub.url, sleep=waits.append)
    return client, waits


@pytest.fixture
def place(tmp_path):
    return tmp_path / "dwpose" / ONNX


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def partial_of(place, data=DATA):
    return place.with_name(f".{ONNX}.{sha256(data)[:16]}.partial")


def test_a_file_comes_from_its_revision_whole_and_under_its_name(hub, client, place, tmp_path):
    steps, lines = [], []
    fetched = download(
        "dwpose", tmp_path, hub=client[0], notice=lines.append, told=lambda *s: steps.append(s)
    )
    assert place.read_bytes() == DATA
    assert (fetched.files, fetched.bytes) == ([f"dwpose/{ONNX}"], len(DATA))
    assert names(place.parent) == [ONNX]
    assert all(f"/resolve/{REVISION}/" in path for _, path, _ in hub.asked if "/resolve/" in path)
    assert lines == [f"{DWPOSE_HUB}: licence Apache-2.0, {hub.url}/{DWPOSE_HUB}"]
    assert {step[0] for step in steps} == {"fetch"}
    done = [step[1] for step in steps]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, len(DATA))
    assert {step[2] for step in steps} == {len(DATA)}
    assert record.read(tmp_path) == {}, "the table knows it"


def test_what_is_there_and_right_is_read_and_not_fetched(hub, client, place, tmp_path):
    place.parent.mkdir()
    place.write_bytes(DATA)
    steps = []
    assert download("dwpose", tmp_path, hub=client[0], told=lambda *s: steps.append(s)).files == []
    assert hub.asked == []
    assert steps[-1] == ("check", len(DATA), len(DATA))


@pytest.mark.parametrize("damaged", [DATA[:-1] + bytes([DATA[-1] ^ 1]), DATA[:1000], b""])
def test_a_damaged_file_is_replaced_and_kept_aside(hub, client, place, tmp_path, damaged):
    place.parent.mkdir()
    place.write_bytes(damaged)
    lines = []
    download("dwpose", tmp_path, hub=client[0], notice=lines.append)
    assert place.read_bytes() == DATA
    assert names(place.parent) == [ONNX, f"{ONNX}.replaced"]
    assert place.with_name(f"{ONNX}.replaced").read_bytes() == damaged
    assert f"{place} was another file" in lines[-1]


def test_what_was_put_aside_before_stays(hub, client, place, tmp_path):
    place.parent.mkdir()
    for own in (b"mine", b"mine too"):
        place.write_bytes(own)
        download("dwpose", tmp_path, hub=client[0])
    assert place.with_name(f"{ONNX}.replaced").read_bytes() == b"mine"
    assert place.with_name(f"{ONNX}.replaced2").read_bytes() == b"mine too"


@pytest.mark.parametrize("left", [1, 100_000, len(DATA)])
def test_a_download_goes_on_where_an_earlier_one_stopped(hub, client, place, tmp_path, left):
    place.parent.mkdir()
    partial_of(place).write_bytes(DATA[:left])
    fetched = download("dwpose", tmp_path, hub=client[0])
    assert place.read_bytes() == DATA
    assert fetched.bytes == len(DATA) - left
    ranges = {asked for _, asked in hub.bodies()}
    assert ranges == ({f"bytes={left}-"} if left < len(DATA) else set())
    assert names(place.parent) == [ONNX]


@pytest.mark.parametrize("left", [b"x" * 1000, DATA + b"too much", b"x" * len(DATA)])
def test_what_was_left_and_is_no_beginning_of_it_is_thrown_away(hub, client, place, tmp_path, left):
    place.parent.mkdir()
    partial_of(place).write_bytes(left)
    download("dwpose", tmp_path, hub=client[0])
    assert place.read_bytes() == DATA
    assert names(place.parent) == [ONNX]


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_server_that_dies_in_the_middle_is_asked_for_the_rest(hub, client, place, tmp_path, reset):
    hub.fails("GET", Fault(cut=100_000, reset=reset), Fault(cut=50_000, reset=reset), None)
    download("dwpose", tmp_path, hub=client[0])
    assert place.read_bytes() == DATA
    starts = [int(asked[6:-1]) for path, asked in hub.bodies() if "/stored/" in path and asked]
    assert len(starts) == 2
    assert reset or starts == [100_000, 150_000]
    assert client[1] == [1.0, 1.0], "something came between"


def replace_parser_config(hub, tag):
    """Another file is in its place, of the same size."""
    hub.publish(FACE_PARSING_HUB, "config.json", DATA[4000:1000:-1], small=True, tag=tag)


def test_a_file_that_is_replaced_while_it_comes_is_told_and_never_mixed(hub, tmp_path):
    """Of a hub whose tags are no digests."""
    hub.publish(FACE_PARSING_HUB, "config.json", DATA[:3000], small=True, tag="one")
    hub.fails("GET", Fault(cut=1000))
    replacing = Hub(hub.url, sleep=lambda _: replace_parser_config(hub, "two"))
    with pytest.raises(ModelError, match=r"config\.json was replaced on the hub while it came") as caught:
        download("face-parsing", tmp_path, hub=replacing)
    assert "again" in caught.value.hint
    config = tmp_path / "face-parsing" / "config.json"
    assert not config.exists()
    assert [Path(path).name for path, _ in hub.bodies()] == ["config.json"] * 2
    download("face-parsing", tmp_path, hub=replacing)
    assert config.read_bytes() == DATA[4000:1000:-1]
    assert names(config.parent) == ["config.json", "model.safetensors", "preprocessor_config.json"]


def test_a_file_without_a_tag_is_never_put_together(hub, tmp_path):
    """Neither within one download nor with what an earlier one has left."""
    hub.publish(FACE_PARSING_HUB, "config.json", DATA[:3000], small=True, tag="")
    hub.fails("GET", Fault(cut=1000))
    config = tmp_path / "face-parsing" / "config.json"
    config.parent.mkdir()
    config.with_name(".config.json..partial").write_bytes(b"x" * 3000)
    download("face-parsing", tmp_path, hub=Hub(hub.url, sleep=lambda _: replace_parser_config(hub, "")))
    assert config.read_bytes() == DATA[4000:1000:-1]
    assert {asked for path, asked in hub.bodies() if path.endswith("config.json")} == {None}


def test_a_known_file_that_is_replaced_while_it_comes_is_told_by_its_digest(hub, place, tmp_path):
    hub.fails("GET", Fault(cut=100_000))
    replacing = Hub(hub.url, sleep=lambda _: hub.publish(DWPOSE_HUB, ONNX, DATA[::-1]))
    with pytest.raises(ModelError, match="is another file than the one that is wanted"):
        download("dwpose", tmp_path, hub=replacing)
    assert names(place.parent) == []


def test_a_server_that_takes_no_ranges_begins_anew(hub, client, place, tmp_path):
    hub.fails("GET", Fault(cut=100_000), Fault(whole=True))
    download("dwpose", tmp_path, hub=client[0])
    assert place.read_bytes() == DATA


def test_a_server_that_always_begins_anew_and_dies_is_left(hub, client, place, tmp_path):
    hub.fails("GET", *[Fault(cut=100_000, whole=True)] * 50)
    with pytest.raises(ModelError, match="ended in the middle"):
        download("dwpose", tmp_path, hub=client[0])
    assert len(client[1]) == TRIES - 1
    assert not place.exists()


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_what_passes_is_tried_again_with_longer_waits(hub, client, place, tmp_path, method, status):
    hub.fails(method, *[Fault(status)] * (TRIES - 1))
    download("dwpose", tmp_path, hub=client[0])
    assert place.read_bytes() == DATA
    assert client[1] == [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_what_does_not_pass_ends_in_a_sentence(hub, client, place, tmp_path, method):
    hub.fails(method, *[Fault(503)] * TRIES)
    with pytest.raises(
        ModelError, match=r"could not be fetched .* because it failed \(status 503\)"
    ) as caught:
        download("dwpose", tmp_path, hub=client[0])
    assert str(place) in caught.value.hint
    assert not place.exists()


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("0", 1.0), ("120", 120.0), ("soon", 1.0)])
def test_who_asks_to_wait_is_waited_for(hub, client, place, tmp_path, asked, waited):
    hub.fails("HEAD", Fault(429, {"Retry-After": asked}))
    download("dwpose", tmp_path, hub=client[0])
    assert client[1] == [waited]


def test_a_long_wait_is_told(hub, client, tmp_path, caplog):
    caplog.set_level(PROGRESS, "musetalk_cli")
    hub.fails("HEAD", Fault(429, {"Retry-After": "7"}), Fault(503))
    download("dwpose", tmp_path, hub=client[0])
    assert client[1] == [7.0, 2.0]
    assert caplog.messages == ["The hub is asked again in 7 s, because it was asked too often (status 429)."]


@pytest.mark.parametrize("asked", ["121", "99999999999", "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_nobody_is_waited_for_without_end(hub, client, tmp_path, asked):
    hub.fails("HEAD", Fault(429, {"Retry-After": asked}))
    with pytest.raises(ModelError, match=r"asked too often \(status 429\), and asks to wait \d+ s"):
        download("dwpose", tmp_path, hub=client[0])
    assert client[1] == []


def test_a_date_in_the_past_is_no_wait(hub, client, tmp_path):
    hub.fails("HEAD", Fault(429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}))
    download("dwpose", tmp_path, hub=client[0])
    assert client[1] == [1.0]


def test_a_file_that_is_not_there_is_a_sentence(hub, client, tmp_path):
    hub.files.clear()
    with pytest.raises(
        ModelError, match=f"{DWPOSE_HUB} at {hub.url} has no {ONNX} in revision {REVISION[:12]}"
    ):
        download("dwpose", tmp_path, hub=client[0])
    assert client[1] == [], "it is not asked again"


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_refuses_is_a_sentence_without_the_token(hub, tmp_path, status, caplog):
    for token, hint in ((None, "Set HF_TOKEN"), ("hf_verysecret", "Check HF_TOKEN")):
        hub.fails("HEAD", Fault(status))
        with pytest.raises(ModelError, match=f"does not let .* be read .status {status}") as caught:
            download("dwpose", tmp_path, hub=Hub(hub.url, token, sleep=pytest.fail))
        assert caught.value.hint.startswith(hint)
        assert "verysecret" not in f"{caught.value}{caught.value.hint}{caplog.text}{Hub(hub.url, token)}"


@pytest.mark.parametrize("status", [400, 418])
def test_any_other_refusal_is_a_sentence(hub, client, tmp_path, status):
    hub.fails("GET", Fault(status))
    with pytest.raises(ModelError, match=f"refused .status {status}"):
        download("dwpose", tmp_path, hub=client[0])


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub, place, tmp_path):
    with a_hub(HubServer()) as storage:
        storage.files = hub.files
        hub.elsewhere = storage.url
        download("dwpose", tmp_path, hub=Hub(hub.url, "hf_verysecret"))
        assert place.read_bytes() == DATA
        assert {headers.get("Authorization") for *_, headers in hub.asked} == {"Bearer hf_verysecret"}
        assert storage.asked
        assert not any("Authorization" in headers for *_, headers in storage.asked)


@pytest.mark.parametrize("place_", ["file:///etc/passwd", "ftp://127.0.0.1/a"])
def test_a_redirect_leads_to_http_alone(hub, client, tmp_path, place_):
    hub.fails("HEAD", Fault(302, {"Location": place_}))
    with pytest.raises(ModelError, match="not safe"):
        download("dwpose", tmp_path, hub=client[0])


@pytest.mark.parametrize("place_", ["http://[bad/a", "http://a..b/", "/\u00fc"])
def test_a_redirect_to_what_is_no_address_is_a_sentence(hub, client, tmp_path, place_):
    hub.fails("HEAD", Fault(302, {"Location": place_}))
    with pytest.raises(ModelError, match="could not be fetched"):
        download("dwpose", tmp_path, hub=client[0])


@pytest.mark.parametrize("size", ["9" * 16, "9" * 5000, "-5", "1.5"])
def test_a_size_that_no_file_has_is_a_sentence(hub, client, tmp_path, size):
    hub.fails("HEAD", Fault(200, {"Content-Length": size}))
    with pytest.raises(ModelError, match="does not say how large"):
        download("dwpose", tmp_path, hub=client[0])


@pytest.mark.parametrize(
    "token", ["hf_very\nsecret", "hf_very\u201csecret", "hf_very secret", '"hf_verysecret"', "hf_secret;x"]
)
def test_a_token_that_is_none_is_refused_and_not_shown(monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match="HF_TOKEN") as caught:
        hub_of_environment()
    assert "secret" not in f"{caught.value}{caught.value.hint}"


def test_redirects_end(hub, client, tmp_path):
    hub.fails("HEAD", *[Fault(307, {"Location": "/a/b/resolve/main/c"})] * 9)
    with pytest.raises(ModelError, match="from one address to the next"):
        download("dwpose", tmp_path, hub=client[0])


@pytest.mark.parametrize("other", [b"y" * len(DATA), DATA[:-1] + bytes([DATA[-1] ^ 1])])
def test_wrong_bytes_never_get_the_name(hub, client, place, tmp_path, other):
    hub.fails("GET", Fault(instead=other))
    with pytest.raises(ModelError, match="is another file than the one that is wanted"):
        download("dwpose", tmp_path, hub=client[0])
    assert names(place.parent) == []


PAGE = b"<html>Please sign in to this network</html>"


@pytest.mark.parametrize("other", [PAGE, DATA + b"more"])
def test_what_is_no_file_of_that_size_is_not_taken_for_it(hub, client, place, tmp_path, other):
    """A page that a network shows in the middle of a download, for one: what came before it stays."""
    hub.fails("GET", Fault(cut=100_000), Fault(instead=other, whole=True), None)
    download("dwpose", tmp_path, hub=client[0])
    assert place.read_bytes() == DATA
    assert hub.bodies()[-1][1] == "bytes=100000-"


def test_a_page_is_never_recorded_as_a_file(hub, client, tmp_path):
    """Whatever answers in the hub's place: no file of these has a known digest that would tell."""
    page = Fault(200, {"Content-Length": "19", "Content-Type": "text/html"})
    hub.fails("HEAD", *[page] * 9)
    with pytest.raises(ModelError, match="does not answer as a model hub does") as caught:
        download("face-parsing", tmp_path, hub=client[0])
    assert "sign in" in caught.value.hint
    assert hub.bodies() == []
    assert names(tmp_path) == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_what_comes_packed_is_a_sentence_at_once(hub, client, tmp_path, method):
    packed = Fault(200, {"Content-Encoding": "gzip", "X-Repo-Commit": COMMIT})
    hub.fails(method, packed)
    with pytest.raises(ModelError, match=r"sends the file packed \(gzip\)"):
        download("face-parsing", tmp_path, hub=client[0])
    assert client[1] == []
    assert not list(tmp_path.glob("*/*.json"))


def test_a_server_elsewhere_that_refuses_is_led_to_anew(hub, client, place, tmp_path):
    """An address that is too old: no token would help."""
    with a_hub(HubServer()) as storage:
        storage.files, hub.elsewhere = hub.files, storage.url
        storage.fails("GET", Fault(403))
        download("dwpose", tmp_path / "one", hub=client[0])
        assert client[1] == [1.0]
        storage.fails("GET", *[Fault(403)] * TRIES)
        with pytest.raises(ModelError, match=r"the server it sends to refused .status 403") as caught:
            download("dwpose", tmp_path / "two", hub=client[0])
        assert "HF_TOKEN" not in caught.value.hint


def test_a_hub_with_another_file_is_refused_before_it_comes(hub, client, place, tmp_path):
    hub.publish(DWPOSE_HUB, ONNX, DATA[::-1])
    with pytest.raises(ModelError, match=f"it is {sha256(DATA[::-1])[:16]} and not {sha256(DATA)[:24]}"):
        download("dwpose", tmp_path, hub=client[0])
    assert hub.bodies() == []
    assert not place.parent.exists()


def test_the_first_download_is_recorded_and_later_ones_are_held_to_it(hub, client, tmp_path):
    download("face-parsing", tmp_path, hub=client[0])
    weights = tmp_path / "face-parsing" / "model.safetensors"
    entries = record.read(tmp_path)
    assert set(entries) == {f"face-parsing/{name}" for name in names(weights.parent)}
    entry = entries["face-parsing/model.safetensors"]
    assert (entry.bytes, entry.sha256) == (5000, sha256(DATA[:5000]))
    assert (entry.revision, entry.source) == (COMMIT, f"{FACE_PARSING_HUB}/model.safetensors")
    assert {seen.look for seen in look("face-parsing", tmp_path)} == {"here"}

    hub.publish(FACE_PARSING_HUB, "model.safetensors", DATA[5000:10_000])
    hub.asked.clear()
    assert download("face-parsing", tmp_path, hub=client[0]).files == []
    weights.write_bytes(b"damaged")
    assert [seen.look for seen in look("face-parsing", tmp_path)].count("other size") == 1
    with pytest.raises(ModelError, match="is another file than the one that is wanted"):
        download("face-parsing", tmp_path, hub=client[0])
    assert all(f"/resolve/{COMMIT}/" in path for _, path, _ in hub.asked), "of the commit that was recorded"
    hub.publish(FACE_PARSING_HUB, "model.safetensors", DATA[:5000])
    assert download("face-parsing", tmp_path, hub=client[0]).files == ["face-parsing/model.safetensors"]


def test_the_first_download_is_held_to_what_the_hub_says(hub, client, tmp_path):
    """Of large files it tells the SHA-256, of small ones git's digest."""
    for path in ("model.safetensors", "config.json"):
        right = hub.files[f"{FACE_PARSING_HUB}/{path}"]
        wrong = bytes(byte ^ 1 for byte in right)
        assert git_blob(wrong) != git_blob(right)
        hub.faults.clear()
        hub.fails("GET", *([None] if path == "model.safetensors" else []), Fault(instead=wrong))
        with pytest.raises(ModelError, match=f"{path} .*is another file"):
            download("face-parsing", tmp_path / path, hub=client[0])
        assert f"face-parsing/{path}" not in record.read(tmp_path / path)


def test_the_second_published_name_is_taken_where_the_first_is_not_there(hub, client, tmp_path):
    del hub.files[f"{FACE_PARSING_HUB}/model.safetensors"]
    hub.publish(FACE_PARSING_HUB, "pytorch_model.bin", DATA[:77])
    download("face-parsing", tmp_path, hub=client[0])
    assert (tmp_path / "face-parsing" / "pytorch_model.bin").read_bytes() == DATA[:77]


def test_a_disk_without_room_is_told_before_anything_comes(hub, client, place, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 30, 1 << 30, 70 << 20))
    download("dwpose", tmp_path / "enough", hub=client[0])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 30, 1 << 30, 64 << 20))
    hub.asked.clear()
    with pytest.raises(OutputError, match=r"has room for 64 MiB, and 0 MiB are to be fetched") as caught:
        download("dwpose", tmp_path / "full", hub=client[0])
    assert "--models-dir" in caught.value.hint
    assert hub.bodies() == []
    assert not (tmp_path / "full").exists()


def test_a_disk_that_fills_up_keeps_what_came(hub, client, place, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(OutputError, match=f"{place} cannot be written: File too large") as caught:
            download("dwpose", tmp_path, hub=client[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Free some space" in caught.value.hint
    assert DATA.startswith(partial_of(place).read_bytes())
    assert not place.exists()
    assert download("dwpose", tmp_path, hub=client[0]).bytes < len(DATA)
    assert place.read_bytes() == DATA


def test_a_stopped_download_keeps_what_came(hub, client, place, tmp_path):
    def told(stage, done, total):
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download("dwpose", tmp_path, hub=client[0], told=told)
    assert partial_of(place).stat().st_size > 100_000
    assert not place.exists()
    assert download("dwpose", tmp_path, hub=client[0]).bytes < len(DATA) - 100_000
    assert place.read_bytes() == DATA


def test_two_downloads_into_a_folder_take_turns(hub, client, place, tmp_path):
    """Else both would write the same hidden file, and each would prove what it sent and not what is there."""
    waits, second = threading.Event(), []

    def other():
        second.append(download("dwpose", tmp_path, hub=Hub(hub.url), notice=lambda _: waits.set()))

    thread = threading.Thread(target=other)

    def told(stage, done, total):
        if done > 100_000 and not thread.ident:
            thread.start()
            assert waits.wait(LIMIT_S)

    assert download("dwpose", tmp_path, hub=client[0], told=told).bytes == len(DATA)
    thread.join()
    assert [fetched.files for fetched in second] == [[]], "the other one found it there"
    assert place.read_bytes() == DATA
    assert names(place.parent) == [ONNX]


def test_what_another_program_has_fetched_while_the_hub_was_asked_is_not_fetched_again(
    hub, client, place, tmp_path, monkeypatch
):
    """Nor is it put aside as if it were another file."""
    look, others = Hub.look, [Hub(hub.url)]
    seen = []

    def slowly(self, file, revision):
        remote = look(self, file, revision)
        if others:
            seen.append(download("dwpose", tmp_path, hub=others.pop()))
        return remote

    monkeypatch.setattr(Hub, "look", slowly)
    seen_by_us = download("dwpose", tmp_path, hub=client[0])
    assert [fetched.bytes for fetched in seen] == [len(DATA)]
    assert (seen_by_us.files, seen_by_us.bytes) == ([], 0)
    assert names(place.parent) == [ONNX]


def test_offline_nothing_is_asked(hub, musetalk, monkeypatch, place, tmp_path):
    for value in ("1", "true", "YES"):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        code, out, err = musetalk("models", "download", "dwpose", "--models-dir", tmp_path)
        assert (code, out) == (1, "")
        assert "HF_HUB_OFFLINE is set" in err
        assert str(place) in err
    assert hub.asked == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert musetalk("models", "download", "dwpose", "--models-dir", tmp_path)[0] == 0


def test_a_hub_that_is_not_there_is_told_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ModelError, match=r"because it could not be reached \(Connection refused\)"):
        download("dwpose", tmp_path, hub=Hub(f"http://127.0.0.1:{port}", sleep=pytest.fail))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    [
        *("huggingface.co", "ftp://a", "file:///etc", "http://", "https://u:p@a", "http://a?b"),
        *("https://a b", "https://a..b", "https://h\u00fcb", "https://a/\u00fc", "https://a:99999"),
    ],
)
def test_an_endpoint_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(InputError, match="is no address of a hub"):
        hub_of_environment()


def test_without_variables_it_is_the_public_hub(monkeypatch):
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    hub = hub_of_environment()
    assert (hub.endpoint, hub.token, hub.offline) == ("https://huggingface.co", None, False)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"a/b": 1}',
        '{"a/b": {"bytes": -1, "sha256": "%s", "revision": "main", "source": "x"}}' % ("0" * 64),
        '{"a/b": {"bytes": 1, "sha256": "0", "revision": "main", "source": "x"}}',
        '{"a/b": {"bytes": 1, "sha256": "%s", "revision": "../up", "source": "x"}}' % ("0" * 64),
        "{",
    ],
)
def test_a_broken_record_is_a_sentence(hub, client, tmp_path, text):
    (tmp_path / record.NAME).write_text(text)
    with pytest.raises(ModelError, match=record.NAME) as caught:
        download("face-parsing", tmp_path, hub=client[0])
    assert "Delete it" in caught.value.hint


def test_a_record_does_not_vouch_for_a_pickle_in_the_published_ones_place(tmp_path):
    (tmp_path / "musetalkV15").mkdir()
    (tmp_path / "musetalkV15" / "unet.pth").write_bytes(b"bad")
    entry = record.Entry(3, sha256(b"bad"), record.MADE, "made of nothing")
    record.write(tmp_path, {"musetalkV15/unet.pth": entry})
    (unet,) = [seen for seen in look("v15", tmp_path) if seen.file.endswith("unet.pth")]
    assert (unet.look, unet.recorded) == ("other size", False)
    assert unet.pin == pins.PINS[pins.MUSETALK, "musetalkV15/unet.pth"]


def test_the_command_tells_what_it_fetched(hub, musetalk, tmp_path):
    code, out, err = musetalk("models", "download", "face-parsing", "--models-dir", tmp_path, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["model"] == "face-parsing"
    assert told["bytes"] == 5005
    assert len(told["fetched"]) == 3
    assert err.count("licence see its page") == 1
    code, out, err = musetalk("models", "download", "face-parsing", "--models-dir", tmp_path)
    assert (code, out, err) == (0, f"Tool face-parsing is complete in {tmp_path}.\n", "")


def test_verify_names_the_damaged_file_and_what_to_type(hub, musetalk, place, tmp_path):
    assert musetalk("models", "download", "dwpose", "--models-dir", tmp_path)[0] == 0
    place.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    code, out, err = musetalk("models", "verify", "dwpose", "--models-dir", tmp_path)
    assert (code, out) == (1, "")
    assert str(place) in err
    assert "`musetalk models download dwpose`" in err
    assert musetalk("models", "download", "dwpose", "--models-dir", tmp_path)[0] == 0
    assert place.read_bytes() == DATA
