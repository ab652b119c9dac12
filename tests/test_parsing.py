"""Face parsing, against transformers' own loading of the same folders and against networks made by hand."""

import json
import os
import pickle
import re
import socket
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pictures
from safetensors.torch import load_file, save_file
from torch.nn.modules.module import register_module_forward_hook
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from musetalk_cli.avatar.pickles import read_boxes
from musetalk_cli.errors import ModelError
from musetalk_cli.face.masks import mask_from_parsing
from musetalk_cli.face.parsing import LABELS, FaceParser
from musetalk_cli.types import Box

CPU = torch.device("cpu")
DATA = Path(__file__).parent / "data"
SHARED = os.environ.get("MUSETALK_TEST_DATA")
BISENET = {
    "background": 0, "skin": 1, "l_brow": 2, "r_brow": 3, "l_eye": 4, "r_eye": 5, "eye_g": 6, "l_ear": 7,
    "r_ear": 8, "ear_r": 9, "nose": 10, "mouth": 11, "u_lip": 12, "l_lip": 13, "neck": 14, "neck_l": 15,
    "cloth": 16, "hair": 17, "hat": 18,
}  # fmt: skip
PUBLISHED = [
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth",
    "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
]  # fmt: skip
"""The order of jonathandinu/face-parsing."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TINY = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 2, 3, 4],
    "sr_ratios": [8, 4, 2, 1],
    "decoder_hidden_size": 16,
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A random network, saved by transformers as the published one is; read only."""
    folder = tmp_path_factory.mktemp("published")
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = SegformerForSemanticSegmentation(
            SegformerConfig(**TINY, id2label=dict(enumerate(PUBLISHED)))
        )
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.3)
            elif tensor.dim() > 1:
                tensor.normal_(0, 1.2 / np.sqrt(tensor[0].numel()))
    network.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in state
    return folder


@pytest.fixture
def folder(published, tmp_path):
    """A copy of it that a test may change."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((published / name).read_bytes())
    return tmp_path


def picture(height, width, seed=0):
    """Smooth colours with edges and noise, BGR."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    image = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.circle(image, (width // 2, height // 2), min(width, height) // 3, (40, 90, 200), -1)
    return np.clip(image + generator.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def scores(folder, crops, mean=MEAN, std=STD, factor=1 / 255):
    """`[crops, labels, 512, 512]` by transformers' own loader, computed together."""
    network = SegformerForSemanticSegmentation.from_pretrained(folder, local_files_only=True).eval()
    pictures = [Pictures.fromarray(crop[:, :, ::-1].copy()).resize((512, 512), 2) for crop in crops]
    pixels = torch.stack([torch.tensor(np.array(one)) for one in pictures]).permute(0, 3, 1, 2)
    pixels = (pixels * factor - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        logits = network(pixel_values=pixels).logits
    assert logits.shape[2:] == (128, 128)
    return torch.nn.functional.interpolate(logits, (512, 512), mode="bilinear", align_corners=False)


def labels_of(wide, names=PUBLISHED):
    """BiSeNet's labels of scores whose channels have those names."""
    return np.array([BISENET[name] for name in names], np.uint8)[wide.argmax(1).numpy()]


def state_of(folder):
    return load_file(folder / "model.safetensors")


def save(state, folder):
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def edit(folder, name="config.json", **values):
    path = folder / name
    before = json.loads(path.read_text()) if path.exists() else {}
    after = {key: value for key, value in (before | values).items() if value is not ...}
    path.write_text(json.dumps(after))


def names(*changes):
    """The published names by number, with changes."""
    return {str(number): name for number, name in (dict(enumerate(PUBLISHED)) | dict(changes)).items()}


def refusal(folder):
    with pytest.raises(ModelError) as caught:
        FaceParser(folder, CPU)
    assert "\n" not in caught.value.message
    assert str(folder) in caught.value.message
    return caught.value.message


CROPS = [picture(300, 300), picture(641, 517, 1)]


@pytest.fixture(scope="module")
def wide(published):
    return scores(published, CROPS)


@pytest.fixture(scope="module")
def expected(wide):
    return labels_of(wide)


def decided(wide):
    """Where the best label leads by more than rounding can change, which another order of sums does."""
    best, second = wide.topk(2, dim=1).values.unbind(1)
    sure = (best - second > 1e-4).numpy()
    assert sure.mean() > 0.99
    return sure


def test_labels_are_those_of_bisenet():
    assert {name: LABELS.index(name) for name in LABELS} == BISENET


def test_parses_as_transformers_does(published, expected):
    labels = FaceParser(published, CPU)(CROPS)
    assert labels.dtype == np.uint8
    assert labels.shape == (2, 512, 512)
    assert len(np.unique(labels)) > 4
    np.testing.assert_array_equal(labels, expected)


def test_a_pickle_of_tensors_loads_where_there_is_no_safetensors(folder, expected):
    torch.save(state_of(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS), expected)


def test_safetensors_are_preferred(folder, expected):
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS), expected)


