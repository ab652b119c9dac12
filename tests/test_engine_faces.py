"""To which size a batch of faces is padded, with what, and what becomes of sizes without memory."""

import pytest
import torch
from clocks import FakeClock

from musetalk_cli.engine.faces import FaceMaker
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.generator import Generator
from musetalk_cli.ops.drawn import are_finite

SIZES = (2, 5)
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")


class Recording(Generator):
    """Keeps what it is given."""

    def __init__(self, bundle):
        super().__init__(bundle)
        self.given = []

    def unet(self, tokens, latents):
        self.given.append((tokens, latents))
        return super().unet(tokens, latents)


@pytest.fixture
def generator(tiny_bundle):
    return Recording(tiny_bundle)


def make_faces(generator, sizes=SIZES):
    faces = FaceMaker(generator, StageStats(FakeClock()))
    faces.take_sizes(sizes)
    return faces


def frames_of(bundle, count):
    """Tokens and latents of so many frames."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randn(count, 10 * bundle.layers, bundle.token_width, generator=random)
    return tokens, torch.randn(count, 8, 32, 32, generator=random)


@pytest.mark.parametrize(("count", "size"), [(1, 2), (2, 2), (3, 5), (5, 5)])
def test_a_batch_is_filled_with_its_last_frame_up_to_the_next_size(tiny_bundle, generator, count, size):
    tokens, latents = frames_of(tiny_bundle, count)
    made = make_faces(generator).make(list(tokens), list(latents))
    [(told, known)] = generator.given
    assert len(told) == len(known) == size
    assert torch.equal(told[:count], tokens)
    assert torch.equal(known[:count], latents)
    assert all(torch.equal(row, tokens[-1]) for row in told[count:])
    assert all(torch.equal(row, latents[-1]) for row in known[count:])
    assert torch.equal(made.pictures, generator.draw(Generator(tiny_bundle).unet(told, known)))
    assert made.steps is None


def test_what_is_no_number_spoils_its_own_frame_alone(tiny_bundle, generator):
    tokens, latents = frames_of(tiny_bundle, 3)
    latents[1] = float("nan")
    drawn = make_faces(generator, (3,)).make(list(tokens), list(latents)).pictures
    assert are_finite(drawn).tolist() == [True, False, True]


def test_frames_and_the_rows_that_fill_are_counted_and_both_networks_timed(tiny_bundle, generator):
    stats = StageStats(FakeClock())
    faces = FaceMaker(generator, stats)
    faces.take_sizes(SIZES)
    for count in (1, 3, 5):
        tokens, latents = frames_of(tiny_bundle, count)
        faces.make(list(tokens), list(latents))
    assert (faces.filling.batches, faces.filling.frames, faces.filling.rows) == (3, 9, 12)
    assert {name: stage.count for name, stage in stats.summary(()).items()} == {"unet": 3, "vae": 3}


@pytest.mark.parametrize(
    ("sizes", "most", "left"),
    [((1, 4, 9), 9, (1, 4, 9)), ((1, 4, 9), 6, (1, 4, 6)), ((1, 4, 9), 4, (1, 4)), ((8,), 1, (1,))],
)
def test_no_size_is_larger_than_the_limit_which_is_a_size_itself(generator, sizes, most, left):
    faces = make_faces(generator, sizes)
    faces.limit(most)
    assert faces.sizes == left


def test_a_limit_stays_when_other_sizes_are_settled(generator):
    faces = make_faces(generator, (1, 4, 9))
    faces.limit(4)
    for asked, left in (((2, 3), (2, 3)), ((2, 13, 16), (2, 4)), ((16,), (4,))):
        faces.take_sizes(asked)
        assert faces.sizes == left


def test_the_largest_size_is_halved_once_which_is_said(generator, caplog):
    faces = make_faces(generator, (1, 3, 7))
    faces.halve(NO_MEMORY)
    assert (faces.sizes, faces.halvings) == ((1, 3, 4), 1)
    [record] = caplog.records
    expected = "The device has no memory for a batch of 7 frames: from now on a batch has at most 4."
    assert record.getMessage() == expected
    with pytest.raises(torch.OutOfMemoryError) as raised:
        faces.halve(NO_MEMORY)
    assert raised.value is NO_MEMORY
    assert (faces.sizes, faces.halvings) == ((1, 3, 4), 1)


def test_a_batch_of_one_frame_is_not_halved(generator):
    faces = make_faces(generator, (1,))
    with pytest.raises(torch.OutOfMemoryError):
        faces.halve(NO_MEMORY)
    assert (faces.sizes, faces.halvings) == ((1,), 0)
