"""Where the outputs of a batch go: each place is looked at before any work."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from musetalk_cli.errors import MuseTalkError, OutputError
from musetalk_cli.media.containers import FILES
from musetalk_cli.run.batch.job import BatchJob
from musetalk_cli.sinks.checks import check_writable
from musetalk_cli.sinks.encoded import container_of


def check_output_dir(folder: Path) -> None:
    """Refuse a folder for outputs that is none, or that cannot be made where it is to be.

    Raises:
        OutputError: It is so.
    """
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    except OSError as error:  # a name that is too long, or a folder that cannot be entered
        raise OutputError(f"--output-dir {folder} cannot be used: {error.strerror}.") from error
    if not there.is_dir():
        why = "is no folder" if there == folder else f"cannot be made: {there} is no folder"
        raise OutputError(f"--output-dir {folder} {why}.", "Name a folder.")


class OutputChecks:
    """Looks at the outputs of a batch.

    Args:
        manifest: The manifest itself, which no output replaces.
        output_dir: A folder that is made when work begins, with what is below it; None for none.
        inputs: Files that are read, which no output replaces.
    """

    def __init__(self, manifest: Path, output_dir: Path | None, inputs: Collection[Path]) -> None:
        self._output_dir = None if output_dir is None else output_dir.resolve()
        # by what they are: a file may have several names, through links or where case does not matter
        self._inputs = set(filter(None, map(_identity, (*inputs, manifest))))
        self._folders: dict[Path, MuseTalkError | None] = {}

    def problems(self, jobs: Iterable[BatchJob]) -> dict[str, str]:
        """A sentence for each place whose output cannot be written, is an input, or is another job's too.

        An output cannot be the folder of another one either.
        """
        owners: dict[Path, BatchJob] = {}
        found: dict[str, str] = {}
        for job in jobs:
            try:
                place = job.output.resolve()
                first = owners.setdefault(place, job)
                self._check(job.output, place)
            except MuseTalkError as error:
                found.setdefault(job.place, error.message.removeprefix("--output "))
            except OSError as error:
                found.setdefault(job.place, f"{job.output} cannot be written: {error.strerror}.")
            else:
                if first is not job:
                    same = "it" if first.place == job.place else first.place
                    found.setdefault(job.place, f"{same} writes {job.output} too, for {first.audio.name}.")
        usable = {place: job for place, job in owners.items() if job.place not in found}
        for place, job in usable.items():
            above = next((folder for folder in place.parents if folder in usable), None)
            if above is not None:
                found.setdefault(job.place, f"{above} would be its folder, and is an output too.")
        return found

    def _check(self, output: Path, place: Path) -> None:
        container_of(output, FILES)
        if _identity(place) in self._inputs:
            raise OutputError(f"{output} is a file that is read.")
        if place.is_dir():
            raise OutputError(f"{output} is a folder.")
        if place.exists() and not place.is_file():
            raise OutputError(f"{output} is a pipe or a device.")
        folder = place.parent
        if folder not in self._folders:
            try:
                self._look_at(folder)
                self._folders[folder] = None
            except MuseTalkError as error:
                self._folders[folder] = error
        if (problem := self._folders[folder]) is not None:
            raise problem

    def _look_at(self, folder: Path) -> None:
        """Make sure that files can be made in a folder, or that it can be made where it is to be."""
        there = folder
        if self._output_dir is not None:
            there = next(place for place in (folder, *folder.parents) if place.exists())
        if not there.is_dir():
            raise OutputError(
                f"{there} is no folder." if there.exists() else f"the folder {there} is not there."
            )
        check_writable(there, f"the folder {there}")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
