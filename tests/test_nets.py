import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from musetalk_cli.errors import ModelError
from musetalk_cli.nets import modules, random_v15
from musetalk_cli.nets.bundle import load_bundle
from musetalk_cli.nets.files import resolve
from musetalk_cli.nets.loading import load_weights

GOLDEN = Path(__file__).parent / "data" / "golden" / "models"
CPU = torch.device("cpu")
UNET, VAE, WHISPER = (
    "musetalkV15/unet.pth",
    "sd-vae/diffusion_pytorch_model.bin",
    "whisper/pytorch_model.bin",
)


@pytest.fixture
def models(tmp_path):
    """A models folder that a test may change."""
    folder = tmp_path / "models"
    shutil.copytree(GOLDEN, folder)
    return folder


def load(models, dtype=torch.float32, model="v15"):
    return load_bundle(model, models, CPU, dtype)


def read(path):
    return torch.load(path, weights_only=True)


def refusal(models, model="v15"):
    with pytest.raises(ModelError) as caught:
        load(models, model=model)
    assert "\n" not in caught.value.message
    return caught.value


def networks(bundle):
    return bundle.unet, bundle.vae, bundle.audio_encoder


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_golden_bundle_loads_in_every_format(dtype):
    bundle = load(GOLDEN, dtype)
    assert (bundle.name, bundle.version, bundle.random) == ("v15", "v15", False)
    assert (bundle.token_width, bundle.layers) == (384, 2)
    assert bundle.vae.config.scaling_factor == 0.18215
    for net in networks(bundle):
        assert not net.training
        for tensor in (*net.parameters(), *net.buffers()):
            assert tensor.device == CPU
            assert not tensor.requires_grad
            assert tensor.dtype == dtype
    saved = read(GOLDEN / UNET)["conv_in.weight"]
    assert torch.equal(bundle.unet.conv_in.weight, saved.to(dtype))


def test_no_tensor_shares_memory_with_a_file():
    bundle = load(GOLDEN, torch.float16)
    for net in networks(bundle):
        for tensor in net.parameters():
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
            assert tensor.is_contiguous()


@pytest.mark.slow
def test_libraries_stay_silent():
    code = (
        "import sys, torch; from pathlib import Path; from musetalk_cli.nets.bundle import load_bundle;"
        "load_bundle(sys.argv[1], Path(), torch.device('cpu'), torch.float16)"
    )
    done = subprocess.run([sys.executable, "-c", code, GOLDEN], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_unknown_keys_of_old_configurations_are_ignored(models, capfd):
    edit(models / "musetalkV15/musetalk.json", forgotten_option=3)
    edit(models / "sd-vae/config.json", forgotten_option=3)
    load(models)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("pickled", "preferred"),
    [
        (UNET, "unet.safetensors"),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in (
                (UNET, "diffusion_pytorch_model.safetensors"),
                (VAE, "diffusion_pytorch_model.safetensors"),
                (WHISPER, "model.safetensors"),
            )
        ),
    ],
)
def test_safetensors_beside_or_instead_of_the_pickle_is_preferred(pickled, preferred, models):
    state = {name: tensor.contiguous() for name, tensor in read(models / pickled).items()}
    save_file(state, (models / pickled).with_name(preferred))
    (models / pickled).write_bytes(b"never opened")
    load(models)
    (models / pickled).unlink()
    load(models)


def test_drop_add_and_reshape_are_named(models):
    state = read(models / UNET)
    del state["conv_in.bias"]
    state["made.up"] = torch.zeros(1)
    state["conv_out.bias"] = torch.zeros(5)
    torch.save(state, models / UNET)
    message = refusal(models).message
    assert str(models / UNET) in message
    assert "1 missing (conv_in.bias)" in message
    assert "1 unexpected (made.up)" in message
    assert "1 of the wrong shape (conv_out.bias is [5], wanted [4])" in message


def test_many_wrong_names_are_counted(models):
    state = {f"module.{name}": tensor for name, tensor in read(models / VAE).items()}
    torch.save(state, models / VAE)
    assert ", and 177 more" in refusal(models).message


