"""Where frames go: files, pictures, pipes, servers, a window, a camera, a loudspeaker, or nowhere."""

from musetalk_cli.sinks.camera import VirtualCameraSink
from musetalk_cli.sinks.checks import check_not_input
from musetalk_cli.sinks.frames import FramesSink
from musetalk_cli.sinks.null import NullSink
from musetalk_cli.sinks.outputs import parse_output
from musetalk_cli.sinks.speaker import SpeakerSink
from musetalk_cli.sinks.stream import NetworkSink, PipeSink, RecordingSink
from musetalk_cli.sinks.video import VideoSink
from musetalk_cli.sinks.window import DisplaySink

__all__ = [
    "DisplaySink",
    "FramesSink",
    "NetworkSink",
    "NullSink",
    "PipeSink",
    "RecordingSink",
    "SpeakerSink",
    "VideoSink",
    "VirtualCameraSink",
    "check_not_input",
    "parse_output",
]
