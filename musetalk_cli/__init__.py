"""A prepared face speaks, in real time."""

__version__ = "0.1.0"
