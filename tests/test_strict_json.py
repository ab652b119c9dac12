"""JSON that every reader understands alike, in both directions."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli import strict_json
from musetalk_cli.strict_json import MAX_DEPTH, JsonError

WHOLE = st.integers(-(2**63) + 1, 2**63 - 1)
PLAIN = st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NaN", "is not JSON: NaN is not a number of JSON"),
        ("[-Infinity]", "is not JSON: -Infinity is not a number of JSON"),
        ("1e400", "holds the number 1e400, which is too large"),
        ("-1E999", "holds the number -1E999, which is too large"),
        (f"1{'0' * 5000}", "holds the number 1000"),
        (str(2**63), "holds the number 9223372036854775808, which is too large"),
        ('{"a": 1, "b": 2, "a": 3}', "has the key 'a' twice"),
        ("[" * 100_000, f"nests deeper than {MAX_DEPTH} levels"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"nests deeper than {MAX_DEPTH} levels"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), f"nests deeper than {MAX_DEPTH} levels"),
        ('{"a"', "is not JSON: expecting ':' delimiter at line 1, column 5"),
        ("", "is not JSON: expecting value at line 1, column 1"),
        ("[1,]", "is not JSON"),
        ("01", "is not JSON: extra data"),
        ('"a\nb"', "is not JSON: invalid control character"),
        (b"\xff\xfe1\x00", "is not JSON: byte 0 is not UTF-8"),
        (b'"\xed\xa0\x80"', "is not JSON: byte 1 is not UTF-8"),
    ],
)
def test_what_readers_disagree_on_is_refused(text, said):
    with pytest.raises(JsonError) as caught:
        strict_json.parse(text)
    assert str(caught.value).startswith(said)
    assert len(str(caught.value)) < 120


def test_the_edges_of_the_rules_are_read():
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert strict_json.parse(deep) == json.loads(deep)
    assert strict_json.parse(str(2**63 - 1)) == 2**63 - 1
    assert strict_json.parse(b'\xef\xbb\xbf{"a": 1.5}') == {"a": 1.5}
    assert strict_json.parse("1.7976931348623157e308") == 1.7976931348623157e308


@given(VALUES)
def test_what_is_written_is_read_back(value):
    text = strict_json.dump(value)
    assert strict_json.parse(text) == value == json.loads(text)
    assert all(" " <= character < "\x7f" for character in text)


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, {"a": -math.inf}]])
def test_what_json_has_no_word_for_is_not_written(value):
    with pytest.raises(ValueError, match="JSON"):
        strict_json.dump(value)
    assert strict_json.parse(strict_json.dump(strict_json.finite(value))) is not value


def test_figures_that_are_not_finite_are_null():
    assert strict_json.finite({"a": [1.5, math.inf], "b": (math.nan,)}) == {"a": [1.5, None], "b": [None]}


def test_no_more_of_a_file_is_read_than_it_may_have(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(" " * (1 << 20) + "1")
    with pytest.raises(JsonError, match=r"^is larger than 1 MB$"):
        strict_json.read(path, 1 << 20)
    assert strict_json.read(path, 2 << 20) == 1
