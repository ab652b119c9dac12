"""Manifests: every way to write the same jobs, and every bad line named before any work."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lives import speech, write_sound

from musetalk_cli.config import DataFolder, JobConfig, RunConfig, Sharpen
from musetalk_cli.errors import OutputError
from musetalk_cli.run.batch import rows
from musetalk_cli.run.batch.job import BatchJob
from musetalk_cli.run.batch.manifest import BatchDefaults, read_manifest
from musetalk_cli.run.batch.rows import ManifestError, read_rows


@pytest.fixture
def place(embedded, tmp_path):
    """A folder with sounds, and the demo embedded."""
    folder = tmp_path / "work"
    (folder / "clips").mkdir(parents=True)
    (folder / "out").mkdir()
    for name in ("a.wav", "b, c.wav", "d.wav", "[1].wav"):
        write_sound(folder / "clips" / name, speech(0.2))
    return folder


@pytest.fixture
def read(place):
    """Reads a manifest of that name and content."""

    def call(content, name="list.csv", **defaults):
        data = content if isinstance(content, bytes) else content.encode()
        (place / name).write_bytes(data)
        run = RunConfig(DataFolder(place / "models", "flag"), DataFolder(place / "avatars", "flag"))
        return read_manifest(place / name, BatchDefaults(run, JobConfig(), **defaults))

    return call


def told(job, place):
    return job.avatar, str(job.audio.relative_to(place)), str(job.output.relative_to(place))


CSV = (
    'avatar,audio,output,fps,sharpen\ndemo,clips/a.wav,out/a.mp4,,\ndemo2,"clips/b, c.wav",out/b.mkv,30,off\n'
)
JSONL = (
    '{"avatar": "demo", "audio": "clips/a.wav", "output": "out/a.mp4"}\n\n'
    '{"audio": "clips/b, c.wav", "avatar": "demo2", "fps": 30, "output": "out/b.mkv", "sharpen": "off"}'
)
TOML = """
[[job]]
avatar = "demo"
audio = "clips/a.wav"
output = "out/a.mp4"

[[job]]
avatar = "demo2"
audio = "clips/b, c.wav"
output = "out/b.mkv"
fps = 30
sharpen = "off"
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", CSV),
        ("list.CSV", CSV.replace("\n", "\r\n")),
        ("list.csv", "\ufeff" + CSV.replace("\n", "\r\n\r\n")),
        ("list.csv", CSV.replace("\n", "\r")),
        ("list.csv", CSV.replace("sharpen\n", "sharpen,, \n").replace("off\n", "off,,\n")),
        ("list.csv", CSV.replace("out/a.mp4", " out/a.mp4\r ")),
        ("list.csv", CSV.replace(",", ";").replace("b; c", "b, c")),
        ("list.csv", CSV.replace(",", "\t").replace("b\t c", "b, c")),
        ("list.jsonl", JSONL),
        ("list.jsonl", "\ufeff" + JSONL.replace("\n", "\r\n")),
        ("list.jsonl", JSONL.replace("a.wav", r"a.wav\r")),
        ("list.toml", TOML),
        ("list.toml", "\ufeff" + TOML.replace("\n", "\r\n")),
    ],
)
def test_the_same_jobs_in_every_form(read, place, name, content):
    one, other = read(content, name)
    assert told(one, place) == ("demo", "clips/a.wav", "out/a.mp4")
    assert told(other, place) == ("demo2", "clips/b, c.wav", "out/b.mkv")
    assert one.job == JobConfig()
    assert other.job == replace(JobConfig(), fps=Fraction(30), sharpen=None)
    assert {job.run.model for job in (one, other)} == {"demo"}


def test_a_pattern_is_a_job_for_each_sound_and_names_its_output(read, place):
    jobs = read("avatar,audio,output\ndemo,clips/*.wav,out/{avatar}-{stem}.mp4\n")
    assert [told(job, place)[1:] for job in jobs] == [
        ("clips/[1].wav", "out/demo-[1].mp4"),
        ("clips/a.wav", "out/demo-a.mp4"),
        ("clips/b, c.wav", "out/demo-b, c.mp4"),
        ("clips/d.wav", "out/demo-d.mp4"),
    ]


