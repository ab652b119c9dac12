"""Files that torch wrote: opened without running code from them, and without reading what they hold.

The numbers of a file in torch's zip format are mapped, so a tensor costs nothing until its elements are used,
whatever its shape and strides claim.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import torch

from musetalk_cli.budget import check_budget, is_out_of_memory
from musetalk_cli.errors import MuseTalkError
from musetalk_cli.nets.modules import quiet

_PICKLE_NAME = "data.pkl"
_PICKLE_BYTES = 1 << 20
_BYTES_PER_TENSOR = 512
_SAFETENSORS_HEADER = 4 << 20
_RECORDS, _BYTES_PER_RECORD = 4096, 512
"""A zip of tensors lists so many records more than it has tensors, at most, and so many bytes for each."""
_END, _LOCATOR, _END_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
_TAIL = _END.size + _LOCATOR.size + _END_64.size


class TorchFileError(Exception):
    """A file is not one of tensors; the message says it of the file: `FILE is truncated`."""


def open_torch(path: Path, kind: type[MuseTalkError], tensors: int = 4096) -> object:
    """The value a torch file holds, its tensors on the host and in the file's mapping where it is a zip.

    Args:
        path: The file.
        kind: What is raised where it is too large.
        tensors: How many tensors it may describe.

    Raises:
        OSError: It cannot be read.
        TorchFileError: It is truncated, compressed, describes too much, is no such file, or holds more than
            tensors in lists, tuples and mappings.
        MuseTalkError: It is too large for the budget; of the kind that is given.
    """
    with path.open("rb") as file:
        head = file.read(4)
    zipped = head.startswith(b"PK")
    if not head or (zipped and not zipfile.is_zipfile(path)):
        raise TorchFileError("is truncated")
    if zipped:
        _check_records(path, tensors)
    else:  # the old format cannot be mapped
        check_budget(path.stat().st_size, str(path), kind)
    try:
        with quiet():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        foreign = "GLOBAL" in str(error)
        said = "holds more than tensors" if foreign else "is not a file of tensors, or is truncated"
        raise TorchFileError(said) from error
    except Exception as error:  # a broken or hostile file raises whatever its operations raise
        if is_out_of_memory(error):
            raise
        raise TorchFileError("is not a file of tensors, or is truncated") from error


def check_safetensors_header(path: Path) -> None:
    """Refuse a safetensors file whose header is larger than any list of tensors.

    Raises:
        OSError: It cannot be read.
        TorchFileError: It is.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _SAFETENSORS_HEADER:
        raise TorchFileError(
            f"is no safetensors file, or has a header of more than {_SAFETENSORS_HEADER >> 20} MB"
        )


def _check_records(path: Path, tensors: int) -> None:
    """Refuse a zip that torch did not write, or whose description is not that of so many tensors."""
    size = path.stat().st_size
    records = _RECORDS + tensors
    if _directory_bytes(path, size) > _BYTES_PER_RECORD * records:
        raise TorchFileError(f"lists more than {records} records")
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise TorchFileError("is not a file of tensors, or is truncated") from None
    if len(listed) > records:
        raise TorchFileError(f"lists more than {records} records")
    most = _PICKLE_BYTES + _BYTES_PER_TENSOR * tensors
    for record in listed:
        # torch never compresses, and what is compressed may stand for any amount of memory.
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
            raise TorchFileError("is compressed, as torch writes no file")
        if Path(record.filename).name == _PICKLE_NAME and record.file_size > most:
            raise TorchFileError(f"describes more than {tensors} tensors")
    if sum(record.file_size for record in listed) > size:
        raise TorchFileError("claims to hold more than there is in it")


def _directory_bytes(path: Path, size: int) -> int:
    """Bytes that the list of a zip's records states to have, told by the end of the file.

    The list must end where its end begins, with nothing behind, so that every reader finds the same one.
    The layout: PKWARE's APPNOTE.TXT, 4.3.14 to 4.3.16.

    Raises:
        TorchFileError: It is no list that torch wrote.
    """
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    end, stop = tail[-_END.size :], size - _END.size
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if len(end) < _END.size or not end.startswith(b"PK\5\6"):
        raise TorchFileError("is not a file of tensors, or is truncated")
    length, begin, comment = _END.unpack(end)[5:]
    if locator.startswith(b"PK\6\7"):  # the numbers stand in a wider record before
        stop = size - _TAIL
        if len(tail) < _TAIL or not tail.startswith(b"PK\6\6") or _LOCATOR.unpack(locator)[2] != stop:
            raise TorchFileError("is not a file of tensors, or is truncated")
        length, begin = _END_64.unpack_from(tail)[8:]
    if comment or begin + length != stop:
        raise TorchFileError("is not a file of tensors, or is truncated")
    return int(length)