def test_a_tensor_under_both_of_its_names_is_refused(models):
    state = read(models / VAE)
    state["encoder.mid_block.attentions.0.to_q.weight"] = state[
        "encoder.mid_block.attentions.0.query.weight"
    ].clone()
    torch.save(state, models / VAE)
    assert "1 unexpected (encoder.mid_block.attentions.0.to_q.weight)" in refusal(models).message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_values_that_are_not_finite_are_refused(value, models):
    state = {name: tensor.float() for name, tensor in read(models / UNET).items()}
    state["conv_in.weight"][0, 0, 0, 0] = value
    torch.save(state, models / UNET)
    with pytest.raises(ModelError, match=r"conv_in\.weight in .* is not finite in float16"):
        load(models, torch.float16)


def test_integers_in_place_of_weights_are_refused(models):
    state = read(models / UNET)
    state["conv_in.bias"] = state["conv_in.bias"].to(torch.int8)
    torch.save(state, models / UNET)
    assert "conv_in.bias" in refusal(models).message


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("plain", [False, True])
def test_hostile_pickles_never_run(plain, models, tmp_path):
    trace = tmp_path / "ran"
    state = {**read(models / UNET), "conv_in.bias": Hostile(trace)}
    if plain:
        (models / UNET).write_bytes(pickle.dumps(state))
    else:
        torch.save(state, models / UNET)
    message = refusal(models).message
    assert str(models / UNET) in message
    assert ("not a file of tensors" if plain else "holds more than tensors") in message
    assert not trace.exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"hello, this is no pickle", b"\x80\x02}q\x00.", b"\x00" * 99]
)
@pytest.mark.parametrize("name", [UNET, "musetalkV15/unet.safetensors"])
def test_files_that_are_no_weights(name, content, models):
    (models / name).write_bytes(content)
    message = refusal(models).message
    assert str(models / name) in message
    assert "truncated" in message or "not a weights file" in message or "no safetensors file" in message


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_pickle(legacy, models):
    torch.save(read(models / UNET), models / UNET, _use_new_zipfile_serialization=not legacy)
    content = (models / UNET).read_bytes()
    (models / UNET).write_bytes(content[: len(content) // 2])
    assert "truncated" in refusal(models).message


def test_truncated_safetensors(models):
    path = models / "musetalkV15/unet.safetensors"
    save_file(read(models / UNET), path)
    path.write_bytes(path.read_bytes()[:-10])
    assert "truncated" in refusal(models).message


def test_legacy_pickles_and_a_lone_state_dict_key(models):
    torch.save(read(models / UNET), models / UNET, _use_new_zipfile_serialization=False)
    torch.save({"state_dict": read(models / VAE)}, models / VAE)
    load(models)


@pytest.mark.parametrize(
    "content", [{"state_dict": {}, "epoch": 3}, [torch.zeros(1)], {}, {"a": 1}, {3: torch.zeros(1)}]
)
def test_pickles_of_other_things(content, models):
    torch.save(content, models / UNET)
    assert str(models / UNET) in refusal(models).message


def test_old_and_new_attention_names_give_the_same_vae(models):
    before = load(models).vae.state_dict()
    state = read(models / VAE)
    names = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    for half in ("encoder", "decoder"):
        for old, new in names.items():
            for kind in ("weight", "bias"):
                prefix = f"{half}.mid_block.attentions.0"
                state[f"{prefix}.{new}.{kind}"] = state.pop(f"{prefix}.{old}.{kind}")
    torch.save(state, models / VAE)
    after = load(models).vae.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_attention_stored_as_convolutions(models):
    before = load(models).vae.state_dict()
    state = {
        name: tensor[..., None, None] if ".attentions." in name and tensor.ndim == 2 else tensor
        for name, tensor in read(models / VAE).items()
    }
    torch.save(state, models / VAE)
    after = load(models).vae.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_whisper_with_prefix_decoder_and_output_layer(models):
    before = load(models).audio_encoder.state_dict()
    state = {f"model.{name}": tensor for name, tensor in read(models / WHISPER).items()}
    state["proj_out.weight"] = torch.zeros(8, 384)
    assert any(name.startswith("model.decoder.") for name in state)
    torch.save(state, models / WHISPER)
    after = load(models).audio_encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not hasattr(load(models).audio_encoder, "decoder")


@pytest.mark.parametrize("name", ["layer_norm.weight", "model.embed_positions.weight", "encoder.made_up"])
def test_whisper_tensors_outside_encoder_and_decoder_are_refused(name, models):
    torch.save({**read(models / WHISPER), name: torch.zeros(384)}, models / WHISPER)
    assert f"1 unexpected ({name})" in refusal(models).message


class Buffered(nn.Module):
    """A layer with a buffer that no file holds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("rates", torch.arange(3.0), persistent=False)
        self.register_buffer("steps", torch.arange(3), persistent=False)
        self.register_buffer("count", torch.tensor(0))


def test_buffers_without_a_file_keep_their_built_values(tmp_path):
    save_file({"weight": torch.ones(3), "count": torch.tensor(7)}, tmp_path / "a.safetensors")
    module = load_weights(Buffered, tmp_path / "a.safetensors", CPU, torch.float16)
    assert module.weight.tolist() == [1, 1, 1]
    assert (module.rates.tolist(), module.rates.dtype) == ([0, 1, 2], torch.float16)
    assert (module.steps.tolist(), module.steps.dtype) == ([0, 1, 2], torch.int64)
    assert (module.count.item(), module.count.dtype) == (7, torch.int64)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("musetalkV15/musetalk.json", "{", "not JSON"),
        ("musetalkV15/musetalk.json", "[]", "not a configuration"),
        ("musetalkV15/musetalk.json", "[" * 100_000, "nests deeper"),
        ("musetalkV15/musetalk.json", '{"_class_name": "AutoencoderKL"}', "a UNet2DConditionModel is needed"),
        ("musetalkV15/musetalk.json", '{"layers_per_block": 1000000000}', "layers_per_block"),
        ("musetalkV15/musetalk.json", '{"block_out_channels": [0]}', "block_out_channels"),
        ("musetalkV15/musetalk.json", '{"block_out_channels": [33, 33]}', "cannot be built"),
        ("musetalkV15/musetalk.json", '{"down_block_types": ["Nonsense"]}', "cannot be built"),
        ("sd-vae/config.json", '{"scaling_factor": NaN}', "not JSON"),
        ("sd-vae/config.json", '{"latent_channels": "four"}', "latent_channels"),
        ("whisper/config.json", '{"model_type": "bert"}', "a whisper is needed"),
        ("whisper/config.json", '{"d_model": -1}', "d_model"),
        ("whisper/preprocessor_config.json", '{"feature_size": 1e9}', "feature_size"),
    ],
)
def test_broken_configurations(name, content, complaint, models):
    (models / name).write_text(content)
    message = refusal(models).message
    assert str(models / name) in message
    assert complaint in message


def test_configuration_that_is_no_text(models):
    (models / "whisper/config.json").write_bytes(b"\xff\xfe\x00")
    assert "not JSON" in refusal(models).message


@pytest.mark.parametrize(
    ("name", "values", "complaint"),
    [
        ("sd-vae/config.json", {"scaling_factor": 0}, "scaling_factor is 0"),
        ("whisper/preprocessor_config.json", {"feature_size": 128}, "num_mel_bins is 80"),
        ("whisper/preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate is 8000"),
        ("whisper/preprocessor_config.json", {"chunk_length": 10}, "frames per window is 1000"),
    ],
)
def test_parts_that_do_not_fit(name, values, complaint, models):
    edit(models / name, **values)
    message = refusal(models).message
    assert complaint in message
    assert str(models / name) in message


def test_narrow_encoder_beside_a_wide_unet(models):
    state = {
        name: tensor[tuple(slice(0, 96 if size == 384 else None) for size in tensor.shape)].clone()
        for name, tensor in read(models / WHISPER).items()
    }
    torch.save(state, models / WHISPER)
    edit(models / "whisper/config.json", d_model=96)
    message = refusal(models).message
    assert f"cross_attention_dim is 384 in {models / 'musetalkV15/musetalk.json'}" in message
    assert f"d_model is 96 in {models / 'whisper/config.json'}" in message


def test_a_missing_file_is_named_with_its_folder_and_the_command(models):
    (models / VAE).unlink()
    error = refusal(models)
    assert (
        f"{models} holds no sd-vae/diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin"
        in error.message
    )
    assert "`musetalk models download v15`" in error.hint


def test_names_and_paths(models, tmp_path, monkeypatch):
    assert resolve("v15", models).unet_weights == models / UNET
    assert resolve(str(models), tmp_path).version == "v15"
    shutil.copytree(models, models / "demo")
    assert resolve("demo", models).vae_weights == models / "demo" / VAE
    with pytest.raises(ModelError, match=r"musetalk/musetalk\.json"):
        resolve("v1", models)
    (models / UNET).rename(models / "musetalkV15/pytorch_model.bin")
    shutil.copytree(models / "musetalkV15", models / "musetalk")
    assert resolve("v1", models).unet_config == models / "musetalk/musetalk.json"
    with pytest.raises(ModelError, match=r"musetalkV15/unet\.safetensors"):
        resolve(str(models), tmp_path)
    shutil.rmtree(models / "musetalkV15")
    monkeypatch.chdir(tmp_path)
    assert resolve("models", tmp_path).version == "v1"
    assert load(models, model="v1").version == "v1"


@pytest.mark.parametrize("model", ["v16", "", "no/such/folder"])
def test_unknown_models_list_the_known_ones(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        resolve(model, tmp_path)
    assert "v15, v1, demo, random-v15" in (caught.value.hint or "") + caught.value.message


def test_an_empty_folder_is_an_incomplete_bundle(tmp_path):
    with pytest.raises(ModelError, match="is incomplete"):
        resolve(str(tmp_path), tmp_path)


def test_random_v15_has_the_published_shape():
    where = Path("test")
    unet = modules.on_meta(lambda: modules.build_unet(random_v15.unet_config(), where))
    vae = modules.on_meta(lambda: modules.build_vae(random_v15.vae_config(), where))
    encoder = modules.on_meta(lambda: modules.build_encoder(random_v15.encoder_config(), where))
    assert len(unet.state_dict()) == 686
    assert sum(tensor.numel() for tensor in unet.parameters()) == 849_947_844
    assert sum(tensor.numel() for tensor in vae.parameters()) == 83_653_863
    assert sum(tensor.numel() for tensor in vae.decoder.parameters()) == 49_490_179
    assert sum(tensor.numel() for tensor in encoder.parameters()) == 8_208_384
    assert vae.config.scaling_factor == 0.18215


def test_random_weights_are_seeded_scaled_and_finite():
    make = lambda: nn.Sequential(nn.Conv2d(64, 128, 3), nn.GroupNorm(8, 128))  # noqa: E731
    one, other = (random_v15.Pool(CPU, torch.float16).fill(make) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one[0].weight.float().std().item() == pytest.approx(1 / 24, rel=0.05)
    assert one[0].bias.abs().max() == 0
    assert one[1].weight.unique().tolist() == [1]
    assert not one[0].weight.requires_grad
    assert torch.unique(one[0].weight.flatten(1)[:, 0].float()).numel() > 100


def test_the_face_network_alone_is_that_of_the_bundle(golden, golden_bundle):
    from musetalk_cli.config import DataFolder, RunConfig
    from musetalk_cli.nets.bundle import open_face_network

    place = DataFolder(golden, "flag")
    network = open_face_network(RunConfig(place, place, str(golden / "models"), "cpu", "fp32"))
    assert (network.version, network.family) == (golden_bundle.version, golden_bundle.family)
    assert (network.device, network.dtype) == (golden_bundle.device, golden_bundle.dtype)
    expected = golden_bundle.vae.state_dict()
    found = network.vae.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
