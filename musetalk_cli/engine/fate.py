"""The one place where a frame's fate is decided."""

from __future__ import annotations

from musetalk_cli.types import Fate


def decide(
    weight: float, *, has_face: bool, late: bool, discarded: bool = False, broken: bool = False
) -> Fate:
    """What becomes of a frame.

    The order of the tests is the rule: an interrupt outweighs everything; silence costs nothing, so it is
    never late; what is late is held whether or not there is a face to make.

    Args:
        weight: How much of the speaking face shows, 0..1.
        has_face: The source frame has a face.
        late: The frame cannot be shown in time any more.
        discarded: Its sound was said before an interrupt.
        broken: The face that was made for it is not a number.
    """
    if discarded:
        return Fate.DISCARDED
    if weight == 0:
        return Fate.IDLE
    if late:
        return Fate.HELD
    if not has_face:
        return Fate.PASS_THROUGH
    if broken:
        return Fate.BROKEN
    return Fate.SPEAKING if weight == 1 else Fate.FADING
