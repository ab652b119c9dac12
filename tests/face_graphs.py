"""Small ONNX networks whose answers are known, with the inputs and outputs of published ones."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Colour = tuple[int, int, int]

KEYPOINTS, WIDTH, HEIGHT = 133, 288, 384
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
TOLERANCE = 40.0
"""Distance in RGB, each in 0..255, from which on a colour is another one."""


def face_shape() -> np.ndarray:
    """68 points of a face in the 68-point order, float64 `[68, 2]`, around (0, 0) within a radius of 1.

    Left to right they reach from -0.9 to 0.9, down to 0.9; the nose bridge (29) lies at (0, 0). So the box
    of `face_box` is the square from -0.9 to 0.9.
    """

    def line(x1: float, x2: float, y1: float, y2: float, count: int) -> np.ndarray:
        return np.stack((np.linspace(x1, x2, count), np.linspace(y1, y2, count)), axis=1)

    def arc(x: float, y: float, a: float, b: float, angles: np.ndarray) -> np.ndarray:
        return np.stack((x + a * np.cos(angles), y + b * np.sin(angles)), axis=1)

    def ring(x: float, y: float, a: float, b: float, count: int) -> np.ndarray:
        return arc(x, y, a, b, np.pi + 2 * np.pi * np.arange(count) / count)

    parts = (
        arc(0, 0, 0.9, 0.9, np.linspace(np.pi, 0, 17)),
        line(-0.7, -0.2, -0.5, -0.5, 5),
        line(0.2, 0.7, -0.5, -0.5, 5),
        line(0, 0, -0.3, 0.15, 4),
        line(-0.15, 0.15, 0.25, 0.25, 5),
        ring(-0.4, -0.3, 0.15, 0.08, 6),
        ring(0.4, -0.3, 0.15, 0.08, 6),
        ring(0, 0.5, 0.3, 0.15, 12),
        ring(0, 0.5, 0.2, 0.06, 8),
    )
    return np.concatenate(parts)


def face_points(centre: tuple[float, float], radius: float) -> np.ndarray:
    """Where a network of `write_dwpose` sees the face `[68, 2]` of a disc, in the disc's own pixels."""
    return np.array(centre) + radius * face_shape()


def with_dwpose(models: Path, folder: Path, face: Colour) -> Path:
    """A folder with the networks of another, and a DWPose that takes a disc of a colour for a face."""
    shutil.copytree(models, folder, dirs_exist_ok=True)
    (folder / "dwpose").mkdir()
    write_dwpose(folder / "dwpose" / "dw-ll_ucoco_384.onnx", {}, face=face)
    return folder


def write_dwpose(
    path: Path,
    markers: Mapping[int, Colour],
    batch: int | None = None,
    *,
    face: Colour | None = None,
    names: tuple[str, str, str] = ("input", "simcc_x", "simcc_y"),
    y_first: bool = False,
) -> Path:
    """Write a network that finds coloured discs, with DWPose's input and outputs.

    It undoes DWPose's normalisation of RGB pixels, and takes the centre of all pixels of a colour as the
    location of the keypoints that follow it: discs of the same colour become one point between them, one
    that is cut by the border moves inward, and a picture has to hold nothing else within `TOLERANCE` of the
    colour. The score is 1 where a pixel has exactly the colour, less where the nearest one differs, and 0
    where none is within the tolerance; keypoints that follow no colour have score 0 always.

    To show it a face, fill a circle with the colour `face`: keypoints 23..90 become `face_points` of its
    centre and radius (within about a pixel of the network's input). Nothing depends on the disc's inside,
    so whole films can be made of one moving disc; a lossy codec takes some of the score.

    Args:
        path: The file to write.
        markers: BGR colours 0..255 by the number of the keypoint, 0..132, that sits in their centre.
        batch: People of a run; None where any number may be.
        face: BGR colour of a disc that is a face; keypoints that are in `markers` do not follow it.
        names: Of the input, the answer for x and the one for y.
        y_first: The answer for y is the first output.

    Returns:
        `path`.
    """
    places = dict.fromkeys(markers, np.zeros(2))
    colours = dict(markers)
    if face is not None:
        for number, offset in enumerate(face_shape(), start=23):
            if number not in markers:
                places[number], colours[number] = offset, face
    distinct = sorted(set(colours.values())) or [(0, 0, 0)]
    followed = [distinct.index(colours.get(k, distinct[0])) for k in range(KEYPOINTS)]
    offsets = np.stack([places.get(k, np.zeros(2)) for k in range(KEYPOINTS)])
    graph = _Graph()
    found = _find_colours(graph, names[0], np.array([colour[::-1] for colour in distinct], np.float32))
    present, *centre, radius = (graph.add("Gather", [value, np.array(followed)], axis=1) for value in found)
    strength = graph.add("Mul", [present, np.array([float(k in colours) for k in range(KEYPOINTS)])])
    outputs = []
    for axis, (name, size) in enumerate(zip(names[1:], (WIDTH, HEIGHT), strict=True)):
        shift = graph.add("Mul", [radius, offsets[:, axis]])
        _write_bins(graph, name, graph.add("Add", [centre[axis], shift]), strength, 2 * size)
        outputs.append((name, [batch or "batch", KEYPOINTS, 2 * size]))
    graph.save(path, (names[0], [batch or "batch", 3, HEIGHT, WIDTH]), outputs[::-1] if y_first else outputs)
    return path


