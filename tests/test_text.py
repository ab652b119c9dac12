"""What reaches a terminal: nothing that it would obey."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.text import printable


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
