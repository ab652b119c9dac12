"""The files of the container, as Docker reads them: the Dockerfile, `.dockerignore` and `compose.yaml`."""

import json
import re
import shlex
from pathlib import Path, PurePosixPath

import yaml
from doclines import ROOT

SCRIPTS = ("start.py", "healthy.py")
"""In the container; `requirements.py` is used as it is built."""


def instructions(text=None):
    """Each instruction of the Dockerfile with its text, lines that go on joined; comments left out."""
    text = (ROOT / "Dockerfile").read_text() if text is None else text
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def last_stage():
    """The instructions of the image itself."""
    found = instructions()
    begin = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    return found[begin + 1 :]


def of_stage(word):
    """The text of every instruction of that kind in the image itself."""
    return [text for kind, text in last_stage() if kind == word]


def only(word):
    """The text of the one instruction of that kind."""
    (text,) = of_stage(word)
    return text


def exec_form(text):
    """The words of a command that no shell stands in front of."""
    words = json.loads(text)
    assert all(isinstance(word, str) for word in words)
    return words


def environment():
    """What the image sets."""
    pairs = [pair.partition("=") for text in of_stage("ENV") for pair in shlex.split(text)]
    return {name: value for name, _, value in pairs}


def arguments():
    """Names of the build arguments."""
    return {text.partition("=")[0] for word, text in instructions() if word == "ARG"}


def copied():
    """What is copied from the checkout, path by path."""
    found = []
    for word, text in instructions():
        if word == "COPY" and "--from=" not in text:
            *sources, _ = text.split()
            found += sources
    return found


def is_in_context(path):
    """True where `.dockerignore` lets a path through: the last pattern decides that fits it or its folder."""
    path, taken = PurePosixPath(path), True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            expression = _expression(pattern.lstrip("!"))
            if any(expression.fullmatch(str(each)) for each in (path, *path.parents)):
                taken = pattern.startswith("!")
    return taken


def _expression(pattern):
    parts = re.split(r"(\*\*/|\*)", pattern)
    meaning = {"**/": "(?:.*/)?", "*": "[^/]*"}
    return re.compile("".join(meaning.get(part) or re.escape(part) for part in parts))


def compose():
    """What `compose.yaml` says."""
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def service():
    """Its one service."""
    (found,) = compose()["services"].values()
    return found


def substituted(text):
    """Names of the variables that Compose puts in, with what follows them: `:-default` or `:?sentence`."""
    return re.findall(r"\$\{(\w+)(?::([-?])([^}]*))?\}", text)


def script(name):
    """A script of the container in the checkout."""
    return Path(ROOT, "docker", name)
