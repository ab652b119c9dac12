"""Each stage trains for a step or two on next to nothing, and what comes out loads as a bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from musetalk_cli.nets.bundle import load_bundle
from musetalk_cli.nets.generator import position_table
from training import bundle, evaluate, faces, listening, measures, nets, picturing, sounds, speaking, visemes
from training.meter import Meter
from training.schedule import Schedule

# values of the clip that never change follow nothing: the stage's report says that it is no number
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")

CPU = torch.device("cpu")
JUDGED = 6


@pytest.fixture(scope="module")
def clip():
    """A clip whose sound is a tone as loud as the mouth is open."""
    rng = np.random.default_rng(0)
    opening = np.clip(
        np.interp(np.arange(sounds.ROWS), np.arange(0, sounds.ROWS, 10), rng.random(sounds.ROWS // 10)), 0, 1
    )
    rows = np.tile(np.float32(visemes.REST), (sounds.ROWS, 1))
    rows[:, visemes.OPENING] = opening
    tone = np.sin(np.arange(480_000) * 0.3) * np.repeat(opening, 320) * 0.5
    return sounds.Clip(tone.astype(np.float32), rows, rows[::2].copy(), np.zeros((0, 2), np.float32))


@pytest.fixture(scope="module", autouse=True)
def few_are_judged():
    """Every picture is drawn, and encoded in each stage: as few as a stage can do with."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("picturing", "speaking", "meter"):
            patch.setattr(f"training.{module}.JUDGED", JUDGED)
        yield


@pytest.fixture(scope="module")
def pictures(clip):
    """A few moments of each person and a few more that are only looked at."""
    return faces.make(2 * 3 + JUDGED, clip.frames, seed=0, workers=0)


@pytest.fixture(scope="module")
def listener(clip):
    return listening.train(listening.Heard.of([clip]), [clip], steps=2, seed=0, device=CPU)


@pytest.fixture(scope="module")
def vae(pictures):
    return picturing.train(pictures, steps=2, seed=0, device=CPU)


def changed(module, fresh):
    return [
        name
        for name, value in module.state_dict().items()
        if not torch.equal(value, fresh.state_dict()[name])
    ]


def test_the_encoder_starts_by_looking_near_by():
    torch.manual_seed(0)
    attention = nets.build_encoder().layers[0].self_attn
    from transformers.models.whisper.modeling_whisper import sinusoids

    positions = sinusoids(1500, nets.WIDTH)
    with torch.no_grad():
        query, key = attention.q_proj(positions * 1.4), attention.k_proj(positions * 1.4)
    size = nets.WIDTH // nets.HEADS
    for head, distance in enumerate((-4, -1, 1, 4)):
        part = slice(head * size, (head + 1) * size)
        found = (query[700, part] @ key[:, part].T).argmax() - 700
        assert int(found) == distance


@pytest.mark.slow
def test_listening_changes_every_weight(clip, listener):
    torch.manual_seed(0)
    fresh = listening.Listener()
    still = {"encoder.embed_positions.weight"}
    assert set(fresh.state_dict()) - set(changed(listener, fresh)) <= still


@pytest.mark.slow
def test_picturing_states_a_scale_that_gives_latents_a_spread_of_one(pictures, vae):
    with torch.no_grad():
        images = torch.from_numpy(faces.to_tensor_array(pictures.images[:48, 0]))
        spread = vae.encode(images).latent_dist.mode().std() * vae.config.scaling_factor
    assert float(spread) == pytest.approx(1, abs=1e-3)


def test_what_is_pasted_counts_more_than_what_is_not():
    weights = picturing.pixel_weights(np.array([128.0, 180.0], np.float32))
    assert weights[50, 50] < weights[240, 20] < weights[180, 128]


@pytest.mark.slow
def test_speaking_between_latents_leaves_the_vae_alone(clip, pictures, listener, vae, monkeypatch):
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    monkeypatch.setattr(speaking, "LATENT_BATCH", 2)
    monkeypatch.setattr(speaking, "LATENTS_UNTIL", 1.0)
    speaking.train(pictures, listening.Heard.of([clip]), listener, vae, steps=2, seed=0, device=CPU)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