def test_a_name_that_looks_like_a_pattern_and_is_there_is_that_file(read, place):
    (job,) = read("avatar,audio,output\ndemo,clips/[1].wav,out/a.mp4\n")
    assert job.audio.name == "[1].wav"


def test_outputs_begin_in_the_output_folder_which_need_not_be_there(read, place):
    given = "avatar,audio,output\ndemo,clips/a.wav,\ndemo,clips/d.wav,deep/{stem}.mkv\n"
    jobs = read(given, output_dir=place / "made", pattern="{avatar}/{stem}.mp4")
    assert [str(job.output.relative_to(place)) for job in jobs] == ["made/demo/a.mp4", "made/deep/d.mkv"]
    assert not (place / "made").exists()


def test_a_model_is_a_name_or_a_path_from_the_manifest(read, place, installation):
    (place / "nets").symlink_to(installation / "models" / "demo")
    head = "avatar,audio,output,model\n"
    jobs = read(f"{head}demo,clips/a.wav,a.mp4,demo\ndemo,clips/a.wav,b.mp4,nets\n")
    assert [job.run.model for job in jobs] == ["demo", str(place / "nets")]


@pytest.mark.parametrize("given", [set(), {"fps", "silence"}])
def test_a_source_speaks_at_its_own_rate_with_every_frame_made(read, place, given, monkeypatch):
    (place / "clip of anna.mp4").write_bytes(b"film")
    (place / "nets").mkdir()
    monkeypatch.setattr("musetalk_cli.run.batch.manifest.resolve", lambda *_: None)
    head = "source,audio,output,fps,model\n"
    lines = "clip of anna.mp4,clips/a.wav,out/{avatar}.mp4,,\nclip of anna.mp4,clips/a.wav,b.mp4,30,nets\n"
    one, other = read(head + lines, given=frozenset(given))
    assert (one.source, one.output.name) == (place / "clip of anna.mp4", "clip of anna.mp4")
    assert (one.own_rate, other.own_rate) == (not given, False)
    assert one.job.silence == (JobConfig().silence if given else None)
    assert (other.job.fps, one.run.model, other.run.model) == (30, "v15", str(place / "nets"))
    assert one.group[1:] == other.group[1:] == ("source", str(place / "clip of anna.mp4"))


BAD = {
    "anna,clips/a.wav,out/a.mp4": "There is no avatar anna",
    "demo,clips/z.wav,out/a.mp4": "there is no sound at",
    r"demo,clips\a.wav,out/a.mp4": "Write / between folders",
    "demo,clips,out/a.mp4": "is no file",
    "demo,empty.wav,out/a.mp4": "is empty",
    "demo,clips/z*.wav,out/a.mp4": "no sound fits",
    "demo,clips/a.wav,": "output is missing",
    "demo,,out/a.mp4": "audio is missing",
    ",clips/a.wav,out/a.mp4": "avatar or source is missing",
    "demo,clips/a.wav,out/a.avi": "which is not written",
    "demo,clips/a.wav,out/{sten}.mp4": "{sten}",
    "demo,clips/a.wav,nowhere/a.mp4": "is not there",
    "demo,clips/a.wav,out": "has no suffix",
    "demo,clips/a.wav,empty.wav/a.mp4": "is no folder",
    "demo,clips/a.wav,folder.mp4": "is a folder",
    r"demo,clips/a.wav,out\a.mp4": r"holds a \: write / between folders",
    "demo,clips/a.wav,out/link.mp4": "is a file that is read",
    "demo,clips/a.wav,clips/e.mp4": "is a file that is read",
    "demo,clips/e.mp4,out/e.mp4": None,
    "demo,clips/a.wav,out/x.mp4": None,
    "demo,clips/d.wav,out/../out/x.mp4": "writes",
    "demo,clips/*.wav,out/y.mp4": "writes",
    "demo,clips/a.wav,out/z.mp4,999": "fps 999 is outside",
    "demo,clips/a.wav,out/z.mp4,,maybe": "sharpen maybe is not understood",
    "demo,clips/a.wav,out/z.mp4,,,random-v15": "demo networks",
    "demo,clips/a.wav,out/z.mp4,,,nets": "There is no model",
    "demo,clips/a.wav,out/z.mp4,,,,more": "7 fields",
    "demo,clips/a.wav,out/w.mp4,,,,": None,
    "demo,clips/\x07.wav,out/z.mp4": "control character",
}