def test_tensors_with_the_installed_librarys_own_names_load(folder, expected):
    network = SegformerForSemanticSegmentation.from_pretrained(folder, local_files_only=True)
    save(network.state_dict(), folder)
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS), expected)


def test_names_since_transformers_5_load(folder, expected):
    state = {}
    for name, tensor in state_of(folder).items():
        for old, new in (
            (r"encoder\.(patch_embeddings|layer_norm)\.(\d)", r"stages.\2.\1"),
            (r"encoder\.block\.(\d)", r"stages.\1.blocks"),
            (r"self\.(q|k|v)(uery|ey|alue)", r"\1_proj"),
            (r"self\.sr", "sequence_reduction.sequence_reduction"),
            (r"self\.layer_norm", "sequence_reduction.layer_norm"),
            (r"output\.dense", "o_proj"),
            (r"mlp\.dense", "mlp.fc"),
            ("layer_norm_1", "layernorm_before"),
            ("layer_norm_2", "layernorm_after"),
            ("linear_c", "linear_projections"),
        ):
            name = re.sub(old, new, name)  # noqa: PLW2901
        state[name] = tensor
    save(state, folder)
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS), expected)


def test_half_precision_files_are_computed_in_fp32(folder):
    whole = state_of(folder)
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in whole.items()}
    save({name: tensor.to(whole[name].dtype) for name, tensor in state.items()}, folder)
    expected = labels_of(scores(folder, CROPS))
    save(state, folder)
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS), expected)


def test_the_count_of_training_batches_is_not_needed(folder, expected):
    state = state_of(folder)
    del state["decode_head.batch_norm.num_batches_tracked"]
    save(state, folder)
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS), expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_labels_does_not_matter(seed, folder, wide, expected):
    order = np.random.default_rng(seed).permutation(19)
    state = state_of(folder)
    for name in ("decode_head.classifier.weight", "decode_head.classifier.bias"):
        state[name] = state[name][order].contiguous()
    save(state, folder)
    edit(folder, id2label={str(place): PUBLISHED[old] for place, old in enumerate(order)})
    sure = decided(wide)
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS)[sure], expected[sure])


@pytest.mark.parametrize("spell", [lambda name: f"{name}.png", str.upper, lambda name: f"{name.title()}.PNG"])
def test_names_may_be_those_of_the_files_of_the_data_set(spell, folder, expected):
    edit(folder, id2label={str(number): spell(name) for number, name in enumerate(PUBLISHED)})
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS), expected)


def test_labels_that_masks_do_not_need_may_be_missing(folder):
    kept = [number for number, name in enumerate(PUBLISHED) if name not in {"hat", "eye_g"}]
    state = state_of(folder)
    for name in ("decode_head.classifier.weight", "decode_head.classifier.bias"):
        state[name] = state[name][kept].contiguous()
    save(state, folder)
    some = [PUBLISHED[number] for number in kept]
    edit(folder, id2label={str(number): name for number, name in enumerate(some)}, label2id=...)
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS), labels_of(scores(folder, CROPS), some))


