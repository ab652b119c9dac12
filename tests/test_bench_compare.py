"""What is compared, what may not be, and when a figure is worse."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.bench.compare import FORMAT, Earlier, Row, compare, read_earlier
from musetalk_cli.errors import InputError, MuseTalkError

FIGURES = st.floats(1e-6, 1e9)


def write(tmp_path, **changes):
    whole = {"format": FORMAT, "conditions": {"device": "one"}, "figures": {"UNet, ms": 2.0}}
    path = tmp_path / "old.json"
    path.write_text(json.dumps(whole | changes))
    return path


def test_what_was_written_is_read(tmp_path):
    path = write(tmp_path, figures={"UNet, ms": 2, "nothing, ms": 0.0}, more=[1])
    assert read_earlier(path) == Earlier(path, {"device": "one"}, {"UNet, ms": 2.0})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 1}, "does not hold figures of this version's musetalk bench"),
        ({"format": None}, "does not hold figures"),
        ({"conditions": []}, "lacks the conditions or the figures"),
        ({"conditions": {"device": 3}}, "lacks the conditions or the figures"),
        ({"figures": {"UNet, ms": "fast"}}, "lacks the conditions or the figures"),
        ({"figures": {"UNet, ms": True}}, "lacks the conditions or the figures"),
        ({"figures": None}, "lacks the conditions or the figures"),
    ],
)
def test_what_is_something_else_is_refused(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        read_earlier(write(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "[]", "{", "3", '{"format": NaN}', "\x00"])
def test_what_is_no_json_is_refused(tmp_path, text):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"--compare .*old\.json"):
        read_earlier(path)


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_earlier(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"device": "one"}, {"device": "two"}),
        ({"device": "one"}, {"device": "one", "sharpening": "off"}),
        ({"device": "one", "sharpening": "off"}, {"device": "one"}),
    ],
)
def test_other_conditions_are_refused_by_name(tmp_path, before, after):
    earlier = Earlier(tmp_path / "old.json", before, {})
    [name] = {*before.items()} ^ {*after.items()} and {
        name for name in {*before, *after} if before.get(name) != after.get(name)
    }
    with pytest.raises(InputError, match=f"was measured with another {name}, "):
        earlier.check(after)
    earlier.check(before)


def test_nothing_in_common_is_refused(tmp_path):
    earlier = Earlier(tmp_path / "old.json", {}, {"UNet, batch of 4, ms": 1.0})
    with pytest.raises(InputError, match="has no figure in common"):
        compare(earlier, {"UNet, batch of 8, ms": 1.0}, 0.1)


@given(before=FIGURES, after=FIGURES, tolerance=st.floats(0, 10))
def test_less_of_a_time_and_more_of_a_rate_are_never_worse(before, after, tolerance):
    low, high = sorted((before, after))
    assert not Row("UNet, ms", high, low).is_worse(tolerance)
    assert not Row("batch of 4, frames/s", low, high).is_worse(tolerance)
    # exactly one of a figure that changes beyond the tolerance and its opposite is worse
    beyond = high / low > 1 + tolerance
    assert Row("UNet, ms", low, high).is_worse(tolerance) == beyond
    # a quotient and its inverse may differ in the last bit
    if abs(high / low - 1 - tolerance) > 1e-9 * (high / low):
        assert Row("batch of 4, frames/s", high, low).is_worse(tolerance) == beyond


def test_a_comparison_ends_where_one_figure_is_worse_and_names_it(tmp_path):
    earlier = Earlier(tmp_path / "old.json", {}, {"UNet, ms": 10.0, "VAE, ms": 10.0, "all, frames/s": 10.0})
    compare(earlier, {"UNet, ms": 11.0, "VAE, ms": 9.0, "all, frames/s": 9.1}, 0.1).check()
    worse = compare(earlier, {"UNet, ms": 11.0, "VAE, ms": 9.0, "all, frames/s": 5.0}, 0.1)
    with pytest.raises(MuseTalkError, match=r"^1 of 3 .* all, frames/s: 10 before, 5 now"):
        worse.check()
    assert [row["worse"] for row in worse.as_json()["rows"]] == [False, False, True]
