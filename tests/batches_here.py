"""Batches without processes of their own."""

from musetalk_cli.run.batch.pool import Ended
from musetalk_cli.run.batch.work import do_job
from musetalk_cli.run.kept import Kept
from musetalk_cli.sinks.encoded import EncodedSink


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


class HereTwice(Here):
    """A pool of two workers in this process."""

    places = 2


def shown(monkeypatch, deed):
    """The pictures that are given to encoders while something is done, by their encoder, and what it gave."""
    frames = {}
    write = EncodedSink.write

    def noted(sink, frame):
        frames.setdefault(sink, []).append(frame)
        write(sink, frame)

    with monkeypatch.context() as patched:
        patched.setattr(EncodedSink, "write", noted)
        result = deed()
    parts = sorted(frames.values(), key=lambda part: part[0].request.index)
    return [frame for part in parts for frame in part], len(parts), result
