"""The quality report: what is good and bad about an avatar, and what it will take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from fractions import Fraction

from musetalk_cli.avatar.data import AvatarMemory
from musetalk_cli.avatar.description import Json
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.face.quality import CLOSED, is_profile, is_unsure_of_mouth, opening
from musetalk_cli.preparation.imaging import FaceNote
from musetalk_cli.preparation.plan import Plan
from musetalk_cli.types import FACE_SIZE

LARGE_FACE = 1.5
"""A face this many times larger than the 256 rows the networks give looks soft."""
BLURRED = 4.0
"""A face whose sharpness is under this is out of focus, enlarged or strongly compressed."""
MANY = 0.1
"""Share of the frames from which on a fault is worth a warning."""
RESTLESS = 5.0
"""Levels of motion at a turn of the loop from which on it is seen."""


def rest_frames(plan: Plan, faces: Sequence[FaceLandmarks | None]) -> tuple[int, ...]:
    """The avatar's frames whose mouth is closed, told by landmarks as they were seen.

    Args:
        plan: What becomes of each frame.
        faces: The chosen face in every frame of the source; its points must follow the mouth.
    """
    closed = []
    for number in plan.animated:
        face = faces[plan.first + number]
        if face is not None and opening(face.points) < CLOSED:
            closed.append(number)
    return tuple(closed)


def assess(
    plan: Plan,
    faces: Sequence[FaceLandmarks | None],
    notes: Sequence[FaceNote],
    *,
    fps: Fraction,
    people: int,
    sees_mouth: bool,
    source_notes: Sequence[str],
    memory: AvatarMemory,
    disk_bytes: int,
) -> dict[str, Json]:
    """The report that `avatar.json` keeps and `avatars show` shows.

    Args:
        plan: What becomes of each frame.
        faces: The chosen face in every frame of the source.
        notes: What was noticed of every face, in the order of the frames.
        fps: Frames per second.
        people: The most people that were seen in one shot.
        sees_mouth: True where the landmarks follow the mouth and the pose.
        source_notes: What was done to the source.
        memory: What the avatar takes once loaded.
        disk_bytes: What its files take.
    """
    there = [face for face in plan.faces if face is not None]
    seen = [faces[plan.first + n] for n in plan.animated if not _interpolated(plan, n)]
    interpolated = sum(face.interpolated for face in there)
    report: dict[str, Json] = {
        "faces": {
            "found": len(there) - interpolated,
            "interpolated": interpolated,
            "passthrough": len(plan.faces) - len(there),
            "interpolated_share": round(interpolated / len(plan.faces), 4),
            "passthrough_times": [list(times) for times in passthrough_times(plan, fps)],
        },
        "people": people,
        "face_scale": round(statistics.median(face.box.height for face in there) / FACE_SIZE, 3),
        "sharpness": round(statistics.median(note.sharpness for note in notes), 2),
        "jitter_px": {"before": plan.jitter_before, "after": plan.jitter_after},
        "profile_share": _share([is_profile(face.points) for face in seen if face]) if sees_mouth else None,
        "occluded_share": _occluded(seen, notes) if sees_mouth else None,
        "cuts": [{"frame": cut, "time": _seconds(cut, fps)} for cut in _cuts(plan)],
        "seam": {
            "start": plan.seam.start,
            "end": plan.seam.end,
            "best_start": plan.seam.best_start,
            "best_end": plan.seam.best_end,
            "best_start_time": _seconds(plan.seam.best_start, fps),
            "best_end_time": _seconds(plan.seam.best_end, fps),
        },
        "disk_bytes": disk_bytes,
        "device_bytes": memory.device_bytes,
        "host_bytes": memory.host_bytes,
        "notes": list(source_notes),
    }
    return {**report, "warnings": list(_warnings(report, plan, fps))}


def passthrough_times(plan: Plan, fps: Fraction) -> list[tuple[float, float]]:
    """Start and end, in seconds of the avatar, of every stretch of frames without a face."""
    times = []
    begin: int | None = None
    for number, face in enumerate([*plan.faces, plan.faces[0]]):
        ended = number == len(plan.faces) or face is not None
        if not ended and begin is None:
            begin = number
        elif ended and begin is not None:
            times.append((_seconds(begin, fps), _seconds(number, fps)))
            begin = None
    return times


def _cuts(plan: Plan) -> list[int]:
    """The avatar's frames that start a new shot."""
    return [cut - plan.first for cut in plan.cuts if 0 < cut - plan.first < len(plan.faces)]


def _interpolated(plan: Plan, number: int) -> bool:
    face = plan.faces[number]
    return face is not None and face.interpolated


def _occluded(seen: Sequence[FaceLandmarks | None], notes: Sequence[FaceNote]) -> float | None:
    """Share of the faces whose mouth is covered; None where nothing tells."""
    unsure = [
        is_unsure_of_mouth(face.confidence)
        for face in seen
        if face is not None and face.confidence is not None
    ]
    covered = [note.covered for note in notes if note.covered is not None]
    shares = [_share(flags) for flags in (unsure, covered) if flags]
    return max(shares, default=None)


def _share(flags: Sequence[bool]) -> float:
    return round(sum(flags) / max(len(flags), 1), 4)


def _seconds(frame: int, fps: Fraction) -> float:
    return round(float(frame / fps), 3)


def _warnings(report: dict[str, Json], plan: Plan, fps: Fraction) -> list[str]:
    """One sentence for each thing that will be seen."""
    count = len(plan.faces)
    found: list[str] = []
    scale, sharp = float(str(report["face_scale"])), float(str(report["sharpness"]))
    if scale > LARGE_FACE:
        found.append(
            f"The face is {scale:.2f} times as high as the 256 rows that are generated and will look soft: "
            "prepare with a smaller --max-size."
        )
    if sharp < BLURRED:
        found.append(f"The face is not sharp ({sharp:.1f}, good is {BLURRED:g} and more): use a better clip.")
    for key, what in (("profile_share", "is seen from the side"), ("occluded_share", "has a covered mouth")):
        share = report[key]
        if isinstance(share, float) and share >= MANY:
            found.append(f"The face {what} in {share:.0%} of the frames: the mouth will not fit there.")
    interpolated = sum(face.interpolated for face in plan.faces if face is not None) / count
    if interpolated >= MANY:
        found.append(f"The face was filled in where it was not seen in {interpolated:.0%} of the frames.")
    if times := passthrough_times(plan, fps):
        spans = ", ".join(f"{start:g}-{end:g} s" for start, end in times[:5])
        more = f" and {len(times) - 5} more" if len(times) > 5 else ""
        found.append(f"No face, so the frames are shown as they are: {spans}{more}.")
    if cuts := _cuts(plan):
        spans = ", ".join(f"{_seconds(cut, fps):g} s" for cut in cuts[:5])
        found.append(f"The clip has cuts at {spans}: the picture jumps there; use one shot.")
    worst = max(plan.seam.start, plan.seam.end)
    if worst >= RESTLESS:
        found.append(f"The picture moves where the loop turns ({worst:.1f} levels): try --trim auto.")
    return found
