"""What is large comes to the device beside the frames that are made, whole, and before anybody reads it."""

import inspect
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import passed_through

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import CpuPath, GpuPath
from musetalk_cli.engine.image_steps import ImageSteps, SourceFrame
from musetalk_cli.engine.pinned import PinnedSlots
from musetalk_cli.engine.uploads import ALIGNED, Uploads, places_of
from musetalk_cli.measure.stages import StageStats
from pretended.cuda import pretended_gpu
from pretended.device import POISON, Pace
from pretended.kernels import with_triton
from pretended.speaking import apart, make_engine, speak

CUDA = torch.device("cuda")


def arrays(seed=0):
    random = np.random.default_rng(seed)
    shapes = [(7, 5, 3), (1,), (64, 48, 3), (33, 2), (5, 5)]
    made = [random.integers(0, 256, shape, np.uint8) for shape in shapes]
    return [*made, np.swapaxes(made[2], 0, 1), random.standard_normal((3, 4)).astype(np.float32)]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("staged", [16, 100, 4096, 1 << 22])
def test_arrays_lie_in_one_allocation_at_their_places(gpu, device, staged):
    given = arrays()
    places, size = places_of(given)
    packed = Uploads(torch.device(device), staged).pack(given)
    assert (packed.dtype, packed.shape, packed.device.type) == (torch.uint8, (size,), device)
    host = packed.cpu().numpy()
    for at, array in zip(places, given, strict=True):
        assert at % ALIGNED == 0
        assert host[at : at + array.nbytes].tobytes() == np.ascontiguousarray(array).tobytes()


def test_an_upload_that_fails_leaves_no_copy_on_its_way_to_memory_that_is_free_again(gpu, monkeypatch):
    pin, pinned = gpu.pin, []

    def once(tensor):
        if pinned:
            raise RuntimeError("CUDA error: out of memory")
        pinned.append(tensor)
        return pin(tensor)

    monkeypatch.setattr(gpu, "pin", once)
    with pytest.raises(RuntimeError, match="out of memory"):
        Uploads(CUDA, 1000).pack(arrays())
    assert pinned
    assert all(gpu.has_passed(mark) for mark in gpu.marks())


def test_two_pinned_buffers_of_bounded_size_serve_any_number_of_bytes(gpu, monkeypatch):
    sizes = []
    pin = gpu.pin

    def counted(tensor):
        sizes.append(tensor.nbytes)
        return pin(tensor)

    monkeypatch.setattr(gpu, "pin", counted)
    uploads = Uploads(CUDA, 1000)
    for seed in range(3):
        uploads.pack(arrays(seed))
    assert sizes == [1000, 1000]


def test_a_buffer_filled_again_before_its_copy_has_passed_is_a_race(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda.Event, "synchronize", lambda event: None)
    with pytest.raises(RuntimeError, match=r"race: .*_send \(.*uploads.py"):
        Uploads(CUDA, 64).pack(arrays())
        torch.cuda.synchronize()


def test_an_avatar_that_is_not_waited_for_spoils_frames(gpu, on_gpu, on_cpu, avatars, monkeypatch):
    """What `hold` returns too early is poison on the device."""
    pack = Uploads.pack
    expected = speak(make_engine(on_cpu), avatars[0], seconds=0.2)

    def early(self, arrays):
        if arrays[0].dtype != np.uint8:  # index tables of poison would be refused
            return pack(self, arrays)
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda.Event, "synchronize", lambda event: None)
            return pack(self, arrays)

    monkeypatch.setattr(Uploads, "pack", early)
    assert apart(speak(make_engine(on_gpu()), avatars[0], seconds=0.2), expected) > 50
    assert POISON > 50


def steps_with(avatar, stats=None):
    steps = ImageSteps(
        GpuPath(CUDA, sharpen=Sharpen()), CUDA, torch.float16, Sharpen(), stats or StageStats()
    )
    steps.hold(avatar)
    return steps


def test_an_avatar_is_one_allocation_of_which_its_parts_are_views(gpu):
    avatar = passed_through(synthetic_avatar(160, 120, 64, 5), {1, 4})
    placed = GpuPath(CUDA).place(avatar)
    assert [one is None for one in placed] == [False, True, False, False, True]
    targets = [one for one in placed if one is not None]
    store = targets[0].store
    host = store.cpu().numpy()
    for one, expected in zip(targets, [one for one in CpuPath().place(avatar) if one], strict=True):
        assert one.store is store
        assert one.face == expected.face
        for view, at, array in (
            (one.body, one.body_at, expected.body),
            (one.mask, one.mask_at, expected.mask),
        ):
            assert view.storage_offset() == at
            assert np.array_equal(view.cpu().numpy(), array)
            assert np.array_equal(host[at : at + array.size].reshape(array.shape), array)