@pytest.mark.slow
def test_crops_together_are_what_they_are_alone(published):
    crops = [picture(height, width, height) for height, width in ((512, 512), (90, 333), (700, 64), (1, 1))]
    parser = FaceParser(published, CPU)
    together = parser(crops)
    for number, crop in enumerate(crops):
        alone = scores(published, [crop])
        sure = decided(alone)[0]
        np.testing.assert_array_equal(together[number][sure], labels_of(alone)[0][sure])
        np.testing.assert_array_equal(parser([crop]), labels_of(alone))


@contextmanager
def every_network(hook):
    """Calls `hook(module, arguments, output)` after each run of a face parser; its result is the output."""

    def called(module, *rest):
        return hook(module, *rest) if isinstance(module, SegformerForSemanticSegmentation) else None

    with register_module_forward_hook(called):
        yield


def test_no_crops_give_no_labels(published):
    assert FaceParser(published, CPU)([]).shape == (0, 512, 512)


def test_memory_is_bounded_whatever_the_number_of_crops(published):
    parser = FaceParser(published, CPU)
    sizes = []
    with every_network(lambda module, args, output: sizes.append(len(args[0]))):
        parser([CROPS[0]] * 5)
    assert sizes == [1] * 5


def test_the_network_is_shared_and_never_trained(published):
    parser, networks = FaceParser(published, CPU), []
    with every_network(lambda module, args, output: networks.append(module)):
        first, second = parser(CROPS), parser(CROPS)
    np.testing.assert_array_equal(first, second)
    (network,) = set(networks)
    assert not network.training
    assert not any(tensor.requires_grad for tensor in network.parameters())


@pytest.mark.parametrize(
    ("values", "used"),
    [
        (
            {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 1]},
            ((0.5, 0.5, 0.5), (0.5, 0.25, 1.0), 1 / 255),
        ),
        ({"rescale_factor": 0.001, "do_rescale": True, "do_normalize": True}, (MEAN, STD, 0.001)),
        ({"feature_extractor_type": "SegformerFeatureExtractor", "size": 512}, (MEAN, STD, 1 / 255)),
    ],
)
def test_colours_are_scaled_as_the_preprocessor_says(values, used, folder):
    edit(folder, "preprocessor_config.json", **values)
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS), labels_of(scores(folder, CROPS, *used)))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_mean": 0.5}, "image_mean"),
        ({"image_mean": None}, "image_mean"),
        ({"image_mean": [0.5, "x", 0.5]}, "image_mean"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std"),
        ({"image_std": [0.5, 1e9, 0.5]}, "image_std"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"rescale_factor": True}, "rescale_factor"),
        ({"do_normalize": False}, "do_normalize"),
        ({"do_rescale": False}, "do_rescale"),
    ],
)
def test_broken_preprocessors_are_refused(values, named, folder):
    edit(folder, "preprocessor_config.json", **values)
    message = refusal(folder)
    assert "preprocessor_config.json" in message
    assert named in message


@pytest.mark.parametrize("missing", ["skin", "nose", "mouth", "u_lip", "l_lip", "neck"])
def test_labels_that_masks_need_must_be_there(missing, folder):
    place = PUBLISHED.index(missing)
    last = len(PUBLISHED) - 1
    changed = names((place, PUBLISHED[last]))
    del changed[str(last)]
    edit(folder, id2label=changed)
    assert f"{missing} missing" in refusal(folder)


