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
    mel = LogMel(bundle.feature_extractor, bundle.device)(samples).to(bundle.dtype)
    with torch.inference_mode():
        found = bundle.audio_encoder(mel, output_hidden_states=True, return_dict=True)
    return torch.stack(found.hidden_states, dim=2)[0].float()


@pytest.mark.parametrize("name", ["golden_bundle", "whisper_tiny", "overflowing"])
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
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


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
    ours = LogMel(extractor, torch.device("cpu"))(samples)
    assert ours.shape == expected.shape == (1, 80, 3000)
    assert (ours - expected).abs().max() < 1e-4
