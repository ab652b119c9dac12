"""The floors of the house, the promises about imports, and that what is drawn and written of it is so."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "musetalk_cli"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]


@functools.cache
def parsed(path):
    return ast.parse(path.read_text())


def test_imports_point_downward():
    tool = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([str(tool), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_files_and_functions_stay_small():
    long = []
    for path in HOUSE.rglob("*.py"):
        text = path.read_text()
        if text.count("\n") > 300:
            long.append(f"{path.name}: {text.count(chr(10))} lines")
        for node in ast.walk(parsed(path)):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and node.end_lineno - node.lineno > 60:
                long.append(f"{path.name}:{node.name}")
    assert not long


def test_no_class_of_the_library_is_subscripted_to_be_inherited():
    """`logging.StreamHandler[TextIO]` type-checks for Python 3.10 and raises there: it came with 3.11."""
    bases = [
        (path.name, ast.unparse(base))
        for path in HOUSE.rglob("*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Subscript)
    ]
    assert [found for found in bases if not found[1].startswith(("Generic[", "Protocol["))] == []


def test_the_product_does_not_need_what_made_the_demo():
    found = [path.name for path in HOUSE.rglob("*.py") if "training" in _imports(path)]
    assert not found


def _imports(path):
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def test_the_floors_that_are_drawn_are_those_of_the_contract():
    drawing = PAGE.split("## Rooms, floor by floor")[1].split("```")[1].strip().splitlines()
    rooms = [sorted(re.findall(r"(?<!\S)(\w+)/", line)) for line in drawing]
    floors = [names for names in rooms if names] + [sorted(drawing[-1].split())]
    assert floors == [sorted(re.findall(r"\w+", layer)) for layer in CONTRACT["layers"][1:]]


def defined_in(path):
    """What a file defines, in its classes too."""
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if hasattr(node, "name") and hasattr(node, "lineno")}


def test_every_file_that_the_page_names_is_there():
    named = set(re.findall(r"`([\w./*-]+\.(?:py|toml|md|json))`", PAGE))
    homes = ROOT, HOUSE, HOUSE / "run" / "batch"
    gone = {name for name in named if not any(any(home.glob(name)) for home in homes)}
    assert len(named) > 40
    assert not gone


def test_the_walk_of_a_block_of_sound_names_files_and_what_is_in_them():
    walk = PAGE.split("## The walk of one block of sound")[1].split("##")[0]
    steps = re.findall(r"^\| `([\w/*.]+)`(?:, `(\w+)`)? \|", walk, re.MULTILINE)
    assert [steps[0][0], steps[-1][0]] == ["sources/*.py", "sinks/*.py"]
    assert len(steps) >= 9
    for file, name in steps:
        paths = list(HOUSE.glob(file))
        assert paths, file
        assert not name or name in defined_in(paths[0]), (file, name)


@pytest.mark.parametrize("room", ["engine", "live"])
def test_each_module_of_the_live_path_and_the_engine_has_a_test_file_of_its_name(room):
    """All that do something; of what is data alone there is nothing to test."""
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    without = {
        path.stem
        for path in (HOUSE / room).glob("[!_]*.py")
        if _does_something(path)
        if not files & {f"test_{kind}{path.stem}" for kind in ("", f"{room}_", "pretended_")}
    }
    assert not without


def _does_something(path):
    """It holds a function of more than words, as those of a protocol are."""
    functions = (node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef))
    return any(len(node.body) > 1 or not isinstance(node.body[0], ast.Expr) for node in functions)
