import logging
import re
import subprocess
import sys
import warnings

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from face_graphs import face_points, write_answer, write_dwpose
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from musetalk_cli.errors import ModelError
from musetalk_cli.face.boxes import face_box
from musetalk_cli.face.dwpose import Dwpose, face_of
from musetalk_cli.types import Box

NOSE, WRIST, TOE, TIP = 0, 9, 17, 132
MARKERS = {NOSE: (230, 40, 60), WRIST: (20, 200, 130), TOE: (255, 255, 0), TIP: (0, 0, 255)}
FACE = (200, 60, 220)
GREY = 110

PLACES = {
    "whole": (640, 480, Box(0, 0, 640, 480), {NOSE: (310, 90), WRIST: (80, 400), TOE: (600, 300)}),
    "off centre": (640, 480, Box(380, 60, 560, 300), {NOSE: (400, 100), TOE: (540, 280), TIP: (470, 70)}),
    "leaves left and top": (320, 240, Box(-90, -70, 110, 200), {NOSE: (20, 15), WRIST: (100, 180)}),
    "leaves right and bottom": (320, 240, Box(200, 100, 400, 320), {TOE: (305, 220), TIP: (210, 110)}),
    "wide": (640, 200, Box(10, 80, 630, 150), {NOSE: (30, 100), WRIST: (610, 140), TIP: (320, 30)}),
    "tall": (200, 640, Box(90, 10, 130, 630), {NOSE: (110, 30), WRIST: (30, 600), TIP: (180, 320)}),
    "small": (320, 240, Box(100, 100, 148, 164), {NOSE: (110, 120), TOE: (140, 150)}),
}
"""Frame width and height, the person, and the centres of discs."""


def scale_of(box):
    """Pixels of the input for each of the frame: the grown and padded box becomes 288 x 384."""
    return min(288 / (1.25 * box.width), 384 / (1.25 * box.height))


def draw(width, height, discs, radius=7):
    frame = np.full((height, width, 3), GREY, np.uint8)
    for number, (x, y) in discs.items():
        cv2.circle(frame, (x, y), radius, MARKERS[number], -1)
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dwpose")


@pytest.fixture(scope="module")
def network(folder):
    return Dwpose(write_dwpose(folder / "any.onnx", MARKERS, face=FACE), "cpu")


def assert_found(points, scores, box, discs):
    """Within a bin and a half of the answer, and half a pixel of the drawing."""
    for number in MARKERS:
        if number in discs:
            away = np.abs(points[number] - discs[number]).max()
            assert away <= 0.75 / scale_of(box) + 0.5, (number, points[number])
            assert scores[number] > 0.97
        else:
            assert scores[number] == 0


@pytest.mark.parametrize("place", PLACES)
def test_marks_are_found_where_they_are(network, place):
    width, height, box, discs = PLACES[place]
    points, scores = network([draw(width, height, discs)], [box])
    assert (points.dtype, points.shape) == (np.float64, (1, 133, 2))
    assert (scores.dtype, scores.shape) == (np.float32, (1, 133))
    assert np.isfinite(points).all()
    assert_found(points[0], scores[0], box, discs)


@settings(max_examples=40, deadline=None)
@given(
    x=st.integers(20, 300),
    y=st.integers(20, 220),
    left=st.integers(10, 400),
    top=st.integers(10, 400),
    right=st.integers(10, 400),
    bottom=st.integers(10, 400),
)
def test_a_mark_in_any_box_is_found(network, x, y, left, top, right, bottom):
    box = Box(x - left, y - top, x + right, y + bottom)
    assume(scale_of(box) < 6)
    discs = {WRIST: (x, y)}
    points, scores = network([draw(320, 240, discs, radius=10)], [box])
    assert_found(points[0], scores[0], box, discs)


@pytest.mark.parametrize(
    "batch", [None, 2, *(pytest.param(batch, marks=pytest.mark.slow) for batch in (1, 3, 16))]
)
def test_people_of_a_batch_do_not_mix(network, folder, batch):
    runner = Dwpose(write_dwpose(folder / f"{batch}.onnx", MARKERS, batch), "cpu")
    frames = [draw(width, height, discs) for width, height, _, discs in PLACES.values()]
    people = [box for _, _, box, _ in PLACES.values()]
    points, scores = runner(frames, people)
    for i, (_, _, box, discs) in enumerate(PLACES.values()):
        assert_found(points[i], scores[i], box, discs)
        alone = network(frames[i : i + 1], people[i : i + 1])
        seen = scores[i] > 0
        np.testing.assert_array_equal(points[i][seen], alone[0][0][seen])


