"""DWPose through onnxruntime: the whole-body keypoints of a person, those of the face among them."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from musetalk_cli.errors import ModelError, first_line
from musetalk_cli.types import Box, Image

log = logging.getLogger(__name__)

KEYPOINTS = 133
"""Points of a person: 17 of the body, 6 of the feet, 68 of the face, 21 of each hand."""
FACE = slice(23, 91)
"""Those of the face, in the 68-point order."""

_WIDTH, _HEIGHT = 288, 384
_SPLIT = 2
"""Bins of an answer for each pixel of the input."""
_PADDING = 1.25
"""How much larger than the person the part of the frame is that the network sees."""
_MEAN = np.array((123.675, 116.28, 103.53), np.float32)
_STD = np.array((58.395, 57.12, 57.375), np.float32)
"""Of red, green and blue, each in 0..255."""
_AT_ONCE = 16
"""Most people of one run where the network takes any number."""

_ERRORS_ONLY, _NOTHING = 3, 4
"""Severities of onnxruntime's log."""
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed:)?")
_AGAIN = "Remove it and run `musetalk models download dwpose`."


class Dwpose:
    """The network, open; calling it changes nothing.

    The network and its surroundings are RTMPose's (arXiv:2303.07399) as DWPose's published configuration
    sets them: a top-down estimator that answers in SimCC form (arXiv:2107.03332), one row of bins for x
    and one for y. mmpose with that configuration also averages in the answer for the mirrored picture,
    which is not done here.

    Args:
        path: `dw-ll_ucoco_384.onnx` or a network with the same inputs and outputs: float32
            `[B, 3, 384, 288]` to `[B, 133, 576]` and `[B, 133, 768]`, whatever their names and their order.
        device: `cpu` or `cuda`; where onnxruntime has no CUDA, the CPU is used.

    Raises:
        ModelError: onnxruntime is not installed, or the file is no such network.
    """

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._onnxruntime = _import_onnxruntime()
        self._session = self._open(device)
        self._input, declared = self._only_input()
        self._size = self._find_size(declared)

    def __call__(
        self, frames: Sequence[Image], people: Sequence[Box]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Find the keypoints of one person in each frame.

        Args:
            frames: uint8 `[height, width, 3]` BGR each, of any sizes.
            people: One box per entry of `frames`, in its pixels; it may leave the frame.

        Returns:
            Points float64 `[B, 133, 2]`, x and y in pixels of their frame, which they may leave, and scores
            float32 `[B, 133]`, 0 or more and no probability: 0 where the network sees no such point, whose
            location then means nothing.

        Raises:
            ModelError: The network failed.
            ValueError: There are not as many boxes as frames, or a box is empty.
        """
        if len(frames) != len(people):
            raise ValueError(f"{len(frames)} frames need as many boxes, not {len(people)}")
        if any(box.empty for box in people):
            raise ValueError("a person's box is empty")
        points = np.zeros((len(frames), KEYPOINTS, 2), np.float64)
        scores = np.zeros((len(frames), KEYPOINTS), np.float32)
        step = self._size or _AT_ONCE
        for start in range(0, len(frames), step):
            part = slice(start, start + step)
            points[part], scores[part] = self._answer(frames[part], people[part])
        return points, scores

    def _answer(
        self, frames: Sequence[Image], people: Sequence[Box]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """The same for no more people than a run takes; where it takes a fixed number, the rest is black."""
        count = len(frames)
        views = [_view(box) for box in people]
        pixels = np.zeros((self._size or count, 3, _HEIGHT, _WIDTH), np.float32)
        for row, frame, (scale, corner) in zip(pixels, frames, views, strict=False):
            row[:] = _pixels(frame, scale, corner)
        try:
            outputs = self._session.run(None, {self._input: pixels})
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ModelError(f"{self._path} failed: {_reason(error)}.") from error
        seen, scores = _decode(outputs, count)
        scales = np.array([scale for scale, _ in views])
        corners = np.stack([corner for _, corner in views])
        return seen / scales[:, None, None] + corners[:, None], scores

    def _open(self, device: str) -> Any:  # noqa: ANN401 - onnxruntime has no types
        providers = ["CPUExecutionProvider"]
        if device == "cuda":
            if "CUDAExecutionProvider" in self._onnxruntime.get_available_providers():
                providers.insert(0, "CUDAExecutionProvider")
            else:
                log.debug("dwpose runs on the CPU: this build of onnxruntime has no CUDA")
        if not self._path.is_file():
            raise ModelError(f"{self._path} is not there.", "Run `musetalk models download dwpose`.")
        options = self._onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        try:
            # By default a failing provider is told on stdout, which belongs to the command's result.
            return self._onnxruntime.InferenceSession(
                str(self._path), options, providers=providers, enable_fallback=0
            )
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ModelError(
                f"{self._path} cannot be opened as an ONNX network: {_reason(error)}.", _AGAIN
            ) from error

    def _only_input(self) -> tuple[str, int | None]:
        """Name of the input, and the size of a batch where it is fixed."""
        inputs = self._session.get_inputs()
        wanted = (None, 3, _HEIGHT, _WIDTH)
        if len(inputs) == 1 and inputs[0].type == "tensor(float)" and _fits(inputs[0].shape, wanted):
            batch = inputs[0].shape[0]
            return inputs[0].name, batch if isinstance(batch, int) else None
        found = " and ".join(f"{i.type} {_dims(i.shape)}" for i in inputs) or "nothing"
        raise self._other(f"it takes {found}, not float [B, 3, {_HEIGHT}, {_WIDTH}]")

    def _find_size(self, declared: int | None) -> int | None:
        """How many people a run must have; None where it may have any number.

        The network is run to see: an exporter can leave the sizes of its outputs open, and can declare a
        free batch for a graph that only takes one.
        """
        quiet = self._onnxruntime.RunOptions()
        quiet.log_severity_level = _NOTHING
        widths = (_WIDTH * _SPLIT, _HEIGHT * _SPLIT)
        found = ""
        for size in (2, 1) if declared is None else (declared,):
            black = np.zeros((size, 3, _HEIGHT, _WIDTH), np.float32)
            try:
                outputs = self._session.run(None, {self._input: black}, quiet)
            except Exception as error:  # onnxruntime's errors have no base of their own
                found = f"it cannot be run ({_reason(error)})"
                continue
            shapes = [tuple(getattr(output, "shape", ())) for output in outputs]
            if sorted(shapes) == [(size, KEYPOINTS, width) for width in widths]:
                return None if declared is None and size > 1 else size
            found = f"it gives {' and '.join(map(_dims, shapes))}"
        x, y = (f"[B, {KEYPOINTS}, {width}]" for width in widths)
        raise self._other(f"{found}, not {x} and {y}")

    def _other(self, found: str) -> ModelError:
        return ModelError(f"{self._path} is another network than DWPose: {found}.", _AGAIN)


def face_of(
    points: NDArray[np.float64], scores: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The face's points `[68, 2]` and scores `[68]`, in the 68-point order, of a person's 133."""
    return points[FACE], scores[FACE]


def _import_onnxruntime() -> Any:  # noqa: ANN401 - it has no types
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"DWPose needs onnxruntime, which cannot be imported: {_reason(error)}.",
            "Install it with: pip install 'musetalk-cli[dwpose]'",
        ) from error
    return onnxruntime


