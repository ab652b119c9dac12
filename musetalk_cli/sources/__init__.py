"""Where sound comes from: files, raw PCM streams, microphones and the network."""

from musetalk_cli.sources.file import FileSource
from musetalk_cli.sources.listen import ListenSource
from musetalk_cli.sources.microphone import Device, MicSource, list_devices
from musetalk_cli.sources.pcm import PcmSource

__all__ = ["Device", "FileSource", "ListenSource", "MicSource", "PcmSource", "list_devices"]
