"""Workers on a Ray cluster: actors that keep what they load. Only Ray Core is used.

Ray is imported here and nowhere else, and this module only where `--ray` is given. Its own messages between
processes are pickles, so a cluster must be in a network that can be trusted; ours in them are JSON texts.
"""

from __future__ import annotations

import io
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
from musetalk_cli.run.batch.pool import LOST, Ended, Event, Lost, Said
from musetalk_cli.run.batch.seats import CORES_EACH, check_workers

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
try:
    import ray
    from ray.exceptions import ActorUnavailableError, RayError
except ModuleNotFoundError:
    raise InputError("Ray is not installed.", "pip install 'musetalk-cli[cluster]'") from None

log = logging.getLogger(__name__)

RESTARTS = -1
"""How often Ray starts an actor again that has died. Its default, never, would end a pool one by one; whoever
gives out the jobs gives up a place that loses too many."""
SAID_LINES = 20
"""Lines that an answer brings along."""
REACHED_S = 10.0
"""How long the address of a cluster may take to answer at all."""
PATIENCE_S = 30.0
"""How long no worker may be there before that is said."""
_ACTOR = {"max_restarts": RESTARTS, "max_task_retries": 0}
_PING = {"max_task_retries": -1}


class Speaker:
    """The actor: one worker, with what it keeps.

    Args:
        threads: Threads that its libraries compute with.
    """

    def __init__(self, threads: int) -> None:
        from musetalk_cli.run.batch.work import set_threads
        from musetalk_cli.run.kept import Kept

        set_threads(threads)
        self._kept = Kept()
        self._said = _Said()
        logging.getLogger("musetalk_cli").addHandler(self._said)

    def ready(self) -> int:
        """It lives; its process."""
        return os.getpid()

    def do(self, task: str) -> str:
        """Do a job; both are JSON texts."""
        from musetalk_cli.run.batch.work import do_job

        self._said.lines.clear()
        answer = do_job(strict_json.parse(task), self._kept) | {"said": self._said.lines[:SAID_LINES]}
        return strict_json.dump(strict_json.finite(answer), compact=True)


class _Said(logging.Handler):
    """Keeps what is worth knowing until the job's answer takes it along."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) < SAID_LINES:
            self.lines.append(record.getMessage())


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
        raise InputError(f"--ray {address} leads to no cluster: {first_line(error)}.", hint) from error
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
        self.device = f"Ray, {share.gpus:g} GPU each" if share.gpus else f"Ray, {share.cores} cores each"
        self._share = share
        self._actor = ray.remote(Speaker).options(
            num_cpus=share.cores if not share.gpus else 1, num_gpus=share.gpus, **_ACTOR
        )
        self._actors: dict[int, Any] = {}
        self._pings: dict[Any, int] = {}
        self._tasks: dict[Any, int] = {}
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
        self._tasks[self._actors[place].do.remote(strict_json.dump(task, compact=True))] = place

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened; an actor that is gone comes again by itself, or another one in its place."""
        known = [*self._pings, *self._tasks]
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
            else:
                events += self._answered(reference)
        return events

    def close(self) -> None:
        """End the actors, and leave the cluster."""
        try:
            for actor in self._actors.values():
                with suppress(RayError):
                    ray.kill(actor, no_restart=True)
            ray.shutdown()
        finally:
            self._aside.__exit__(None, None, None)

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
        try:
            answer = strict_json.parse(ray.get(reference))
        except RayError as error:
            return self._lost(place, error)
        said: list[Event] = [Said(place, text) for text in answer.pop("said")]
        if answer["state"] != LOST:
            return [*said, Ended(place, answer)]
        del self.pids[place]
        ray.kill(self._actors[place], no_restart=False)
        self._ping(place)
        return [*said, Lost(place, f"could not go on: {answer['error']}")]

    def _lost(self, place: int, error: RayError) -> list[Event]:
        self.pids.pop(place, None)
        if not isinstance(error, ActorUnavailableError):  # it does not come again
            with suppress(RayError):
                ray.kill(self._actors.pop(place), no_restart=True)
        self._ping(place)
        return [Lost(place, f"is gone: {first_line(error)[:300]}.")]

    def _complain(self) -> list[Event]:
        if self.pids or self._tasks or time.monotonic() - self._begun < PATIENCE_S:
            return []
        return [Said(0, f"The cluster has no room for a worker yet ({self.device}): waiting for it.")]
