"""Workers on a Ray cluster: actors that keep what they load. Only Ray Core is used.

Ray is imported here and nowhere else, and this module only where `--ray` is given. Its own messages between
processes are pickles, so a cluster must be in a network that can be trusted; ours in them are JSON texts.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import signal
import socket
import time
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

from musetalk_cli import strict_json
from musetalk_cli.config import RunConfig
from musetalk_cli.errors import DeviceError, InputError, first_line
from musetalk_cli.run.batch.job import Json
from musetalk_cli.run.batch.pool import LOST, Advanced, Ended, Event, Lost, Prepares, Said
from musetalk_cli.run.batch.seats import CORES_EACH, check_workers
from musetalk_cli.run.batch.speaker import Speaker
from musetalk_cli.text import counted

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
    from ray.exceptions import ActorUnavailableError, RayError
except ModuleNotFoundError:
    raise InputError("Ray is not installed.", "pip install 'musetalk-cli[cluster]'") from None

log = logging.getLogger(__name__)

RESTARTS = -1
"""How often Ray starts an actor again that has died. Its default, never, would end a pool one by one; whoever
gives out the jobs gives up a place that loses too many."""
REACHED_S = 10.0
"""How long the address of a cluster may take to answer at all."""
PATIENCE_S = 30.0
"""How long no worker may be there before that is said."""
_ACTOR = {"max_restarts": RESTARTS, "max_task_retries": 0}
_PING = {"max_task_retries": -1}
ASK_EVERY_S = 1.0
"""How often an actor is asked how far its job is; never again before it has answered."""
_ASIDE = "aside"
"""The group of calls that are answered while a job is done, by one thread of their own."""


class _ToLog(io.TextIOBase):
    """A standard output whose lines are worth knowing only to who wants to know all."""

    def write(self, text: str) -> int:
        """Log a text."""
        if text.strip():
            log.debug("%s", text.strip())
        return len(text)


@dataclass(frozen=True, slots=True)
class Share:
    """What an actor asks the cluster for.

    Attributes:
        actors: How many actors there are.
        gpus: GPUs for each, maybe a part of one.
        cores: Cores for each.
    """

    actors: int
    gpus: float
    cores: int


def connect(address: str) -> None:
    """Connect to a cluster.

    Args:
        address: `auto` for the one that runs here, `local` for one that starts and ends with this program,
            or `HOST:PORT`.

    Raises:
        InputError: There is none.
    """
    # Ray takes SIGTERM for itself, which here means what Ctrl-C does
    before = signal.getsignal(signal.SIGTERM)
    try:
        if ":" in address:  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), REACHED_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=None)
    except (RayError, OSError, RuntimeError, ValueError, OverflowError) as error:
        hint = "Start one with: ray start --head, or name its address."
        if _is_refusal(error):
            hint = "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token of the cluster."
        # what follows the first sentence is Ray's advice, on options of its own
        why = first_line(error).partition(". ")[0].removesuffix(".")
        raise InputError(f"--ray {address} leads to no cluster: {why}.", hint) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_refusal(error: BaseException) -> bool:
    """True where a cluster is there and wants its token; older versions of Ray have none."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    return any("AuthenticationError" in f"{type(cause)} {cause}" for cause in causes)


