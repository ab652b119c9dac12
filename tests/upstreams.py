"""Folders like those that upstream prepares: as they should be, and with anything wrong in them."""

import functools
import io
import json
import os
import pickle
import struct
import zipfile
import zlib

import cv2
import numpy as np
import torch
from hypothesis import strategies as st

WIDTH, HEIGHT = 24, 20
BOX, CROP = [4, 4, 20, 18], [0, 0, WIDTH, HEIGHT]
ROW = (1, 8, 32, 32)


class Strange:
    """What stands in a file's place: a `folder`, a `fifo`, or a `link` and where it leads."""

    def __init__(self, kind, target=""):
        self.kind, self.target = kind, target

    def __repr__(self):
        return f"{self.kind} {self.target}"


class Files(dict):
    """Files by their place in a folder; shown by their sizes, since what they hold is long."""

    def __repr__(self):
        shown = {name: f"{len(data)} B" if isinstance(data, bytes) else data for name, data in self.items()}
        return f"Files({shown})"


def png(width=WIDTH, height=HEIGHT, *, grey=False, seed=0, suffix=".png", depth=np.uint8, channels=3):
    """A picture of noise, as the bytes of its file."""
    shape = (height, width) if grey else (height, width, channels)
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(depth).max, shape, depth)
    return cv2.imencode(suffix, pixels)[1].tobytes()


@functools.cache
def claimed(width, height, rows=0):
    """A PNG of few bytes that claims any size, and holds so many rows of black."""
    packed = zlib.compressobj(1)
    data = b"".join(packed.compress(bytes(1 + 3 * width)) for _ in range(rows)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + data, b"IEND")
    framed = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def saved(value, **options):
    """What torch writes of a value."""
    data = io.BytesIO()
    torch.save(value, data, **options)
    return data.getvalue()


def latents(count, mirrored=False):
    """Latents of so many frames; where mirrored, of the way back too."""
    made = torch.randn(count, *ROW, generator=torch.Generator().manual_seed(count))
    return [*made, *made.flip(0)] if mirrored else [*made]


def upstream(count, *, mirrored):
    """The files of a folder that is as it should be."""
    numbers = [*range(count), *reversed(range(count))] if mirrored else [*range(count)]
    files = Files({f"full_imgs/{place:08}.png": png(seed=number) for place, number in enumerate(numbers)})
    files |= {f"mask/{place:08}.png": png(grey=True, seed=9 + number) for place, number in enumerate(numbers)}
    files |= {
        "coords.pkl": pickle.dumps([BOX] * len(numbers)),
        "mask_coords.pkl": pickle.dumps([CROP] * len(numbers)),
        "latents.pt": saved(latents(count, mirrored)),
        "avator_info.json": json.dumps({"avatar_id": "a", "version": "v15", "bbox_shift": 3}).encode(),
    }
    return files


def lay_out(files, folder):
    """Write the files, with folders for the pictures."""
    folder.mkdir()
    for place in {"full_imgs", "mask"} - set(files):
        (folder / place).mkdir()
    for name, data in files.items():
        path = folder / name
        if isinstance(data, bytes):
            path.write_bytes(data)
        elif data.kind == "folder":
            path.mkdir()
        elif data.kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(data.target)


class Run:
    """Runs a command where a pickle of it is read."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


def rezipped(data, compression=zipfile.ZIP_STORED, more=0, twice=False):
    """The records of a torch file, written by another program."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
            if twice:
                new.filelist.append(new.filelist[-1])
        for number in range(more):
            new.writestr(f"archive/more{number}", b"")
    return out.getvalue()


def claiming(data, size):
    """A zip whose directory states another size of every record."""
    data = bytearray(data)
    at = data.find(b"PK\1\2")
    while at >= 0:
        data[at + 20 : at + 28] = struct.pack("<II", size, size)
        at = data.find(b"PK\1\2", at + 4)
    return bytes(data)