def test_more_people_than_a_run_takes(network):
    width, height, box, discs = PLACES["off centre"]
    boxes = [box.shift(i, 0) for i in range(35)]
    points, scores = network([draw(width, height, discs)] * 35, boxes)
    for i, moved in enumerate(boxes):
        assert_found(points[i], scores[i], moved, discs)


def test_nobody(network):
    points, scores = network([], [])
    assert (points.shape, scores.shape) == ((0, 133, 2), (0, 133))


@pytest.mark.parametrize(
    ("names", "y_first"), [(("pixels", "a", "b"), False), (("x", "rows", "columns"), True)]
)
def test_names_and_order_do_not_matter(folder, names, y_first):
    path = write_dwpose(folder / f"{names[0]}.onnx", MARKERS, names=names, y_first=y_first)
    width, height, box, discs = PLACES["off centre"]
    points, scores = Dwpose(path, "cpu")([draw(width, height, discs)], [box])
    assert_found(points[0], scores[0], box, discs)


def test_a_colour_with_red_and_blue_swapped_is_another_one(network):
    width, height, box, discs = PLACES["whole"]
    swapped = np.ascontiguousarray(draw(width, height, discs)[..., ::-1])
    _, scores = network([swapped], [box])
    assert scores.max() == 0


@pytest.mark.parametrize(
    ("box", "view"),
    [
        (Box(100, 100, 388, 484), (64, 52, 424, 532)),
        (Box(300, 200, 500, 240), (275, 220 - 500 / 3, 525, 220 + 500 / 3)),
        (Box(300, 100, 330, 300), (221.25, 75, 408.75, 325)),
        (Box(-40, -30, 56, 98), (-52, -46, 68, 114)),
    ],
    ids=["of the aspect", "wide", "tall", "leaving"],
)
def test_the_padded_box_is_what_is_seen(network, box, view):
    """A disc within the grown and padded box is seen, one outside of it is not, on every side."""
    x1, y1, x2, y2 = view
    middle = (round((x1 + x2) / 2), round((y1 + y2) / 2))
    for inside in (True, False):
        away = 8 if inside else -8
        centres = [
            (round(x1 + away), middle[1]),
            (round(x2 - away), middle[1]),
            (middle[0], round(y1 + away)),
            (middle[0], round(y2 - away)),
        ]
        for x, y in centres:
            if 0 <= x < 640 and 0 <= y < 640:
                _, scores = network([draw(640, 640, {TIP: (x, y)}, radius=6)], [box])
                assert (scores[0, TIP] > 0.9) == inside, (x, y)


@pytest.mark.parametrize(
    ("box", "corner", "pixel"),
    [
        (Box(100, 100, 388, 484), (64, 52), 1.25),
        (Box(0, 0, 400, 100), (-50, 50 - 1000 / 3), 500 / 288),
        (Box(-30, 0, 0, 400), (-202.5, -50), 500 / 384),
    ],
    ids=["of the aspect", "wide", "tall"],
)
def test_bins_are_half_pixels_of_the_padded_box(folder, box, corner, pixel):
    x, y = np.full((133, 576), -1, np.float32), np.full((133, 768), -1, np.float32)
    bins = [(0, 0), (575, 767), (288, 384), (3, 700)]
    for number, (column, row) in enumerate(bins):
        x[number, column], y[number, row] = 0.5, 0.25
    points, scores = Dwpose(write_answer(folder / "bins.onnx", x, y), "cpu")(
        [np.zeros((50, 50, 3), np.uint8)], [box]
    )
    np.testing.assert_allclose(points[0, :4], np.array(corner) + np.array(bins) / 2 * pixel, atol=1e-9)
    np.testing.assert_array_equal(scores[0, :4], np.float32(0.25))


@pytest.mark.parametrize(
    ("x_top", "y_top", "score"),
    [(0.9, 0.4, 0.4), (0.4, 0.9, 0.4), (3, 2, 2), (0.9, -0.1, 0), (0, 1, 0), (np.nan, 1, 0)],
)
def test_the_score_is_the_smaller_of_the_two(folder, x_top, y_top, score):
    x, y = np.full((133, 576), -2, np.float32), np.full((133, 768), -2, np.float32)
    x[:, 100], y[:, 200] = x_top, y_top
    runner = Dwpose(write_answer(folder / "scores.onnx", x, y), "cpu")
    points, scores = runner([np.zeros((50, 50, 3), np.uint8)], [Box(0, 0, 50, 50)])
    np.testing.assert_array_equal(scores, np.float32(score))
    assert np.isfinite(points).all()


