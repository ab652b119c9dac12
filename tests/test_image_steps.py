"""What the device holds of avatars, and what becomes of a batch where it fails."""

import numpy as np
import pytest
import torch
from clocks import FakeClock
from drawings import drawn
from handmade import passed_through

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import Sharpen
from musetalk_cli.engine import image_steps
from musetalk_cli.engine.compositor import CpuPath, GpuPath
from musetalk_cli.engine.drawn import Drawn
from musetalk_cli.engine.image_steps import ImageSteps, Resident, SourceFrame
from musetalk_cli.measure.stages import StageStats

CPU = torch.device("cpu")
STEPS = ["place", "resize", "blend", "download"]
NO_MEMORY = torch.OutOfMemoryError("out of memory, as injected\nsecond line")
FACES = Drawn(
    drawn(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)), [1])
)


class Device(GpuPath):
    """A device's path that counts what it places, and fails at one step; by itself for want of memory."""

    def __init__(self, fails_at=None, error=NO_MEMORY):
        super().__init__(CPU)
        self.fails_at = fails_at
        self.error = error
        self.placed = []

    def _reach(self, step):
        if step == self.fails_at:
            raise self.error

    def place(self, avatar):
        self._reach("place")
        self.placed.append(avatar)
        return super().place(avatar)

    def resize(self, faces, targets):
        self._reach("resize")
        return super().resize(faces, targets)

    def blend(self, faces, targets):
        self._reach("blend")
        return super().blend(faces, targets)

    def download(self, patches):
        self._reach("download")
        return super().download(patches)


def make_steps(path, avatars=(), sharpen=None, dtype=torch.float32, stats=None):
    """Steps that hold some avatars."""
    steps = ImageSteps(path, CPU, dtype, sharpen, stats or StageStats(FakeClock()))
    for avatar in avatars:
        steps.hold(avatar)
    return steps


@pytest.fixture(scope="module")
def avatars():
    """Two of different sizes, of which the second has a frame without a face."""
    return synthetic_avatar(160, 120, 64, 3), passed_through(synthetic_avatar(320, 240, 96, 4), {1})


@pytest.fixture
def sources(avatars):
    one, other = avatars
    return [SourceFrame(other, 3), SourceFrame(one, 0), SourceFrame(other, 0)]


def assert_same(ours, expected):
    assert len(ours) == len(expected)
    assert all(map(np.array_equal, ours, expected))


@pytest.mark.parametrize("path", [CpuPath(), GpuPath(CPU)], ids=["cpu", "gpu"])
def test_a_batch_of_several_avatars_gives_the_part_of_each_frame_and_the_marks(path, avatars, sources):
    *patches, marks = make_steps(path, avatars).run(sources, FACES)()
    for patch, (avatar, number) in zip(patches, sources, strict=True):
        part = avatar.patches[number]
        before = avatar.frames[number][part.box.slices()]
        assert patch.shape == before.shape
        assert np.array_equal(patch[part.mask == 0], before[part.mask == 0])
        assert not np.array_equal(patch, before)
    assert marks.tolist() == [1, 0, 1]


def test_latents_are_those_of_the_frames_in_the_networks_format(avatars, sources):
    steps = make_steps(CpuPath(), avatars, dtype=torch.float16)
    latents = steps.latents(sources)
    expected = torch.stack([avatar.latents[number] for avatar, number in sources]).half()
    assert torch.equal(torch.stack(latents), expected)


def test_an_avatar_is_placed_once_and_stays_while_anybody_holds_it(avatars, sources):
    path = Device()
    steps = make_steps(path)
    assert not steps.holds(avatars[0])
    for avatar in (*avatars, avatars[0]):
        steps.hold(avatar)
    for _ in range(2):
        steps.run(sources, FACES)()
    assert path.placed == list(avatars)
    steps.release(avatars[0])
    assert all(map(steps.holds, avatars))
    steps.release(avatars[0])
    assert [steps.holds(avatar) for avatar in avatars] == [False, True]
    steps.hold(avatars[0])
    assert path.placed == [*avatars, avatars[0]]


