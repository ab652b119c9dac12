"""What is taken where nothing was chosen, and which avatars and networks belong together."""

import json
import shutil
from pathlib import Path

import pytest
from runs import Source

from musetalk_cli.avatar.store import load_meta
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.errors import AvatarError, MissingError, ModelError
from musetalk_cli.run.defaults import fill_in, settle, settle_alone
from musetalk_cli.run.generate import generate
from musetalk_cli.run.realtime import realtime
from musetalk_cli.sinks import RecordingSink


def run_with(models, avatars, model=None):
    return RunConfig(DataFolder(Path(models), "flag"), DataFolder(Path(avatars), "flag"), model, "cpu")


@pytest.fixture
def published(golden):
    """A models folder with complete v1.5 files."""
    return golden / "models"


@pytest.fixture
def avatars(avatars_dir, tmp_path):
    """Avatars by the model they were made for."""
    made_for = {
        "plain": {"version": "v15"},
        "named": {"version": "v15", "name": "v15"},
        "old": {"version": "v1", "name": "v1"},
        "elsewhere": {"version": "v15", "name": "some-bundle"},
        "drawn": {"version": "v15", "name": "demo"},
        "strange": {"version": "v99"},
    }
    for name, model in made_for.items():
        shutil.copytree(avatars_dir / "synthetic", tmp_path / "avatars" / name)
        path = tmp_path / "avatars" / name / "avatar.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"name": name, "model": model}))
    return tmp_path / "avatars"


def test_nothing_given_and_no_weights_is_the_demo(embedded, tmp_path):
    run = run_with(tmp_path, tmp_path)
    spoken = fill_in(run, None, None)
    sample = embedded / "avatars" / "demo" / "sample.wav"
    assert (spoken.avatar, spoken.audio) == ("demo", str(sample))
    assert spoken.notice == (
        f"no model chosen and no published weights in {tmp_path}: "
        "using the embedded demo (drawn faces only); "
        f"no --audio: speaking the sample {sample}"
    )
    settled = settle(run, "demo")
    assert settled.model == "demo"
    assert settled.avatars == DataFolder(embedded / "avatars", "embedded")
    assert settle(settled, "demo") == settled


@pytest.mark.usefixtures("embedded")
def test_a_given_sound_is_taken(tmp_path):
    spoken = fill_in(run_with(tmp_path, tmp_path), None, "-")
    assert (spoken.avatar, spoken.audio) == ("demo", "-")
    assert "--audio" not in spoken.notice


def test_the_chosen_demo_speaks_its_sample(embedded, published, tmp_path):
    """Also where there are published weights, and by the names of the demo networks too."""
    sample = str(embedded / "avatars" / "demo" / "sample.wav")
    run = run_with(published, tmp_path)
    assert fill_in(run, "demo", None).audio == sample
    for model in ("demo", str(embedded / "models" / "demo")):
        spoken = fill_in(run_with(published, tmp_path, model), None, None)
        assert (spoken.avatar, spoken.audio) == ("demo", sample)
        assert spoken.notice.startswith("no --avatar: using the embedded demo")
    assert settle(run, "demo").model == "demo"


@pytest.mark.usefixtures("embedded")
def test_all_given_says_nothing(published, tmp_path):
    assert fill_in(run_with(published, tmp_path), "anna", "a.wav").notice is None


@pytest.mark.usefixtures("embedded")
def test_with_weights_the_avatar_is_asked_for(published, tmp_path):
    with pytest.raises(MissingError, match=f"--avatar is missing. Model v15 is in {published}"):
        fill_in(run_with(published, tmp_path), None, "a.wav")
    for model in ("v15", "random-v15", str(published)):
        with pytest.raises(MissingError, match="needs an avatar that was made for it"):
            fill_in(run_with(tmp_path, tmp_path, model), None, "a.wav")


@pytest.mark.usefixtures("embedded")
def test_only_the_avatar_demo_has_a_sample(tmp_path, avatars_dir):
    for name in ("demo2", "synthetic", "nobody", ""):
        with pytest.raises(MissingError, match="--audio is missing"):
            fill_in(run_with(tmp_path, avatars_dir), name, None)


@pytest.mark.usefixtures("embedded")
def test_somebodys_own_avatar_called_demo_is_not_the_demo(avatars_dir, tmp_path):
    shutil.copytree(avatars_dir / "synthetic", tmp_path / "demo")
    with pytest.raises(MissingError, match="--avatar"):
        fill_in(run_with(tmp_path, tmp_path), None, "a.wav")
    with pytest.raises(MissingError, match="--audio"):
        fill_in(run_with(tmp_path, tmp_path), "demo", None)


@pytest.mark.usefixtures("nothing_embedded")
def test_without_embedded_data_nothing_is_taken(tmp_path):
    with pytest.raises(MissingError, match=r"^--avatar is missing\.$"):
        fill_in(run_with(tmp_path, tmp_path), None, "a.wav")


