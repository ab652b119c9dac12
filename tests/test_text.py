"""What reaches a terminal: nothing that it would obey."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.text import counted, printable, redacted, shortened


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\rc\td\x00", r"a\nb\rc\td\x00"),
        ("\x7f\x9b31m\x85", r"\x7f\x9b31m\x85"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066a\u2069\ufeff\u200f", r"\u2066a\u2069\ufeff\u200f"),
        ("\udce9t\ud800", r"\udce9t\ud800"),
        ("a\u2028b", r"a\u2028b"),
        ("数字人 Änna é नमस्ते می\u200cنم 🙂", "数字人 Änna é नमस्ते می\u200cنم 🙂"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(raw, shown):
    assert printable(raw) == shown


def test_what_is_meant_is_kept():
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@given(st.text(st.characters()))
def test_any_text_can_be_written_and_says_nothing_to_a_terminal(text):
    shown = printable(text)
    shown.encode()
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown


@given(st.text("ab /.", max_size=2000))
def test_of_a_long_word_the_middle_is_left_out(text):
    shown = shortened(text)
    for word, told in zip(text.split(), shown.split(), strict=True):
        assert len(told) < 300
        assert told == (word if len(word) < 300 else f"{word[:150]}...{word[-100:]}")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("to rtmp://h.org/app/KEY now", "to rtmp://h.org/... now"),
        ("['RTMPS://user:KEY@h:1935/a?b=KEY', 'x.mp4']", "['RTMPS://h:1935/...', 'x.mp4']"),
        ("srt://[::1]:9000?passphrase=KEY", "srt://[::1]:9000/..."),
        ("rtmp://host", "rtmp://host"),
        ("RTMP:/h/KEY is not there", "RTMP:... is not there"),
        ("rtmp:KEY", "rtmp:..."),
        ("https://h/x?token=KEY", "https://h/..."),
        ("file:///a/b.mp4 and /home/x/take: 2.mp4", "file:///a/b.mp4 and /home/x/take: 2.mp4"),
        ("models: /srv/models (flag)", "models: /srv/models (flag)"),
    ],
)
def test_of_a_url_its_scheme_and_host_are_told(raw, shown):
    assert redacted(raw) == shown


def test_one_thing_is_no_two_things():
    assert [counted(number, "core") for number in range(3)] == ["0 cores", "1 core", "2 cores"]
