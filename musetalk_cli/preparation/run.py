"""From a video to an avatar: survey, plan, images, report."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from musetalk_cli.avatar.data import memory_of
from musetalk_cli.avatar.description import MAX_FRAMES, AvatarMeta, Json
from musetalk_cli.avatar.latents import LATENTS_FILE
from musetalk_cli.avatar.layout import FRAMES_DIR, image_name
from musetalk_cli.avatar.workspace import Workspace
from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.face.landmarks import landmarks_text
from musetalk_cli.face.motion import find_cuts
from musetalk_cli.face.tracks import Chosen, choose
from musetalk_cli.measure.throughput import StageRates
from musetalk_cli.media.digest import digest_of
from musetalk_cli.media.video import VideoFrames, read_frames, source_files
from musetalk_cli.preparation.assess import assess, passthrough_times, rest_frames
from musetalk_cli.preparation.idle import check_idle, store_idle
from musetalk_cli.preparation.imaging import IMAGING_FILE, FaceNote, Imager
from musetalk_cli.preparation.inputs import FaceNetworks, Origin, PictureSource, resume_key, selected
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.plan import Plan, make_plan
from musetalk_cli.preparation.survey import SURVEY_FILE, Survey, Surveyor, check_count
from musetalk_cli.sinks.checks import write_whole
from musetalk_cli.text import PROGRESS

log = logging.getLogger(__name__)

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Step:
    """How far a preparation is.

    Attributes:
        stage: `finding faces`, `encoding faces` or `idle clip`.
        done: Frames done in this stage.
        total: How many there are; None where it is not known.
        rates: Frames a second of each part of the work, waiting left out.
    """

    stage: str
    done: int
    total: int | None
    rates: Mapping[str, float]


Progress = Callable[[Step], None]

BeforePublishing = Callable[[Path, AvatarMeta, Plan], None]
"""Given the folder that is prepared, the description and the plan, when everything is made and nothing is
published; frames still have the numbers of the source. What it raises leaves work that can go on."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A finished preparation.

    Attributes:
        meta: The avatar's description.
        plan: What became of each frame.
        resumed: Frames that an interrupted run had surveyed already.
    """

    meta: AvatarMeta
    plan: Plan
    resumed: int


def prepare_avatar(
    source: PictureSource,
    avatars_dir: Path,
    name: str,
    *,
    networks: FaceNetworks,
    options: PrepareOptions,
    model: Mapping[str, Json],
    landmarks_file: Path | None = None,
    before_publishing: BeforePublishing | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare an avatar.

    The source is decoded once, and its frames go to disk as they pass; boxes are decided when all faces are
    known, since they are smoothed in both directions; masks and latents are then made from the stored frames.
    Memory grows only by the landmarks of a frame, some kilobytes. After an interrupt the same call goes on
    where it stopped, and the result is the same byte for byte.

    Args:
        source: What to make it from.
        avatars_dir: Folder of avatars.
        name: Name of the new avatar.
        networks: What finds, parses and encodes faces.
        options: How to prepare.
        model: What the latents are made for, with at least `version`.
        landmarks_file: Where the chosen landmarks are written, as they were seen, to be corrected by hand.
        before_publishing: What else is made of the result; where it fails, there is no avatar.
        overwrite: Replace an avatar of that name.
        progress: Told after every frame.

    Raises:
        InputError: The source cannot be read, has another number of frames than there are landmarks, or
            shows too few faces.
        ModelError: The encoder gave something else than finite latents.
        AvatarError: The name is not allowed or taken, or a latent is too large for the wanted format.
        OutputError: The avatar cannot be written.
    """
    digest = digest_of(source_files(source.path))
    key = resume_key(source, digest, networks, options, model)
    with Workspace(avatars_dir, name, overwrite=overwrite, key=key) as workspace:
        preparation = _Preparation(workspace, source, networks, options, progress or (lambda _: None))
        try:
            return preparation.run(model, digest, landmarks_file, before_publishing)
        except OSError as error:
            raise OutputError(
                f"The avatar cannot be written to {workspace.target}: {error.strerror}.",
                f"Free some space; the same command then goes on, or `musetalk avatars remove {name}` "
                "deletes what is there.",
            ) from error


def _check_length(path: Path, frames: int) -> None:
    if frames > MAX_FRAMES:
        raise InputError(
            f"{path} has {frames} frames, and an avatar has {MAX_FRAMES} at most.",
            "Take a part of it with --start and --duration.",
        )