COUNTS = st.integers(0, 9)
SIDES = st.integers(-50, 50) | st.sampled_from([10**5, -(10**5), 10**9, -(2**31)])
NUMBERS = st.one_of(
    SIDES,
    SIDES.map(np.int64),
    st.sampled_from([10**40, 2**63]),
    st.floats(),
    st.floats(width=32).map(np.float32),
)
PICKLES = st.one_of(
    st.lists(st.lists(NUMBERS, min_size=4, max_size=4) | st.tuples(*[NUMBERS] * 4), max_size=9),
    st.builds(lambda box, count: [box] * count, st.sampled_from([BOX, CROP, [0.0] * 4, BOX[::-1]]), COUNTS),
    st.sampled_from([None, {}, "text", [Run()], [[0, 0, 1, Run()]], [BOX] * 50_000, np.zeros((4, 4))]),
    st.recursive(st.integers() | st.text(max_size=3), lambda part: st.lists(part, max_size=4), max_leaves=9),
)

DTYPES = st.sampled_from(
    [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.int8, torch.bool,
     torch.complex64]
)  # fmt: skip
VALUES = st.sampled_from([0.0, -0.0, float("nan"), float("inf"), 3e38, 65_504.0, 1e-45])
SHAPES = st.lists(st.sampled_from([0, 1, 2, 4, 8, 31, 32]), max_size=4)
KINDS = {
    "lists": COUNTS.map(latents),
    "a tensor": COUNTS.map(lambda count: torch.randn(count, *ROW[1:])),
    "numbers": st.builds(
        lambda count, value, dtype: [torch.full(ROW, value, dtype=torch.float64).to(dtype)] * count,
        COUNTS, VALUES, DTYPES,
    ),
    "shapes": st.builds(lambda shape, count: [torch.zeros(shape)] * count, SHAPES, COUNTS),
    "one number": st.sampled_from([4, 10**6, 10**12]).map(
        lambda count: torch.zeros(1, 1, 1, 1).expand(count, *ROW[1:])
    ),
    "one number in a list": st.sampled_from([4, 20_000]).map(
        lambda count: [torch.zeros(1, 1, 1, 1).expand(ROW)] * count
    ),
    "parameters": COUNTS.map(lambda count: [torch.nn.Parameter(row) for row in latents(count)]),
    "turned": COUNTS.map(lambda count: [row.transpose(2, 3) for row in latents(count)]),
    "sparse": COUNTS.map(lambda count: [row.to_sparse() for row in latents(count)]),
    "meta": COUNTS.map(lambda count: [row.to("meta") for row in latents(count)]),
    "no latents": st.sampled_from([[Run()], {"a": 1}, [1, 2], torch.zeros(()), []]),
}  # fmt: skip
COMPRESSIONS = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
LATENTS = st.one_of(
    st.sampled_from(sorted(KINDS)).flatmap(KINDS.__getitem__).map(saved),
    COUNTS.map(lambda count: saved(latents(count), _use_new_zipfile_serialization=False)),
    st.builds(
        lambda count, compression, more, twice: rezipped(saved(latents(count)), compression, more, twice),
        COUNTS, COMPRESSIONS, st.sampled_from([0, 1, 5000]), st.booleans(),
    ),
    st.builds(
        lambda count, size: claiming(saved(latents(count)), size),
        COUNTS, st.sampled_from([0, 1, 0x7FFF_FFFF, 0xFFFF_FFFE, 0xFFFF_FFFF]),
    ),
)  # fmt: skip

TEXTS = st.text(st.characters(), max_size=9)
INFOS = st.one_of(
    st.dictionaries(
        st.sampled_from(["avatar_id", "video_path", "bbox_shift", "version", "fps"]) | TEXTS,
        st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.lists(TEXTS, max_size=2)
        | st.sampled_from(["v1", "v15", "25", "30000/1001", "1/0", "nan", "1e999", "\x1b]0;x\x07", "\udc80"]),
        max_size=4,
    ).map(lambda info: json.dumps(info).encode()),
    st.sampled_from([b"[]", b"{", b"\xff\xfe{\0}\0", b'{"fps": 1e400}', b"[" * 100_000, b'{"a": 1, "a": 2}']),
)  # fmt: skip

