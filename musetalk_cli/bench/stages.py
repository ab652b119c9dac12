"""Every stage of a batch by itself: how long it takes, and what it reached of what the hardware can."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from musetalk_cli.bench.batch import FUSED, ON_CPU, ON_GPU, TENSORS, BatchResult, StageResult, sessions_of
from musetalk_cli.bench.measure import Roofline, count_flops, median_s
from musetalk_cli.bench.published import PublishedFrames
from musetalk_cli.engine.compositor import CpuPath, GpuPath, StepByStep
from musetalk_cli.engine.costs import Costs
from musetalk_cli.engine.drawn import Drawn
from musetalk_cli.engine.fused import image_path
from musetalk_cli.engine.graphs import GraphedBatch, Recorder
from musetalk_cli.engine.image_path import Target
from musetalk_cli.engine.image_steps import SourceFrame
from musetalk_cli.errors import first_line
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.folding import fold
from musetalk_cli.nets.generator import Generator
from musetalk_cli.ops.drawn import levels
from musetalk_cli.timeline import ROWS_PER_FRAME, ROWS_PER_SECOND, SAMPLE_RATE
from musetalk_cli.types import FACE_SIZE

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.engine.engine import Engine

log = logging.getLogger(__name__)

_FACE_BYTES = FACE_SIZE * FACE_SIZE * 3


class Stages:
    """The stages of one engine's networks on one avatar, callable one by one.

    Args:
        engine: Whose networks, sizes and settings.
        avatar: Whose faces.
        roofline: What the hardware does at best.
        budget_s: Seconds to spend on each figure.
        published: Puts faces into frames in the published order of work, to compare; or None.
    """

    def __init__(
        self,
        engine: Engine,
        avatar: Avatar,
        roofline: Roofline,
        budget_s: float,
        published: PublishedFrames | None,
    ) -> None:
        self.bundle = engine.bundle
        self._job = engine.job
        self._avatar = avatar
        self._roofline = roofline
        self._budget_s = budget_s
        self._published = published
        self._generator, self._vae = Generator(engine.bundle), fold(engine.bundle.drawing)
        self._encode = AudioEncoder(engine.bundle)
        second = np.zeros(SAMPLE_RATE, np.float32)
        self._request = EncodeRequest(second, range(ROWS_PER_SECOND), engine.window_rows)
        device = self.bundle.device
        self._images = engine.images
        on_device = engine.images.path == ON_GPU and device.type != "cpu"
        self._fused = on_device and not isinstance(image_path(device, 1, engine.job.sharpen), StepByStep)
        self._images.hold(avatar)
        self._latents = avatar.latents.to(device, self.bundle.dtype)
        self._tokens = torch.zeros(
            1, ROWS_PER_FRAME * self.bundle.layers, self.bundle.token_width, device=device
        )

    def encode(self) -> list[Tensor]:
        """Rows of one encoder window, of which a second is needed."""
        return self._encode([self._request])

    def unet(self, size: int) -> Tensor:
        """Predicted latents of a batch."""
        index = torch.arange(size, device=self._latents.device) % len(self._latents)
        return self._generator.unet(self._tokens.expand(size, -1, -1), self._latents[index])

    def draw(self, latents: Tensor) -> Tensor:
        """What the VAE makes of predicted latents, for the engine's image path."""
        drawn = self._generator.draw(latents)
        if not self._fused:
            levels(drawn)  # the first of the image steps, where these are not one
        return drawn

    def decoded(self, size: int) -> Tensor:
        """What the VAE makes of a batch, as floating point numbers."""
        scale = self.bundle.drawing.config.scaling_factor
        latents = (self.unet(size) / scale).to(self.bundle.dtype)
        image: Tensor = self._vae.decode(latents, return_dict=False)[0]
        return image

    def whole(self, size: int) -> None:
        """One encoder window, and a batch up to its patches in host memory, on the engine's image path."""
        self.encode()
        self._compose(self._generator.draw(self.unet(size)))

    def _compose(self, drawn: Tensor) -> None:
        """The image steps as the engine does them."""
        animated = [number for number, patch in enumerate(self._avatar.patches) if patch is not None]
        sources = [SourceFrame(self._avatar, animated[n % len(animated)]) for n in range(len(drawn))]
        self._images.run(sources, Drawn(drawn))()

    @cached_property
    def flops(self) -> dict[str, int]:
        """Operations of the networks: of one window, and of one frame."""
        latents = self.unet(1)
        return {
            "features": count_flops(self.encode),
            "unet": count_flops(lambda: self.unet(1)),
            "vae": count_flops(lambda: self.draw(latents)),
        }

    @cached_property
    def features_s(self) -> float:
        """Seconds for one encoder window."""
        return self._seconds(self.encode)

    def measure(self, size: int) -> BatchResult:
        """Time every stage at one batch size."""
        predicted = self.unet(size)
        drawn = self._generator.draw(predicted)
        seconds = {
            "features": self.features_s,
            "unet": self._seconds(lambda: self.unet(size)),
            "vae": self._seconds(lambda: self.draw(predicted)),
        }
        by_path = self._image_paths(drawn)
        steps = min(by_path.values(), key=lambda path: sum(path.values()))
        seconds |= steps
        graph_s = self._graph_seconds(size)
        networks_s = min(seconds["unet"] + seconds["vae"], graph_s or float("inf"))
        made_s = networks_s + sum(steps.values())
        flops = (self.flops["unet"] + self.flops["vae"]) * size
        ideal_s = self._roofline.seconds(flops, self._weights("unet") + self._weights("vae"))
        costs = Costs(seconds["features"], {size: made_s})
        return BatchResult(
            size,
            seconds["unet"] * 1e3,
            seconds["vae"] * 1e3,
            None if graph_s is None else graph_s * 1e3,
            {path: {name: one * 1e3 for name, one in each.items()} for path, each in by_path.items()},
            self._stages(size, seconds, steps is by_path.get(ON_CPU)),
            size / made_s,
            sessions_of(costs, self._job),
            size / ideal_s,
            ideal_s / networks_s,
            self._published_ms(size),
        )

    def _graph_seconds(self, size: int) -> float | None:
        """UNet and VAE of a batch as CUDA graphs; None where there are none."""
        if self.bundle.device.type != "cuda" or not self._job.graphs:
            return None
        tokens, latents = self._tokens[0], self._latents[0]
        recorder = Recorder(self.bundle.device)
        try:
            graphed = GraphedBatch(recorder, self._generator, tokens, latents, size, lambda *_: None)
        except RuntimeError as error:
            log.warning("No CUDA graph for batches of %d frames: %s", size, first_line(error))
            return None

        def replay() -> None:
            graphed.unet([tokens] * size, [latents] * size)
            drawn = graphed.draw()
            if not self._fused:
                levels(drawn.pictures)

        return self._seconds(replay)

    def _seconds(self, work: Callable[[], object]) -> float:
        return median_s(work, self.bundle.device, self._budget_s)

    def _image_paths(self, drawn: Tensor) -> dict[str, dict[str, float]]:
        faces = levels(drawn)
        device = self.bundle.device
        name = TENSORS if device.type == "cpu" else ON_GPU
        tensors = GpuPath(device, sharpen=self._job.sharpen)
        found = {name: self._image_steps(tensors, faces), ON_CPU: self._image_steps(CpuPath(), faces)}
        if self._fused:
            found[FUSED] = {"compose": self._seconds(lambda: self._compose(drawn))}
        return found

    def _image_steps(self, path: StepByStep, faces: Tensor) -> dict[str, float]:
        """Seconds of each image step; of sharpening only where it is on."""
        targets = self._targets(path, len(faces))
        sharpen = self._job.sharpen
        resized = path.resize(faces, targets)
        sharp = resized if sharpen is None else path.sharpen(resized, sharpen)
        patches = path.blend(sharp, targets)
        steps: dict[str, Callable[[], object]] = {"resize": lambda: path.resize(faces, targets)}
        if sharpen is not None:
            steps["sharpen"] = lambda: path.sharpen(resized, sharpen)
        steps["blend"] = lambda: path.blend(sharp, targets)
        steps["download"] = lambda: [fetched.size for fetched in path.download(patches)()]
        return {name: self._seconds(work) for name, work in steps.items()}

    def _stages(self, size: int, seconds: Mapping[str, float], on_cpu: bool) -> list[StageResult]:
        total = sum(seconds.values())
        moved = self._moved(size)
        found = []
        for name, took in seconds.items():
            flops = self.flops.get(name, 0) * (1 if name == "features" else size)
            linked = moved["download"] if name in {"download", "compose"} and not on_cpu else 0
            # what the CPU's path gives is in host memory already
            read = 0 if name == "download" and on_cpu else moved[name]
            reached = self._roofline.reached(took, flops, read, linked)
            found.append(StageResult(name, took * 1e3, took / total, flops / 1e9, read / 1e6, reached))
        return found

    def _moved(self, size: int) -> dict[str, int]:
        """Bytes that each stage must move at the least."""
        targets = self._targets(CpuPath(), size)
        resized = sum(target.face.width * target.face.height * 3 for target in targets)
        bodies = sum(target.body.size for target in targets)
        masks = sum(target.mask.size for target in targets)
        faces = size * _FACE_BYTES
        return {
            "features": self._weights("features"),
            "unet": self._weights("unet"),
            "vae": self._weights("vae") + faces * self.bundle.dtype.itemsize,
            "resize": faces + resized,
            "sharpen": 2 * resized,
            "blend": resized + 2 * bodies + masks,
            "download": bodies,
            "compose": faces * self.bundle.dtype.itemsize + 2 * bodies + masks,
        }

    def _targets(self, path: StepByStep, size: int) -> Sequence[Target]:
        placed = [target for target in path.place(self._avatar) if target is not None]
        return [placed[number % len(placed)] for number in range(size)]

    def _weights(self, stage: str) -> int:
        """What a call reads of a network's weights, at the least."""
        networks: dict[str, nn.Module] = {
            "features": self.bundle.audio_encoder,
            "unet": self.bundle.unet,
            "vae": self.bundle.drawing.decoder,
        }
        return sum(weight.nbytes for weight in networks[stage].parameters())

    def _published_ms(self, size: int) -> float | None:
        if self._published is None:
            return None
        published, decoded = self._published, self.decoded(size)

        def steps() -> None:
            for number, face in enumerate(published.faces(decoded)):
                published.frame(face, number)

        return self._seconds(steps) * 1e3
