import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from musetalk_cli.measure.gpu import GpuMonitor, GpuUse

UUID = "8f6d2a3c-1b5e-4c7a-9d0f-2e4b6a8c0d1f"
GIB = 2**30


class Nvml:
    """Pynvml's part that is used, for two GPUs; the driver numbers them as they lie on the bus."""

    class NVMLError(Exception):
        pass

    def __init__(self, uuids=("GPU-other", f"GPU-{UUID}"), driver=True, refused=()):
        self.gpus = [
            SimpleNamespace(uuid=uuid, bus=f"00000000:{slot:02X}:00.0", used=used * GIB, gpu=percent)
            for uuid, slot, used, percent in zip(uuids, (0x1A, 0xC7), (1, 20), (5, 80), strict=True)
        ]
        self.driver = driver
        self.refused = set(refused)
        self.begun = 0

    def nvmlInit(self):  # noqa: N802
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")
        self.begun += 1

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return self._find("uuid", uuid)

    def nvmlDeviceGetHandleByPciBusId(self, pciBusId):  # noqa: N802, N803
        return self._find("bus", pciBusId)

    def nvmlDeviceGetMemoryInfo(self, handle, version=None):  # noqa: N802
        self._check("memory")
        return SimpleNamespace(total=80 * GIB, free=80 * GIB - handle.used, used=handle.used)

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        self._check("utilisation")
        return SimpleNamespace(gpu=handle.gpu, memory=3)

    def _find(self, by, name):
        assert self.begun
        for gpu in self.gpus:
            if getattr(gpu, by) == name:
                return gpu
        raise self.NVMLError("Not Found")

    def _check(self, what):
        assert self.begun
        if what in self.refused:
            raise self.NVMLError("Not Supported")


@pytest.fixture
def machine(monkeypatch):
    """Gives PyTorch one GPU with some properties, and the library."""

    def make(nvml, **properties):
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(**properties))
        return nvml

    return make


FIRST, SECOND = GpuUse(1 * GIB, 80 * GIB, 5), GpuUse(20 * GIB, 80 * GIB, 80)
PLACE = {"pci_domain_id": 0, "pci_bus_id": 0xC7, "pci_device_id": 0}


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"uuid": UUID}, SECOND),
        ({"uuid": UUID} | PLACE | {"pci_bus_id": 0x1A}, SECOND),
        ({"uuid": "unknown"} | PLACE, SECOND),
        (PLACE, SECOND),
        ({"uuid": "unknown"}, FIRST),
        ({}, FIRST),
    ],
)
def test_the_gpu_is_found_though_cuda_numbers_it_differently(properties, expected, machine):
    machine(Nvml(), **properties)
    assert GpuMonitor(0).read() == expected


def test_a_part_of_a_gpu_tells_its_memory_only(machine):
    machine(Nvml(("GPU-whole", f"MIG-{UUID}"), refused=["utilisation"]), uuid=UUID)
    assert GpuMonitor().read() == GpuUse(20 * GIB, 80 * GIB, None)


def test_the_library_is_opened_once(machine):
    nvml = machine(Nvml(), uuid=UUID)
    monitor = GpuMonitor()
    assert nvml.begun == 0
    assert monitor.read() == SECOND
    nvml.gpus[1].used = 21 * GIB
    assert monitor.read() == GpuUse(21 * GIB, 80 * GIB, 80)
    assert nvml.begun == 1


def test_a_gpu_that_is_lost_is_no_failure(machine, caplog):
    nvml = machine(Nvml(), uuid=UUID)
    monitor = GpuMonitor()
    assert monitor.read() == SECOND
    nvml.refused = {"memory", "utilisation"}
    with caplog.at_level(logging.DEBUG):
        assert [monitor.read() for _ in range(3)] == [None] * 3
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


@pytest.mark.parametrize("lacking", ["library", "driver", "gpu"])
def test_where_there_is_nothing_to_read_nothing_is_said_aloud(lacking, machine, monkeypatch, caplog):
    nvml = machine(Nvml(driver=lacking != "driver"), uuid=UUID)
    if lacking == "library":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    if lacking == "gpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monitor = GpuMonitor()
    with caplog.at_level(logging.DEBUG):
        assert [monitor.read() for _ in range(3)] == [None] * 3
    assert nvml.begun == 0
    assert {record.levelno for record in caplog.records} <= {logging.DEBUG}
    assert len(caplog.records) <= 1
    if lacking == "library":
        assert "musetalk-cli[nvml]" in caplog.text


def test_the_stand_in_has_the_interface_of_the_library():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    import inspect

    assert issubclass(pynvml.NVMLError, Exception)
    for name in (name for name in vars(Nvml) if name.startswith("nvml")):
        own = list(inspect.signature(getattr(Nvml, name)).parameters)[1:]
        assert list(inspect.signature(getattr(pynvml, name)).parameters) == own, name
    for structure, fields in (
        (pynvml.c_nvmlMemory_t, {"total", "free", "used"}),
        (pynvml.c_nvmlUtilization_t, {"gpu", "memory"}),
    ):
        assert fields <= {name for name, *_ in structure._fields_}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_real_library_without_a_driver(monkeypatch):
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="none"))
    assert GpuMonitor().read() is None