@pytest.mark.parametrize(
    ("id2label", "complaint"),
    [
        (names((14, "sunglasses")), "sunglasses unknown"),
        (names((14, "skin.png.png")), r"skin\.png unknown"),
        (names((14, None)), "none unknown"),
        (names((14, "Skin.png")), "skin there twice"),
        (..., "id2label"),
        (PUBLISHED, "id2label"),
        ({f"{number}x": name for number, name in enumerate(PUBLISHED)}, "id2label"),
        ({str(number + 1): name for number, name in enumerate(PUBLISHED)}, "id2label"),
        ({}, "skin, nose, mouth, u_lip, l_lip, neck missing"),
    ],
)
def test_other_labels_are_refused(id2label, complaint, folder):
    edit(folder, id2label=id2label)
    assert re.search(complaint, refusal(folder))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model_type": "bert"}, "bert"),
        ({"model_type": ...}, "None"),
        ({"model_type": ["segformer"]}, "segformer"),
        ({"num_channels": 4}, "num_channels"),
        ({"num_encoder_blocks": 3}, "num_encoder_blocks"),
        ({"strides": [1, 1, 1, 1]}, "strides"),
        ({"depths": [1, 1, 1]}, "depths"),
        ({"depths": [1, 1, 1, 10**9]}, "depths"),
        ({"depths": [1, 1, 1, True]}, "depths"),
        ({"depths": "1111"}, "depths"),
        ({"hidden_sizes": [8, 16, 24, 0]}, "hidden_sizes"),
        ({"sr_ratios": [8, 4, 2, 17]}, "sr_ratios"),
        ({"mlp_ratios": [4, 4, 4, 0.5]}, "mlp_ratios"),
        ({"decoder_hidden_size": 10**9}, "decoder_hidden_size"),
        ({"decoder_hidden_size": None}, "decoder_hidden_size"),
        ({"hidden_act": "os.system"}, "hidden_act"),
        ({"hidden_act": ["gelu"]}, "hidden_act"),
    ],
)
def test_other_and_absurd_networks_are_refused(values, named, folder):
    edit(folder, **values)
    message = refusal(folder)
    assert "config.json" in message
    assert named in message


@pytest.mark.parametrize("text", ["", "[]", "{", '{"depths": NaN}', None])
def test_files_that_are_no_configuration_are_refused(text, folder):
    path = folder / "config.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert "config.json" in refusal(folder)


def test_weights_must_be_there(folder):
    (folder / "model.safetensors").unlink()
    message = refusal(folder)
    assert "model.safetensors" in message
    assert "pytorch_model.bin" in message


def test_missing_unknown_and_reshaped_tensors_are_named(folder):
    state = state_of(folder)
    del state["segformer.encoder.block.1.0.attention.self.query.weight"]
    state["decode_head.other"] = torch.zeros(1)
    state["decode_head.classifier.bias"] = torch.zeros(150)
    save(state, folder)
    message = refusal(folder)
    assert "1 missing" in message
    assert "1 unexpected (decode_head.other)" in message
    assert "decode_head.classifier.bias is [150], wanted [19]" in message


def test_a_tensor_under_both_of_its_names_is_refused(folder):
    state = state_of(folder)
    twin = "segformer.stages.0.blocks.0.attention.q_proj.weight"
    state[twin] = state["segformer.encoder.block.0.0.attention.self.query.weight"].clone()
    save(state, folder)
    assert "1 unexpected" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value, folder):
    state = state_of(folder)
    state["decode_head.linear_fuse.weight"][0, 0] = value
    save(state, folder)
    assert "decode_head.linear_fuse.weight" in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x80\x02 no pickle"])
def test_files_that_are_no_weights_are_refused(name, content, folder):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    assert name in refusal(folder)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dump", [torch.save, lambda data, path: path.write_bytes(pickle.dumps(data))])
def test_code_in_a_pickle_does_not_run(dump, folder):
    mark = folder / "it ran"
    state = state_of(folder)
    (folder / "model.safetensors").unlink()
    dump({**state, "payload": Hostile(mark)}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in refusal(folder)
    assert not mark.exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False) if dump is torch.save else pickle.loads(
        (folder / "pytorch_model.bin").read_bytes()
    )
    assert mark.exists()


def test_settings_that_name_code_are_ignored_and_nothing_is_fetched(folder, expected, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    mark = folder / "it ran"
    code = f"from pathlib import Path; Path({str(mark)!r}).touch()"
    (folder / "configuration_x.py").write_text(code)
    (folder / "modeling_x.py").write_text(code)
    edit(
        folder,
        auto_map={"AutoConfig": "configuration_x.C", "AutoModelForSemanticSegmentation": "modeling_x.M"},
        _attn_implementation="someone/some-kernel",
        attn_implementation="someone/some-kernel",
        quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True},
        torch_dtype="float16",
        architectures=["SomethingElse"],
        _name_or_path="someone/something",
    )
    np.testing.assert_array_equal(FaceParser(folder, CPU)(CROPS), expected)
    assert not mark.exists()