@pytest.mark.slow
def test_speaking_trains_the_unet_and_at_the_end_the_decoder_but_no_encoder(
    clip, pictures, listener, vae, monkeypatch
):
    heard = listening.Heard.of([clip])
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    ears = {name: value.clone() for name, value in listener.state_dict().items()}
    monkeypatch.setattr(speaking, "LATENT_BATCH", 2)
    monkeypatch.setattr(speaking, "PICTURE_BATCH", 2)
    unet = speaking.train(pictures, heard, listener, vae, steps=4, seed=0, device=CPU)
    moved = {name for name, value in vae.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in moved)
    assert all(torch.equal(value, ears[name]) for name, value in listener.state_dict().items())
    torch.manual_seed(0)
    assert changed(unet, nets.build_unet())


@pytest.mark.slow
def test_tokens_of_the_course_are_those_of_the_product(clip, listener, vae, pictures, tmp_path):
    """Training and product must cut the same rows for a frame."""
    heard = listening.Heard.of([clip])
    rows = speaking.hidden_rows(listener, heard, CPU)
    course = speaking.Course(pictures, speaking.Latents.of(vae, pictures, CPU), rows, CPU)
    numbers = np.array([0, 1, 40, 700])
    wanted = course.tokens(numbers)
    wanted = wanted - position_table(*wanted.shape[1:])
    bundle.write(tmp_path, listener.encoder, vae, nets.build_unet(), {})
    networks = load_bundle(str(tmp_path), tmp_path, CPU, torch.float32)
    # the course is made of whole files, whose windows are those of the published encoder
    networks = replace(networks, card=replace(networks.card, window_s=Fraction(30)))
    found = evaluate.tokens_of(networks, heard.samples[0].astype(np.float32), 750, chunk=Fraction(30))[
        numbers
    ]
    assert float((found - wanted).abs().max()) < 0.1
    assert float((found - wanted.roll(1, 0)).abs().max()) > 0.5


@pytest.mark.slow
def test_a_written_bundle_loads_and_gives_the_same_faces(listener, vae, tmp_path):
    torch.manual_seed(1)
    unet = nets.build_unet()
    bundle.write(tmp_path / "demo", listener.encoder, vae, unet, {"license": "none"})
    card = json.loads((tmp_path / "demo" / "bundle.json").read_text())
    chosen = {"name": "demo", "cpu_precision": "bf16", "cpu_batch": 13, "window_s": 5}
    assert card == chosen | {"license": "none"}
    networks = load_bundle(str(tmp_path / "demo"), Path(), CPU, torch.float32)
    assert networks.vae.config.scaling_factor == vae.config.scaling_factor
    latents, tokens = torch.randn(1, 8, 32, 32), torch.randn(1, 50, nets.WIDTH)
    with torch.no_grad():
        one, other = (
            net(latents, 0, encoder_hidden_states=tokens).sample for net in (unet.eval(), networks.unet)
        )
    assert float((one - other).abs().max()) < 0.02, "fp16 on the way"


@pytest.mark.slow
def test_a_bundle_is_small_enough_to_ship(listener, vae, tmp_path):
    bundle.write(tmp_path, listener.encoder, vae, nets.build_unet(), {})
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 12e6


@pytest.mark.slow
def test_the_meter_reads_mouths_it_was_not_made_of(clip):
    drawn = faces.make(2 * 15 + JUDGED, clip.frames, seed=3, workers=0)
    meter, judged = Meter(drawn, 0), np.arange(len(drawn.images))[-JUDGED:]
    chosen = judged[drawn.people[judged] == 0]
    images = np.concatenate([drawn.images[n] for n in chosen])
    read = meter.read(images, np.repeat(drawn.centres[chosen], 4, axis=0))
    truth = np.concatenate([drawn.values[n] for n in chosen])
    assert np.corrcoef(read[:, 0], truth[:, 0])[0, 1] > 0.97
    assert np.abs(read[:, 0] - truth[:, 0]).mean() < 0.05


def test_a_late_mouth_has_a_lag_above_zero():
    truth = np.random.default_rng(0).random(200)
    assert measures.best_lag(np.roll(truth, 3), truth) == 3
    assert measures.best_lag(truth, truth) == 0
    assert measures.best_lag(np.roll(truth, -2), truth) == -2


def test_psnr_of_a_known_error():
    truth = np.full((2, 256, 256, 3), 100, np.uint8)
    centres = np.full((2, 2), 150, np.float32)
    assert measures.mouth_psnr(truth + np.uint8(10), truth, centres) == pytest.approx(20 * np.log10(25.5))


def test_the_rate_rises_then_falls_to_a_hundredth():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=0)
    schedule = Schedule(optimiser, 1.0, steps=100, warm_up=10)
    rates = []
    for _ in range(100):
        schedule.step()
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == pytest.approx(1, abs=0.05)
    assert rates[-1] == pytest.approx(0.01, abs=0.005)
