"""Streaming and offline features are one path, and never depend on how the sound was cut."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import torch
from encoders import positions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musetalk_cli.engine.hops import HopGrid, HopPlanner, stream_tokens
from musetalk_cli.engine.windows import OFFLINE_HOP, FeatureStream, WindowCutter
from musetalk_cli.nets.audio_encoder import AudioEncoder
from musetalk_cli.timeline import ROWS_PER_FRAME, Timeline, rows_in

OFFLINE = (OFFLINE_HOP, Fraction(0))


def run(encode, sound, fps, hop, context, cuts=(), window=1500):
    timeline = Timeline(fps)
    planner = HopPlanner(timeline, None, HopGrid(hop, hop), restarts=False)
    stream = FeatureStream(timeline, context, window)
    frames, tokens = [], []

    def drain():
        while (due := planner.due()) is not None:
            frames.extend(due.frames)
            tokens.extend(stream.give(encode(stream.ask(due.frames, due.begin, due.end))))
            planner.plan(due)

    for block in np.split(sound, cuts):
        stream.append(block)
        planner.listen(block)
        drain()
    planner.end(timeline.frames_in(len(sound)))
    drain()
    assert planner.done
    return frames, tokens


RATES = st.sampled_from([Fraction(n) for n in (1, 7, 12, 24, 25, 30, 48, 60, 120)] + [Fraction(30000, 1001)])
HOPS = st.sampled_from([Fraction(n, 1000) for n in (40, 50, 100, 333, 500, 1000, 2000)] + [Fraction(30)])
WINDOWS = st.sampled_from([150, 500, 1500])
CONTEXTS = st.sampled_from([None, Fraction(0), Fraction(1, 10), Fraction(1), Fraction(5)])


@settings(deadline=None, max_examples=60)
@given(RATES, HOPS, CONTEXTS, WINDOWS, st.integers(400, 16_000 * 8), st.data())
def test_every_frame_gets_its_rows_and_zeros_past_the_ends(fps, hop, context, window, length, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=12)))
    sound = np.arange(1, length + 1, dtype=np.float32)
    timeline = Timeline(fps)
    frames, tokens = run(positions, sound, fps, hop, context, cuts, window)
    assert frames == list(range(timeline.frames_in(length)))
    for frame, theirs in zip(frames, tokens, strict=True):
        rows = np.arange(timeline.first_row(frame), timeline.last_row(frame))
        expected = np.where((rows >= 0) & (rows < rows_in(length)), rows * 320 + 1, 0)
        assert theirs.shape == (ROWS_PER_FRAME * 2, 1)
        assert np.array_equal(theirs.reshape(ROWS_PER_FRAME, 2)[:, 0].numpy(), expected)


@given(HOPS, CONTEXTS, WINDOWS, st.integers(1, 140), st.integers(0, 15_999), st.data())
def test_windows_do_not_depend_on_the_cuts_and_fit_the_encoder(hop, context, window, hops, rest, data):
    """They hold the sound that they say, and side by side every row since the one asked for."""
    length = min(int(hops * hop * 16_000), 16_000 * 70) + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=8)))
    sound = np.arange(length, dtype=np.float32)
    ends = [*range(int(hop * 16_000), length, int(hop * 16_000)), length]
    seen = []
    for blocks in ([sound], np.split(sound, cuts)):
        cutter, windows, begin = WindowCutter(context, window), [], 0
        coming = iter(blocks)
        for end in ends:
            while cutter.total < end:
                cutter.append(next(coming))
            first, reach = rows_in(begin), rows_in(begin)
            for cut in cutter.cut(begin, end, first):
                windows.append((cut.first_row, cut.end_row, len(cut.samples)))
                assert cut.first_row <= reach
                reach = max(reach, cut.end_row)
                assert len(cut.samples) < window * 320 + 320
                start = cut.first_row * 320
                assert np.array_equal(
                    cut.samples, np.arange(start, start + len(cut.samples), dtype=np.float32)
                )
            assert reach == rows_in(end)
            cutter.forget(end, rows_in(end))
            begin = end
        seen.append(windows)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("fps", [Fraction(8), Fraction(25), Fraction(60)])
@pytest.mark.parametrize("seconds", [60, 61])
def test_a_whole_window_after_a_skipped_one_gives_every_row_and_fits_the_encoder(fps, seconds):
    """The frames at its start hear rows of the skipped one: more than the encoder gives at once."""
    length = seconds * 16_000 + 137
    timeline, requests = Timeline(fps), []

    def encode(asked):
        requests.extend(asked)
        return positions(asked)

    hop, context = OFFLINE
    planner = HopPlanner(timeline, None, HopGrid(hop, hop), restarts=False)
    stream, sound = FeatureStream(timeline, context), np.arange(1, length + 1, dtype=np.float32)
    stream.append(sound)
    planner.listen(sound)
    planner.end(timeline.frames_in(length))
    skipped = planner.due()
    stream.skip(skipped.frames, skipped.begin)
    planner.plan(skipped)
    while (due := planner.due()) is not None:
        found = stream.give(encode(stream.ask(due.frames, due.begin, due.end)))
        for frame, tokens in zip(due.frames, found, strict=True):
            rows = np.arange(timeline.first_row(frame), timeline.last_row(frame))
            expected = np.where(rows < rows_in(length), rows * 320 + 1, 0)
            assert np.array_equal(tokens.reshape(ROWS_PER_FRAME, 2)[:, 0].numpy(), expected)
        planner.plan(due)
    assert max(len(request.samples) for request in requests) == 480_000
    assert [request.length for request in requests] == [1500] * len(requests)


def test_silence_at_the_start_of_a_segment_does_not_move_its_window():
    """A file's segments are those of the published code whatever is silent in them."""
    encoded = []

    def encode(requests):
        encoded.extend(len(request.samples) for request in requests)
        return positions(requests)

    stream = FeatureStream(Timeline(Fraction(25)), Fraction(0))
    stream.append(np.arange(1, 16_000 * 60 + 1, dtype=np.float32))
    stream.skip(range(250), 0)
    stream.give(encode(stream.ask(range(250, 740), 0, 30 * 16_000)))
    stream.skip(range(740, 1000), 30 * 16_000)
    stream.give(encode(stream.ask(range(1000, 1100), 30 * 16_000, 60 * 16_000)))
    assert encoded == [480_000, 480_000]


