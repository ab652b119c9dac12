"""`musetalk` and `python -m musetalk_cli`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, with every failure as one sentence and an exit code."""
    from musetalk_cli.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
