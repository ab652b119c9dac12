import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from musetalk_cli.errors import InputError
from musetalk_cli.serve.server import bind


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 64 + ".net", "a..b"])
def test_a_host_that_is_none_is_refused_in_a_sentence(host):
    with pytest.raises(InputError, match="cannot be found"):
        bind(host, 0)
