"""`musetalk realtime`."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from musetalk_cli.cli import realtime_options as given
from musetalk_cli.cli.avatar_and_audio import AvatarOption, fill_in
from musetalk_cli.cli.interrupt import stop_on_signals
from musetalk_cli.cli.job_options import OPTIONS
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.outputs import DEFAULT_DEVICE, Screen, Wanted, check_names, make_sinks
from musetalk_cli.cli.panel import live_panel
from musetalk_cli.cli.render import end_run, say
from musetalk_cli.config import JobConfig
from musetalk_cli.errors import InputError
from musetalk_cli.timeline import SAMPLE_RATE, Timeline

if TYPE_CHECKING:
    from musetalk_cli.clock import Clock
    from musetalk_cli.types import AudioSource


@common_options(job=tuple(name for name in OPTIONS if name != "chunk"))
def realtime(
    common: Common,
    avatar: AvatarOption = None,
    mic: given.Mic = None,
    list_devices: given.ListDevices = False,  # noqa: ARG001 - done where it is read
    audio: given.Audio = None,
    listen: given.Listen = None,
    input_rate: given.InputRate = SAMPLE_RATE,
    input_channels: given.InputChannels = 1,
    pace: given.Pace = True,
    output: given.Output = None,
    display: given.Display = False,
    speaker: given.SpeakerDevice = None,
    virtual_camera: given.VirtualCamera = False,
    live: given.Live = True,
    trace: given.TraceFile = None,
    *,
    job: JobConfig,
    control: given.Control = None,
) -> None:
    """Make an avatar speak a live stream, chunk by chunk, and report how long everything took."""
    sinks = Wanted(output or [], display=display, speaker=speaker, virtual_camera=virtual_camera)
    ends = _Ends(mic, audio, listen, input_rate, input_channels, pace, sinks)
    ends.check(control)
    spoken = fill_in(common.run, avatar, ends.source_name)
    _run(common, job, spoken.avatar, ends, control, trace, live=live)


@dataclass(frozen=True)
class _Ends:
    """Where the sound comes from and where the frames go, as it was asked for."""

    mic: str | None
    audio: str | None
    listen: str | None
    input_rate: int
    input_channels: int
    pace: bool
    sinks: Wanted

    @property
    def source_name(self) -> str:
        return self.audio or self.listen or self.mic or DEFAULT_DEVICE

    @property
    def is_recorded(self) -> bool:
        """True where the sound is a microphone's."""
        return self.audio is None and self.listen is None

    def check(self, control: str | None) -> None:
        """Refuse more than one source, a terminal in place of a pipe, and commands in place of the sound."""
        sources = {"--mic": self.mic, "--audio": self.audio, "--listen": self.listen}
        named = [option for option, value in sources.items() if value is not None]
        if len(named) > 1:
            raise typer.BadParameter(f"{' and '.join(named)} exclude each other: one stream has one source.")
        if self.audio == "-" and control == "0":
            raise typer.BadParameter(
                "--audio - and --control 0 exclude each other: both read standard input."
            )
        if self.audio == "-" and sys.stdin.isatty():
            raise InputError(
                "--audio - reads sound from a pipe, and standard input is a terminal.", "Pipe PCM into it."
            )

    def source(self, clock: Clock) -> AudioSource:
        """Open what was named, or find the default microphone."""
        from musetalk_cli import sources
        from musetalk_cli.media.audio import probe_sound

        if self.audio == "-":
            return sources.PcmSource(sys.stdin.fileno(), self.input_rate, clock, channels=self.input_channels)
        if self.audio is not None:
            probe_sound(Path(self.audio))
            return sources.FileSource(Path(self.audio), clock, pace=self.pace)
        if self.listen is not None:
            source = sources.ListenSource(self.listen, self.input_rate, self.input_channels, clock)
            sound = f"16-bit PCM, {source.sample_rate} Hz, channels: {source.channels}"
            say(f"listening on {source.address} for {sound}")
            return source
        return sources.MicSource(None if self.mic in {None, DEFAULT_DEVICE} else self.mic, clock)


def _run(
    common: Common,
    job: JobConfig,
    avatar: str,
    ends: _Ends,
    control: str | None,
    trace: Path | None,
    *,
    live: bool,
) -> None:
    from musetalk_cli.clock import MonotonicClock
    from musetalk_cli.live.control import ControlLines
    from musetalk_cli.measure.gpu import GpuMonitor
    from musetalk_cli.measure.trace import Trace
    from musetalk_cli.sinks.checks import check_parent

    clock = MonotonicClock()
    with ExitStack() as stack:
        handle = stack.enter_context(stop_on_signals())
        screen = Screen(handle)
        check_names(ends.sinks.outputs, trace, ends.audio)
        sinks, notice = make_sinks(ends.sinks, screen, clock, is_recorded=ends.is_recorded)
        source = stack.enter_context(closing(ends.source(clock)))
        if control is not None:
            stack.enter_context(ControlLines(control, handle))
        events = None
        if trace is not None:
            check_parent(trace, "--trace")
            events = stack.enter_context(closing(Trace(trace)))
        from musetalk_cli.run.realtime import realtime as run

        if notice is not None:
            say(notice)
        gpu = None if common.run.device == "cpu" else GpuMonitor()
        panel = stack.enter_context(live_panel(f"{avatar}: {ends.source_name}", enabled=live, gpu=gpu))
        report = run(
            common.run,
            job,
            avatar,
            source,
            sinks,
            handle,
            screen.watching(panel),
            events,
            clock,
            lambda settled: say(contract(settled)),
        )
    if handle.ended:
        report = replace(report, interrupted=False)
    end_run(report, as_json=common.json, aside="-" in ends.sinks.outputs)


def contract(job: JobConfig) -> str:
    """What a stream hears of the past and of the future, and the delay that this means, in one line."""
    timeline = Timeline(job.fps, job.alignment)
    past = "up to 30 s" if job.context is None else f"{float(job.context):g} s"
    return (
        f"chunks of {float(job.chunk):g} s, {float(timeline.look_ahead):.3g} s look-ahead, "
        f"{past} of past sound: what is spoken live is seen {float(job.chunk + timeline.wait):.3g} s later, "
        "what comes ahead of its time at once, and both after the time to compute"
    )