PICTURES = st.one_of(
    st.builds(png, st.integers(1, 60), st.integers(1, 60), grey=st.booleans()),
    st.builds(png, suffix=st.sampled_from([".png", ".jpg", ".bmp", ".webp", ".tiff"])),
    st.builds(png, depth=st.just(np.uint16)),
    st.builds(png, channels=st.just(4)),
    st.builds(
        claimed,
        st.sampled_from([WIDTH, 8000, 60_000]), st.sampled_from([HEIGHT, 8000, 2**31 - 1]),
        st.sampled_from([0, 1, HEIGHT]),
    ),
)  # fmt: skip
LINKS = (
    "../outside/secret", "/etc/hostname", "nowhere", "../nowhere", ".", "link", "latents.pt", "00000000.png",
    "full_imgs", "full_imgs/00000000.png",
)  # fmt: skip
STRANGE = st.one_of(
    st.sampled_from([b"", b"text", bytes(200)]),
    st.sampled_from(["folder", "fifo"]).map(Strange),
    st.sampled_from(LINKS).map(lambda target: Strange("link", target)),
)
NAMES = st.sampled_from(
    ["00000009.png", "9.png", "0.png", "00000000.jpg", "cover.png", "٣.png", ".hidden.png", "-1.png",
     "1e3.png", "x" * 200 + ".png", "\x1b[31m.png", "new\nline.png", "9" * 18 + ".png", "9" * 19 + ".png",
     "00000001.PNG", "Thumbs.db"]
)  # fmt: skip
FOLDERS = st.sampled_from(["full_imgs", "mask"])


def drop(draw, files):
    """One file is not there."""
    files.pop(draw(st.sampled_from(sorted(files))))


def replace(draw, files):
    """Something else stands in the place of a file."""
    files[draw(st.sampled_from(sorted(files)))] = draw(STRANGE)


def damage(draw, files):
    """Bytes are cut off, put behind, or changed."""
    place = draw(st.sampled_from(sorted(files)))
    data = files[place]
    if not isinstance(data, bytes) or not data:
        return
    at = draw(st.integers(0, len(data) - 1))
    other = draw(st.binary(max_size=8))
    files[place] = draw(
        st.sampled_from([data[:at], data + data[at:], data[:at] + other + data[at + len(other) :]])
    )


def change_pictures(draw, files):
    """One picture, or all of its folder, are others."""
    place, picture = draw(st.sampled_from(sorted(files))), draw(PICTURES)
    folder, slash, _ = place.partition("/")
    wanted = place if draw(st.booleans()) else f"{folder}/"
    files |= {name: picture for name in files if slash and name.startswith(wanted)}


def add_picture(draw, files):
    """One picture more, with any name."""
    folder = draw(FOLDERS)
    if folder not in files:
        files[f"{folder}/{draw(NAMES)}"] = png(grey=folder == "mask")


def change_boxes(draw, files):
    """A pickle holds anything."""
    files[draw(st.sampled_from(["coords.pkl", "mask_coords.pkl"]))] = pickle.dumps(
        draw(PICKLES), draw(st.integers(0, pickle.HIGHEST_PROTOCOL))
    )


def change_latents(draw, files):
    """The latents are anything."""
    files["latents.pt"] = draw(LATENTS)


def change_info(draw, files):
    """The information is anything."""
    files["avator_info.json"] = draw(INFOS)


def change_folder(draw, files):
    """Something else stands in the place of a folder."""
    folder = draw(FOLDERS)
    for name in [name for name in files if name.startswith(f"{folder}/")]:
        del files[name]
    files[folder] = draw(STRANGE)


CHANGES = (
    drop, replace, damage, change_pictures, add_picture, change_boxes, change_latents, change_info,
    change_folder,
)  # fmt: skip


@st.composite
def folders(draw):
    """The files of a folder with up to three things wrong, or unusual, in it."""
    files = upstream(draw(st.integers(1, 3)), mirrored=draw(st.booleans()))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=3)):
        if files:
            change(draw, files)
    return files
