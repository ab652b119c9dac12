"""Tensors of the pretended GPU, and what each operator does with them."""

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
READ_BY_THE_HOST = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique", "_unique2"),
    *("unique_consecutive", "repeat_interleave"),
}
"""Operators whose result, or its shape, the host has to know."""
LAUNCHES_NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class DeviceMismatchError(RuntimeError):
    """Tensors of host and device met in one operator."""


class OnDevice(torch.Tensor):
    """A tensor on `cuda:0` to all who ask.

    Attributes:
        gpu: The pretended GPU there is now.
        inside: The host's tensor that holds the numbers.
    """

    gpu = None

    @staticmethod
    def __new__(cls, inside):
        """Wrap a host tensor, with its sizes and strides."""
        self = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - the only way to say where
            cls,
            inside.size(),
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            layout=inside.layout,
            device=CUDA,
        )
        self.inside = inside
        return self

    def __repr__(self, *, tensor_contents=None):
        return f"OnDevice({self.inside!r})"

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copied = self.clone()
            memo[id(self)] = torch.nn.Parameter(copied, False) if _is_weight(self) else copied
        return memo[id(self)]

    def __tensor_flatten__(self):
        """With its opposite, so that PyTorch replaces a network's weight as a whole, with what is inside."""
        return ["inside"], None

    @staticmethod
    def __tensor_unflatten__(parts, context, size, stride):
        return OnDevice(parts["inside"])

    def data_ptr(self):
        """An address by which a kernel finds the numbers, as a real device's does."""
        return self.inside.data_ptr()

    def numpy(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return operate(cls.gpu, func, args, kwargs or {})


def _is_weight(tensor):
    return isinstance(tensor, torch.nn.Parameter)


class Everywhere(TorchDispatchMode):
    """Sees also what makes tensors of the device and moves others to it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return operate(OnDevice.gpu, func, args, kwargs or {})


class Calls(TorchFunctionMode):
    """Sees calls before they become operators.

    Attention stays whole, since a real device does it in one launch. What `torch.tensor` makes is moved by an
    operator, which it hides otherwise.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention and isinstance(args[0], OnDevice):
            return operate(OnDevice.gpu, torch.ops.aten.scaled_dot_product_attention.default, args, kwargs)
        if func in {torch.tensor, torch.as_tensor} and is_cuda(kwargs.get("device")):
            return func(*args, **{**kwargs, "device": CPU}).to(CUDA)
        return func(*args, **kwargs)


def is_cuda(device):
    """True where a device, or its name, is a GPU's."""
    return device is not None and torch.device(device).type == "cuda"


def operate(gpu, func, args, kwargs):
    """Do what an operator does on host and device."""
    name = func.name().split("::")[1].split(".")[0]
    tensors = _tensors_of((*args, *kwargs.values()))
    if name == "is_pinned":
        return not isinstance(args[0], OnDevice) and gpu.is_pinned(args[0])
    if name == "copy_":
        return _copy(gpu, *args, **kwargs)
    if name == "_to_copy" and "device" in kwargs:
        return _move(gpu, func, args[0], **kwargs)
    if any(isinstance(tensor, OnDevice) for tensor in tensors):
        return _compute(gpu, func, name, tensors, args, kwargs)
    return _make(gpu, func, name, args, kwargs)


def _make(gpu, func, name, args, kwargs):
    """An operator without a tensor of the device: it makes one, or pins memory, or is the host's."""
    if is_cuda(kwargs.get("device")):
        kwargs = {**kwargs, "device": gpu.inside}
        made = func(*args, **kwargs)
        _count(gpu, func, name, [], [made])
        _note(gpu, func, name, args, kwargs, [], [made])
        return OnDevice(made)
    if name == "_pin_memory":
        return gpu.pin(args[0].clone())
    if kwargs.get("pin_memory"):
        return gpu.pin(func(*args, **{**kwargs, "pin_memory": False}))
    return func(*args, **kwargs)


def _count(gpu, func, name, read, written):
    if not func.is_view and name not in LAUNCHES_NOTHING:
        gpu.launch(name, read, written)


def _note(gpu, func, name, args, kwargs, read, made):
    """Put an operator on the tape of a capture, if there is one; a view sees what is made in its place."""
    if gpu.tape is None or func.is_view or torch.Tag.inplace_view in func.tags:
        return
    made = [tensor.detach() for tensor in made]  # in the shape that they have now

    def again():
        if name not in LAUNCHES_NOTHING:
            for old, new in zip(made, _tensors_of([func(*args, **kwargs)]), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    gpu.tape.note(again, read, made)


def _copy(gpu, target, source, non_blocking=False):
    """Copy within the device, or between it and the host."""
    up, down = isinstance(target, OnDevice), isinstance(source, OnDevice)
    inside, outside = (target.inside if up else target), (source.inside if down else source)
    if up or down:
        gpu.launch("copy_", [outside], [inside])
    if up == down:
        inside.copy_(outside)
        if gpu.tape is not None:
            gpu.tape.note(lambda: inside.copy_(outside), [outside, inside], [])
    elif non_blocking and gpu.is_pinned(source if up else target):
        (gpu.copy_up if up else gpu.copy_down)(inside, outside)
    else:
        gpu.wait("a copy from pageable memory" if up else "a copy to pageable memory")
        inside.copy_(outside)
    return target


def _move(gpu, func, source, *, device, non_blocking=False, **kwargs):
    """`Tensor.to` with a device: a new tensor, and a copy."""
    to_device, on_device = is_cuda(device), isinstance(source, OnDevice)
    if not to_device and not on_device:
        return func(source, device=device, non_blocking=non_blocking, **kwargs)
    inside = source.inside if on_device else source
    target = torch.empty_like(
        inside,
        dtype=kwargs.get("dtype"),
        device=gpu.inside if to_device else device,
        memory_format=kwargs.get("memory_format"),
    )
    if to_device:
        return _copy(gpu, OnDevice(target), source, non_blocking)
    # as PyTorch: what is not waited for goes to pinned memory
    return _copy(gpu, gpu.pin(target) if non_blocking else target, source, non_blocking)


def _compute(gpu, func, name, tensors, args, kwargs):
    """An operator on the device."""
    from_host = [tensor for tensor in tensors if not isinstance(tensor, OnDevice)]
    if any(tensor.dim() for tensor in from_host):  # numbers may come from the host
        shapes = [tuple(tensor.shape) for tensor in from_host]
        raise DeviceMismatchError(
            f"Expected all tensors to be on the same device, but {func} found cuda:0 and cpu {shapes}"
        )
    if name in READ_BY_THE_HOST:
        gpu.wait(name)
    if name in INDEXING and any(leaf.dtype == torch.bool for leaf in _tensors_of(args[1])):
        gpu.wait("a boolean mask")
    shells = {id(tensor.inside): tensor for tensor in tensors if isinstance(tensor, OnDevice)}

    def open_shell(leaf):
        if isinstance(leaf, torch.device):
            return gpu.inside
        return leaf.inside if isinstance(leaf, OnDevice) else leaf

    def close_shell(leaf):
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return shells[id(leaf)] if id(leaf) in shells else OnDevice(leaf)

    opened = _each(open_shell, args), {key: _each(open_shell, value) for key, value in kwargs.items()}
    result = _in_layout(name, tensors, func(*opened[0], **opened[1]))
    read, made = [_each(open_shell, tensor) for tensor in tensors], _tensors_of([result])
    _count(gpu, func, name, read, made)
    _note(gpu, func, name, *opened, read, made)
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():  # the shell takes the new shape too
            func(*args, **kwargs)
    return _each(close_shell, result)


def _in_layout(name, tensors, result):
    """A result in the memory layout that a GPU's library gives it, which without numbers nobody looks at."""
    if name == "convolution" and any(map(_is_channels_last, tensors[:2])):
        return result.contiguous(memory_format=torch.channels_last)
    if name == "scaled_dot_product_attention":
        return result.transpose(1, 2).contiguous().transpose(1, 2)
    return result


def _is_channels_last(tensor):
    """True where the strides of `[N, C, H, W]` say so, also of a 1x1 weight, which is contiguous besides."""
    return tensor.dim() == 4 and tensor.stride(1) == 1 and tensor.stride(3) == tensor.shape[1]


def _each(change, value):
    """A value of an operator's schema with all in it changed; there is nothing deeper than lists in it."""
    if isinstance(value, (list, tuple)):
        return type(value)([_each(change, one) for one in value])
    return change(value)


def _tensors_of(values):
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors_of(value)
    return found
