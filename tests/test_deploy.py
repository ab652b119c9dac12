"""The container's files agree with each other and with the program. Nothing here needs Docker."""

import re
import runpy
import subprocess
from pathlib import Path

import pytest
import tomllib
import yaml
from dockerfiles import (
    SCRIPTS,
    arguments,
    compose,
    copied,
    environment,
    exec_form,
    instructions,
    is_in_context,
    last_stage,
    of_stage,
    only,
    script,
    service,
    substituted,
)
from doclines import ROOT
from prometheus_client.parser import text_string_to_metric_families
from test_cli_arguments import COMMANDS

from musetalk_cli.budget import VARIABLE
from musetalk_cli.serve import metrics, server, settings
from musetalk_cli.serve.calls import SOUND_BYTES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = ("Dockerfile", "compose.yaml", ".dockerignore", *(f"docker/{name}" for name in SCRIPTS))
PAGE = ROOT / "docs" / "deploy.md"
DEVICE_S = 5
"""What the end of a service takes besides its sessions and its connections."""


def requirements(*extras):
    return runpy.run_path(str(script("requirements.py")))["requirements"](ROOT / "pyproject.toml", extras)


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def read_by_commands():
    """Environment variables that stand for an option, and the one that no command names."""
    named = {option.envvar for command in COMMANDS.values() for option in command.params}
    return {VARIABLE, *named} - {None}


# -- what the image is made of ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", copied())
def test_what_is_copied_is_there_and_is_sent_to_the_builder(path):
    assert (ROOT / path).exists()
    assert is_in_context(path)


def test_all_of_the_package_and_its_data_is_copied():
    data = PROJECT["tool"]["setuptools"]["data-files"].values()
    patterns = ["musetalk_cli/**/*.*", *(pattern for found in data for pattern in found)]
    found = (path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern))
    wanted = [path for path in found if "__pycache__" not in path.parts]
    wanted += [Path(PROJECT["project"]["readme"]), *map(Path, PROJECT["project"]["license-files"])]
    assert len(wanted) > 300
    for path in wanted:
        assert is_in_context(path), path
        assert {str(each) for each in (path, *path.parents)} & set(copied()), path


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".venv/pyvenv.cfg",
        "models/musetalkV15/unet.pth",
        "avatars/anna/avatar.json",
        "avatars/demo3/avatar.json",
        "musetalk_cli/serve/__pycache__/http.cpython-311.pyc",
        "docker/.env",
        "tests/conftest.py",
    ],
)
def test_secrets_weights_and_faces_stay_here(path):
    assert not is_in_context(path)


def test_the_code_comes_after_what_it_needs():
    steps = [(word, text) for word, text in last_stage() if word in {"COPY", "RUN"}]
    needs = next(i for i, (_, text) in enumerate(steps) if text.startswith("pip install"))
    assert "--constraint /opt/musetalk/constraints.txt" in steps[needs][1]
    before = [text for word, text in steps[:needs] if word == "COPY"]
    assert not any("code" in text or "musetalk_cli" in text for text in before)
    assert sum("pip install" in text for _, text in steps) == 1  # the code's own is made in another stage


def test_the_requirements_are_the_project_s():
    project = PROJECT["project"]
    extras = next(text.partition("=")[2] for word, text in instructions() if text.startswith("EXTRAS="))
    assert set(extras.split(",")) == {"serve", "nvml"}
    assert requirements(*extras.split(",")) == [
        *project["dependencies"],
        *project["optional-dependencies"]["serve"],
        *project["optional-dependencies"]["nvml"],
    ]
    with pytest.raises(KeyError):
        requirements("nonsense")


# -- how it runs -----------------------------------------------------------------------------------------


def test_it_does_not_run_as_root_and_owns_its_volumes():
    user, group = only("USER").split(":")
    assert user.isdecimal()
    assert int(user) >= 10_000  # no user of a usual system, and none of the base image
    (made,) = (text for text in of_stage("RUN") if "useradd" in text)
    assert f"--gid {group} musetalk" in made
    assert f"--uid {user} --gid {group}" in made
    volumes = exec_form(only("VOLUME"))
    assert f"--owner {user} --group {group} {' '.join(volumes)}" in made
    assert [environment()[name] for name in ("MUSETALK_MODELS", "MUSETALK_AVATARS")] == volumes


def test_one_port_everywhere():
    port = str(settings.DEFAULT_PORT)
    assert only("EXPOSE") == environment()["MUSETALK_PORT"] == port
    assert substituted(service()["environment"]["MUSETALK_PORT"]) == [("MUSETALK_PORT", "-", port)]
    ports = re.findall(r"(?<![\d.])2\d{3}(?![\d.])", PAGE.read_text() + (ROOT / "compose.yaml").read_text())
    assert {number for number in ports if number.startswith("216")} <= {port, "2161"}


def test_signals_reach_the_server():
    assert only("STOPSIGNAL") == "SIGTERM"
    command = exec_form(only("ENTRYPOINT"))
    assert command == ["python", "/opt/musetalk/start.py"]
    (copied_there,) = (text for text in of_stage("COPY") if text.startswith("docker/"))
    assert copied_there == "docker/start.py docker/healthy.py /opt/musetalk/"
    assert only("HEALTHCHECK").endswith('CMD ["python", "/opt/musetalk/healthy.py"]')