def test_an_avatar_that_cannot_be_placed_is_held_by_nobody(avatars):
    class Full(CpuPath):
        def place(self, avatar):
            raise MemoryError

    steps = make_steps(Full())
    for _ in range(2):
        with pytest.raises(MemoryError):
            steps.hold(avatars[0])
        assert not steps.holds(avatars[0])


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_device_without_memory_is_given_up_once_and_the_cpu_does_its_batch(step, avatars, sources, caplog):
    expected = make_steps(CpuPath(), avatars).run(sources, FACES)()
    steps = make_steps(Device(step), avatars)
    for _ in range(2):
        assert_same(steps.run(sources, FACES)(), expected)
    assert (steps.fallbacks, steps.path) == (1, "cpu")
    assert [record.getMessage() for record in caplog.records] == [
        "The device has no memory for the image steps, which go on on the CPU: out of memory, as injected"
    ]


def test_a_path_that_another_thread_gives_up_meanwhile_spoils_no_batch(avatars, sources, monkeypatch):
    class Taken(dict):
        """Each look finds what was there, and then it is gone."""

        def __contains__(self, name):
            found = super().__contains__(name)
            self.pop(name, None)
            return found

        def get(self, name):
            return self.pop(name, None)

    expected = make_steps(CpuPath(), avatars).run(sources, FACES)()
    monkeypatch.setattr(image_steps, "Resident", lambda latents: Resident(latents, Taken()))
    steps = make_steps(Device(), avatars)
    assert_same(steps.run(sources, FACES)(), expected)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), NotImplementedError("no such operator")])
def test_what_else_a_device_fails_with_is_hidden_by_nothing(step, error, avatars, sources):
    """A mistake would else be a slow success."""
    with pytest.raises(type(error)) as raised:
        make_steps(Device(step, error), avatars).run(sources, FACES)
    assert raised.value is error


@pytest.mark.parametrize("large", [0, 1])
def test_one_avatar_too_large_for_the_device_is_the_cpus_and_all_others_stay(large, avatars, sources, caplog):
    class Small(Device):
        def place(self, avatar):
            self.fails_at = "place" if avatar is avatars[large] else None
            return super().place(avatar)

    path = Small()
    steps = make_steps(path, avatars)
    path.fails_at = None
    asked = []
    resize = path.resize
    path.resize = lambda faces, targets: asked.append(len(targets)) or resize(faces, targets)
    expected = make_steps(CpuPath(), avatars).run(sources, FACES)()
    assert_same(steps.run(sources, FACES)(), expected)
    assert asked == [sum(avatar is not avatars[large] for avatar, _ in sources)]
    assert_same(steps.run(sources[:1], Drawn(FACES.pictures[:1]))(), [expected[0], expected[-1][:1]])
    assert (steps.path, steps.fallbacks) == ("gpu", 1)
    name = avatars[large].meta.name
    assert [record.getMessage() for record in caplog.records] == [
        f"The device has no memory for the pictures of {name}, whose image steps are done on the CPU: "
        "out of memory, as injected"
    ]


def test_the_cpu_does_all_where_the_device_then_has_no_memory_for_the_others_either(avatars, sources):
    path = Device("place")
    steps = make_steps(path, avatars[1:])
    path.fails_at = None
    steps.hold(avatars[0])
    path.fails_at = "blend"
    expected = make_steps(CpuPath(), avatars).run(sources, FACES)()
    for _ in range(2):
        assert_same(steps.run(sources, FACES)(), expected)
    assert (steps.path, steps.fallbacks) == ("cpu", 2)


@pytest.mark.parametrize("error", [RuntimeError("broken"), NO_MEMORY])
@pytest.mark.parametrize("step", ["place", "resize", "blend"])
def test_a_failure_of_the_cpu_is_not_hidden(step, error, avatars, sources, monkeypatch):
    def broken(*arguments):
        raise error

    path = CpuPath()
    monkeypatch.setattr(path, step, broken)
    steps = make_steps(path)
    with pytest.raises(RuntimeError) as raised:
        for avatar in avatars:
            steps.hold(avatar)
        steps.run(sources, FACES)
    assert raised.value is error
    assert steps.fallbacks == 0


@pytest.mark.parametrize("sharpen", [None, Sharpen()])
def test_every_step_of_a_batch_is_timed_once(sharpen, avatars, sources):
    stats = StageStats(FakeClock())
    steps = make_steps(CpuPath(), avatars, sharpen, stats=stats)
    assert stats.summary(()) == {}
    for _ in range(3):
        steps.run(sources, FACES)()
    counts = {name: stage.count for name, stage in stats.summary(()).items()}
    assert counts == dict.fromkeys(
        ["resize", *([] if sharpen is None else ["sharpen"]), "blend", "download"], 3
    )
