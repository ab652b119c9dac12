"""Streams: the device loop, and each stream's source, jitter buffer and sinks."""
