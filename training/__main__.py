"""`python -m training`: from nothing to `models/demo`, `avatars/demo` and `avatars/demo2`, step by step.

Every step keeps its result in the work folder and is left out where that is there, so a run that was
interrupted goes on where it stopped. The same seed gives the same data in the same order.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from musetalk_cli.device import keep_freed_memory, resolve_device
from musetalk_cli.nets.bundle import Bundle, load_bundle
from training import avatars, bundle, evaluate, faces, listening, nets, picturing, sheets, sounds, speaking
from training.meter import Meter
from training.people import PEOPLE

SEED = 1
CLIPS, MOMENTS = 320, 1500
LISTENING_STEPS, PICTURING_STEPS, SPEAKING_STEPS = 2200, 4600, 4600
RECORDINGS = ("eng", "sun", "yongen")
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
        self._folder, self._device, self._models, self._people = folder, device, models, people

    def sounds(self) -> listening.Heard:
        """The training clips."""
        path = self._folder / "heard.npz"
        if not path.exists():
            _say(f"speaking {CLIPS} clips of {sounds.CLIP_SECONDS} s")
            listening.Heard.of(list(sounds.training_clips(CLIPS, seed=SEED))).save(path)
        return listening.Heard.load(path)

    def listener(self) -> listening.Listener:
        """The trained audio encoder with its head."""

        def make() -> nn.Module:
            judged = [sounds.held_out_clip(voice, seed=SEED) for voice in sounds.HELD_OUT_VOICES]
            return listening.train(self.sounds(), judged, LISTENING_STEPS, SEED, self._device)

        module = listening.Listener()
        module.load_state_dict(self._weights("listener", make))
        return module.to(self._device).eval()

    def faces(self) -> faces.Faces:
        """The training pictures."""
        folder = self._folder / "faces"
        if not (folder / "people.npy").exists():
            _say(f"drawing {MOMENTS} moments")
            faces.make(MOMENTS, self.sounds().frames.reshape(-1, 5), seed=SEED).save(folder)
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

            last = nn.ModuleDict({"unet": nets.build_unet(), "vae": vae.cpu()})
            last.load_state_dict(self._weights("speaker", make))
            bundle.write(folder, listener.encoder.cpu(), last["vae"], last["unet"], self._card())
        return load_bundle(str(folder), self._models, self._device, torch.float32)

    def _card(self) -> dict[str, object]:
        return {
            "license": "Apache-2.0",
            "knows": "two drawn people, the avatars demo and demo2, and no photographed face",
            "trained_on": "drawn faces of training/people.py, speech of espeak-ng 1.51 and flite 2.2",
            "recipe": {
                "seed": SEED, "clips": CLIPS, "moments": MOMENTS, "listening_steps": LISTENING_STEPS,
                "picturing_steps": PICTURING_STEPS, "speaking_steps": SPEAKING_STEPS,
            },
        }  # fmt: skip

    def _weights(self, name: str, make: Callable[[], nn.Module]) -> dict[str, torch.Tensor]:
        path = self._folder / f"{name}.safetensors"
        if not path.exists():
            started = time.monotonic()
            state = {key: value.detach().cpu().contiguous() for key, value in make().state_dict().items()}
            _say(f"{name} took {time.monotonic() - started:.0f} s")
            save_file(state, path)
        kept: dict[str, torch.Tensor] = load_file(path)
        return kept

    def avatars(self) -> None:
        """Both avatars and the sample."""
        avatars.make(self.networks(), self._people, seed=SEED)
        avatars.write_sample(self._people / PEOPLE[0].name / "sample.wav")

    def evaluation(self, recordings: Path | None) -> None:
        """The figures of the bundle, beside it, and contact sheets in the work folder."""
        networks, pictures = self.networks(), self.faces()
        meters = [Meter(pictures, number) for number in range(len(PEOPLE))]
        figures = []
        for number, voice in enumerate(sounds.HELD_OUT_VOICES):
            one, shown = evaluate.judge(networks, voice, number, meters)
            figures.append(one)
            sheets.write(self._folder / f"sheet-{number}.png", shown)
            _say(json.dumps({key: _rounded(value) for key, value in asdict(one).items()}))
        real: dict[str, float] = {}
        if recordings is not None:
            for number, name in enumerate(RECORDINGS):
                who = number % len(PEOPLE)
                path = recordings / "footage" / f"{name}.wav"
                real[name] = evaluate.against_energy(networks, path, meters[who], PEOPLE[who])
        folder = self._models / bundle.NAME
        result = {"clips": [asdict(one) for one in figures], "opening_against_log_energy": real}
        (folder / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
        print(evaluate.table(figures))
        print(real)


def _rounded(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


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
    chosen = parser.parse_args()
    keep_freed_memory()
    work = Work(chosen.work, resolve_device(chosen.device), chosen.models, chosen.avatars)
    data = os.environ.get("MUSETALK_TEST_DATA")
    steps: dict[str, Callable[[], object]] = {
        "sounds": work.sounds, "listener": work.listener, "faces": work.faces, "networks": work.networks,
        "avatars": work.avatars, "evaluation": lambda: work.evaluation(Path(data) if data else None),
    }  # fmt: skip
    for step in ("networks", "avatars", "evaluation") if chosen.step == "all" else (chosen.step,):
        steps[step]()


if __name__ == "__main__":
    main()
