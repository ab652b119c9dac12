"""A warm-up on CUDA: every batch size that fits, every number of windows, and what it says."""

import logging
from dataclasses import replace

import pytest
import torch

from musetalk_cli.config import Sharpen
from musetalk_cli.errors import DeviceError
from musetalk_cli.nets.audio_encoder import WINDOWS_ON_CUDA
from musetalk_cli.nets.generator import Generator
from pretended.scarce import Small, said
from pretended.speaking import JOB, SIZES, apart, make_engine, speak, warm_engine


def test_a_warm_up_covers_every_batch_size(gpu, on_gpu, avatars):
    engine = make_engine(on_gpu(), replace(JOB, sharpen=Sharpen(), batch_sizes=(1, 3)))
    engine.warm_up(avatars[0])
    assert (engine.images.path, engine.images.fallbacks) == ("gpu", 0)
    assert all(engine.costs.batch(size) > 0 for size in engine.batch_sizes)


@pytest.mark.slow
def test_a_warm_up_says_what_it_does_and_how_long_it_took(gpu, on_gpu, avatars, caplog):
    caplog.set_level(logging.INFO)
    before = torch.backends.cudnn.benchmark
    engine = warm_engine(on_gpu, avatars)
    assert torch.backends.cudnn.benchmark is before
    said = [record.getMessage() for record in caplog.records if "arm" in record.getMessage()]
    assert said == ["Warming up with batches of 1, 4 frames.", f"Warmed up in {engine.warm_up_s:.1f} s."]
    assert engine.warm_up_s > 0


def test_cudnn_measures_while_shapes_are_new(gpu, on_gpu, avatars, monkeypatch):
    seen = []
    networks = Generator(on_gpu())
    unet = networks.unet
    monkeypatch.setattr(
        networks, "unet", lambda *given: seen.append(torch.backends.cudnn.benchmark) or unet(*given)
    )
    engine = make_engine(on_gpu(), replace(JOB, batch_sizes=SIZES, graphs=False), generator=networks)
    engine.warm_up(avatars[0])
    assert seen[: len(SIZES)] == [True] * len(SIZES)
    assert not any(seen[len(SIZES) :]), "a wait for what is measured would come in the loop"


def test_before_a_live_stream_windows_are_encoded_in_every_number_that_may_come_together(
    gpu, on_gpu, avatars
):
    asked = []
    engine = make_engine(
        on_gpu(), replace(JOB, batch_sizes=(1,)), live=True, encode=lambda some: asked.append(len(some))
    )
    engine.warm_up(avatars[0])
    assert set(asked) == {*range(1, WINDOWS_ON_CUDA + 1)}


@pytest.mark.slow
def test_a_warm_up_leaves_out_the_sizes_that_are_too_large(gpu, on_gpu, avatars, expected, caplog):
    job = replace(JOB, batch_sizes=(1, 3, 5, 7))
    engine = make_engine(on_gpu(), job, generator=Small(on_gpu(), 4, "vae"))
    engine.warm_up(avatars[0])
    assert engine.batch_sizes == (1, 3)
    engine.take_chunk(job.chunk)
    assert engine.batch_sizes == (1, 3), "and they stay so"
    assert said(caplog) == ["The device has no memory for a batch of 7 frames: a batch has at most 3."]
    assert apart(speak(engine, *avatars), expected) <= 1
    assert engine.faces.halvings == 0


def test_a_warm_up_without_memory_for_any_size_is_a_failure_with_a_hint(gpu, on_gpu, avatars):
    engine = make_engine(on_gpu(), replace(JOB, batch_sizes=(2, 4)), generator=Small(on_gpu(), 1, "unet"))
    with pytest.raises(DeviceError, match="not enough memory") as raised:
        engine.warm_up(avatars[0])
    assert "--batch-size" in raised.value.hint
    assert not engine.images.holds(avatars[0])


def test_an_engine_that_has_ended_holds_no_graph(gpu, on_gpu, avatars, captured):
    engine = warm_engine(on_gpu, avatars)
    alive = [graph for graph in captured if graph() is not None]
    assert len(alive) > 2 * len(SIZES), "those of sound too"
    engine.end()
    assert [graph() for graph in captured] == [None] * len(captured)