def test_every_bad_line_is_named_at_once(read, place):
    (place / "empty.wav").touch()
    (place / "folder.mp4").mkdir()
    (place / "clips" / "e.mp4").write_bytes(b"sound")
    (place / "out" / "link.mp4").hardlink_to(place / "clips" / "e.mp4")
    with pytest.raises(ManifestError) as refused:
        read("avatar,audio,output,fps,sharpen,model\n" + "\n".join(BAD))
    bad = {number: said for number, said in enumerate(BAD.values(), 2) if said is not None}
    assert [problem.partition(":")[0] for problem in refused.value.problems] == [f"line {n}" for n in bad]
    for problem, said in zip(refused.value.problems, bad.values(), strict=True):
        assert said in problem
    assert f"{len(bad)} lines" in refused.value.message


def test_an_output_is_no_folder_of_another(read, place):
    with pytest.raises(ManifestError) as refused:
        read(
            "avatar,audio,output\ndemo,clips/a.wav,x/a.mp4\ndemo,clips/d.wav,x/a.mp4/y/d.mp4\n",
            output_dir=place / "new",
        )
    assert refused.value.problems == (
        f"line 3: {place / 'new' / 'x' / 'a.mp4'} would be its folder, and is an output too.",
    )


@pytest.mark.parametrize("way", ["out/..", "../work", "../link"])
def test_the_jobs_are_the_same_whatever_way_leads_to_the_manifest(read, place, way):
    """Else a batch that goes on from another folder would do all of them again."""
    (place.parent / "link").symlink_to(place)
    jobs = read("avatar,audio,output\ndemo,clips/a.wav,out/a.mp4\ndemo,clips/d.wav,../work/d.mp4\n")
    run = RunConfig(DataFolder(place / "models", "flag"), DataFolder(place / "avatars", "flag"))
    assert read_manifest(place / way / "list.csv", BatchDefaults(run, JobConfig())) == jobs


def test_null_in_json_is_what_is_empty(read):
    line = '{"avatar": "demo", "source": null, "audio": "clips/a.wav", "output": "out/a.mp4", "fps": null}'
    (job,) = read(line, "list.jsonl")
    assert job.job.fps == JobConfig().fps


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '{"avatar": "demo", "audio": "clips/a.wav", "output": "out/a.mp4", "speed": 2}',
            "'speed' is not known",
        ),
        ('{"avatar": "demo", "audio": ["clips/a.wav"], "output": "out/a.mp4"}', "neither text nor a number"),
        ('{"avatar": "demo", "audio": true, "output": "out/a.mp4"}', "neither text nor a number"),
        ("[1]", "no object"),
        ("nonsense", "is not JSON"),
        ('{"audio": "clips/a.wav", "output": "out/a.mp4"}', "avatar or source is missing"),
        ('{"avatar": "demo", "source": "x.mp4", "audio": "clips/a.wav"}', "an avatar and a source"),
        ('{"source": "x.mp4", "audio": "clips/a.wav", "output": "a.mp4"}', "There is no video or image"),
    ],
)
def test_a_bad_line_of_json_is_named(read, content, said):
    with pytest.raises(ManifestError) as refused:
        read(content + "\n", "list.jsonl")
    assert refused.value.problems[0].startswith("line 1: ")
    assert said in refused.value.problems[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("list.txt", "", "no manifest by its name"),
        ("list.csv", "", "has no column avatar or source"),
        ("list.csv", "avatar,audio\n", "holds no job"),
        ("list.csv", "avatar,audio,Output\n", "has a column 'Output', which is not known"),
        ("list.csv", "avatar,,audio\n", "has a column without a name"),
        ("list.csv", "avatar,audio,audio\n", "twice"),
        ("list.csv", "audio,output\n", "has no column avatar"),
        ("list.csv", "source,output\n", "has no column audio"),
        (
            "list.csv",
            'avatar,audio\ndemo,clips/a.wav\ndemo,"clips/a.wav\ndemo,clips/a.wav\n',
            "is not CSV: the quote that is opened in line 3 is never closed",
        ),
        (
            "list.csv",
            'avatar,audio\ndemo,"clips/a.wav\ndemo,clips/a.wav\ndemo,"clips/a.wav"\n',
            "opened in line 2 is closed in line 4 in the middle of a field",
        ),
        ("list.csv", 'avatar,audio\ndemo,"clips"/a.wav\n', "opened in line 2 is closed there in the middle"),
        ("list.csv", "avatar,audio\n\xe9".encode("latin-1"), "see line 2"),
        ("list.csv", "avatar,audio".encode("utf-16"), "UTF-16"),
        ("list.csv", "avatar,audio".encode("utf-16-le"), "UTF-16"),
        ("list.csv", b"x" * (17 << 20), "larger than 16 MB"),
        ("list.jsonl", "\n \n", "holds no job"),
        ("list.toml", "[[job]\n", "is not TOML"),
        ("list.toml", "[job]\navatar = 'demo'\n", "holds one [job]"),
        ("list.toml", "[[jobs]]\navatar = 'demo'\n", "holds 'jobs'"),
        ("list.toml", "", "holds no job"),
    ],
)
def test_what_is_no_manifest_is_one_sentence(read, name, content, said):
    with pytest.raises(ManifestError) as refused:
        read(content, name)
    assert said in refused.value.message
    assert refused.value.problems == ()