def _view(box: Box) -> tuple[float, NDArray[np.float64]]:
    """What of a frame the network sees of a person, as mmpose's `GetBBoxCenterScale` and `TopdownAffine` do.

    The box grows around its centre to the input's aspect, then by the padding, and is scaled to the input.

    Returns:
        Pixels of the input for each pixel of the frame, and the point `[2]` of the frame that becomes (0, 0).
    """
    scale = min(_WIDTH / box.width, _HEIGHT / box.height) / _PADDING
    centre = np.array((box.x1 + box.x2, box.y1 + box.y2)) / 2
    return scale, centre - np.array((_WIDTH, _HEIGHT)) / 2 / scale


def _pixels(frame: Image, scale: float, corner: NDArray[np.float64]) -> NDArray[np.float32]:
    """The input `[3, 384, 288]` for one person: RGB, normalised; what lies outside of the frame is black."""
    matrix = np.array(((scale, 0, -scale * corner[0]), (0, scale, -scale * corner[1])))
    crop = cv2.warpAffine(frame, matrix, (_WIDTH, _HEIGHT), flags=cv2.INTER_LINEAR)
    rgb: NDArray[np.float32] = (crop[..., ::-1] - _MEAN) / _STD
    return np.moveaxis(rgb, -1, 0)


def _decode(
    outputs: Sequence[NDArray[np.floating]], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Pixels of the input `[count, 133, 2]` and scores `[count, 133]` from the first answers of a run.

    As mmpose's `get_simcc_maximum`: the fullest bin of each axis, and the smaller of the two as the score;
    a point whose score is not above 0 is none.
    """
    by_width = {output.shape[-1]: output[:count] for output in outputs}
    x, y = by_width[_WIDTH * _SPLIT], by_width[_HEIGHT * _SPLIT]
    points = np.stack((x.argmax(-1), y.argmax(-1)), axis=-1) / _SPLIT
    scores = np.minimum(x.max(-1), y.max(-1))
    return points, np.where(scores > 0, scores, 0).astype(np.float32)


def _fits(shape: Sequence[object], wanted: Sequence[int | None]) -> bool:
    """True where every size that both sides give is the same; an open size is a name or None."""
    return len(shape) == len(wanted) and all(
        need is None or not isinstance(size, int) or size == need
        for size, need in zip(shape, wanted, strict=True)
    )


def _dims(shape: Sequence[object]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _reason(error: Exception) -> str:
    """The first line of an error, without the code and the path that onnxruntime puts before it."""
    return _PREFIX.sub("", first_line(error)).strip()
