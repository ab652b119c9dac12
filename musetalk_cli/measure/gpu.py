"""What NVIDIA's management library says of the GPU in use; nothing where it is not there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GpuUse:
    """How busy a GPU is, with everything that runs on it.

    Attributes:
        memory_bytes: Memory in use.
        memory_total_bytes: Memory it has.
        utilisation_percent: Share of the last moment in which it computed, or None where it does not tell: a
            part of a GPU.
    """

    memory_bytes: int
    memory_total_bytes: int
    utilisation_percent: int | None


class GpuMonitor:
    """Reads the use of the CUDA device a run computes on.

    The library (`nvidia-ml-py`, the extra `nvml`) is loaded at the first reading and stays so.

    Args:
        index: PyTorch's number of the device.
    """

    def __init__(self, index: int = 0) -> None:
        self._index = index
        self._opened = False
        self._nvml: Any = None
        self._handle: Any = None

    def read(self) -> GpuUse | None:
        """The use now; None without the library, the driver or a GPU, said once in the debug log."""
        if not self._opened:
            self._opened = True
            self._open()
        if self._handle is None:
            return None
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        except self._nvml.NVMLError as error:
            log.debug("The GPU's use is no longer known: %s", error)
            self._handle = None
            return None
        return GpuUse(int(memory.used), int(memory.total), self._utilisation())

    def _utilisation(self) -> int | None:
        try:
            return int(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
        except self._nvml.NVMLError:
            return None

    def _open(self) -> None:
        import torch

        if not torch.cuda.is_available():
            return
        try:
            import pynvml
        except ImportError:
            log.debug("The GPU's use is not known: pip install 'musetalk-cli[nvml]'")
            return
        try:
            pynvml.nvmlInit()
            self._nvml, self._handle = (
                pynvml,
                self._find(pynvml, torch.cuda.get_device_properties(self._index)),
            )
        except pynvml.NVMLError as error:
            log.debug("The GPU's use is not known: %s", error)

    def _find(self, nvml: Any, properties: object) -> object:  # noqa: ANN401 - a module without types
        """The library's handle of the device, whose number in CUDA can be another one."""
        for find, name in _names(nvml, properties):
            try:
                return find(name)
            except nvml.NVMLError as error:
                log.debug("The driver knows no GPU %s: %s", name, error)
        return nvml.nvmlDeviceGetHandleByIndex(self._index)


def _names(nvml: Any, properties: object) -> Iterator[tuple[Any, str]]:  # noqa: ANN401 - a module without types
    """What PyTorch tells of a device that the driver can find it by, and what finds it."""
    if (uuid := getattr(properties, "uuid", None)) is not None:
        yield nvml.nvmlDeviceGetHandleByUUID, f"GPU-{uuid}"
        yield nvml.nvmlDeviceGetHandleByUUID, f"MIG-{uuid}"
    parts = ("pci_domain_id", "pci_bus_id", "pci_device_id")
    if all(hasattr(properties, part) for part in parts):
        place = [getattr(properties, part) for part in parts]
        yield nvml.nvmlDeviceGetHandleByPciBusId, "{:08X}:{:02X}:{:02X}.0".format(*place)
