"""Draws a person flat, with two tones a surface, in a room."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from musetalk_cli.types import Image
from training.drawing import Canvas, Colour, Points, curve, ellipse, mirrored, shade
from training.face import HEIGHT, HOME, WIDTH, Head, Mouth, Pose
from training.people import Person


def draw(person: Person, pose: Pose, values: ArrayLike, *, blink: float = 0.0, gaze: float = 0.0) -> Image:
    """Draw a frame.

    Args:
        person: Who.
        pose: Where the head is.
        values: Opening, width, rounding, teeth and tongue, each 0..1.
        blink: How far the eyes are closed, 0..1.
        gaze: Where they look, -1..1 to the right.

    Returns:
        uint8 `[640, 512, 3]`, BGR.
    """
    mouth = np.clip(np.asarray(values, float), 0, 1)
    canvas = Canvas(WIDTH, HEIGHT, _ground(person))
    head = Head(person, pose)
    _draw_hair_behind(canvas, head)
    _draw_body(canvas, head)
    _draw_face(canvas, head, float(mouth[0]))
    _draw_eyes(canvas, head, blink, gaze)
    _draw_nose(canvas, head)
    _draw_mouth(canvas, head, mouth)
    _draw_hair(canvas, head)
    if person.glasses:
        _draw_glasses(canvas, head)
    return canvas.result()


@cache
def _ground(person: Person) -> Image:
    """The room: a wall with a picture, and a plant or a shelf."""
    canvas = Canvas(WIDTH, HEIGHT)
    box = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float)
    canvas.fill(box * (WIDTH, HEIGHT), person.wall)
    canvas.fill(box * (WIDTH, 170) + (0, 470), person.floor)
    side = 404 if person.light > 0 else 24
    canvas.fill(box * (84, 112) + (side, 70), shade(person.wall, 0.82))
    canvas.fill(box * (68, 96) + (side + 8, 78), shade(person.wall, 1.08))
    canvas.fill(ellipse(side + 42, 122, 22, 22), person.thing)
    canvas.fill(
        curve(
            [
                (side + 8, 174),
                (side + 8, 152),
                (side + 30, 136),
                (side + 52, 158),
                (side + 76, 146),
                (side + 76, 174),
            ]
        ),
        shade(person.thing, 0.75),
    )
    other = 66 if person.light > 0 else 446
    for lean, height in ((-38, 300), (-16, 268), (10, 262), (34, 296)):
        leaf = [
            (other, 452),
            (other + 0.3 * lean - 14, 380),
            (other + lean, height),
            (other + 0.5 * lean + 16, 384),
        ]
        canvas.fill(curve(leaf), shade(person.thing, 0.86 + 0.05 * (lean % 3)))
    pot = [(other - 34, 440), (other + 34, 440), (other + 26, 506), (other - 26, 506)]
    canvas.fill(np.array(pot, float), shade(person.coat, 0.9))
    return canvas.pixels


def _draw_body(canvas: Canvas, head: Head) -> None:
    person, lift = head.person, -2.0 * head.pose.breath
    base = HOME + (0.25 * head.pose.x, lift)
    neck = np.concatenate(
        [
            head.at([(46, 70), (46, 126)]),
            [base + (56, 192), base + (-56, 192)],
            head.at([(-46, 126), (-46, 70)]),
        ]
    )
    shoulders = mirrored([(0, 176), (54, 180), (120, 206), (176, 236), (204, 300), (214, 400), (0, 400)])
    canvas.fill(curve(shoulders) + base, person.coat)
    canvas.fill(curve(mirrored([(0, 172), (66, 176), (48, 226), (0, 266)])) + base, person.shirt)
    canvas.fill(neck, shade(person.skin, 0.95))
    canvas.fill(
        curve(np.array([(-56, 190), (0, 184), (56, 190), (26, 222), (0, 230), (-26, 222)], float)) + base,
        shade(person.skin, 0.95),
    )
    chin = head.at(head.outline(0.0)) + (3 * person.light, 22)
    canvas.fill(chin, shade(person.skin, 0.78), within=neck)
    for side in (-1, 1):
        collar = np.array([(56, 168), (86, 190), (60, 262), (10, 282), (40, 214)], float) * (side, 1)
        canvas.fill(collar + base, shade(person.coat, 1.14 if side == -person.light else 0.9))
    fold = np.array([(150, 300), (168, 330), (172, 400), (158, 400)], float)
    for side in (-1, 1):
        canvas.fill(curve(fold * (side, 1)) + base, shade(person.coat, 0.84))


def _draw_face(canvas: Canvas, head: Head, opening: float) -> None:
    person = head.person
    for side in (-1, 1):
        ear = np.array([(0.96, -14), (1.1, -22), (1.15, 2), (1.06, 30), (0.95, 34)]) * (
            side * person.width,
            1,
        )
        canvas.fill(curve(head.at(ear, -0.3)), shade(person.skin, 0.9))
    outline = head.at(head.outline(opening))
    canvas.fill(outline, person.skin)
    dark = curve(
        [(0.5, -140), (0.74, -40), (0.66, 40), (0.74, 84), (0.36, 132), (0.3, 170), (1.4, 170), (1.4, -140)]
    )
    dark = dark * (person.light * person.width, 1)
    canvas.fill(head.at(dark, 0.5), shade(person.skin, 0.9), within=outline)
    for side in (-1, 1):
        canvas.fill(
            head.at(ellipse(side * 58, 44, 22, 13), 0.9), _blush(person.skin), within=outline, alpha=0.3
        )


def _blush(skin: Colour) -> Colour:
    return shade((int(skin[0] * 0.78), int(skin[1] * 0.74), skin[2]), 1.0)


def _draw_eyes(canvas: Canvas, head: Head, blink: float, gaze: float) -> None:
    person = head.person
    lash = shade(person.brow, 0.55)
    for side in (-1, 1):
        x, open_ = side * 40.0, 1 - min(max(blink, 0.0), 1.0)
        u = np.linspace(-1, 1, 17)
        lid = np.stack([x + 19 * u, 2 - (13 * open_ - 1) * (1 - u**2) ** 0.8], 1)
        under = np.stack([x + 19 * u, 2 + 8 * (1 - u**2)], 1)
        socket = np.stack([x + 24 * u, -4 - 15 * (1 - u**2)], 1)
        canvas.fill(head.at(np.concatenate([socket, under[::-1]]), 1.0), shade(person.skin, 0.93))
        white = head.at(np.concatenate([lid, under[::-1]]), 1.0)
        canvas.fill(white, (246, 246, 244))
        for radius, colour, shift in (
            (10.5, person.iris, 0.0),
            (5.0, (18, 16, 16), 0.0),
            (2.6, (255, 255, 255), -3.5),
        ):
            spot = ellipse(x + 5 * gaze + shift, 1 + shift, radius, radius, points=24)
            canvas.fill(head.at(spot, 1.1), colour, within=white)
        canvas.line(head.at(lid, 1.0), lash, 2.2 if person.long_hair else 1.6)
        brow = [(64, -30), (52, -42), (34, -46), (16, -38), (16, -31), (34, -38), (52, -35)]
        canvas.fill(curve(head.at(np.array(brow) * (side, 1), 1.0)), person.brow)


def _draw_nose(canvas: Canvas, head: Head) -> None:
    person = head.person
    side = person.light
    ridge = np.array([(3, -2), (9, 30), (17, 46), (12, 56), (0, 58), (4, 44), (2, 20)], float) * (side, 1)
    canvas.fill(curve(head.at(ridge, 1.2)), shade(person.skin, 0.84))
    canvas.line(
        curve(head.at([(-13, 51), (-9, 56), (0, 58), (9, 56), (13, 51)], 1.2), closed=False),
        shade(person.skin, 0.66),
        1.6,
    )


def _draw_mouth(canvas: Canvas, head: Head, values: NDArray[np.float64]) -> None:
    person, mouth = head.person, Mouth.of(head.person, values)
    teeth, tongue = float(values[3]), float(values[4])

    def at(points: ArrayLike) -> Points:
        return head.at(points, 1.0)

    shadow = ellipse(0, float(mouth.bottom[24, 1]) + 6, 0.5 * mouth.half_width, 3.2)
    canvas.fill(at(shadow), shade(person.skin, 0.86))
    canvas.fill(at(np.concatenate([mouth.top, mouth.upper[::-1]])), shade(person.lip, 0.86))
    canvas.fill(at(np.concatenate([mouth.lower, mouth.bottom[::-1]])), person.lip)
    lit = ellipse(
        -0.12 * person.light * mouth.half_width,
        float(mouth.lower[24, 1] + mouth.bottom[24, 1]) / 2,
        0.36 * mouth.half_width,
        2.2,
    )
    canvas.fill(at(lit), shade(person.lip, 1.18))
    if mouth.height >= 0.8:
        inside = at(np.concatenate([mouth.upper, mouth.lower[::-1]]))
        canvas.fill(inside, (34, 24, 76))
        _draw_tongue(canvas, head, mouth, tongue, inside)
        depth = teeth * 10 * min(1.0, mouth.height / 8)
        band = np.concatenate([mouth.upper - (0, 3), (mouth.upper + (0, depth))[::-1]])
        canvas.fill(at(band), (242, 246, 248), within=inside)
    canvas.line(at(mouth.upper), shade(person.lip, 0.5), 1.4)


def _draw_tongue(canvas: Canvas, head: Head, mouth: Mouth, tongue: float, inside: Points) -> None:
    wide, row = mouth.half_width, float(mouth.lower[24, 1]) - mouth.height * (0.08 + 0.42 * tongue)
    body = ellipse(0, row + 0.3 * mouth.height, 0.6 * wide, mouth.height * (0.38 + 0.1 * tongue))
    canvas.fill(head.at(body, 1.0), (112, 104, 214), within=inside)
    top = ellipse(0, row + 0.3 * mouth.height, 0.36 * wide, mouth.height * (0.24 + 0.08 * tongue))
    canvas.fill(head.at(top, 1.0), (132, 126, 230), within=inside)


def _draw_hair_behind(canvas: Canvas, head: Head) -> None:
    person = head.person
    if person.long_hair:
        shape = mirrored(
            [
                (0, -158),
                (84, -142),
                (126, -70),
                (134, 20),
                (128, 110),
                (140, 178),
                (112, 214),
                (60, 200),
                (0, 190),
            ]
        )
    else:
        shape = mirrored([(0, -150), (72, -138), (108, -84), (110, -20), (100, 0), (0, 10)])
    canvas.fill(curve(head.at(shape, -0.6)), shade(person.hair, 0.8))


def _draw_hair(canvas: Canvas, head: Head) -> None:
    person, width = head.person, head.person.width
    if person.long_hair:
        front: list[tuple[float, float]] = [
            (-30, -150),
            (30, -154),
            (86, -132),
            (120, -66),
            (124, 10),
            (120, 90),
            (112, 150),
            (100, 96),
            (103, 20),
            (96, -30),
            (78, -66),
            (40, -96),
            (-22, -104),
            (-58, -82),
            (-88, -40),
            (-100, 20),
            (-98, 96),
            (-112, 150),
            (-122, 90),
            (-126, 10),
            (-118, -66),
            (-80, -130),
        ]
        streaks = [
            [(-18, -146), (40, -138), (84, -100), (108, -40), (96, -46), (66, -92), (20, -116)],
            [(-40, -140), (-84, -100), (-108, -30), (-104, -70), (-76, -122)],
        ]
    else:
        front = [
            (-60, -146),
            (0, -160),
            (64, -148),
            (104, -104),
            (109, -40),
            (100, -14),
            (0.93 * width, -60),
            (74, -92),
            (20, -86),
            (-40, -98),
            (-0.9 * width, -60),
            (-100, -14),
            (-109, -40),
            (-104, -104),
        ]
        streaks = [[(-48, -140), (0, -150), (56, -140), (88, -108), (40, -126), (-10, -130)]]
    canvas.fill(curve(head.at(front, 0.3)), person.hair)
    for streak in streaks:
        canvas.fill(curve(head.at(streak, 0.4)), shade(person.hair, 1.3))


def _draw_glasses(canvas: Canvas, head: Head) -> None:
    frame: Colour = (44, 40, 46)
    for side in (-1, 1):
        u = np.linspace(0, 2 * np.pi, 40)
        rim = np.stack(
            [
                side * 40 + 30 * np.sign(np.cos(u)) * np.abs(np.cos(u)) ** 0.7,
                1 + 23 * np.sign(np.sin(u)) * np.abs(np.sin(u)) ** 0.7,
            ],
            1,
        )
        canvas.line(head.at(rim, 1.15), frame, 3.0)
        canvas.line(head.at([(side * 70, -6), (side * 101, -10)], 0.8), frame, 3.0)
    canvas.line(curve(head.at([(-11, -3), (0, -7), (11, -3)], 1.15), closed=False), frame, 3.0)