def test_latents_come_in_the_networks_format(gpu):
    avatar = synthetic_avatar(160, 120, 64, 3)
    latents = steps_with(avatar).latents([SourceFrame(avatar, 2), SourceFrame(avatar, 0)])
    assert torch.equal(torch.stack(latents).cpu(), avatar.latents[[2, 0]].half())


@pytest.mark.parametrize("pace", [Pace.LATE, Pace.EARLY])
def test_the_loop_copies_no_avatar_and_waits_for_none(guard_folder, on_gpu, avatars, pace):
    """One comes while another speaks: all that goes up meanwhile goes up in the thread that opens it."""
    with pretended_gpu(guard_folder, pace) as gpu:
        engine = make_engine(on_gpu())
        speak(engine, avatars[0], seconds=0.2)
        sent = []
        copy_up = gpu.copy_up

        def noted(target, source):
            sent.append((threading.current_thread(), source.nbytes))
            copy_up(target, source)

        gpu.copy_up = noted
        opener = threading.Thread(target=engine.images.hold, args=(avatars[1],))
        opener.start()
        opener.join()
        assert {thread for thread, _ in sent} == {opener}
        assert sum(size for _, size in sent) >= avatars[1].memory().device_bytes
        sent.clear()
        spoken = speak(engine, avatars[1], seconds=0.2)
        assert len({size for _, size in sent}) == 1, "windows of sound, and nothing else"
        assert not [wait for wait in spoken.waits if wait.by.file == "engine/uploads.py"]


# -- what an avatar needs is made where it is opened -------------------------------------------------------


def test_index_tables_come_beside_the_frames_that_are_made(gpu):
    """Through pinned memory, on the stream of uploads; nothing is computed for them."""
    placed = GpuPath(CUDA, sharpen=Sharpen(sigma=1.3)).place(synthetic_avatar(160, 120, 61, 3))
    assert placed[0].tables
    assert set(gpu.launches) == {"copy_"}
    assert {wait.by.file for wait in gpu.waits} == {"engine/uploads.py"}


@pytest.mark.parametrize("has_triton", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_loop_pins_no_memory_though_an_avatar_has_far_larger_faces_than_all_before(
    guard_folder, on_gpu, avatars, has_triton
):
    larger = synthetic_avatar(160, 120, 72, 2)
    with pretended_gpu(guard_folder) as gpu, with_triton() if has_triton else nullcontext():
        engine = make_engine(on_gpu())
        speak(engine, avatars[0], seconds=0.2)
        pinned, pin = [], gpu.pin

        def noted(tensor):
            pinned.append({Path(frame.filename).name for frame in inspect.stack(0)})
            return pin(tensor)

        def opened(*arguments, start=engine.open):
            session = start(*arguments)
            assert pinned
            pinned.clear()
            return session

        gpu.pin, engine.open = noted, opened
        speak(engine, larger, seconds=0.3)
    # the windows of sound come through more buffers as the device falls behind
    assert [files for files in pinned if "staging.py" not in files] == []


def test_what_a_slot_pins_ahead_it_takes_in_its_turn_and_keeps(gpu):
    slots, small = PinnedSlots(2), torch.arange(8, dtype=torch.uint8, device=CUDA)
    first = slots.send(small)
    slots.reserve(1000)
    assert first().tolist() == list(range(8)), "what is on its way stays where it is"
    large = torch.arange(250, dtype=torch.uint8, device=CUDA)
    slots.reserve(10)
    fetched = [slots.send(large) for _ in range(2)]
    assert all(one().tolist() == list(range(250)) for one in fetched)
    assert {buffer.numel() for buffer in slots._buffers} == {1000}  # noqa: SLF001 - what is pinned


@pytest.mark.parametrize("has_triton", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_avatar_too_large_for_the_device_leaves_the_others_there(
    guard_folder, on_gpu, avatars, expected, caplog, monkeypatch, has_triton
):
    with pretended_gpu(guard_folder), with_triton() if has_triton else nullcontext():
        engine = make_engine(on_gpu())
        path = engine.images._path  # noqa: SLF001 - to leave it no memory
        place = path.place

        def scarce(avatar):
            if avatar is avatars[1]:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return place(avatar)

        monkeypatch.setattr(path, "place", scarce)
        spoken = speak(engine, *avatars)
    assert apart(spoken, expected) <= 1
    assert (engine.images.path, engine.images.fallbacks) == ("gpu", 1)
    assert caplog.text.count("whose image steps are done on the CPU: CUDA out of memory") == 1
    patches = ("engine/pinned.py", "fetch")
    assert {(wait.by.file, wait.by.function) for wait in spoken.waits} == {patches}
