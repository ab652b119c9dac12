"""Photographs as phones store them, made by the tests: HEIC and AVIF in tiles."""

import io
import re

import numpy as np
import pillow_heif
from PIL import Image

_CONFIG = {"HEIC": b"hvcC", "AVIF": b"av1C"}
_ITEM = {"HEIC": b"hvc1", "AVIF": b"av01"}


def box(kind, *parts, full=None):
    """A box of an ISO file; `full` is its version and flags."""
    body = (b"" if full is None else full.to_bytes(4, "big")) + b"".join(parts)
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def number(value, size=2):
    return int(value).to_bytes(size, "big")


def encoded(image, kind, **options):
    """One RGB picture as a file of HEIC or AVIF, nearly without loss."""
    stream = io.BytesIO()
    picture = Image.fromarray(image)
    if kind == "AVIF":
        picture.save(stream, "AVIF", quality=100, subsampling="4:4:4", **options)
    else:
        pillow_heif.from_pillow(picture).save(stream, quality=95, chroma=444, **options)
    return stream.getvalue()


def tiled(image, kind, side=64, profile=None):
    """An RGB picture in square tiles: a grid item that derives from an item for each of them."""
    height, width = image.shape[:2]
    rows, columns = -(-height // side), -(-width // side)
    padded = np.pad(image, ((0, rows * side - height), (0, columns * side - width), (0, 0)), mode="edge")
    files = [
        encoded(np.ascontiguousarray(padded[y : y + side, x : x + side]), kind)
        for y in range(0, rows * side, side)
        for x in range(0, columns * side, side)
    ]
    data = [file[file.index(b"mdat") + 4 :] for file in files]
    at = files[0].index(_CONFIG[kind]) - 4
    config = files[0][at : at + int.from_bytes(files[0][at : at + 4], "big")]
    found = re.search(rb"\x00\x00\x00\x13colrnclx.{7}", files[0], re.DOTALL)
    properties = [
        config,
        box(b"ispe", number(side, 4), number(side, 4), full=0),
        box(b"ispe", number(width, 4), number(height, 4), full=0),
        box(b"pixi", b"\x03\x08\x08\x08", full=0),
        found[0] if found else box(b"colr", b"nclx", number(1), number(13), number(6), b"\x80"),
        *([box(b"colr", b"prof", profile)] if profile else []),
    ]
    tiles = range(2, len(data) + 2)
    shared = [4, 5] + ([6] if profile else [])
    associations = [(1, [3, *shared]), *((tile, [0x81, 2, *shared]) for tile in tiles)]
    grid = bytes([0, 0, rows - 1, columns - 1]) + number(width) + number(height)

    def meta(offset):
        places, begin = [], offset
        for piece in data:
            places.append((begin, len(piece)))
            begin += len(piece)
        located = [number(1) + number(1) + number(0) + number(1) + number(0, 4) + number(len(grid), 4)]
        for tile, (start, length) in zip(tiles, places, strict=True):
            located.append(
                number(tile) + number(0) + number(0) + number(1) + number(start, 4) + number(length, 4)
            )
        entries = [(1, b"grid", 0), *((tile, _ITEM[kind], 1) for tile in tiles)]
        return box(
            b"meta",
            box(b"hdlr", number(0, 4), b"pict", bytes(13), full=0),
            box(b"pitm", number(1), full=0),
            box(b"iloc", b"\x44\x00", number(len(data) + 1), *located, full=1 << 24),
            _infos(entries),
            box(b"iref", box(b"dimg", number(1), number(len(data)), *map(number, tiles)), full=0),
            box(b"iprp", box(b"ipco", *properties), _associated(associations)),
            box(b"idat", grid),
            full=0,
        )

    brand = kind.lower().encode()
    first = box(b"ftyp", brand, number(0, 4), b"mif1", brand, b"miaf")
    offset = len(first) + len(meta(0)) + 8
    return first + meta(offset) + box(b"mdat", *data)


def _infos(entries):
    """What each item is: its number, its form, and whether it is hidden."""
    infos = (
        box(b"infe", number(item), number(0), form, b"\x00", full=2 << 24 | hidden)
        for item, form, hidden in entries
    )
    return box(b"iinf", number(len(entries)), *infos, full=0)


def _associated(associations):
    """Which properties each item has."""
    listed = (number(item) + bytes([len(which)]) + bytes(which) for item, which in associations)
    return box(b"ipma", number(len(associations), 4), *listed, full=0)


DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
"""XYZ of red, green and blue under D50."""


def _profile(colours, space, tags):
    """An ICC profile, version 2, of tags given as name and data."""
    table, body = b"", b""
    begin = 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += name + number(begin + len(body), 4) + number(len(data), 4)
        body += data + bytes(-len(data) % 4)
    head = (
        bytes(8) + number(0x02400000, 4) + b"mntr" + colours + space + bytes(12) + b"acsp" + bytes(28)
        + b"\x00\x00\xf6\xd6\x00\x01\x00\x00\x00\x00\xd3\x2d"
    )  # fmt: skip
    whole = head + bytes(128 - len(head)) + number(len(tags), 4) + table + body
    return number(len(whole), 4) + whole[4:]


def _words(name):
    text = name.encode() + b"\x00"
    return b"desc" + bytes(4) + number(len(text), 4) + text + bytes(12 + 67)


def _xyz(values):
    return b"XYZ " + bytes(4) + b"".join(number(round(value * 65536) % (1 << 32), 4) for value in values)


def _curve(gamma):
    return b"curv" + bytes(4) + number(1, 4) + number(round(gamma * 256))


def rgb_profile(primaries=DISPLAY_P3, gamma=2.2, name="Drawn P3"):
    tags = [(b"desc", _words(name)), (b"wtpt", _xyz((0.9642, 1, 0.8249)))]
    tags += [
        (letter + b"XYZ", _xyz(values)) for letter, values in zip((b"r", b"g", b"b"), primaries, strict=True)
    ]
    return _profile(
        b"RGB ", b"XYZ ", tags + [(letter + b"TRC", _curve(gamma)) for letter in (b"r", b"g", b"b")]
    )


def grey_profile(gamma):
    tags = [(b"desc", _words("Drawn grey")), (b"wtpt", _xyz((0.9642, 1, 0.8249))), (b"kTRC", _curve(gamma))]
    return _profile(b"GRAY", b"XYZ ", tags)


def ink_profile():
    """CMYK whose colours are greys: 255 inks of any kind are L* = 0, none are 100."""
    corners = b"".join(bytes([round(255 * (1 - n.bit_count() / 4)), 128, 128]) for n in range(16))
    identity = bytes(range(256))
    matrix = b"".join(number(65536 * (n % 4 == 0), 4) for n in range(9))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + corners + identity * 3
    return _profile(b"CMYK", b"Lab ", [(b"desc", _words("Drawn inks")), (b"A2B0", lut)])


def converted(rgb, primaries=DISPLAY_P3, gamma=2.2):
    """Red, green, blue of a matrix profile as sRGB, 0..255, by arithmetic alone."""
    light = (np.asarray(rgb) / 255) ** gamma @ np.array(primaries) @ np.linalg.inv(np.array(SRGB))
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
