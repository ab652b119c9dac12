"""`musetalk` and `python -m musetalk_cli`."""

from __future__ import annotations

import sys

from musetalk_cli.cli.interrupt import INTERRUPTED, end_on_signals


def main() -> None:
    """Run the command line, with every failure as one sentence and an exit code."""
    with end_on_signals():
        try:
            from musetalk_cli.cli.app import run

            code = run()
        except KeyboardInterrupt:
            code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