def find_share(run: RunConfig, workers: int | None, jobs: int) -> Share:
    """How a cluster is shared: an actor for each GPU, or where it has none for every two cores.

    Args:
        run: What computes.
        workers: How many actors there shall be; None is what suits.
        jobs: Jobs to be done; there are no more actors.

    Raises:
        DeviceError: The cluster has not what is wanted.
        InputError: There cannot be so many workers.
    """
    check_workers(workers)
    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    if run.device == "cuda" and not gpus:
        raise DeviceError("--device cuda cannot be used: the cluster has no GPU.", "Use --device cpu.")
    if run.device == "cpu":
        gpus = 0
    count = max(1, min(workers or gpus or max(1, cores // CORES_EACH), jobs))
    return Share(count, min(1.0, gpus / count), max(1, cores // count))


@dataclass(slots=True)
class _Job:
    """What an actor is at.

    Attributes:
        number: Which job it is, of all that were begun.
        asked_at: When it was asked how far it is, or was begun.
        signs: What it said the last time of work that makes no frames.
    """

    number: int
    asked_at: float
    signs: int = 0


class RayPool:
    """Actors of a cluster that this process is connected to; it is let go at the end.

    Args:
        share: What each actor asks for.

    Attributes:
        places: How many there are.
        device: What they compute on, in words.
    """

    def __init__(self, share: Share) -> None:
        self.places = share.actors
        self.device = (
            f"Ray, {share.gpus:g} GPU each" if share.gpus else f"Ray, {counted(share.cores, 'core')} each"
        )
        self._share = share
        self._actor = ray.remote(concurrency_groups={_ASIDE: 1})(Speaker).options(
            num_cpus=share.cores if not share.gpus else 1, num_gpus=share.gpus, **_ACTOR
        )
        self._actors: dict[int, Any] = {}
        self._pings: dict[Any, int] = {}
        self._tasks: dict[Any, int] = {}
        self._jobs: dict[int, _Job] = {}
        self._asked: dict[Any, tuple[int, int]] = {}
        self._numbers = itertools.count()
        self._ended_for: dict[int, str] = {}
        self._begun = time.monotonic()
        # Ray tells of its workers on standard output, where the data of a command goes
        self._aside = redirect_stdout(_ToLog())
        self._aside.__enter__()
        self.pids: dict[int, int] = {}
        for place in range(self.places):
            self._ping(place)

    def ready(self, place: int) -> bool:
        """True where the actor of a place lives."""
        return place in self.pids

    def begin(self, place: int, task: Json) -> None:
        """Give a job to an actor."""
        number = next(self._numbers)
        self._tasks[self._actors[place].do.remote(number, strict_json.dump(task, compact=True))] = place
        self._jobs[place] = _Job(number, time.monotonic())

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened; an actor that is gone comes again by itself, or another one in its place."""
        self._ask()
        known = [*self._pings, *self._tasks, *self._asked]
        if not known:  # all places rest
            time.sleep(timeout_s)
            return []
        done, _ = ray.wait(known, num_returns=1, timeout=timeout_s)
        if not done:
            return self._complain()
        events: list[Event] = []
        for reference in done:
            if reference in self._pings:
                events += self._answered_ping(reference)
            elif reference in self._asked:
                events += self._answered_how_far(reference)
            else:
                events += self._answered(reference)
        return events

    def end(self, place: int, reason: str) -> None:
        """End an actor at once; Ray starts it again, and its job is lost."""
        if place in self._actors:
            self._ended_for[place] = reason
            with suppress(RayError):
                ray.kill(self._actors[place], no_restart=False)

    def close(self) -> None:
        """End the actors, and leave the cluster."""
        try:
            for actor in self._actors.values():
                with suppress(RayError):
                    ray.kill(actor, no_restart=True)
            ray.shutdown()
        finally:
            self._aside.__exit__(None, None, None)

    def _ask(self) -> None:
        """Ask the actors that are at work how far they are: one question to each, now and then."""
        now, waiting = time.monotonic(), {place for place, _ in self._asked.values()}
        for place, job in self._jobs.items():
            if place not in waiting and now - job.asked_at >= ASK_EVERY_S:
                job.asked_at = now
                ask = self._actors[place].how_far.options(concurrency_group=_ASIDE)
                self._asked[ask.remote(job.number)] = (place, job.number)

    def _answered_how_far(self, reference: Any) -> list[Event]:  # noqa: ANN401 - Ray's, which has no types here
        place, number = self._asked.pop(reference)
        try:
            found = strict_json.parse(ray.get(reference))
        except RayError:  # the job's own answer tells it
            return []
        job = self._jobs.get(place)
        if job is None or job.number != number or not found:  # another one by now, or not begun
            return []
        prepares, job.signs = found["signs"] != job.signs, found["signs"]
        events: list[Event] = [Prepares(place)] if prepares else []
        return [*events, Advanced(place, found["frames"], found["total"])] if found["total"] else events

    def _ping(self, place: int) -> None:
        """Ask an actor whether it lives; one that is there no more is made anew."""
        if place not in self._actors:
            self._actors[place] = self._actor.remote(self._share.cores)
        self._pings[self._actors[place].ready.options(**_PING).remote()] = place

    def _answered_ping(self, reference: Any) -> list[Event]:  # noqa: ANN401 - Ray's, which has no types here
        place = self._pings.pop(reference)
        try:
            self.pids[place] = ray.get(reference)
        except RayError as error:
            return self._lost(place, error)
        return []

    def _answered(self, reference: Any) -> list[Event]:  # noqa: ANN401 - Ray's, which has no types here
        place = self._tasks.pop(reference)
        del self._jobs[place]
        try:
            answer = strict_json.parse(ray.get(reference))
        except RayError as error:
            return self._lost(place, error)
        said: list[Event] = [Said(place, text) for text in answer.pop("said")]
        reason = self._ended_for.pop(place, None)  # it may have ended its job at the last moment
        if reason is None and answer["state"] != LOST:
            return [*said, Ended(place, answer)]
        del self.pids[place]
        ray.kill(self._actors[place], no_restart=False)
        self._ping(place)
        return [*said, Lost(place, reason or f"could not go on: {answer['error']}")]

    def _lost(self, place: int, error: RayError) -> list[Event]:
        self.pids.pop(place, None)
        if not isinstance(error, ActorUnavailableError):  # it does not come again
            with suppress(RayError):
                ray.kill(self._actors.pop(place), no_restart=True)
        self._ping(place)
        reason = self._ended_for.pop(place, None)
        return [Lost(place, reason or f"is gone: {first_line(error)[:300]}.")]

    def _complain(self) -> list[Event]:
        if self.pids or self._tasks or time.monotonic() - self._begun < PATIENCE_S:
            return []
        return [Said(0, f"The cluster has no room for a worker yet ({self.device}): waiting for it.")]
