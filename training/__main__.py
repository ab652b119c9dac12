"""`python -m training`: from nothing to `models/demo`, `avatars/demo` and `avatars/demo2`, step by step.

Every step keeps its result in the work folder and is left out where that is there, so a run that was
interrupted goes on where it stopped. The same seed gives the same data in the same order.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from musetalk_cli.nets.bundle import Bundle, load_bundle
from musetalk_cli.nets.device import keep_freed_memory, resolve_device, resolve_dtype
from training import avatars, bundle, evaluate, faces, listening, nets, picturing, results, sounds, speaking
from training.meter import Meter
from training.people import PEOPLE

SEED = 1
CLIPS, MOMENTS = 320, 1500
LISTENING_STEPS, PICTURING_STEPS, SPEAKING_STEPS = 2200, 4600, 4300
RECIPE = {
    "seed": SEED, "clips": CLIPS, "moments": MOMENTS, "listening_steps": LISTENING_STEPS,
    "picturing_steps": PICTURING_STEPS, "speaking_steps": SPEAKING_STEPS,
}  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent


class Work:
    """The steps and their files.

    Args:
        folder: Where intermediate results are kept.
        device: Where to compute.
        models: Folder the bundle is written to, as `demo`.
        people: Folder of avatars.
    """

    def __init__(self, folder: Path, device: torch.device, models: Path, people: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        recipe = folder / "recipe.json"
        if recipe.exists() and json.loads(recipe.read_text()) != RECIPE:
            raise SystemExit(f"{folder} holds results of another recipe; remove it or choose another --work.")
        recipe.write_text(json.dumps(RECIPE))
        self._folder, self._device, self._models, self._people = folder, device, models, people

    def sounds(self) -> listening.Heard:
        """The training clips."""
        path = self._folder / "heard.npz"
        if not path.exists():
            _say(f"speaking {CLIPS} clips of {sounds.CLIP_SECONDS} s")
            heard = listening.Heard.of(list(sounds.training_clips(CLIPS, seed=SEED)))
            _complete(path, heard.save)
        return listening.Heard.load(path)

    def listener(self) -> listening.Listener:
        """The trained audio encoder with its head."""

        def make() -> nn.Module:
            judged = sounds.held_out_clips(seed=SEED)
            return listening.train(self.sounds(), judged, LISTENING_STEPS, SEED, self._device)

        module = listening.Listener()
        module.load_state_dict(self._weights("listener", make))
        return module.to(self._device).eval()

    def faces(self) -> faces.Faces:
        """The training pictures."""
        folder = self._folder / "faces"
        if not folder.exists():
            _say(f"drawing {MOMENTS} moments")
            drawn = faces.make(MOMENTS, self.sounds().frames.reshape(-1, 5), seed=SEED)
            _complete(folder, drawn.save)
        return faces.Faces.load(folder)

    def networks(self) -> Bundle:
        """The trained bundle, written to the models folder, in fp32."""
        folder = self._models / bundle.NAME
        if not (folder / "bundle.json").exists():
            listener, pictures = self.listener(), self.faces()
            first = self._weights(
                "vae", lambda: picturing.train(pictures, PICTURING_STEPS, SEED, self._device)
            )
            vae = nets.build_vae().to(self._device)
            vae.load_state_dict(first)
            vae.register_to_config(scaling_factor=picturing.spread_of(vae, pictures, self._device))

            def make() -> nn.Module:
                unet = speaking.train(
                    pictures, self.sounds(), listener, vae, SPEAKING_STEPS, SEED, self._device
                )
                return nn.ModuleDict({"unet": unet, "vae": vae})

            trained = self._weights("speaker", make)
            last = nn.ModuleDict({"unet": nets.build_unet(), "vae": vae.cpu()})
            last.load_state_dict(trained)
            bundle.write(folder, listener.encoder.cpu(), last["vae"], last["unet"], self._card())
        return load_bundle(str(folder), self._models, self._device, torch.float32)

    def _card(self) -> dict[str, object]:
        return {
            "license": "Apache-2.0",
            "knows": "two drawn people, the avatars demo and demo2, and no photographed face",
            "trained_on": "drawn faces of training/people.py, speech of espeak-ng 1.51 and flite 2.2",
            "recipe": RECIPE,
        }

    def _weights(self, name: str, make: Callable[[], nn.Module]) -> dict[str, torch.Tensor]:
        path = self._folder / f"{name}.safetensors"
        if not path.exists():
            started = time.monotonic()
            state = {key: value.detach().cpu().contiguous() for key, value in make().state_dict().items()}
            _say(f"{name} took {time.monotonic() - started:.0f} s")
            _complete(path, partial(save_file, state))
        kept: dict[str, torch.Tensor] = load_file(path)
        return kept

    def avatars(self) -> None:
        """Both avatars and the sample."""
        avatars.make(self.networks(), self._people, seed=SEED)
        avatars.write_sample(self._people / PEOPLE[0].name / "sample.wav")

    def evaluation(self, recordings: Path | None) -> None:
        """The figures of the bundle, beside it, and contact sheets in the work folder."""
        paths = sorted(recordings.glob("*.wav")) if recordings is not None else []
        if recordings is not None and not paths:
            raise SystemExit(f"{recordings} holds no recording (*.wav).")
        preparing, pictures = self.networks(), self.faces()
        dtype = resolve_dtype("auto", self._device, preparing.card.cpu_precision)
        speaking_too = load_bundle(str(self._models / bundle.NAME), self._models, self._device, dtype)
        networks = evaluate.Networks(preparing, speaking_too)
        meters = [Meter(pictures, number) for number in range(len(PEOPLE))]
        figures = self._judged(networks, meters)
        followed = {}
        for number, path in enumerate(paths):
            who = number % len(PEOPLE)
            followed[path.stem] = evaluate.against_energy(networks, path, meters[who], PEOPLE[who])
        self._publish(str(dtype).removeprefix("torch."), figures, followed)

    def _judged(self, networks: evaluate.Networks, meters: list[Meter]) -> list[evaluate.Figures]:
        figures = []
        clips = sounds.held_out_clips(seed=SEED + 1)
        for number, (voice, clip) in enumerate(zip(sounds.HELD_OUT_VOICES, clips, strict=True)):
            scene = evaluate.draw(networks, clip, number, meters)
            one, shown = evaluate.judge(networks, voice, scene)
            figures.append(one)
            results.write_sheet(self._folder / f"sheet-{number}.png", shown)
            _say(json.dumps(_rounded(asdict(one))))
        return figures

    def _publish(
        self, precision: str, figures: list[evaluate.Figures], followed: dict[str, dict[str, float]]
    ) -> None:
        folder = self._models / bundle.NAME
        clips = [_rounded(asdict(one)) for one in figures]
        real = {name: _rounded(one) for name, one in followed.items()}
        result = {"precision": precision, "clips": clips, "against_log_energy_of_recordings": real}
        (folder / "evaluation.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        card = json.loads((folder / "bundle.json").read_text())
        (folder / "README.md").write_text(results.model_card(card, precision, figures, followed))
        print(results.table(figures))


def _complete(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside a name and rename, so that what is there is complete."""
    beside = path.with_name(f"unfinished-{path.name}")
    if beside.is_dir():
        shutil.rmtree(beside)
    write(beside)
    beside.replace(path)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run one step and what it needs."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument(
        "step", choices=["sounds", "listener", "faces", "networks", "avatars", "evaluation", "all"]
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "demo-model", help="intermediate results"
    )
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--avatars", type=Path, default=ROOT / "avatars")
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--recordings", type=Path, help="folder of real voices to judge too (*.wav)")
    chosen = parser.parse_args()
    keep_freed_memory()
    work = Work(chosen.work, resolve_device(chosen.device), chosen.models, chosen.avatars)
    steps: dict[str, Callable[[], object]] = {
        "sounds": work.sounds, "listener": work.listener, "faces": work.faces, "networks": work.networks,
        "avatars": work.avatars, "evaluation": lambda: work.evaluation(chosen.recordings),
    }  # fmt: skip
    for step in ("networks", "avatars", "evaluation") if chosen.step == "all" else (chosen.step,):
        steps[step]()


if __name__ == "__main__":
    main()
