import pytest

from musetalk_cli.errors import InputError
from musetalk_cli.serve.settings import parse_origin


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://me.example", "https://me.example"),
        ("HTTPS://Me.Example/", "https://me.example"),
        ("https://me.example:443", "https://me.example"),
        ("http://me.example:443", "http://me.example:443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(given, origin):
    assert parse_origin(given) == origin


@pytest.mark.parametrize(
    "given",
    ["me.example", "ftp://me.example", "https://", "http://[", "http://a:b", "https://me@a.b", "https://a/b"],
)
def test_what_is_no_origin_is_refused(given):
    with pytest.raises(InputError, match="is no page's origin"):
        parse_origin(given)
