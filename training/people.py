"""Who is drawn: two people, their colours, proportions, hair and clothes."""

from __future__ import annotations

from dataclasses import dataclass, field

from training.drawing import Colour


@dataclass(frozen=True, slots=True)
class Person:
    """A drawn person. Colours are BGR; lengths are pixels of a frame of 512 x 640.

    Attributes:
        name: Of the avatar.
        skin, lip, hair, brow, iris: Colours of the head.
        coat, shirt: Colours of the clothes.
        wall, floor, thing: Colours behind the person.
        width, jaw: Half width of the face, and of the jaw relative to it.
        mouth: Half width of the mouth at rest.
        lips: Thickness of the upper and the lower lip.
        long_hair, glasses: What else is there.
        light: 1 where the light comes from the left, -1 from the right.
    """

    name: str
    skin: Colour
    lip: Colour
    hair: Colour
    brow: Colour
    iris: Colour
    coat: Colour
    shirt: Colour
    wall: Colour
    floor: Colour
    thing: Colour
    width: float = 100.0
    jaw: float = 1.0
    mouth: float = 40.0
    lips: tuple[float, float] = (9.0, 12.0)
    long_hair: bool = True
    glasses: bool = False
    light: int = field(default=1)


MAYA = Person(
    name="demo",
    skin=(168, 198, 240),
    lip=(98, 92, 205),
    hair=(38, 50, 88),
    brow=(40, 54, 92),
    iris=(70, 110, 70),
    coat=(120, 118, 40),
    shirt=(226, 234, 240),
    wall=(214, 224, 226),
    floor=(196, 208, 212),
    thing=(150, 178, 120),
)

OMAR = Person(
    name="demo2",
    skin=(92, 132, 186),
    lip=(84, 84, 160),
    hair=(36, 32, 34),
    brow=(34, 30, 34),
    iris=(30, 48, 74),
    coat=(70, 150, 222),
    shirt=(96, 62, 48),
    wall=(132, 104, 78),
    floor=(112, 86, 62),
    thing=(90, 140, 196),
    width=98.0,
    jaw=1.1,
    mouth=42.0,
    lips=(9.0, 12.5),
    long_hair=False,
    glasses=True,
    light=-1,
)

PEOPLE = (MAYA, OMAR)