def test_the_network_gets_normalised_rgb_and_black_outside(folder, monkeypatch):
    given = []

    class Spy(onnxruntime.InferenceSession):
        def run(self, names, feed, options=None):
            given[:] = feed.values()
            return super().run(names, feed, options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Spy)
    runner = Dwpose(write_dwpose(folder / "spied.onnx", MARKERS), "cpu")
    runner([np.full((96, 72, 3), (10, 120, 250), np.uint8)], [Box(-72, 0, 72, 96)])
    (pixels,) = given
    assert (pixels.dtype, pixels.shape) == (np.float32, (1, 3, 384, 288))
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    # The view is 180 x 240 around (0, 48): the frame is its columns 144 to 259 and its rows 115 to 268.
    np.testing.assert_allclose(pixels[0, :, 192, 200], (np.array([250, 120, 10]) - mean) / std, rtol=1e-5)
    for row, column in ((192, 140), (192, 265), (110, 200), (275, 200), (0, 0), (383, 287)):
        np.testing.assert_allclose(pixels[0, :, row, column], -mean / std, rtol=1e-5)


def test_a_disc_is_a_face(network):
    frame = np.full((480, 640, 3), GREY, np.uint8)
    cv2.circle(frame, (300, 200), 70, FACE, -1)
    points, scores = network([frame], [Box(150, 50, 460, 470)])
    face, seen = face_of(points[0], scores[0])
    assert (face.shape, seen.shape) == ((68, 2), (68,))
    assert seen.min() > 0.97
    np.testing.assert_allclose(face, face_points((300, 200), 70), atol=1.5)
    box = face_box(face, Box(0, 0, 1, 1), frame=(640, 480))
    np.testing.assert_allclose(box, (237, 137, 363, 263), atol=2)
    assert scores[0, [22, 91]].max() == 0


def test_the_face_is_points_23_to_90():
    points, scores = np.arange(266.0).reshape(133, 2), np.arange(133, dtype=np.float32)
    face, seen = face_of(points, scores)
    np.testing.assert_array_equal(seen, np.arange(23, 91))
    np.testing.assert_array_equal(face[:, 0] / 2, np.arange(23, 91))


def with_declared(path, changed, inputs=None, outputs=None):
    """The same graph, whose batch or whose outputs are declared otherwise."""
    model = onnx.load(path)
    for values, sizes in ((model.graph.input, inputs), (model.graph.output, outputs)):
        for value in values:
            if sizes is not None:
                name, kind = value.name, value.type.tensor_type.elem_type
                value.CopyFrom(helper.make_tensor_value_info(name, kind, sizes))
    onnx.save(model, changed)
    return changed


def test_sizes_of_the_outputs_may_be_left_open(network, folder):
    path = write_dwpose(folder / "closed.onnx", MARKERS)
    width, height, box, discs = PLACES["off centre"]
    runner = Dwpose(with_declared(path, folder / "open.onnx", outputs=["n", "k", "bins"]), "cpu")
    points, scores = runner([draw(width, height, discs)] * 2, [box] * 2)
    assert_found(points[1], scores[1], box, discs)


