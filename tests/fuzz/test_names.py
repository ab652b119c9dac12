"""Any text as an avatar's name: one folder inside the avatars' folder, or one sentence."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.avatar.names import MAX_NAME_BYTES, is_name, same_name, validate_name
from musetalk_cli.errors import AvatarError
from musetalk_cli.text import printable

LETTERS = st.text(st.characters(categories=["L", "M", "Nd"]), min_size=1, max_size=40)


@given(st.text(st.characters()) | LETTERS)
def test_any_text_is_a_folder_of_its_own_or_refused_in_one_line(text):
    if not is_name(text):
        with pytest.raises(AvatarError) as caught:
            validate_name(text)
        assert printable(caught.value.message) == caught.value.message
        assert len(caught.value.message) < 600
        return
    name = validate_name(text)
    assert unicodedata.is_normalized("NFC", name)
    assert validate_name(name) == name
    assert 0 < len(name.encode()) <= MAX_NAME_BYTES
    assert (Path("/avatars") / name).parent == Path("/avatars")
    assert not set(name) & set("/\\")
    assert name[0] not in ".- "
    assert name[-1] not in ". "


@given(LETTERS)
def test_words_of_any_script_are_names_unless_too_long_or_reserved(word):
    word = unicodedata.normalize("NFC", "x" + word)
    assert is_name(word) == (len(word.encode()) <= MAX_NAME_BYTES)


@given(LETTERS)
def test_composition_and_case_leave_a_name_the_same(text):
    for other in (unicodedata.normalize("NFD", text), unicodedata.normalize("NFC", text), text.casefold()):
        assert same_name(text, other)
