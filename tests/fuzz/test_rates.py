"""Any rate of the source with any rate of the result: what is shown and heard is that of its time."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.engine.mirrored_loop import MirroredLoop
from musetalk_cli.timeline import Timeline

RATES = st.one_of(
    st.integers(1, 120).map(Fraction),
    st.sampled_from([Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001), Fraction("29.97")]),
    st.fractions(1, 120, max_denominator=10_000),
)
SOURCE_RATES = RATES | st.fractions(Fraction(1, 1000), 1000, max_denominator=10**9).filter(bool)


@given(SOURCE_RATES, RATES, st.integers(1, 300), st.integers(0, 10**6))
def test_the_source_time_is_right_within_half_a_source_frame(source_fps, fps, frames, first):
    """A frame of the source stands for its middle; forward and backward, each one takes its whole time.

    So the place in the clip that a player would have reached lies no further from it than half its time.
    """
    timeline = Timeline(fps)
    length, half = frames / source_fps, 1 / (2 * source_fps)
    for frame in range(first, first + 20):
        place = timeline.pts(frame) % (2 * length)
        place = place if place < length else 2 * length - place
        step = timeline.source_frame(frame, source_fps) % (2 * frames)
        number = step if step < frames else 2 * frames - 1 - step
        middle = (number + Fraction(1, 2)) / source_fps
        assert abs(place - middle) <= half


@given(SOURCE_RATES, RATES, st.integers(1, 300), st.integers(1, 100))
def test_a_stream_that_speaks_shows_the_clip_at_its_own_speed(source_fps, fps, frames, length):
    """The loop of a stream, frame by frame, is the clip at the stream's time, however long it goes on."""
    timeline = Timeline(fps)
    loop = MirroredLoop(frames, timeline, source_fps, rest=range(frames))
    both = [*range(frames), *reversed(range(frames))]
    for frame in range(length):
        begun = int(timeline.pts(frame) * source_fps)
        assert loop.next(resting=False) == both[begun % len(both)]


@given(SOURCE_RATES, RATES, st.integers(1, 300), st.lists(st.booleans(), max_size=60), st.data())
def test_rest_and_speech_take_as_many_source_frames_as_pass(source_fps, fps, frames, resting, data):
    """Nothing jumps: between two frames the place moves by no more source frames than begin between them."""
    rest = sorted(data.draw(st.sets(st.integers(0, frames - 1), max_size=40)))
    timeline = Timeline(fps)
    loop, before, begun = MirroredLoop(frames, timeline, source_fps, rest), None, 0
    for frame, rests in enumerate(resting[: 1 + int(2000 * fps / source_fps)]):
        number, now = loop.next(resting=rests), int(timeline.pts(frame) * source_fps)
        assert 0 <= number < frames
        assert before is None or abs(number - before) <= now - begun
        before, begun = number, now


@given(RATES, st.integers(0, 10**7))
def test_a_frame_hears_the_same_stretch_around_its_start_at_any_rate(fps, frame):
    """From 80 ms before it to 120 ms after it, as at 25 fps, within a row of the encoder (20 ms)."""
    timeline, row = Timeline(fps), Fraction(1, 50)
    assert -row < timeline.first_row(frame) * row - (timeline.pts(frame) - Fraction(8, 100)) <= 0
    assert timeline.last_row(frame) - timeline.first_row(frame) == 10
    assert timeline.last_row(frame) * row <= timeline.pts(frame) + timeline.look_ahead