def write_answer(path: Path, x: np.ndarray, y: np.ndarray, *, batch: int | None = None) -> Path:
    """Write a network that gives the same answer for every picture.

    Args:
        path: The file to write.
        x: `[...]`, what it gives for each person as the first output.
        y: The same for the second one.
        batch: People of a run; None where any number may be.

    Returns:
        `path`.
    """
    graph = _Graph()
    nothing = graph.add("Mul", [graph.add("ReduceMean", ["input"], axes=[1, 2, 3], keepdims=0), [0.0]])
    outputs = []
    for name, answer in (("simcc_x", x), ("simcc_y", y)):
        rows = graph.add("Unsqueeze", [nothing, np.arange(1, answer.ndim + 1)])
        graph.add("Add", [rows, answer[None]], output=name)
        outputs.append((name, [batch or "batch", *answer.shape]))
    graph.save(path, ("input", [batch or "batch", 3, HEIGHT, WIDTH]), outputs)
    return path


class _Graph:
    """Nodes in order and their constants; a value is the name of an output or an array."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list, *, output: str = "", **attributes: object) -> str:
        names = [value if isinstance(value, str) else self._constant(np.asarray(value)) for value in inputs]
        output = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], **attributes))
        return output

    def save(self, path: Path, given: tuple[str, list], outputs: list[tuple[str, list]]) -> None:
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs]
        pixels = helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])
        graph = helper.make_graph(self.nodes, "known", [pixels], infos, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)

    def _constant(self, value: np.ndarray) -> str:
        kind = np.int64 if value.dtype.kind in "iu" else np.float32
        self.constants.append(numpy_helper.from_array(value.astype(kind), f"constant{len(self.constants)}"))
        return self.constants[-1].name


def _find_colours(graph: _Graph, pixels: str, colours: np.ndarray) -> tuple[str, str, str, str]:
    """Of each of the RGB colours `[C, 3]`: strength, x, y and radius in pixels, `[B, C]` each."""
    planes = [np.array(values).reshape(1, 3, 1, 1) for values in (STD, MEAN)]
    rgb = graph.add("Add", [graph.add("Mul", [pixels, planes[0]]), planes[1]])
    # The squared distance from a colour is |p|^2 - 2 p.c + |c|^2.
    square = graph.add("ReduceSumSquare", [rgb], axes=[1], keepdims=1)
    product = graph.add("Conv", [rgb, -2 * colours[:, :, None, None], (colours**2).sum(axis=1)])
    distance = graph.add("Div", [graph.add("Add", [square, product]), [-(TOLERANCE**2)]])
    match = graph.add("Relu", [graph.add("Add", [distance, [1.0]])])
    present = graph.add("ReduceMax", [match], axes=[2, 3], keepdims=0)
    mass = graph.add("Add", [graph.add("ReduceSum", [match, [2, 3]], keepdims=0), [1e-6]])
    centre = []
    for collapsed, size in ((2, WIDTH), (3, HEIGHT)):
        profile = graph.add("ReduceSum", [match, [collapsed]], keepdims=0)
        moment = graph.add("MatMul", [profile, np.arange(size, dtype=np.float32)])
        centre.append(graph.add("Div", [moment, mass]))
    radius = graph.add("Sqrt", [graph.add("Div", [mass, [np.pi]])])
    return present, centre[0], centre[1], radius


def _write_bins(graph: _Graph, name: str, location: str, strength: str, bins: int) -> None:
    """The output `name` `[B, 133, bins]`: a bell around twice the location, as high as the strength."""
    centre = graph.add("Unsqueeze", [graph.add("Mul", [location, [2.0]]), [2]])
    away = graph.add("Sub", [np.arange(bins, dtype=np.float32), centre])
    bell = graph.add("Exp", [graph.add("Div", [graph.add("Mul", [away, away]), [-2 * 6.0**2]])])
    graph.add("Mul", [bell, graph.add("Unsqueeze", [strength, [2]])], output=name)