def test_sessions_have_the_time_that_they_were_promised():
    words = service()["command"]
    drain = float(words[words.index("--drain") + 1])
    assert seconds(service()["stop_grace_period"]) >= drain + server.GRACE_S + DEVICE_S


# -- compose.yaml ----------------------------------------------------------------------------------------


def test_compose_uses_the_image_s_volumes_and_a_gpu():
    places = [volume.partition(":")[2] for volume in service()["volumes"]]
    assert places == exec_form(only("VOLUME"))
    assert [volume.partition(":")[0] for volume in service()["volumes"]] == list(compose()["volumes"])
    (device,) = service()["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert service()["restart"] == "unless-stopped"
    assert service()["network_mode"] == "host"
    assert "ports" not in service()  # Docker refuses both


def test_options_are_those_of_the_command():
    there = {option for each in COMMANDS["serve"].params for option in each.opts}
    text = script("start.py").read_text()
    for option in {*service()["command"], *re.findall(r'"(--[a-z-]+)"', text)}:
        assert option in {*there, "--help"} or option.isdecimal(), option


def test_the_services_for_several_gpus_build_upon_the_one_that_is_there():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert yaml.safe_load(block)["volumes"] == compose()["volumes"]
    told = yaml.safe_load(block)["services"].values()
    assert all(each["extends"]["service"] in compose()["services"] for each in told)
    assert all((ROOT / each["extends"]["file"]).is_file() for each in told)
    for name in ("CUDA_VISIBLE_DEVICES", "MUSETALK_PORT"):
        assert len({each["environment"][name] for each in told}) == len(told)
    for each in told:
        assert f"127.0.0.1:{each['environment']['MUSETALK_PORT']} check" in PAGE.read_text()


def test_every_variable_of_the_table_reaches_the_service():
    rows = re.findall(r"^\| `([A-Z_]+)` \|", PAGE.read_text().partition("## First start")[2], re.MULTILINE)
    assert {"MUSETALK_TOKEN", "HF_ENDPOINT"} <= set(rows)
    assert set(rows) - {"MUSETALK_IMAGE"} == set(service()["environment"])


def test_a_proxy_lets_the_largest_file_through():
    assert f"client_max_body_size {SOUND_BYTES >> 20}m;" in PAGE.read_text()


# -- names and secrets -----------------------------------------------------------------------------------


def test_every_metric_is_told_and_no_other():
    told = re.findall(r"`(musetalk_\w+)`", PAGE.read_text())
    state = metrics.State((0, 1), (0, 0), (0, 1), 0, (0, 0, 0), 0, 0)
    families = text_string_to_metric_families(metrics.Meters().text(lambda: state).decode())
    served = [f"{each.name}_total" if each.type == "counter" else each.name for each in families]
    assert sorted(told) == sorted(name for name in served if not name.endswith("_created"))


def test_every_variable_is_read_by_somebody():
    scripts = "".join(script(name).read_text() for name in SCRIPTS)
    put_in = {name for name, *_ in substituted((ROOT / "compose.yaml").read_text())}
    known = read_by_commands() | set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', scripts))
    text = "".join((ROOT / name).read_text() for name in FILES) + PAGE.read_text()
    spoken_of = set(re.findall(r"\bMUSETALK_[A-Z]+\b", text))
    assert spoken_of <= known | put_in, spoken_of - known - put_in
    assert put_in - {"MUSETALK_IMAGE"} <= known
    assert set(environment()) - {"PATH"} <= known
    assert {"MUSETALK_TOKEN", "MUSETALK_MODELS", "MUSETALK_AVATARS"} <= read_by_commands()


def test_build_arguments_that_are_spoken_of_are_there():
    text = PAGE.read_text() + (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"--build-arg (\w+)=", text)) <= arguments()


def test_no_secret_is_in_them():
    assert "MUSETALK_TOKEN" not in environment()
    assert not any("TOKEN" in name for name in arguments())
    ((name, how, sentence),) = substituted(service()["environment"]["MUSETALK_TOKEN"])
    assert (name, how) == ("MUSETALK_TOKEN", "?")
    assert ".env" in sentence
    for file in FILES:
        assert not re.search(r"[0-9a-fA-F]{32}|hf_\w{20}|BEGIN \w* ?PRIVATE KEY", (ROOT / file).read_text())


def test_a_file_with_the_token_cannot_be_committed():
    git = subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=ROOT)
    if git.returncode == 128:
        pytest.skip("this is no checkout of git")
    assert git.returncode == 0


@pytest.mark.parametrize("name", ["requirements.py", *SCRIPTS])
def test_scripts_work_with_line_ends_of_windows(tmp_path, name):
    copy = tmp_path / name
    copy.write_bytes(script(name).read_bytes().replace(b"\n", b"\r\n"))
    assert runpy.run_path(str(copy))["__doc__"]


def test_no_line_ends_as_on_windows():
    for file in FILES:
        assert b"\r" not in (ROOT / file).read_bytes()
