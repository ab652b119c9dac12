"""Zips of tensors: what their directory says is bounded before anything in them is read."""

import struct
import tracemalloc
import zipfile

import pytest
import torch

from musetalk_cli.errors import ModelError
from musetalk_cli.nets.torch_files import TorchFileError, open_torch


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "unet.pth"
    torch.save({"a": torch.arange(4.0)}, path)
    return path


def listing(path, records, name):
    """List many empty records more."""
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(records):
            archive.writestr(f"{name}{number}", b"")


def claiming(path, size):
    """Let the directory say that every record has another size."""
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\1\2")
    while at >= 0:
        data[at + 20 : at + 28] = struct.pack("<II", size, size)
        at = data.find(b"PK\1\2", at + 4)
    path.write_bytes(data)


def shifted(path, place, by):
    """Change a number in the end of the directory, counted from the end of the file."""
    data = bytearray(path.read_bytes())
    data[place] = (data[place] + by) % 256
    path.write_bytes(data)


def test_what_torch_or_another_program_wrote_is_read(path):
    assert torch.equal(open_torch(path, ModelError)["a"], torch.arange(4.0))
    listing(path, 1, "unet/more")
    assert torch.equal(open_torch(path, ModelError)["a"], torch.arange(4.0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: listing(path, 9_000, "a/"), "lists more than 8192 records"),
        (lambda path: claiming(path, 5_000), "claims to hold more than there is in it"),
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), "truncated"),
        (lambda path: path.write_bytes(b"PK\3\4" + path.read_bytes()), "truncated"),
        (lambda path: path.write_bytes(b"PK" + path.read_bytes()[-20:]), "truncated"),
        (lambda path: shifted(path, -2, 1), "truncated"),
        (lambda path: shifted(path, -34, 1), "truncated"),
        (lambda path: shifted(path, -58, 1), "truncated"),
        (lambda path: shifted(path, -97, 1), "truncated"),
    ],
    ids=["records", "sizes", "behind", "before", "end", "comment", "locator", "length", "wide"],
)
def test_a_directory_that_is_not_torchs_is_refused_unread(path, monkeypatch, change, said):
    change(path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(TorchFileError, match=said):
        open_torch(path, ModelError)


def test_a_directory_of_many_records_takes_no_memory(path):
    listing(path, 20_000, "a/" * 120)
    tracemalloc.start()
    try:
        with pytest.raises(TorchFileError, match="lists more than"):
            open_torch(path, ModelError)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
