"""Where sound comes from: files, raw PCM streams, microphones and the network."""

from musetalk_cli.sources.file import FileSource
from musetalk_cli.sources.listen import ListenSource
from musetalk_cli.sources.microphone import MicSource
from musetalk_cli.sources.pcm import PcmSource

__all__ = ["FileSource", "ListenSource", "MicSource", "PcmSource"]
