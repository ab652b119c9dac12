import pytest

from musetalk_cli.config import JobConfig
from musetalk_cli.errors import AvatarError
from musetalk_cli.serve import gallery
from musetalk_cli.serve.gallery import Gallery


def test_what_is_wrong_with_an_avatar_is_told_without_where_it_is(coloured_run, monkeypatch):
    def fails(folder, name):
        raise AvatarError(f"{folder / name / 'avatar.json'} cannot be read: Permission denied.")

    # by hand: whoever runs the tests may be one who may read everything
    monkeypatch.setattr(gallery, "load_meta", fails)
    monkeypatch.setattr(gallery, "load_avatar", fails)
    shown = Gallery(coloured_run, JobConfig(), 1 << 30)
    reasons = {home.name: reason for home, _, reason in shown.all()}
    assert reasons["red"] == "avatar.json cannot be read: Permission denied."
    with pytest.raises(AvatarError, match=r"^avatar\.json cannot be read"):
        shown.faces.take("red")
