"""Triton's kernels on the pretended GPU: each is one launch, and Triton's interpreter does its work."""

import contextlib
import importlib
import types

import pytest
import torch

from .tensors import CPU, OnDevice


def specialised(argument):
    """For what of an argument Triton compiles a kernel anew."""
    if isinstance(argument, OnDevice):
        return str(argument.dtype), argument.inside.data_ptr() % 16 == 0
    if isinstance(argument, int):
        return "1" if argument == 1 else f"{argument.bit_length() // 32} {argument % 16 == 0}"
    return type(argument).__name__


class Kernel:
    """A kernel that is launched as on a real device: on tensors of the device alone.

    What it is compiled for is noted, and a device that has failed is told in Triton's words.
    """

    def __init__(self, name, interpreted):
        self.name = name
        self._interpreted = interpreted

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            tensors = [one for one in arguments if isinstance(one, torch.Tensor)]
            for place, one in enumerate(tensors):
                if not isinstance(one, OnDevice):
                    raise ValueError(
                        f"Pointer argument (at {place}) cannot be accessed from Triton (cpu tensor?)"
                    )
            OnDevice.gpu.compiled.add((self.name, *map(specialised, arguments), *options.items()))
            try:
                # what it does not read is given something else that it does
                given = {id(one): one.inside for one in tensors}
                OnDevice.gpu.launch(self.name, list(given.values()), [])
            except torch.AcceleratorError as error:
                said = str(error).splitlines()[0].removeprefix("CUDA error: ")
                raise RuntimeError(f"Triton Error [CUDA]: {said}") from None
            inside = [one.inside if isinstance(one, OnDevice) else one for one in arguments]

            def work():
                if OnDevice.gpu.inside == CPU:
                    self._interpreted[grid](*inside, **options)

            work()
            if OnDevice.gpu.tape is not None:
                OnDevice.gpu.tape.note(work, [one.inside for one in tensors], [])

        return launch


def interpreted(name):
    """The kernels of a module of the product, for the pretended GPU; skips where there is no Triton."""
    pytest.importorskip("triton", reason="no Triton here")
    from triton.runtime.interpreter import InterpretedFunction

    module = importlib.import_module(name)
    return types.SimpleNamespace(
        **{
            kernel: Kernel(kernel, function)
            for kernel, function in vars(module).items()
            if isinstance(function, InterpretedFunction) and not kernel.startswith("_")
        }
    )


@contextlib.contextmanager
def with_triton(*, norms=False):
    """The pretended GPU launches the product's kernels.

    Args:
        norms: Those of the networks too, which take the interpreter long.
    """
    kernels = interpreted("musetalk_cli.ops.compose_kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("musetalk_cli.ops.triton_ops.kernels", lambda: kernels)
        # each costs the interpreter milliseconds
        patch.setattr("musetalk_cli.ops.triton_ops.MOST_PROGRAMS", 3)
        if norms:
            of_networks = interpreted("musetalk_cli.ops.norm_kernels")
            patch.setattr("musetalk_cli.ops.norms.kernels", lambda: of_networks)
            patch.setattr("musetalk_cli.nets.fusion.TRIALS", ((32, 2),))
            if OnDevice.gpu.inside != CPU:  # nothing has numbers there, and a trial none to compare
                patch.setattr("musetalk_cli.nets.fusion._try", lambda *_: None)
        yield
