"""One job of a batch: who speaks what, where to, and how; and the same as JSON, for a worker to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from musetalk_cli.config import DataFolder, JobConfig, RunConfig, Sharpen, SilenceLevel
from musetalk_cli.timeline import DEFAULT_FPS

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One job of a batch; its paths are absolute.

    Attributes:
        place: Where the manifest asks for it, like `line 3`.
        avatar: Name of the avatar; of a source that speaks in its place, the name of its file.
        audio: The sound to speak.
        output: The video to write.
        run: Where things are and what computes, as `defaults.settle` gave it.
        job: How the face is made to speak.
        source: Video, image or folder of images whose face speaks; None where the avatar does.
        own_rate: The result has the frame rate of the source, in place of the job's.
    """

    place: str
    avatar: str
    audio: Path
    output: Path
    run: RunConfig
    job: JobConfig
    source: Path | None = None
    own_rate: bool = False

    @property
    def group(self) -> tuple[str, str, str]:
        """What is the same for all jobs that share what a worker keeps loaded."""
        if self.source is not None:
            return (str(self.run.model), "source", str(self.source))
        return (str(self.run.model), str(self.run.avatars.path), self.avatar)

    def settings(self) -> Json:
        """What decides how the video looks, beside its inputs: plain values."""
        job = self.job
        return {
            "fps": "source" if self.own_rate else str(job.fps),
            "alignment": job.alignment,
            "silence": None if job.silence is None else list(astuple(job.silence)),
            "sharpen": None if job.sharpen is None else list(astuple(job.sharpen)),
            "image_ops": job.image_ops,
            "batch_sizes": None if job.batch_sizes is None else list(job.batch_sizes),
            "precision": self.run.precision,
            "vae": self.run.vae,
        }

    def to_json(self) -> Json:
        """All of it as plain values."""
        run = self.run
        return {
            "place": self.place,
            "avatar": self.avatar,
            "source": None if self.source is None else str(self.source),
            "audio": str(self.audio),
            "output": str(self.output),
            "models_dir": str(run.models.path),
            "avatars_dir": str(run.avatars.path),
            "model": run.model,
            "device": run.device,
            "graphs": self.job.graphs,
            "settings": self.settings(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BatchJob:
        """What `to_json` gave, which no stranger writes."""
        given = data["settings"]
        sizes = given["batch_sizes"]
        own_rate = given["fps"] == "source"
        return cls(
            data["place"],
            data["avatar"],
            Path(data["audio"]),
            Path(data["output"]),
            RunConfig(
                DataFolder(Path(data["models_dir"]), "flag"),
                DataFolder(Path(data["avatars_dir"]), "flag"),
                data["model"],
                data["device"],
                given["precision"],
                given["vae"],
            ),
            JobConfig(
                fps=DEFAULT_FPS if own_rate else Fraction(given["fps"]),
                alignment=given["alignment"],
                silence=None if given["silence"] is None else SilenceLevel(*given["silence"]),
                sharpen=None if given["sharpen"] is None else Sharpen(*given["sharpen"]),
                image_ops=given["image_ops"],
                graphs=data["graphs"],
                batch_sizes=None if sizes is None else tuple(sizes),
            ),
            None if data["source"] is None else Path(data["source"]),
            own_rate,
        )