def test_a_long_stream_holds_no_more_than_its_context():
    cutter = WindowCutter(Fraction(1))
    tracemalloc.start()
    for number in range(200):
        cutter.append(np.zeros(8000, np.float32))
        begin, end = number * 8000, (number + 1) * 8000
        cutter.cut(begin, end, rows_in(begin))
        cutter.forget(end, rows_in(end))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held <= 4 * (2 * 16_000 + 8000 + 320) + 10_000, "its context, and a second that was not copied yet"


@pytest.mark.all_threads
def test_tokens_equal_upstream(golden, golden_bundle, golden_sound):
    expected = np.load(golden / "tensors.npz")["audio_prompts"].astype(np.float32)
    frames, tokens = run(AudioEncoder(golden_bundle), golden_sound, Fraction(25), *OFFLINE)
    assert frames == list(range(len(expected)))
    ours = torch.stack(tokens).half().float().numpy()
    assert np.abs(ours - expected).max() < 1e-3, "compared in fp16, the format of the golden data"


def test_a_chunk_as_long_as_the_sound_is_offline(golden_bundle, golden_sound):
    encode = AudioEncoder(golden_bundle)
    _, offline = run(encode, golden_sound, Fraction(25), *OFFLINE)
    _, streaming = run(encode, golden_sound, Fraction(25), Fraction(1), None)
    assert torch.equal(torch.stack(offline), torch.stack(streaming))


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 16_000), max_size=6).map(sorted))
def test_real_features_do_not_depend_on_the_cuts(golden_bundle, golden_sound, cuts):
    encode = AudioEncoder(golden_bundle)
    _, whole = run(encode, golden_sound, Fraction(25), Fraction(1, 2), None)
    _, cut = run(encode, golden_sound, Fraction(25), Fraction(1, 2), None, cuts)
    assert torch.equal(torch.stack(whole), torch.stack(cut))


def test_sounds_over_a_window_are_encoded_in_segments_of_30_s():
    """The last rows of a segment have not heard the next one: upstream's segments are independent."""
    heard = []

    def encode(requests):
        heard.extend(len(request.samples) for request in requests)
        return positions(requests)

    frames, _ = run(encode, np.zeros(16_000 * 70 + 123, np.float32), Fraction(25), *OFFLINE)
    assert heard == [480_000, 480_000, 160_000 + 123]
    assert len(frames) == 1750


def test_the_tokens_of_a_whole_sound_are_those_of_its_stream(golden_bundle, golden_sound):
    encode, fps, hop = AudioEncoder(golden_bundle), Fraction(25), Fraction(1, 2)
    _, tokens = run(encode, golden_sound, fps, hop, None)
    assert torch.equal(
        torch.stack(list(stream_tokens(golden_sound, encode, Timeline(fps), hop))), torch.stack(tokens)
    )


@pytest.mark.parametrize("length", [1, 132, 133, 134, 320, 639, 640])
def test_tiny_sounds(length):
    sound = np.ones(length, np.float32)
    frames, tokens = run(positions, sound, Fraction(120), Fraction(1, 2), None)
    assert len(frames) == len(tokens) == length * 120 // 16_000
