"""Where sound comes from: files and raw PCM streams."""

from musetalk_cli.sources.file import FileSource
from musetalk_cli.sources.pcm import PcmSource

__all__ = ["FileSource", "PcmSource"]