def test_a_batch_may_be_declared_free_and_be_one(folder, capfd):
    """The graph reshapes its input to one picture, as an export without dynamic axes does."""
    model = onnx.load(write_dwpose(folder / "free.onnx", MARKERS))
    shape = helper.make_tensor("one", TensorProto.INT64, [4], [1, 3, 384, 288])
    for node in model.graph.node:
        node.input[:] = ["single" if name == "input" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Reshape", ["input", "one"], ["single"]))
    model.graph.initializer.append(shape)
    onnx.save(model, folder / "one.onnx")
    frames = [draw(width, height, discs) for width, height, _, discs in PLACES.values()]
    points, scores = Dwpose(folder / "one.onnx", "cpu")(frames, [box for _, _, box, _ in PLACES.values()])
    for i, (_, _, box, discs) in enumerate(PLACES.values()):
        assert_found(points[i], scores[i], box, discs)
    assert capfd.readouterr() == ("", "")


def test_wrong_calls_are_refused(network):
    frame = np.zeros((50, 50, 3), np.uint8)
    with pytest.raises(ValueError, match="2 frames need as many boxes, not 1"):
        network([frame, frame], [Box(0, 0, 50, 50)])
    with pytest.raises(ValueError, match="empty"):
        network([frame], [Box(10, 0, 10, 50)])


def identity(path, inputs, kind=TensorProto.FLOAT):
    """A network that gives back its inputs."""
    names = [f"in{i}" for i in range(len(inputs))]
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names],
        "identity",
        [helper.make_tensor_value_info(name, kind, dims) for name, dims in zip(names, inputs, strict=True)],
        [helper.make_tensor_value_info(f"{name}_out", kind, None) for name in names],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def empty(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "is not there"),
        (lambda p: p.mkdir(), "is not there"),
        (lambda p: p.write_text("<html>not found</html>"), "cannot be opened as an ONNX network: Protobuf"),
        (lambda p: p.write_bytes(b""), "cannot be opened as an ONNX network: No graph"),
        (lambda p: identity(p, [[1, 3, 640, 640]]), r"takes tensor\(float\) \[1, 3, 640, 640\], not float"),
        (lambda p: identity(p, [[None, 3, 288, 384]]), r"takes tensor\(float\) \[\?, 3, 288, 384\]"),
        (lambda p: identity(p, [["n", 384, 288]]), r"takes tensor\(float\) \[n, 384, 288\]"),
        (lambda p: identity(p, [["n", 3, 384, 288]], TensorProto.UINT8), r"takes tensor\(uint8\)"),
        (lambda p: identity(p, [[1, 3, 384, 288], [1, 2]]), r"288\] and tensor\(float\) \[1, 2\]"),
        (lambda p: identity(p, [["n", 3, 384, 288]]), r"gives \[1, 3, 384, 288\], not \[B, 133, 576\] and"),
        (
            lambda p: write_answer(p, empty(17, 576), empty(17, 768)),
            r"gives \[1, 17, 576\] and \[1, 17, 768\]",
        ),
        (lambda p: write_answer(p, empty(133, 384), empty(133, 512), batch=2), r"gives \[2, 133, 384\] and"),
        (lambda p: write_answer(p, empty(133, 576), empty(133, 576)), r"gives \[1, 133, 576\] and"),
    ],
)
def test_another_file_is_refused(make, words, tmp_path, capfd):
    path = tmp_path / "some.onnx"
    make(path)
    with pytest.raises(ModelError) as caught:
        Dwpose(path, "cpu")
    message, hint = caught.value.message, caught.value.hint
    assert re.search(words, message), message
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert message.count(str(path)) == 1
    assert "\n" not in message
    assert "musetalk models download dwpose" in hint
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_cannot_be_run_is_refused(tmp_path, capfd):
    write_answer(tmp_path / "whole.onnx", empty(133, 576), empty(133, 768))
    model = onnx.load(tmp_path / "whole.onnx")
    shape = helper.make_tensor("seven", TensorProto.INT64, [4], [7, 3, 384, 288])
    for node in model.graph.node:
        node.input[:] = ["many" if name == "input" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Reshape", ["input", "seven"], ["many"]))
    model.graph.initializer.append(shape)
    onnx.save(model, tmp_path / "seven.onnx")
    with pytest.raises(ModelError, match=r"it cannot be run \(.+\), not \[B, 133, 576\] and") as caught:
        Dwpose(tmp_path / "seven.onnx", "cpu")
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_a_failing_run_is_told_in_one_sentence(folder, monkeypatch):
    class Breaking(onnxruntime.InferenceSession):
        def run(self, names, feed, options=None):
            if options is None:
                raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : out of memory.\nmore")
            return super().run(names, feed, options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Breaking)
    runner = Dwpose(write_dwpose(folder / "fails.onnx", MARKERS), "cpu")
    with pytest.raises(ModelError) as caught:
        runner([np.zeros((50, 50, 3), np.uint8)], [Box(0, 0, 50, 50)])
    assert caught.value.message == f"{folder / 'fails.onnx'} failed: out of memory."


def test_without_onnxruntime_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match="onnxruntime") as caught:
        Dwpose(folder / "any.onnx", "cpu")
    assert "pip install 'musetalk-cli[dwpose]'" in caught.value.hint


def test_onnxruntime_is_imported_late():
    code = "import sys, musetalk_cli.face.dwpose; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("device", "built", "taken"),
    [
        ("cpu", ["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"]),
        (
            "cuda",
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
        ),
        ("cuda", ["CPUExecutionProvider"], ["CPUExecutionProvider"]),
    ],
)
def test_the_device_decides_on_the_provider(device, built, taken, network, folder, monkeypatch, caplog):
    import onnxruntime

    asked = []
    real = onnxruntime.InferenceSession

    def session(path, options, *, providers, **others):
        asked.append(providers)
        return real(path, options, providers=["CPUExecutionProvider"], **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built)
    with caplog.at_level(logging.DEBUG, "musetalk_cli"), warnings.catch_warnings():
        warnings.simplefilter("error")
        Dwpose(folder / "any.onnx", device)
    assert asked == [taken]
    assert ("no CUDA" in caplog.text) == (device == "cuda" and len(built) == 1)
