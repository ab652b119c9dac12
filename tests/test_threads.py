import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from musetalk_cli.threads import SPIN_TURNS


@pytest.mark.parametrize(
    ("chosen", "turns"),
    [
        ({}, SPIN_TURNS),
        ({"GOMP_SPINCOUNT": "77"}, 77),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, 0),
    ],
)
def test_the_runtime_that_torch_carries_takes_the_bound_and_a_user_keeps_his_own(chosen, turns):
    environment = {
        name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    }
    libraries = sorted((Path(find_spec("torch").origin).parent / "lib").glob("libgomp*"))
    if not libraries:
        pytest.skip("this torch carries no libgomp")
    run = subprocess.run(
        [sys.executable, "-c", f"import ctypes, musetalk_cli; ctypes.CDLL({str(libraries[0])!r})"],
        env=environment | {"OMP_DISPLAY_ENV": "verbose"} | chosen,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert int(re.search(r"GOMP_SPINCOUNT = '(\d+)'", run.stderr)[1]) == turns
