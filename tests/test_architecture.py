"""The floors of the house, and the promises about imports."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_imports_point_downward():
    tool = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([str(tool), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_files_and_functions_stay_small():
    import ast

    long = []
    for path in (ROOT / "musetalk_cli").rglob("*.py"):
        text = path.read_text()
        if text.count("\n") > 300:
            long.append(f"{path.name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 60:
                long.append(f"{path.name}:{node.name}")
    assert not long


def test_the_product_does_not_need_what_made_the_demo():
    found = [path.name for path in (ROOT / "musetalk_cli").rglob("*.py") if "training" in _imports(path)]
    assert not found


def _imports(path):
    import ast

    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names