def test_an_output_does_not_leave_the_output_folder(read, place):
    with pytest.raises(ManifestError) as refused:
        read("avatar,audio,output\ndemo,clips/a.wav,../a.mp4\n", output_dir=place / "made")
    assert "leads out of --output-dir" in refused.value.problems[0]


def test_a_quote_that_is_closed_in_a_later_line_is_told_where_it_is_opened(read):
    with pytest.raises(ManifestError) as refused:
        read(
            'avatar,audio,output\n"demo,clips/a.wav,a.mp4\ndemo",clips/a.wav,b.mp4\nnobody,clips/a.wav,c.mp4\n'
        )
    assert refused.value.problems[0] == "line 2: the quote of its avatar is closed in a later line."
    assert refused.value.problems[1].startswith("line 4: There is no avatar nobody")


@pytest.mark.parametrize(
    ("below", "said"),
    [("", "is no folder"), ("/x/y", "cannot be made: {file} is no folder"), ("/" + "y" * 300, "")],
)
def test_a_folder_for_outputs_that_is_none_is_one_sentence(read, place, below, said):
    file = place / "a file"
    file.touch()
    folder = Path(f"{file}{below}")
    with pytest.raises(OutputError) as refused:
        read("avatar,audio\ndemo,clips/a.wav\ndemo,clips/b.wav\n", output_dir=folder)
    assert refused.value.message.startswith(f"--output-dir {folder} ")
    assert said.format(file=file) in refused.value.message


def test_the_number_of_jobs_is_bounded(read, monkeypatch):
    monkeypatch.setattr("musetalk_cli.run.batch.manifest.MAX_JOBS", 3)
    with pytest.raises(ManifestError, match="more than 3 jobs"):
        read("avatar,audio,output\ndemo,clips/*.wav,out/{stem}.mp4\n")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    for suffix in ("csv", "jsonl", "toml"):
        path = folder / f"any.{suffix}"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            found = read_rows(path)
        except ManifestError:
            continue
        assert found.rows or found.problems
        assert all(set(row.values) <= set(rows.COLUMNS) for row in found.rows)


def test_a_job_is_the_same_after_a_worker_has_read_it():
    run = RunConfig(DataFolder(Path("/m"), "flag"), DataFolder(Path("/a"), "flag"), "demo", "cpu", "bf16")
    job = JobConfig(fps=Fraction(30000, 1001), sharpen=Sharpen(0.3), silence=None, batch_sizes=(1, 4))
    for one in (job, JobConfig(), JobConfig(graphs=False)):
        whole = BatchJob("line 2", "数字人", Path("/a \udc80.wav"), Path("/o.mp4"), run, one)
        assert BatchJob.from_json(json.loads(json.dumps(whole.to_json()))) == whole
        of_source = replace(whole, source=Path("/clip.mp4"))
        assert BatchJob.from_json(json.loads(json.dumps(of_source.to_json()))) == of_source
    own = replace(whole, source=Path("/clip.mp4"), own_rate=True)
    assert BatchJob.from_json(json.loads(json.dumps(own.to_json()))) == own
