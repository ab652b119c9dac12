"""The encoder for the rows that are needed is the library's, which gives all of them."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from musetalk_cli.nets import modules, random_v15
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest, LogMel

NEEDED = (range(37, 61), range(1460, 1500), range(80, 80), range(1499, 1500), range(250), range(1500))


def sound(samples):
    """Noise that swells and fades, float32 `[n]`."""
    noise = np.random.default_rng(0).standard_normal(samples) * np.sin(np.arange(samples) / 5000)
    return (noise / 8).astype(np.float32)


@pytest.fixture(scope="module")
def whisper_tiny(tiny_bundle):
    """A bundle with a random audio encoder of the published size."""
    pool = random_v15.Pool(tiny_bundle.device, tiny_bundle.dtype)
    encoder = pool.fill(lambda: modules.build_encoder(random_v15.encoder_config(), random_v15.NOWHERE))
    return replace(tiny_bundle, audio_encoder=encoder)


@pytest.fixture(scope="module")
def overflowing(golden_bundle):
    """A bundle in fp16 whose layers give more than the format holds, which the library bounds."""
    encoder = copy.deepcopy(golden_bundle.audio_encoder).half()
    for layer in encoder.layers:
        layer.fc2.bias.data.fill_(60_000)
    return replace(golden_bundle, audio_encoder=encoder, dtype=torch.float16)


def librarys(bundle, samples):
    """All rows, by the library's own forward and record of hidden states."""
    mel = LogMel(bundle.feature_extractor, bundle.device)([samples]).to(bundle.dtype)
    with torch.inference_mode():
        found = bundle.audio_encoder(mel, output_hidden_states=True, return_dict=True)
    return torch.stack(found.hidden_states, dim=2)[0].float()


@pytest.mark.all_threads
@pytest.mark.parametrize(
    "name", ["golden_bundle", pytest.param("whisper_tiny", marks=pytest.mark.slow), "overflowing"]
)
def test_the_rows_are_the_librarys(name, request):
    bundle = request.getfixturevalue(name)
    samples = sound(150_000)
    expected = librarys(bundle, samples)
    assert expected.isfinite().all()
    needed = NEEDED if name == "golden_bundle" else NEEDED[:2]
    found = AudioEncoder(bundle)([EncodeRequest(samples, rows) for rows in needed])
    for rows, ours in zip(needed, found, strict=True):
        theirs = expected[rows.start : rows.stop]
        assert ours.shape == theirs.shape == (len(rows), bundle.layers, theirs.shape[2])
        assert torch.equal(ours[:, :-1], theirs[:, :-1])
        # a product of fewer rows may add in another order
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_all_rows_are_the_librarys_to_the_bit(whisper_tiny):
    samples = sound(150_000)
    (ours,) = AudioEncoder(whisper_tiny)([EncodeRequest(samples, range(1500))])
    assert torch.equal(ours, librarys(whisper_tiny, samples))


def test_the_last_layer_is_computed_for_what_is_needed(golden_bundle):
    encoder = copy.deepcopy(golden_bundle.audio_encoder)
    computed = []
    for layer in encoder.layers:
        layer.fc1.register_forward_hook(lambda _, inputs, __: computed.append(inputs[0].shape[1]))
    AudioEncoder(replace(golden_bundle, audio_encoder=encoder))([EncodeRequest(sound(9000), range(7, 28))])
    assert computed == [1500] * (len(encoder.layers) - 1) + [21]


@pytest.mark.parametrize("length", [0, 1, 399, 16_000, 480_000, 480_100])
def test_the_spectrogram_is_the_librarys(golden_bundle, length):
    extractor = golden_bundle.feature_extractor
    samples = (np.random.default_rng(0).standard_normal(length) / 8).astype(np.float32)
    expected = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
    ours = LogMel(extractor, torch.device("cpu"))([samples])
    assert ours.shape == expected.shape == (1, 80, 3000)
    assert (ours - expected).abs().max() < 1e-4


@pytest.mark.parametrize("rows", [150, 500])
def test_a_short_window_is_the_library_with_fewer_positions(golden_bundle, rows):
    """Feature extractor and encoder of the library, told that a window is that long."""
    samples = sound(rows * 320 - 1000)
    config = copy.deepcopy(golden_bundle.audio_encoder.config)
    config.max_source_positions = rows
    shorter = modules.build_encoder(config.to_dict(), random_v15.NOWHERE).eval()
    state = dict(golden_bundle.audio_encoder.state_dict())
    state["embed_positions.weight"] = state["embed_positions.weight"][:rows]
    shorter.load_state_dict(state)
    extractor = golden_bundle.feature_extractor
    mel = extractor(samples, sampling_rate=16_000, max_length=rows * 320, return_tensors="pt").input_features
    with torch.inference_mode():
        found = shorter(mel, output_hidden_states=True, return_dict=True)
    expected = torch.stack(found.hidden_states, dim=2)[0]
    (ours,) = AudioEncoder(golden_bundle)([EncodeRequest(samples, range(rows), rows)])
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-4)


def requests_of_many():
    """Windows of two lengths, each with its own sound and its own needed rows."""
    lengths = (150, 150, 250, 150, 150, 250)
    for number, rows in enumerate(lengths):
        yield EncodeRequest(sound(40_000)[1000 * number :], range(7 * number, rows - 11 * number), rows)


def test_windows_in_one_call_are_as_each_alone(golden_bundle):
    """On a CPU to the last bit, whatever their company."""
    encode, requests = AudioEncoder(golden_bundle), list(requests_of_many())
    for ours, request in zip(encode(requests), requests, strict=True):
        assert ours.shape[0] == len(request.rows)
        assert torch.equal(ours, encode([request])[0])


def test_windows_go_through_the_networks_together(golden_bundle):
    """As many as the device takes, and only those of one length."""
    encoder = copy.deepcopy(golden_bundle.audio_encoder)
    sizes = []
    encoder.conv1.register_forward_hook(lambda _, inputs, __: sizes.append(tuple(inputs[0].shape[::2])))
    bundle, requests = replace(golden_bundle, audio_encoder=encoder), list(requests_of_many())
    together = AudioEncoder(bundle, at_once=3)(requests)
    assert sorted(sizes) == [(1, 300), (2, 500), (3, 300)]
    for ours, alone in zip(together, AudioEncoder(golden_bundle)(requests), strict=True):
        assert torch.allclose(ours, alone, rtol=1e-5, atol=1e-5)
