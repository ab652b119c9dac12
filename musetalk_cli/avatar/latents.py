"""The file of an avatar's latents: float32, or float16 at half the size; float32 in memory always."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musetalk_cli import strict_json
from musetalk_cli.avatar.data import LATENT_SHAPE
from musetalk_cli.avatar.layout import LatentsFormat
from musetalk_cli.avatar.links import check_inside
from musetalk_cli.errors import AvatarError
from musetalk_cli.media.digest import digest_of

LATENTS_FILE, LATENTS_KEY = "latents.safetensors", "latents"
_STORED: dict[str, LatentsFormat] = {"F32": "fp32", "F16": "fp16"}
_TYPES: dict[LatentsFormat, type[np.floating]] = {"fp32": np.float32, "fp16": np.float16}


def to_stored(latents: NDArray[np.floating], kind: LatentsFormat, first: int) -> NDArray[np.floating]:
    """Latents in the format they are stored in, in C order.

    Args:
        latents: `[k, 8, 32, 32]`.
        kind: The format.
        first: Number of the frame the first ones belong to.

    Raises:
        AvatarError: They have another shape, hold a number that is not finite, or one beyond float16's 65504.
    """
    if latents.shape[1:] != LATENT_SHAPE:
        raise AvatarError(f"Latents have the shape {list(latents.shape)}, not [k, 8, 32, 32].")
    if (bad := _not_finite(latents)) is not None:
        raise AvatarError(f"The latents of frame {first + bad} are not finite.")
    # In C order: safetensors stores memory as it lies, and the networks' outputs may lie otherwise.
    with np.errstate(over="ignore"):
        stored = np.array(latents, _TYPES[kind], order="C")
    if (bad := _not_finite(stored)) is not None:
        raise AvatarError(
            f"The latents of frame {first + bad} are too large for {kind}.", "Use --latents fp32."
        )
    return stored


class LatentsFile:
    """The file of an avatar's latents, open for writing; rows never written are zeros.

    A file of that name and size is gone on with, so that an interrupted preparation can resume. Memory does
    not grow with the number of frames.

    Args:
        folder: Folder of the file.
        frames: Rows it has.
        kind: The format the latents are stored in.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, frames: int, kind: LatentsFormat) -> None:
        self._kind = kind
        self._frames = frames
        self._row_bytes = math.prod(LATENT_SHAPE) * np.dtype(_TYPES[kind]).itemsize
        header = _header(frames, kind, frames * self._row_bytes)
        self._start = len(header)
        path, size = folder / LATENTS_FILE, self._start + frames * self._row_bytes
        known = path.is_file() and path.stat().st_size == size
        self._file = path.open("r+b" if known else "w+b")
        if not known or self._file.read(self._start) != header:
            self._file.seek(0)
            self._file.truncate(0)
            self._file.write(header)
            self._file.truncate(size)

    def __enter__(self) -> LatentsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, first: int, latents: NDArray[np.floating]) -> None:
        """Write rows: `[k, 8, 32, 32]`, those of the frames `first` and following.

        Raises:
            AvatarError: They have another shape, are not finite, or too large for the format.
            ValueError: The file has not so many rows.
            OSError: They cannot be written.
        """
        if not 0 <= first <= first + len(latents) <= self._frames:
            raise ValueError(f"rows {first}..{first + len(latents)} are outside 0..{self._frames}")
        rows = to_stored(latents, self._kind, first)
        self._file.seek(self._start + first * self._row_bytes)
        self._file.write(rows.astype(rows.dtype.newbyteorder("<")).tobytes())
        self._file.flush()


def _header(frames: int, kind: LatentsFormat, size: int) -> bytes:
    """The head of a safetensors file: the length of its JSON in 8 bytes, and that JSON, filled to 8 bytes."""
    dtype = next(stored for stored, known in _STORED.items() if known == kind)
    entry = {"dtype": dtype, "shape": [frames, *LATENT_SHAPE], "data_offsets": [0, size]}
    text = strict_json.dump({LATENTS_KEY: entry}, compact=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_latents(folder: Path, frames: int, hint: str, sha256: str | None = None) -> NDArray[np.float32]:
    """Read and check the file: float32 `[frames, 8, 32, 32]`, finite, and with the digest if it is known.

    Raises:
        AvatarError: It is missing, broken, of another format or shape, a number is not finite, or it has
            another digest; the error has the hint that is given.
    """
    with _opened(folder, frames, hint) as (file, _):
        latents = np.asarray(file.get_tensor(LATENTS_KEY), np.float32)
    if (bad := _not_finite(latents)) is not None:
        raise AvatarError(f"The latents of frame {bad} are not finite.", hint)
    if sha256 not in {None, digest_of([folder / LATENTS_FILE])}:
        raise AvatarError(f"{LATENTS_FILE} is not as it was written: it was damaged or replaced.", hint)
    return latents


def read_format(folder: Path, frames: int, hint: str) -> LatentsFormat:
    """The format of the file, told by its header.

    Raises:
        AvatarError: It is missing, broken, or of another format or shape; the error has the hint.
    """
    with _opened(folder, frames, hint) as (_, kind):
        return kind


@contextmanager
def _opened(folder: Path, frames: int, hint: str) -> Iterator[tuple[Any, LatentsFormat]]:
    """The file, once its header has shown one tensor of a known format and of the wanted shape."""
    from safetensors import SafetensorError, safe_open

    from musetalk_cli.nets.torch_files import TorchFileError, check_safetensors_header

    path, shape = folder / LATENTS_FILE, [frames, *LATENT_SHAPE]
    try:
        if not path.is_file():
            raise AvatarError(f"{LATENTS_FILE} is missing.", hint)
        check_inside(folder, path)
        check_safetensors_header(path)
        with safe_open(path, framework="np") as file:
            if list(file.keys()) != [LATENTS_KEY]:
                raise AvatarError(f"{LATENTS_FILE} does not hold one tensor named {LATENTS_KEY}.", hint)
            view = file.get_slice(LATENTS_KEY)
            kind = _STORED.get(view.get_dtype())
            if kind is None or list(view.get_shape()) != shape:
                found = f"{view.get_dtype()} {list(view.get_shape())}"
                raise AvatarError(f"{LATENTS_FILE} holds {found}, not F32 or F16 {shape}.", hint)
            yield file, kind
    except (SafetensorError, TorchFileError, OSError) as error:
        raise AvatarError(f"{LATENTS_FILE} cannot be read: {error}.", hint) from error


def _not_finite(latents: NDArray[np.floating]) -> int | None:
    """The first row that holds a number that is not finite, or None."""
    finite = np.isfinite(latents).reshape(len(latents), -1).all(axis=1)
    return None if finite.all() else int(np.argmin(finite))
