"""In which order frames land, none out of turn, and what becomes of a batch without memory."""

from collections import deque
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from handmade import passed_through
from lives import speech, take_all

from musetalk_cli.engine.costs import Costs
from musetalk_cli.engine.engine import BATCHES_ON_CUDA
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.errors import DeviceError
from pretended.cuda import pretended_gpu
from pretended.device import Pace
from pretended.scarce import Small, said
from pretended.speaking import JOB, apart, make_engine, speak

CHUNK = 0.5
COSTS = Costs(0.002, {size: 0.004 * size for size in BATCHES_ON_CUDA})
"""As the model of a fast GPU has them."""


def live(on_gpu, avatar, sizes=BATCHES_ON_CUDA):
    """A session that somebody watches, with the sound of a chunk."""
    engine = make_engine(on_gpu(), replace(JOB, batch_sizes=sizes), live=True)
    engine.costs = COSTS
    options = SessionOptions(live=True)
    session = engine.open(avatar, Fraction(25), Fraction(1, 2), None, 16_000, 1, options)
    session.hear(speech(CHUNK)[:, None], 0.0)
    session.end_sound(0.0)
    return engine, session


def steps(engine, session):
    """What each step started, and the numbers of the frames it finished."""
    done = []
    while True:
        before = engine.filling.frames
        if not engine.step():
            return done
        frames = [frame.request.index for frame in take_all(session)]
        session.shown_later += len(frames)
        done.append((engine.filling.frames - before, frames))


def test_the_first_four_frames_of_a_chunk_land_while_the_device_works_on_the_rest(gpu, on_gpu, avatars):
    engine, session = live(on_gpu, avatars[0])
    started = steps(engine, session)
    assert session.is_done
    sizes = [count for count, _ in started if count]
    assert sizes[0] == 4
    assert sum(sizes) == 12
    first = next(number for number, (_, frames) in enumerate(started) if frames)
    assert started[first][1] == [0, 1, 2, 3]
    assert sum(count for count, _ in started[: first + 1]) > 4, (
        "the device has work while they are waited for"
    )
    waits = [wait for wait in gpu.waits if wait.by.file == "engine/pinned.py"]
    assert {wait.passed.count("down") for wait in waits} == {1}, "and nothing of the rest is waited for"
    assert [index for _, frames in started for index in frames] == list(range(12))


@pytest.mark.parametrize(("pace", "waits"), [(Pace.EARLY, 0), (Pace.LATE, 3)])
def test_what_the_device_has_passed_lands_without_a_wait(guard_folder, on_gpu, avatars, pace, waits):
    with pretended_gpu(guard_folder, pace) as gpu:
        engine, session = live(on_gpu, avatars[0], sizes=(4,))
        before = len(gpu.waits)
        steps(engine, session)
        assert session.is_done
        assert len(gpu.waits) - before == waits


def test_a_frame_without_a_face_waits_for_those_before_it(gpu, on_gpu, avatars):
    avatar = passed_through(avatars[0], {2})
    engine, session = live(on_gpu, avatar, sizes=(2,))
    indices = [index for _, frames in steps(engine, session) for index in frames]
    assert indices == list(range(12))


def test_a_batch_landed_out_of_turn_is_caught(gpu, on_gpu, avatars, monkeypatch):
    """A planted fault: the youngest is landed first."""

    class Stack(deque):
        popleft = deque.pop

    monkeypatch.setattr("musetalk_cli.engine.flights.deque", Stack)
    engine, session = live(on_gpu, avatars[0])
    assert [index for _, frames in steps(engine, session) for index in frames] != list(range(12))


@pytest.mark.parametrize("stage", [pytest.param("unet", marks=pytest.mark.slow), "vae"])
def test_a_batch_that_is_too_large_is_done_in_two_and_none_is_as_large_again(
    gpu, on_gpu, avatars, expected, caplog, stage
):
    networks = Small(on_gpu(), 3, stage)
    engine = make_engine(on_gpu(), replace(JOB, batch_sizes=(2, 5)), generator=networks)
    spoken = speak(engine, *avatars)
    assert apart(spoken, expected) <= 1
    assert engine.batch_sizes == (2, 3)
    assert [count for count in networks.tried if count > 3] == [5], "tried once"
    assert (engine.faces.halvings, engine.images.fallbacks, gpu.emptied) == (1, 0, 1)
    assert said(caplog) == [
        "The device has no memory for a batch of 5 frames: from now on a batch has at most 3."
    ]


def test_what_is_on_its_way_is_landed_before_a_batch_is_done_again(gpu, on_gpu, avatars, expected):
    """The largest batch comes third, when two others hold memory."""
    left = iter([4, 4, 2])

    class Shrinking(Small):
        def need(self, stage, count):
            if stage == "unet":
                self.most = next(left, 2)
            super().need(stage, count)

    engine = make_engine(on_gpu(), generator=Shrinking(on_gpu(), 4, "unet"))
    assert apart(speak(engine, *avatars), expected) <= 1
    assert engine.faces.halvings == 1


@pytest.mark.parametrize("sizes", [(8,), (1,)])
def test_a_second_time_is_a_failure_with_a_hint(gpu, on_gpu, avatars, sizes):
    engine = make_engine(
        on_gpu(), replace(JOB, batch_sizes=sizes), generator=Small(on_gpu(), 2 * (sizes[0] > 1), "vae")
    )
    with pytest.raises(DeviceError, match=r"not enough memory: CUDA out of memory") as raised:
        speak(engine, *avatars)
    assert "--batch-size" in raised.value.hint
    assert "--precision" in raised.value.hint
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
