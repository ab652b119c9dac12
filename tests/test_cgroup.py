"""Limits of both versions of cgroups, as files say them, from the own group up."""

import os

import pytest

from musetalk_cli import cgroup
from musetalk_cli.budget import VARIABLE, machine_memory, memory_budget
from musetalk_cli.doctor.machine import find_cores, find_memory

MIB = 1 << 20
NONE_V1 = "9223372036854771712"
"""How version 1 says that there is no limit."""

MEMORY = {
    "v2 in a container": ("0::/", {"memory.max": 512, "memory.current": 300, "memory.stat": 100}),
    "v1 in a container": (
        "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc",  # a path of the host, which is not there
        {
            "memory/memory.limit_in_bytes": 512,
            "memory/memory.usage_in_bytes": 300,
            "memory/memory.stat": 100,
        },
    ),
    "v2 of a service": ("0::/a/b", {"a/memory.max": 512, "a/memory.current": 300, "a/memory.stat": 100}),
    "v1 of a service": (
        "4:memory:/a",
        {
            "memory/memory.limit_in_bytes": NONE_V1,
            "memory/memory.usage_in_bytes": 9000,
            "memory/a/memory.limit_in_bytes": 512,
            "memory/a/memory.usage_in_bytes": 300,
            "memory/a/memory.stat": 100,
        },
    ),
    "the least of two": (
        "0::/a/b",
        {
            "a/memory.max": 512,
            "a/memory.current": 300,
            "a/memory.stat": 100,
            "a/b/memory.max": 700,
            "a/b/memory.current": 10,
        },
    ),
    "another group": (
        "0::/../a",
        {"a/memory.max": 512, "a/memory.current": 300, "a/memory.stat": 100, "c/memory.max": 1},
    ),
}


def group(monkeypatch, folder, own, files):
    """Files of groups, sizes in MiB; of `memory.stat` what is kept only to be read again."""
    for name, value in files.items():
        path = folder / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = str(value * MIB) if isinstance(value, int) else value
        if name.endswith("memory.stat"):
            text = f"anon 5\ninactive_file {text}\ntotal_inactive_file {text}\nunevictable 0"
        path.write_text(f"{text}\n")
    (folder / "own").write_text(f"{own}\n")
    monkeypatch.setattr(cgroup, "ROOT", folder / "fs")
    monkeypatch.setattr(cgroup, "OWN", folder / "own")


@pytest.mark.parametrize("case", MEMORY)
def test_a_limit_of_memory_is_the_budgets_and_the_doctors(case, monkeypatch, tmp_path):
    group(monkeypatch, tmp_path, *MEMORY[case])
    monkeypatch.delenv(VARIABLE, raising=False)
    assert machine_memory() == 512 * MIB
    assert memory_budget() == 256 * MIB
    assert find_memory() == (512 * MIB, (512 - 300 + 100) * MIB)


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/", {}),
        ("0::/", {"memory.max": "max", "memory.current": 9, "cpu.max": "max 100000"}),
        ("4:memory:/\n1:cpu:/", {"memory/memory.limit_in_bytes": NONE_V1, "cpu/cpu.cfs_quota_us": "-1"}),
        ("nonsense", {"memory.max": "\u00b2", "cpu.max": "1"}),
        ("", {"cpu.max": "100000 0"}),
    ],
)
def test_without_a_limit_it_is_the_machine(own, files, monkeypatch, tmp_path):
    group(monkeypatch, tmp_path, own, files)
    assert machine_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert find_cores().quota is None
    total, free = find_memory()
    assert 0 < free <= total == machine_memory()


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/", {"cpu.max": "150000 100000"}),
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "200000 100000"}),
        (
            "1:cpu,cpuacct:/a",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "75000", "cpu,cpuacct/a/cpu.cfs_period_us": "50000"},
        ),
        ("1:cpu,cpuacct:/gone", {"cpu/cpu.cfs_quota_us": "75000", "cpu/cpu.cfs_period_us": "50000"}),
    ],
)
def test_a_limit_of_cores(own, files, monkeypatch, tmp_path):
    group(monkeypatch, tmp_path, own, files)
    assert find_cores().quota == 1.5
