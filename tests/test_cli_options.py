"""What the commands make of their options: what is left out is what the settings themselves say."""

import importlib
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
from films import film
from lives import speech, write_sound

from musetalk_cli.avatar.layout import LatentsFormat
from musetalk_cli.bench.options import (
    BenchOptions,
    LiveOptions,
    PreparingOptions,
    ResponseOptions,
    SoakOptions,
)
from musetalk_cli.config import (
    DeviceName,
    ImageOpsName,
    JobConfig,
    PrecisionName,
    RunConfig,
    VaeName,
    WhenLate,
)
from musetalk_cli.errors import InputError
from musetalk_cli.face.settings import MaskMode
from musetalk_cli.media.selection import Selection
from musetalk_cli.preparation.options import PrepareOptions, Trim
from musetalk_cli.run.prepare_outputs import DetectorName, ParserName, PrepareOutputs
from musetalk_cli.serve.settings import ServeConfig
from musetalk_cli.timeline import Alignment, seconds_text

WORK = {
    "generate --avatar demo --audio speech.wav --output out.mp4": "run.generate.generate",
    "realtime --avatar demo --audio speech.wav": "run.realtime.realtime",
    "batch list.csv": "run.batch.manifest.read_manifest",
    "prepare-avatar clip.avi --name anna": "run.prepare.prepare",
    "bench": "bench.run.bench",
    "bench realtime": "bench.live.bench_live",
    "bench response": "bench.response.bench_response",
    "bench soak": "bench.soak.bench_soak",
    "bench prepare": "bench.preparing.bench_preparing",
    "serve": "serve.server.serve",
    "doctor": "doctor.checks.all_checks",
}
"""What each command calls, once it has read its options."""
SETTINGS = {
    "generate --avatar demo --audio speech.wav --output out.mp4": [JobConfig()],
    "realtime --avatar demo --audio speech.wav": [JobConfig(auto_chunk=True)],
    "batch list.csv": [JobConfig()],
    "prepare-avatar clip.avi --name anna": [Selection(), PrepareOptions(), PrepareOutputs()],
    "bench": [JobConfig(), BenchOptions()],
    "bench realtime": [JobConfig(), LiveOptions()],
    "bench response": [JobConfig(), ResponseOptions()],
    "bench soak": [JobConfig(auto_chunk=True), SoakOptions()],
    "bench prepare": [PreparingOptions()],
    "serve": [JobConfig(auto_chunk=True), ServeConfig()],
    "doctor": [],
}
CHOICES = {
    "generate --avatar demo --audio speech.wav --output out.mp4": {
        "--alignment": ("alignment", Alignment),
        "--image-ops": ("image_ops", ImageOpsName),
        "--device": ("device", DeviceName),
        "--precision": ("precision", PrecisionName),
        "--vae": ("vae", VaeName),
    },
    "realtime --avatar demo --audio speech.wav": {"--when-late": ("when_late", WhenLate)},
    "prepare-avatar clip.avi --name anna": {
        "--detector": ("detector", DetectorName),
        "--parser": ("parser", ParserName),
        "--parsing-mode": ("mode", MaskMode),
        "--trim": ("trim", Trim),
        "--latents": ("latents", LatentsFormat),
    },
}
VALUES = [
    pytest.param(command, option, field, value, id=f"{option} {value}")
    for command, options in CHOICES.items()
    for option, (field, choices) in options.items()
    for value in get_args(choices)
]


@pytest.fixture
def settings(musetalk, monkeypatch, tmp_path, embedded):
    """Runs a command up to its work; gives the settings that it hands over."""
    monkeypatch.chdir(tmp_path)
    write_sound(tmp_path / "speech.wav", speech(0.2))
    film(tmp_path / "clip.avi", [np.full((48, 64, 3), 90, np.uint8)])

    def read(command, *more):
        given = []

        def note(*arguments, **_):
            given.extend(arguments)
            raise InputError("That is all.")

        module, name = WORK[command].rsplit(".", 1)
        monkeypatch.setattr(importlib.import_module(f"musetalk_cli.{module}"), name, note)
        code, _, err = musetalk(*command.split(), *more)
        assert (code, err.splitlines()[-1]) == (1, "error: That is all."), err
        found = list(given)
        for outer in given:
            found += [
                getattr(outer, name) for name in ("mask", "selection", "run", "job") if hasattr(outer, name)
            ]
        return found

    return read


@pytest.mark.parametrize("command", SETTINGS)
def test_what_is_left_out_is_what_the_settings_say(settings, command):
    found = settings(command)
    for expected in SETTINGS[command]:
        assert [one for one in found if type(one) is type(expected)] == [expected]
    (run,) = [one for one in found if isinstance(one, RunConfig)]
    left_out = RunConfig()
    assert (run.model, run.device, run.precision, run.vae) == (
        None,
        left_out.device,
        left_out.precision,
        left_out.vae,
    )


@pytest.mark.parametrize(("command", "option", "field", "value"), VALUES)
def test_every_value_of_a_choice_arrives_as_it_was_written(settings, command, option, field, value):
    found = settings(command, option, value)
    (arrived,) = [getattr(one, field) for one in found if hasattr(one, field)]
    assert type(arrived) is str
    assert arrived == value


@pytest.mark.parametrize(
    "command",
    [
        "realtime --avatar demo --audio speech.wav",
        "generate --avatar demo --audio speech.wav --output out.mp4",
        "batch list.csv",
        "serve",
        "bench realtime",
    ],
)
@pytest.mark.parametrize("given", [[], ["--no-graphs"]])
def test_graphs_are_used_unless_they_are_forbidden(settings, command, given):
    (job,) = [one for one in settings(command, *given) if isinstance(one, JobConfig)]
    assert job.graphs is not bool(given)


@pytest.mark.parametrize("text", ["on", "off"])
def test_smoothing_is_a_choice_of_two(settings, text):
    found = settings("prepare-avatar clip.avi --name anna", "--smooth", text)
    (options,) = [one for one in found if isinstance(one, PrepareOptions)]
    assert options.smooth is (text == "on")


@pytest.mark.parametrize("seconds", ["1/2", "1/3", "0", "12345678", "1/1000", "30"])
def test_seconds_are_read_back_exactly(seconds):
    assert Fraction(seconds_text(Fraction(seconds))) == Fraction(seconds)