class _Preparation:
    """One preparation, step by step."""

    def __init__(
        self,
        workspace: Workspace,
        source: PictureSource,
        networks: FaceNetworks,
        options: PrepareOptions,
        progress: Progress,
    ) -> None:
        self._workspace = workspace
        self._folder = workspace.folder
        self._source = source
        self._tools = networks
        self._options = options
        self._progress = progress
        self._rates = StageRates()
        self._finder = networks.finder if source.landmarks is None else None
        self._origin = Origin.of(source, self._finder)

    def run(
        self,
        model: Mapping[str, Json],
        digest: str,
        landmarks_file: Path | None,
        before_publishing: BeforePublishing | None,
    ) -> Prepared:
        """From nothing, or from where it stopped, to the finished avatar."""
        source, version = self._source, str(model["version"])
        surveyor = Surveyor(self._folder, self._finder, self._rates)
        survey = surveyor.known()
        resumed = len(survey.faces)
        if resumed:
            log.log(PROGRESS, "Going on after %d frames of an interrupted preparation.", resumed)
        with read_frames(source.path, source.selection, skip=0 if survey.complete else resumed) as video:
            idle = check_idle(source.idle, video) if source.idle else None
            _check_length(source.path, video.expected or 0)
            if not survey.complete:
                surveyor.run(survey, video, lambda done: self._tell("finding faces", done, video.expected))
        _check_length(source.path, len(survey.faces))
        chosen = self._choose(survey, video)
        if landmarks_file is not None:
            write_whole(landmarks_file, landmarks_text(chosen.faces).encode(), "--save-landmarks")
        plan = self._plan(survey, chosen, video, version)
        size, faces = (video.width, video.height), len(plan.animated)
        imager = Imager(self._folder, plan, size, self._options, self._tools, self._rates, version)
        notes = imager.run(lambda done: self._tell("encoding faces", done, faces))
        idle_frames, said = 0, list(video.notes)
        if source.idle is not None and idle is not None:
            tell = partial(self._tell, "idle clip")
            idle_frames, idle_said = store_idle(source.idle, idle, size, self._folder, tell)
            said += idle_said
        meta = self._describe(plan, chosen, video, model, digest, idle_frames)
        if before_publishing is not None:
            before_publishing(self._folder, meta, plan)
        self._workspace.seal()
        self._arrange(plan, len(survey.faces))
        report = self._report(meta, plan, chosen, notes, said)
        sha256 = digest_of([self._folder / LATENTS_FILE])
        meta = dataclasses.replace(meta, report=report, latents_sha256=sha256)
        self._workspace.publish(meta.to_json())
        return Prepared(meta, plan, resumed)

    def _tell(self, stage: str, done: int, total: int | None) -> None:
        self._progress(Step(stage, done, total, self._rates.rates()))

    def _choose(self, survey: Survey, video: VideoFrames) -> Chosen:
        given = self._source.landmarks
        if given is None:
            return choose(survey.faces, find_cuts(survey.differences), self._options.face, video.width)
        check_count(self._source.path, survey, len(given))
        return Chosen(list(given), 1)

    def _plan(self, survey: Survey, chosen: Chosen, video: VideoFrames, version: str) -> Plan:
        """Decide every box, and refuse a clip with too few faces."""
        plan = make_plan(
            chosen.faces,
            survey.differences,
            fps=video.fps,
            size=(video.width, video.height),
            options=self._options,
            extra_margin=self._options.margin(version),
            cutoff_hz=self._origin.cutoff_hz,
        )
        count, there = len(plan.faces), len(plan.animated)
        if not there:
            raise InputError(
                f"No frame of {self._source.path} shows a face that can be used.",
                "Show one from the front, or pass --landmarks FILE in pixels, each with a box, not null.",
            )
        if there < self._options.min_faces * count:
            times = passthrough_times(plan, video.fps)
            spans = ", ".join(f"{a:g}-{b:g} s" for a, b in times[:_NAMED])
            more = f" and {len(times) - _NAMED} more" if len(times) > _NAMED else ""
            raise InputError(
                f"Only {there} of the {count} frames of {self._source.path} show a face that can be used, "
                f"and {self._options.min_faces:.0%} are needed; there is none at {spans}{more}.",
                "Take a part of it with --start and --duration, or lower --min-faces.",
            )
        return plan

    def _arrange(self, plan: Plan, surveyed: int) -> None:
        """Leave the frames of the plan, numbered from 0, and nothing of the work."""
        frames = self._folder / FRAMES_DIR
        kept = range(plan.first, plan.first + len(plan.faces))
        try:
            for number in (n for n in range(surveyed) if n not in kept):
                (frames / image_name(number)).unlink()
            if plan.first:
                for number in kept:
                    (frames / image_name(number)).rename(frames / image_name(number - plan.first))
            for record in (SURVEY_FILE, IMAGING_FILE):
                (self._folder / record).unlink()
        except OSError as error:
            raise OutputError(f"{self._folder} cannot be written: {error.strerror}.") from error

    def _describe(
        self,
        plan: Plan,
        chosen: Chosen,
        video: VideoFrames,
        model: Mapping[str, Json],
        digest: str,
        idle_frames: int,
    ) -> AvatarMeta:
        source, version = self._source, str(model["version"])
        parameters = self._options.parameters(version, parsed=self._tools.parse is not None)
        parameters |= {"landmarks": self._origin.name, "face": self._options.face}
        if chosen_part := selected(source.selection):
            parameters["selection"] = chosen_part
        if plan.first or len(plan.faces) < len(chosen.faces):
            parameters["kept"] = [plan.first, plan.first + len(plan.faces) - 1]
        return AvatarMeta(
            name=self._workspace.name,
            fps=video.fps,
            width=video.width,
            height=video.height,
            boxes=tuple(face.box if face else None for face in plan.faces),
            crop_boxes=tuple(face.crop if face else None for face in plan.faces),
            parameters=parameters,
            model=model,
            source={"name": source.path.resolve().name, "sha256": digest},
            rest_frames=rest_frames(plan, chosen.faces) if self._origin.sees_mouth else (),
            idle_frames=idle_frames,
        )

    def _report(
        self, meta: AvatarMeta, plan: Plan, chosen: Chosen, notes: Sequence[FaceNote], said: Sequence[str]
    ) -> dict[str, Json]:
        files = (path for path in self._folder.rglob("*") if path.is_file())
        return assess(
            plan,
            chosen.faces,
            notes,
            fps=meta.fps,
            people=chosen.people,
            sees_mouth=self._origin.sees_mouth,
            source_notes=said,
            memory=memory_of(meta, sum(note.pixels for note in notes)),
            disk_bytes=sum(path.stat().st_size for path in files),
        )
