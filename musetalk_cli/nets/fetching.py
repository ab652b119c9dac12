"""Fetch what is missing of a published model or tool, and what is damaged of it, and prove it.

A file comes under a hidden name beside its place, and gets its own once its SHA-256 is the known one: that
of the table, else that of the record, else the hub's own of this first time, which is then recorded. What is
left of a download that ended goes on where it stopped.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from musetalk_cli.budget import gibibytes
from musetalk_cli.errors import ModelError, OutputError
from musetalk_cli.nets import record
from musetalk_cli.nets.hub import Hub, NotThereError
from musetalk_cli.nets.hub_settings import hub_of_environment
from musetalk_cli.nets.pins import LATEST, HubFile, Pin, licence
from musetalk_cli.nets.proof import Progress, Seen, advance, look, pin_of, prove
from musetalk_cli.nets.record import ELSEWHERE, Entry
from musetalk_cli.nets.transfer import SHA256, Order, is_right, transfer
from musetalk_cli.nets.turns import PARTIAL, Notice, turn

Stages = Callable[[str, int, int], None]
"""Told in which stage how many bytes of how many are done."""
SPARE = 64 << 20
"""Bytes that stay free on the disk."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was done.

    Attributes:
        files: Paths under the models folder of what was fetched.
        bytes: How many came, without what an earlier download had left.
    """

    files: list[str]
    bytes: int


def download(
    name: str,
    models_dir: Path,
    *,
    hub: Hub | None = None,
    notice: Notice = lambda _: None,
    told: Stages = lambda *_: None,
) -> Fetched:
    """Make a published model or tool complete, and sure.

    Args:
        name: One of `PUBLISHED`.
        models_dir: The models folder; made if it is not there.
        hub: Where files come from; None is what the environment says.
        notice: Told licences, and what was put aside.
        told: Told of the reading of files that are there, and of the bytes that come, all files together.

    Raises:
        ModelError: Nothing of that name is published, a file could not be fetched, or is another one.
        OutputError: It cannot be written, or there is not enough room.
    """
    while True:
        found = look(name, models_dir)
        wanted = _wanted(found, functools.partial(told, "check"))
        if not wanted:
            return Fetched([], 0)
        hub = hub or hub_of_environment()
        orders = [_order(hub, seen, models_dir) for seen in wanted]
        _check_room(models_dir, _left(orders))
        with turn(models_dir, notice) as at_once:
            # another program may have ended while the hub was asked
            if at_once and look(name, models_dir) == found:
                return _fetch_all(hub, orders, models_dir, notice, told)


def _left(orders: Sequence[Order]) -> int:
    return sum(max(0, order.remote.bytes - order.begun) for order in orders)


def _fetch_all(hub: Hub, orders: Sequence[Order], models_dir: Path, notice: Notice, told: Stages) -> Fetched:
    """Fetch one file after the other, and give each its place.

    Raises:
        ModelError: One cannot be had, or is another file.
        OutputError: One cannot be written.
    """
    left = _left(orders)
    for repository in dict.fromkeys(order.file.repository for order in orders):
        notice(f"{repository}: licence {licence(repository)}, {hub.endpoint}/{repository}")
    count, total = 0, sum(order.remote.bytes for order in orders)
    for order in orders:
        digest = _fetch(
            hub, order, functools.partial(advance, functools.partial(told, "fetch"), count, total)
        )
        _put(order, digest, models_dir, notice)
        count += order.remote.bytes
    return Fetched([order.local for order in orders], left)


def _wanted(files: Sequence[Seen], checked: Progress) -> list[Seen]:
    """Those that are missing, or are not what they should be."""
    sized = [seen for seen in files if seen.look == "here" and seen.pin.sha256 is not None]
    damaged = [proof.seen for proof in prove(sized, checked) if proof.state == "other"]
    return [seen for seen in files if seen.look != "here" or seen in damaged]


def _order(hub: Hub, seen: Seen, models_dir: Path) -> Order:
    """What is fetched for a file: under the name it has, or the first that the repository publishes.

    Raises:
        ModelError: The hub has none, cannot be reached, or has another file than the known one.
    """
    recorded = record.read(models_dir).items()
    entries = {name: entry for name, entry in recorded if entry.revision != record.MADE}
    folder = models_dir / seen.part.folder
    sources = [file for file in seen.part.sources() if seen.path is None or file.name == seen.path.name]
    if not sources:  # made here from a published file, and damaged since
        sources = list(seen.part.sources())
    for file in sources:
        pin = pin_of(seen.part, file.name, entries)
        revision = pin.revision if pin.revision != LATEST else file.pin.revision
        try:
            with _by_hand(folder / file.name):
                remote = hub.look(file, revision)
        except NotThereError:
            if file is sources[-1]:
                raise
            continue
        said = remote.etag if SHA256.fullmatch(remote.etag) else None
        if pin.sha256 and ((said and said != pin.sha256) or pin.bytes not in {None, remote.bytes}):
            raise _other_file(hub, file, said or f"{remote.bytes} bytes", pin)
        if pin.sha256 is None and remote.commit is None:
            raise _no_hub(hub, file)
        local = f"{seen.part.folder}/{file.name}"
        return Order(file, revision, remote, pin, folder / file.name, seen.path, local)
    raise AssertionError("a part has a source")


@contextmanager
def _by_hand(target: Path) -> Iterator[None]:
    """Let the hint of what the hub raises say where the file belongs."""
    try:
        yield
    except ModelError as error:
        error.hint = f"{error.hint} It belongs at {target}."
        raise


def _check_room(models_dir: Path, needed: int) -> None:
    """Refuse what does not fit on the disk, before a byte of it comes."""
    place = models_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed + SPARE > free:
        raise OutputError(
            f"{models_dir} has room for {gibibytes(free)}, and {gibibytes(needed)} are to be fetched.",
            "Free some space, or choose another disk with --models-dir.",
        )


def _fetch(hub: Hub, order: Order, told: Callable[[int], object]) -> str:
    """Bring a file to its hidden place, and give its digest, which is the right one.

    Raises:
        ModelError: It cannot be had, or what came is another file.
        OutputError: It cannot be written.
    """
    begun = order.begun
    try:
        order.partial.parent.mkdir(parents=True, exist_ok=True)
        with _by_hand(order.target):
            digest = transfer(hub, order, told)
        if begun and not is_right(order, digest):  # what was left of it was not its beginning
            order.partial.unlink()
            digest = transfer(hub, order, told)
        if not is_right(order, digest):
            order.partial.unlink()
            raise _other_file(hub, order.file, digest, order.pin)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        do = "Free some space." if full else ELSEWHERE
        raise OutputError(
            f"{order.target} cannot be written: {error.strerror}.",
            f"{do} The same command goes on where it stopped.",
        ) from error
    return digest


def _put(order: Order, digest: str, models_dir: Path, notice: Notice) -> None:
    """Give a file its place, and put another one that is there aside: somebody may have made it.

    Raises:
        ModelError: The record of the models folder is broken.
        OutputError: It cannot be written.
    """
    revision = order.remote.commit or order.revision
    entry = Entry(order.remote.bytes, digest, revision, str(order.file))
    record.write(models_dir, {} if order.file.pin.sha256 else {order.local: entry}, without=[order.local])
    try:
        for other in {order.replaces, order.target} - {None}:
            if other is not None and other.is_file():
                aside = _free_name(other)
                os.replace(other, aside)  # noqa: PTH105 - replaces on Windows too
                notice(f"{other} was another file; it is kept as {aside.name}, delete it if you need it not.")
        os.replace(order.partial, order.target)  # noqa: PTH105 - replaces on Windows too
        for left in order.target.parent.glob(f".{order.target.name}.*{PARTIAL}"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{order.target} cannot be written: {error.strerror}.", ELSEWHERE) from error


def _free_name(path: Path) -> Path:
    """Where a file is put aside: what was put there before stays."""
    number = 1
    while (aside := path.with_name(f"{path.name}.replaced{number if number > 1 else ''}")).exists():
        number += 1
    return aside


def _no_hub(hub: Hub, file: HubFile) -> ModelError:
    """Every hub names the commit of a file. What does not would be recorded as the file, whatever it is."""
    return ModelError(
        f"{hub.endpoint} does not answer as a model hub does: it names no commit of {file}.",
        "Nothing was fetched. Open a page in a browser, where this network may ask to sign in first, and run "
        "the command again; or check HF_ENDPOINT.",
    )


def _other_file(hub: Hub, file: HubFile, found: str, pin: Pin) -> ModelError:
    wanted = pin.sha256 or "what the hub says it is"
    return ModelError(
        f"{file} from {hub.endpoint} is another file than the one that is wanted: it is {found[:16]} "
        f"and not {wanted[:24]}.",
        "Nothing was replaced. Run the command again; where it says the same, HF_ENDPOINT names a hub with "
        "other files, or something on the way changes them.",
    )
