"""What `avatars show` says about an avatar's frames and about what preparation found."""

import json
import re
from dataclasses import replace

import pytest
from handmade import without_faces, write_avatar

from musetalk_cli.avatar.store import load_meta
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.face.boxes import crop_box

REPORT = {
    "faces": {
        "found": 6, "interpolated": 2, "passthrough": 3, "interpolated_share": 0.25,
        "passthrough_times": [[0.0, 0.04], [0.2, 0.28]],
    },
    "face_scale": 1.3512345,
    "jitter_px": {"before": 1.5, "after": 0.25},
    "profile_share": 0.125,
    "occluded_share": None,
    "cuts": [{"frame": number, "time": number / 25} for number in (3, 5, 6, 7, 8, 9, 11)],
    "seam": {"start": 0.5, "end": 2.25, "best_start": 1, "best_end": 8},
    "disk_bytes": 3 << 20,
    "warnings": ["The face is small: [bold]it is enlarged.", "It turns away often."],
    "later": {"deep": [[[[[[1]]]]]], "nothing": [], "sure": True},
}  # fmt: skip


@pytest.fixture
def avatars(tmp_path):
    """An avatar of eight frames, three of which pass through, with an idle clip of two."""
    avatar = synthetic_avatar(96, 96, 48, 8)
    meta = replace(avatar.meta, name="anna", rest_frames=(1, 6), idle_frames=2, report=REPORT)
    numbers = {0, 4, 5}
    masks = [avatar.frames[0][: crop_box(box).height, : crop_box(box).width, 0] for box in meta.boxes]
    masks = [None if number in numbers else mask for number, mask in enumerate(masks)]
    idle = avatar.frames[:2]
    write_avatar(tmp_path, without_faces(meta, numbers), avatar.frames, masks, avatar.latents.numpy(), idle)
    return tmp_path


def rows(text):
    """The rows of the tables that have two columns."""
    found = (re.split(r" {2,}", line.strip(), maxsplit=1) for line in text.splitlines())
    return {row[0]: row[1] for row in found if len(row) == 2}


def test_show_tells_the_frames_and_what_was_found(musetalk, avatars):
    code, out, err = musetalk("avatars", "show", "anna", "--avatars-dir", avatars)
    assert code == 0, err
    shown = rows(out)
    assert shown["pass-through frames"] == "3, shown as they are"
    assert (shown["rest frames"], shown["idle frames"]) == ("2", "2")
    assert shown["faces"].startswith("found 6, interpolated 2, passthrough 3, interpolated share 25.0 %")
    assert shown["faces"].endswith("passthrough times 0 s..0.04 s; 0.2 s..0.28 s")
    assert shown["jitter"] == "before 1.5 px, after 0.25 px"
    assert (shown["profile share"], shown["occluded share"]) == ("12.5 %", "-")
    assert shown["cuts"].startswith("frame 3, time 0.12 s; frame 5, time 0.2 s; ")
    assert shown["cuts"].endswith("; frame 8, time 0.32 s and 2 more")
    assert shown["seam"] == "start 0.5, end 2.25, best start 1, best end 8"
    assert shown["disk"] == "3 MiB"
    assert shown["later"] == "deep ..., nothing none, sure yes"
    assert shown["warnings"] == "The face is small: [bold]it is enlarged."
    assert "\n" in out[out.index("enlarged.") : out.index("It turns away often.")]


def test_show_tells_the_parameters_in_words_and_units(musetalk, avatars):
    parameters = {"constant_size": False, "max_gap": 0.4, "extra_margin": 10, "cheek_width": [90, 80]}
    parameters |= {"kept": [12, 80]}
    given = replace(
        load_meta(avatars, "anna"), parameters=parameters | {"selection": {"fps": 25, "kept": None}}
    )
    (avatars / "anna" / "avatar.json").write_text(given.to_json())
    code, out, err = musetalk("avatars", "show", "anna", "--avatars-dir", avatars)
    assert code == 0, err
    assert rows(out)["parameters"] == (
        "constant size no, max gap 0.4 s, extra margin 10 rows, cheek width 90 columns, 80 columns, "
        "kept 12..80, selection fps 25 fps, kept -"
    )
    assert not {"{", "}", "False", "None"} & set(re.split(r"\W", out))
    assert out.count("property") == 2


def test_show_gives_it_as_it_is_in_json(musetalk, avatars):
    code, out, err = musetalk("avatars", "show", "anna", "--avatars-dir", avatars, "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert shown["passthrough_frames"] == [0, 4, 5]
    assert (shown["rest_frames"], shown["idle_frames"]) == ([1, 6], 2)
    assert shown["report"] == REPORT


def test_no_key_of_the_report_is_needed(musetalk, avatars):
    place = avatars / "anna" / "avatar.json"
    meta = load_meta(avatars, "anna")
    for key in [*REPORT, None]:
        report = {name: value for name, value in REPORT.items() if name != key} if key else {}
        place.write_text(replace(meta, report=report).to_json())
        code, out, err = musetalk("avatars", "show", "anna", "--avatars-dir", avatars)
        assert code == 0, err
        assert ("What preparation found" in out) == bool(key)


def test_the_list_is_as_short_as_before(musetalk, avatars):
    code, out, _ = musetalk("avatars", "list", "--avatars-dir", avatars, "--json")
    entry = next(entry for entry in json.loads(out) if entry["name"] == "anna")
    assert code == 0
    assert not {"report", "rest_frames", "idle_frames", "passthrough_frames", "skipped_frames"} & set(entry)
