"""The folder of an avatar in the making, and its journal: what outlives which ending."""

import fcntl
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.avatar.workspace import RESUME_FILE, Workspace
from musetalk_cli.errors import AvatarError, InputError, ModelError, OutputError
from musetalk_cli.preparation.journal import Journal

KEY = {"source": "abc", "options": {"smooth": True, "gap": 0.4}}
OTHER = {"source": "abc", "options": {"smooth": True, "gap": 0.5}}


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def in_process(code, folder):
    """Run code with `Workspace`, `os`, `KEY` and `FOLDER` in a process of its own."""
    head = (
        "import os, sys\nfrom pathlib import Path\nfrom musetalk_cli.avatar.workspace import Workspace\n"
        f"KEY, FOLDER = {KEY!r}, Path({str(folder)!r})\n"
    )
    return subprocess.run([sys.executable, "-c", head + code], timeout=60)


def killed_at_work(folder):
    """Leave what a process leaves that ends in the middle of its work."""
    code = (
        "with Workspace(FOLDER, 'anna', key=KEY) as w:\n"
        "    (w.folder / 'work.txt').write_text('done')\n"
        "    (w.folder / 'masks' / '0.png').write_text('mask')\n"
        "    os._exit(7)\n"
    )
    assert in_process(code, folder).returncode == 7


def test_what_a_killed_process_left_is_gone_on_with(tmp_path):
    killed_at_work(tmp_path)
    with Workspace(tmp_path, "anna", key=dict(reversed(KEY.items()))) as workspace:
        assert workspace.resumed
        assert (workspace.folder / "work.txt").read_text() == "done"
        assert (workspace.folder / "masks" / "0.png").is_file()
        workspace.publish("{}")
    assert files(tmp_path) == ["anna/avatar.json", "anna/masks/0.png", "anna/work.txt"]


def test_another_key_starts_anew(tmp_path):
    killed_at_work(tmp_path)
    with Workspace(tmp_path, "anna", key=OTHER) as workspace:
        assert not workspace.resumed
        assert files(workspace.folder) == [RESUME_FILE]
        assert sorted(path.name for path in workspace.folder.iterdir()) == ["full_imgs", "masks", RESUME_FILE]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_keeps_the_work_and_frees_the_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), Workspace(tmp_path, "anna", key=KEY) as workspace:
        (workspace.folder / "work.txt").write_text("done")
        raise KeyboardInterrupt
    with Workspace(tmp_path, "anna", key=KEY) as workspace:
        assert workspace.resumed
        assert (workspace.folder / "work.txt").is_file()


@pytest.mark.parametrize("error", [InputError, ModelError, AvatarError])
def test_what_is_refused_leaves_nothing(tmp_path, error):
    for key in (KEY, None):
        with pytest.raises(error), Workspace(tmp_path, "anna", key=key) as workspace:
            (workspace.folder / "work.txt").write_text("done")
            raise error("refused")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, OSError, SystemExit, OutputError])
def test_a_crash_and_a_full_disk_can_be_resumed(tmp_path, error):
    with pytest.raises(error), Workspace(tmp_path, "anna", key=KEY) as workspace:
        (workspace.folder / "work.txt").write_text("done")
        raise error("broken")
    with Workspace(tmp_path, "anna", key=KEY) as workspace:
        assert workspace.resumed
        assert (workspace.folder / "work.txt").read_text() == "done"
    with pytest.raises(error), Workspace(tmp_path, "anna") as workspace:
        raise error("broken")
    assert list(tmp_path.iterdir()) == []


