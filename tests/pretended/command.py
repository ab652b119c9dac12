"""`musetalk` on a pretended GPU, as a program: `python -m pretended.command bench ...`."""

import sys
import tempfile
from pathlib import Path

from musetalk_cli.threads import bound_spinning

bound_spinning()

from musetalk_cli.cli.app import run  # noqa: E402 - the threads first, as in the product
from pretended.cuda import pretended_gpu  # noqa: E402


def main():
    with tempfile.TemporaryDirectory() as folder, pretended_gpu(Path(folder)):
        return run()


if __name__ == "__main__":
    sys.exit(main())