def test_the_demo_bundle_as_models_folder_is_no_published_model(embedded, tmp_path):
    run = run_with(embedded / "models" / "demo", tmp_path)
    assert fill_in(run, None, None).avatar == "demo"
    assert settle_alone(run, "measuring")[0].model == "demo"


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize(
    ("avatar", "model"), [("plain", "v15"), ("named", "v15"), ("elsewhere", "v15"), ("drawn", "demo")]
)
def test_an_avatar_chooses_its_model(avatars, published, avatar, model):
    settled = settle(run_with(published, avatars), avatar)
    assert settled.model == model
    assert settled.avatars == DataFolder(avatars, "flag")


@pytest.mark.usefixtures("embedded")
def test_an_avatar_for_v1_asks_for_v1(avatars, published, tmp_path):
    with pytest.raises(ModelError, match="Model v1 is incomplete"):
        settle(run_with(published, avatars), "old")
    shutil.copytree(published, tmp_path / "models")
    shutil.copytree(published / "musetalkV15", tmp_path / "models" / "musetalk")
    unet = tmp_path / "models" / "musetalk" / "unet.pth"
    unet.rename(unet.with_name("pytorch_model.bin"))
    assert settle(run_with(tmp_path / "models", avatars), "old").model == "v1"
    for model, avatar in (("v15", "old"), ("v1", "named"), ("v15", "strange")):
        with pytest.raises(
            AvatarError, match=f"Avatar {avatar} was made for .*, and model {model} is {model}"
        ):
            settle(run_with(tmp_path / "models", avatars, model), avatar)


@pytest.mark.parametrize("how", ["v15", "random-v15", "path"])
@pytest.mark.usefixtures("embedded")
def test_a_demo_avatar_speaks_with_no_other_networks(avatars, published, how):
    model = str(published) if how == "path" else how
    with pytest.raises(
        AvatarError, match=f"Avatar drawn was made for the demo networks: .* to model {model}"
    ):
        settle(run_with(published, avatars, model), "drawn")


@pytest.mark.usefixtures("embedded")
def test_a_demo_avatar_is_refused_even_where_the_other_weights_are_missing(avatars, tmp_path):
    with pytest.raises(AvatarError, match="was made for the demo networks"):
        settle(run_with(tmp_path / "nothing", avatars, "v15"), "drawn")


@pytest.mark.parametrize("how", ["demo", "path", "models folder"])
@pytest.mark.parametrize("avatar", ["plain", "named", "elsewhere"])
def test_the_demo_networks_speak_with_no_other_avatar(embedded, avatars, tmp_path, how, avatar):
    demo = embedded / "models" / "demo"
    model = {"demo": "demo", "path": str(demo), "models folder": "v15"}[how]
    with pytest.raises(AvatarError, match=f"Avatar {avatar} was not made for the demo networks") as caught:
        settle(run_with(demo if how == "models folder" else tmp_path, avatars, model), avatar)
    assert "--avatar demo" in caught.value.hint


@pytest.mark.usefixtures("embedded")
def test_an_avatar_of_another_bundle_speaks_as_before(avatars, published, tmp_path):
    for avatar in ("plain", "named", "elsewhere"):
        for model in (str(published), "v15", "random-v15"):
            assert settle(run_with(published, avatars, model), avatar).model == model


def test_a_wrong_pair_is_refused_before_the_sound_is_looked_at(embedded, avatars, published, tmp_path):
    run = run_with(published, avatars, "v15")
    with pytest.raises(AvatarError, match="made for the demo"):
        generate(run, JobConfig(), "drawn", tmp_path / "no-sound.wav", output=tmp_path / "out.mp4")
    source = Source(1)
    with pytest.raises(AvatarError, match="made for the demo"):
        realtime(run, JobConfig(), "drawn", source, [RecordingSink(tmp_path / "out.mp4")])
    assert source.closed.is_set()
    assert source.given == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["avatars"]


def test_bench_measures_what_is_there(embedded, published, tmp_path):
    run, said = settle_alone(run_with(published, tmp_path), "measuring")
    assert run.model == "v15"
    assert said == f"no model chosen, and v15 is in {published}: measuring v15"
    run, said = settle_alone(run_with(tmp_path, tmp_path), "measuring")
    assert run.model == "demo"
    assert said == f"no model chosen, and no published weights in {tmp_path}: measuring the embedded demo"
    chosen = run_with(tmp_path, tmp_path, "random-v15")
    assert settle_alone(chosen, "measuring") == (chosen, None)


def test_the_embedded_avatars_are_left_as_they_are(embedded):
    assert load_meta(embedded / "avatars", "demo").model == {"version": "v15", "name": "demo"}