CORNERS = {
    "background": (0, 0, 0), "skin": (255, 0, 0), "nose": (0, 255, 0), "mouth": (0, 0, 255),
    "u_lip": (255, 255, 0), "l_lip": (255, 0, 255), "neck": (0, 255, 255), "hair": (255, 255, 255),
}  # fmt: skip
"""Colours as R, G, B."""


def colour_network(folder):
    """Zero weights, but for a path on which each corner of the colour cube scores highest for its label.

    The first embedding takes a pixel's colour and its negative, so that its mean is zero and layer norms keep
    its direction; attention and mixing add nothing; the decoder passes the first stage on, above zero.
    """
    state = {name: torch.zeros_like(tensor) for name, tensor in state_of(folder).items()}
    for name, tensor in state.items():
        if re.search(r"norm[_\d.]*weight|running_var", name):
            tensor.fill_(1)
    embedding = state["segformer.encoder.patch_embeddings.0.proj.weight"]
    projection = state["decode_head.linear_c.0.proj.weight"]
    for colour in range(3):
        embedding[colour, colour, 3, 3], embedding[colour + 3, colour, 3, 3] = 1, -1
        projection[colour, colour] = 1
    state["decode_head.linear_c.0.proj.bias"][:3] = 10
    fuse = state["decode_head.linear_fuse.weight"]
    fuse[range(3), range(fuse.shape[1] - 16, fuse.shape[1] - 13)] = 1  # the first stage comes last
    classifier, bias = state["decode_head.classifier.weight"], state["decode_head.classifier.bias"]
    bias -= 1000
    for name, corner in CORNERS.items():
        signs = torch.tensor(corner) / 127.5 - 1
        classifier[PUBLISHED.index(name), :3, 0, 0] = signs
        bias[PUBLISHED.index(name)] = -10 * signs.sum()
    save(state, folder)


def test_colours_decide_where_weights_say_so(folder):
    colour_network(folder)
    crops = []
    for first in (list(CORNERS)[:4], list(CORNERS)[4:]):
        rows = [np.repeat([CORNERS[name][::-1]], 200, axis=0) for name in first]
        crops.append(np.repeat(np.stack(rows).astype(np.uint8), 60, axis=0))
    labels = FaceParser(folder, CPU)(crops)
    for crop, tested in enumerate((list(CORNERS)[:4], list(CORNERS)[4:])):
        for band, name in enumerate(tested):
            inside = labels[crop, band * 128 + 8 : band * 128 + 120]
            np.testing.assert_array_equal(inside, BISENET[name])


@pytest.mark.parametrize(
    "data",
    [
        DATA / "golden",
        pytest.param(
            Path(SHARED or ".") / "golden" / "footage",
            marks=pytest.mark.skipif(
                not SHARED, reason="MUSETALK_TEST_DATA does not name the folder of footage"
            ),
        ),
    ],
)
def test_golden_masks_from_labels_in_another_order(data, published):
    parser = FaceParser(published, CPU)
    place = np.zeros(19, np.uint8)
    place[[BISENET[name] for name in PUBLISHED]] = np.arange(19)
    coords, crops = (read_boxes(data / "avatar" / name) for name in ("coords.pkl", "mask_coords.pkl"))
    for number in range(4):
        golden, mask = (
            cv2.imread(str(data / part / f"{number:08d}.png"), cv2.IMREAD_UNCHANGED)
            for part in ("parsing", "avatar/mask")
        )
        scored = torch.nn.functional.one_hot(torch.from_numpy(place[golden]).long(), 19)
        answer = SimpleNamespace(logits=scored.permute(2, 0, 1)[None].float())
        with every_network(lambda module, args, output, answer=answer: answer):
            labels = parser([np.zeros((8, 8, 3), np.uint8)])[0]
        np.testing.assert_array_equal(labels, golden)
        box, crop = Box(*map(int, coords[number])), Box(*map(int, crops[number]))
        np.testing.assert_array_equal(mask_from_parsing(labels, box, crop), mask)
