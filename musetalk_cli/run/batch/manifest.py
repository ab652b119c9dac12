"""From a manifest to jobs: everything is checked, and every bad line is named, before any work."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from musetalk_cli.config import DEFAULT_MODEL, DataFolder, JobConfig, RunConfig, parse_sharpen
from musetalk_cli.errors import InputError, MuseTalkError
from musetalk_cli.media.video import source_files
from musetalk_cli.nets.embedded import DEMO
from musetalk_cli.nets.files import RANDOM, resolve
from musetalk_cli.nets.published import LAYOUTS
from musetalk_cli.run.batch.job import BatchJob
from musetalk_cli.run.batch.outputs import OutputChecks, check_output_dir
from musetalk_cli.run.batch.rows import MAX_JOBS, ManifestError, Row, read_rows
from musetalk_cli.run.defaults import settle
from musetalk_cli.timeline import parse_fps

_PLACEHOLDER = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True, slots=True)
class BatchDefaults:
    """What holds for every job that does not say otherwise.

    Attributes:
        run: Where things are and what computes.
        job: How the face is made to speak.
        output_dir: Where outputs go, made if it is not there; None is the folder of the manifest.
        pattern: What an output is called there, with `{stem}` of the audio and `{avatar}`.
        given: What of `job` somebody chose: for a source, the rate is else its own, and every frame is made.
    """

    run: RunConfig
    job: JobConfig
    output_dir: Path | None = None
    pattern: str = "{stem}.mp4"
    given: frozenset[str] = frozenset()


def read_manifest(path: Path, defaults: BatchDefaults) -> list[BatchJob]:
    """The jobs of a manifest, in its order.

    Each has an avatar that speaks with its networks, a sound that is there, and an output of its own that can
    be written and is none of the inputs.

    Args:
        path: `.csv`, `.jsonl` or `.toml`. Paths in it begin at its folder, or outputs at `output_dir`.
        defaults: What holds where it says nothing.

    Raises:
        ManifestError: It cannot be read, or lines of it cannot be used; every one is in `problems`.
        OutputError: The folder of the outputs is none and cannot be made.
    """
    if defaults.output_dir is not None:
        check_output_dir(defaults.output_dir)
    found = read_rows(path)
    problems = dict(found.problems)
    # by one name, however the folder was reached: by the output's name a finished job is found again
    reader = _Reader(path.absolute().parent.resolve(), defaults)
    jobs: list[BatchJob] = []
    for row in found.rows:
        try:
            jobs += reader.jobs(row)
        except MuseTalkError as error:
            problems[row.place] = error.message
        if len(jobs) > MAX_JOBS:
            raise ManifestError(f"{path} asks for more than {MAX_JOBS} jobs.", "Split it.")
    inputs = {job.audio for job in jobs} | {job.source for job in jobs if job.source is not None}
    checks = OutputChecks(path, defaults.output_dir, inputs)
    problems |= checks.problems(jobs)
    if problems:
        lines = "one line" if len(problems) == 1 else f"{len(problems)} lines"
        raise ManifestError(
            f"{path} has {lines} that cannot be used, and nothing was done.",
            "Correct it.",
            tuple(f"{place}: {problems[place]}" for place in sorted(problems, key=_number)),
        )
    return jobs


class _Reader:
    """Reads rows one by one; what they share is looked up once."""

    def __init__(self, base: Path, defaults: BatchDefaults) -> None:
        self._base = base
        self._defaults = defaults
        self._settled: dict[tuple[str | None, str | None], RunConfig | MuseTalkError] = {}

    def jobs(self, row: Row) -> list[BatchJob]:
        """The jobs of a row: one for each sound.

        Raises:
            MuseTalkError: The row cannot be used.
        """
        avatar, source = row.values.get("avatar"), self._source(row.values.get("source"))
        run = self._run(row.values.get("model"), avatar)
        job, own_rate = self._job(row)
        name = avatar or (source.stem if source is not None else "")
        sounds = self._sounds(row.values["audio"])
        outputs = [self._output(row, sound, name) for sound in sounds]
        return [
            BatchJob(row.place, name, sound, output, run, job, source, own_rate)
            for sound, output in zip(sounds, outputs, strict=True)
        ]

    def _source(self, text: str | None) -> Path | None:
        if text is None:
            return None
        source = self._base / text
        source_files(source)
        return source

    def _run(self, model: str | None, avatar: str | None) -> RunConfig:
        """Where an avatar and its networks are, or those for a source; looked up once for each pair."""
        key = (model, avatar)
        if key not in self._settled:
            run = self._defaults.run
            run = replace(run, models=_absolute(run.models), avatars=_absolute(run.avatars))
            if model is not None:
                run = replace(run, model=_model(model, self._base))
            elif run.model is not None:
                run = replace(run, model=_model(run.model, Path.cwd()))
            try:
                self._settled[key] = _with_model(run) if avatar is None else settle(run, avatar)
            except MuseTalkError as error:
                self._settled[key] = error
        found = self._settled[key]
        if isinstance(found, MuseTalkError):
            raise found
        return found

    def _job(self, row: Row) -> tuple[JobConfig, bool]:
        """How the face is made to speak, and whether at the rate of its source."""
        changed: dict[str, Any] = {}
        of_source, given = "source" in row.values, self._defaults.given
        if of_source and "silence" not in given:
            changed["silence"] = None
        for name, read in (("fps", parse_fps), ("sharpen", parse_sharpen)):
            if (text := row.values.get(name)) is not None:
                try:
                    changed[name] = read(text)
                except InputError as error:
                    raise InputError(error.message.replace(f"--{name}", name), error.hint) from None
        return replace(self._defaults.job, **changed), of_source and not {"fps"} & {*changed, *given}

    def _sounds(self, text: str) -> list[Path]:
        """The sound of that name, or all that fit the pattern, sorted."""
        path = self._base / text
        if not glob.has_magic(text) or path.exists():
            _check_file(path, "sound")
            return [path]
        # not `Path.glob`, which knows no pattern with a root, like /clips/*.wav
        names = glob.iglob(text, root_dir=self._base, recursive=True)  # noqa: PTH207
        matches = sorted(islice((self._base / name for name in names), MAX_JOBS + 1))
        sounds = [match for match in matches if not match.is_dir()]
        if not sounds:
            raise InputError(f"no sound fits {path}.")
        for sound in sounds:
            _check_file(sound, "sound")
        return sounds

    def _output(self, row: Row, sound: Path, avatar: str) -> Path:
        written = row.values.get("output")
        folder = self._defaults.output_dir
        if written is None and folder is None:
            raise InputError("output is missing: name a file, or pass --output-dir.")
        if written is not None and "\\" in written:  # here it would be a letter of the file's name
            raise InputError(f"output {written} holds a \\: write / between folders.")
        name = _named(written or self._defaults.pattern, {"stem": sound.stem, "avatar": avatar})
        if folder is None:
            return self._base / name
        inside = (folder.absolute() / name).resolve()
        if not inside.is_relative_to(folder.resolve()):
            raise InputError(f"{name} leads out of --output-dir.")
        return inside


def _number(place: str) -> int:
    return int(place.rsplit(maxsplit=1)[-1])


def _named(pattern: str, words: dict[str, str]) -> str:
    """A pattern with its words put in.

    Raises:
        InputError: It holds another word.
    """
    for word in _PLACEHOLDER.findall(pattern):
        if word not in words:
            known = " and ".join(f"{{{name}}}" for name in words)
            raise InputError(f"{{{word}}} in {pattern} is not known: use {known}.")
    return _PLACEHOLDER.sub(lambda found: words[found[1]], pattern)


def _absolute(folder: DataFolder) -> DataFolder:
    return replace(folder, path=folder.path.absolute())


def _with_model(run: RunConfig) -> RunConfig:
    """With the model that prepares a source where none was chosen.

    Raises:
        ModelError: It is not there.
    """
    model = run.model or DEFAULT_MODEL
    if model != RANDOM:
        resolve(model, run.models.path)
    return replace(run, model=model)


def _model(model: str, base: Path) -> str:
    """A known name as it is, and a path from where it begins."""
    return model if model in {*LAYOUTS, DEMO, RANDOM} else str((base / model).absolute())


def _check_file(path: Path, what: str) -> None:
    """Refuse what is not there, or cannot be read.

    Raises:
        InputError: It is so.
    """
    try:
        if not path.exists():
            slashes = " Write / between folders." if "\\" in path.name else ""
            raise InputError(f"there is no {what} at {path}.{slashes}")
        if not path.is_file():
            raise InputError(f"{path} is no file.")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path} is empty.")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
