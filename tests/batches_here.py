"""Batches without processes of their own."""

from musetalk_cli.run.batch.pool import Ended
from musetalk_cli.run.batch.work import do_job
from musetalk_cli.run.kept import Kept


class Here:
    """A pool of one worker in this process: it saves loading the libraries for each."""

    places, device = 1, "this process"

    def __init__(self):
        self._kept, self._events = Kept(), []

    def ready(self, place):
        return True

    def begin(self, place, task):
        self._events.append(Ended(place, do_job(task, self._kept)))

    def wait(self, timeout_s):
        events, self._events = self._events, []
        return events

    def close(self):
        pass


def run_batches_here(monkeypatch):
    monkeypatch.setattr("musetalk_cli.run.batch.pools.pool_maker", lambda *_: Here)
