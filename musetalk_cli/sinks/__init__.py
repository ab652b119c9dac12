"""Where frames go: a video file, a folder of pictures, or nowhere."""

from musetalk_cli.sinks.frames import FramesSink
from musetalk_cli.sinks.null import NullSink
from musetalk_cli.sinks.place import check_not_input
from musetalk_cli.sinks.video import VideoSink

__all__ = ["FramesSink", "NullSink", "VideoSink", "check_not_input"]