def test_without_a_key_an_interrupt_leaves_nothing_either(tmp_path):
    with pytest.raises(KeyboardInterrupt), Workspace(tmp_path, "anna"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_publishing_leaves_nothing(tmp_path):
    with Workspace(tmp_path, "anna", key=KEY):
        assert files(tmp_path) == [f".anna.partial/{RESUME_FILE}"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_sealed_is_not_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt), Workspace(tmp_path, "anna", key=KEY) as workspace:
        (workspace.folder / "work.txt").write_text("half renamed")
        workspace.seal()
        raise KeyboardInterrupt
    with Workspace(tmp_path, "anna", key=KEY) as workspace:
        assert not workspace.resumed
        assert not (workspace.folder / "work.txt").exists()


@pytest.mark.parametrize("note", [b"", b"\xff\xfe{}", b'{"source": "ab', json.dumps(OTHER).encode()])
def test_a_broken_note_starts_anew(tmp_path, note):
    killed_at_work(tmp_path)
    (tmp_path / ".anna.partial" / RESUME_FILE).write_bytes(note)
    with Workspace(tmp_path, "anna", key=KEY) as workspace:
        assert not workspace.resumed
        assert files(workspace.folder) == [RESUME_FILE]


def test_a_wipe_that_is_interrupted_leaves_nothing_to_go_on_with(tmp_path, monkeypatch):
    killed_at_work(tmp_path)

    def stop(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("musetalk_cli.avatar.workspace.shutil.rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            Workspace(tmp_path, "anna", key=OTHER).__enter__()
    assert (tmp_path / ".anna.partial" / "masks" / "0.png").is_file(), "the wipe did not finish"
    with Workspace(tmp_path, "anna", key=KEY) as workspace:
        assert not workspace.resumed
        assert files(workspace.folder) == [RESUME_FILE]


def test_two_at_once_are_refused_and_the_first_is_not_disturbed(tmp_path):
    code = (
        "from musetalk_cli.errors import OutputError\n"
        "try:\n    Workspace(FOLDER, 'anna', key=KEY).__enter__()\n"
        "except OutputError as error:\n    sys.exit(3 if 'Another process' in str(error) else 4)\n"
    )
    with Workspace(tmp_path, "anna", key=KEY) as workspace:
        (workspace.folder / "work.txt").write_text("done")
        assert in_process(code, tmp_path).returncode == 3
        for key in (KEY, OTHER):
            with pytest.raises(OutputError, match="Another process"):
                Workspace(tmp_path, "anna", key=key).__enter__()
        assert (workspace.folder / "work.txt").is_file()
        with Workspace(tmp_path, "berta", key=KEY):
            pass
    assert in_process(code, tmp_path).returncode == 0


def test_a_child_process_does_not_hold_the_folder(tmp_path):
    """As ffmpeg is started while the folder is locked, and may outlive an interrupt."""
    with Workspace(tmp_path, "anna", key=KEY) as workspace:
        folder = workspace.folder
        code = "import sys; print('running', flush=True); sys.stdin.read()"
        pipe = subprocess.PIPE
        child = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, close_fds=False)
        assert child.stdout.readline() == b"running\n"
        workspace.publish("{}")
    handle = os.open(folder.parent / "anna", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(handle)
        child.communicate(timeout=30)


def avatar(folder, name, text):
    with Workspace(folder, name, overwrite=True, key=KEY) as workspace:
        (workspace.folder / "masks" / "a.png").write_text(text)
        workspace.publish(text)


def test_an_avatar_is_replaced_as_a_whole_and_only_when_wanted(tmp_path):
    avatar(tmp_path, "anna", "old")
    (tmp_path / "anna" / "extra.txt").write_text("old")
    with pytest.raises(AvatarError, match="already"):
        Workspace(tmp_path, "anna", key=KEY)
    with Workspace(tmp_path, "anna", overwrite=True, key=KEY) as workspace:
        (workspace.folder / "masks" / "a.png").write_text("new")
        assert (tmp_path / "anna" / "avatar.json").read_text() == "old"
        workspace.publish("new")
    assert files(tmp_path) == ["anna/avatar.json", "anna/masks/a.png"]
    assert (tmp_path / "anna" / "masks" / "a.png").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["anna"]


def test_a_failure_to_replace_leaves_the_old_one(tmp_path, monkeypatch):
    avatar(tmp_path, "anna", "old")
    rename = type(tmp_path).rename

    def failing(path, target):
        if path.name == ".anna.partial":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "rename", failing)
        with pytest.raises(OutputError, match="No space left"):
            avatar(tmp_path, "anna", "new")
    assert [name for name in files(tmp_path) if name.startswith("anna/")] == [
        "anna/avatar.json", "anna/masks/a.png"
    ]  # fmt: skip
    assert (tmp_path / "anna" / "avatar.json").read_text() == "old"
    avatar(tmp_path, "anna", "new")
    assert files(tmp_path) == ["anna/avatar.json", "anna/masks/a.png"]


def test_a_name_taken_meanwhile_is_refused(tmp_path):
    with pytest.raises(AvatarError, match="already"), Workspace(tmp_path, "anna", key=KEY) as workspace:
        avatar_of_another = tmp_path / "anna"
        avatar_of_another.mkdir()
        (avatar_of_another / "avatar.json").write_text("theirs")
        workspace.publish("mine")
    assert files(tmp_path) == ["anna/avatar.json"]
    assert (tmp_path / "anna" / "avatar.json").read_text() == "theirs"


def test_a_closed_workspace_has_no_folder(tmp_path):
    workspace = Workspace(tmp_path, "anna", key=KEY)
    with pytest.raises(RuntimeError, match="not open"):
        workspace.folder  # noqa: B018
    with workspace:
        assert workspace.folder.is_dir()
        assert (workspace.name, workspace.target) == ("anna", tmp_path / "anna")
    with pytest.raises(RuntimeError, match="not open"):
        workspace.folder  # noqa: B018


def read_all(path, keep=None):
    with Journal(path) as journal:
        return list(journal.read(keep))


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(records=st.lists(values, max_size=6), more=st.lists(values, max_size=3), torn=st.integers(0, 400))
def test_a_journal_cut_off_anywhere_keeps_its_whole_lines(tmp_path_factory, records, more, torn):
    path = tmp_path_factory.mktemp("journal") / "work.jsonl"
    ends = [0]
    with Journal(path) as journal:
        for record in records:
            journal.append(record)
            ends.append(path.stat().st_size)
    left = min(torn, ends[-1])
    os.truncate(path, left)
    whole = sum(end <= left for end in ends) - 1
    with Journal(path) as journal:
        assert list(journal.read()) == records[:whole]
        assert path.stat().st_size == ends[whole]
        for record in more:
            journal.append(record)
        assert list(journal.read()) == records[:whole] + more
    assert read_all(path) == records[:whole] + more


def test_a_record_is_on_disk_when_it_was_appended(tmp_path):
    with Journal(tmp_path / "work.jsonl") as journal:
        journal.append({"a": [1, 2]})
        assert (tmp_path / "work.jsonl").read_bytes() == b'{"a":[1,2]}\n'


@pytest.mark.parametrize(
    "rest", [b"{", b'{"a": 1', b"\x00\x00\x00", b"\xff\n", b"nonsense\n4\n", b'{"a"\n[1]\n', b"1"]
)
def test_what_is_no_record_ends_the_journal(tmp_path, rest):
    path = tmp_path / "work.jsonl"
    path.write_bytes(b"1\n[2]\n" + rest)
    assert read_all(path) == [1, [2]]
    assert path.read_bytes() == b"1\n[2]\n"


@pytest.mark.parametrize(
    ("keep", "left"), [(0, []), (2, [1, 2]), (3, [1, 2, 3]), (9, [1, 2, 3]), (None, [1, 2, 3])]
)
def test_what_is_beyond_the_kept_is_cut_off(tmp_path, keep, left):
    path = tmp_path / "work.jsonl"
    path.write_bytes(b"1\n2\n3\n")
    assert read_all(path, keep) == left
    assert read_all(path) == left


def test_a_new_journal_is_empty(tmp_path):
    assert read_all(tmp_path / "work.jsonl") == []
    assert (tmp_path / "work.jsonl").stat().st_size == 0
