"""Print what the project and some of its extras need, one requirement a line, for a layer without the code.

python requirements.py pyproject.toml serve,nvml
"""

import sys
from pathlib import Path

import tomllib


def requirements(project: Path, extras: list[str]) -> list[str]:
    """The project's dependencies, then those of the extras.

    Raises:
        KeyError: The project has no such extra.
    """
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    optional = table["optional-dependencies"]
    return [*table["dependencies"], *(line for extra in extras for line in optional[extra])]


if __name__ == "__main__":
    print("\n".join(requirements(Path(sys.argv[1]), [extra for extra in sys.argv[2].split(",") if extra])))
