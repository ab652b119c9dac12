"""What stands at both ends of a stream, and that it is handed over as it is."""

import dataclasses
import threading

import pytest
from runs import LIVE, OFFLINE, Run, Sink, Source

from musetalk_cli.live.ends import Ends


def test_they_stay_as_they_were_given():
    source, sinks, stop = Source(1), [Sink(), Sink()], threading.Event()
    ends = Ends(source, sinks, stop)
    assert (ends.source, ends.sinks, ends.stop, ends.watch) == (source, sinks, stop, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ends.source = Source(2)


@pytest.mark.parametrize("policy", [OFFLINE, LIVE], ids=["offline", "live"])
def test_each_end_is_the_streams_own(tiny_bundle, policy):
    """The sound is heard and closed, every sink gets all of it, and whoever watches hears of the end."""
    seen = []
    source, sinks = Source(12), [Sink(), Sink()]
    Run(tiny_bundle, source, sinks, policy, watch=seen.append).run()
    assert source.given == 12
    assert source.closed.is_set()
    assert [sink.indices for sink in sinks] == [list(range(12))] * 2
    assert seen[-1].frames == 12
