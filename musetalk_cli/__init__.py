"""A prepared face speaks, in real time."""

from musetalk_cli.threads import bound_spinning

__version__ = "0.1.0"

# The one thing done at import: torch, which comes with the modules below, reads it once and never again.
bound_spinning()
