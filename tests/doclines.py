"""The command lines of the documentation, as they stand there."""

import re
import shlex
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/*.md")
"""Whose command lines all run."""
OTHER_PAGES = ("CONTRIBUTING.md", "training/README.md")
"""Of which those of this program and of make do; the rest trains networks and publishes."""
OURS = ("musetalk", "make")
TYPED = (*OURS, "pip")
"""What a span between backticks begins with, where it is to be typed."""


@dataclass(frozen=True)
class Line:
    """A command line, where it stands, and whether it is one that names its operands only."""

    place: str
    text: str

    @property
    def is_synopsis(self):
        return self.text.startswith("musetalk ") and re.search(r"[\[|]|\b[A-Z]{2,}\b", self.text) is not None

    def pipelines(self):
        """What `&&` joins, each a list of commands, each a list of words."""
        words = shlex.shlex(self.text, posix=True, punctuation_chars="|&;<>")
        words.whitespace_split = True
        found = [[[]]]
        for word in words:
            if word == "&&":
                found.append([[]])
            elif word == "|":
                found[-1].append([])
            else:
                assert set(word) - set("&;<>|"), f"{self.place}: {word} is not known to this test"
                found[-1][-1].append(word)
        return found


def fenced(pages=PAGES):
    """The lines of the blocks of shell."""
    found = [line for page in _pages(pages) for kind, line in _lines(page) if kind == "sh"]
    return [line for line in found if line.text and not line.text.startswith("#")]


def unmarked(pages=PAGES):
    """Lines of blocks of anything else that begin like a command of ours."""
    found = [line for page in _pages(pages) for kind, line in _lines(page) if kind not in {"sh", None}]
    return [line for line in found if re.match(r"\$|musetalk\b|make\b", line.text)]


def inline(pages=PAGES):
    """The spans between backticks, each as one line."""
    found = []
    for page in _pages(pages):
        prose = [line for kind, line in _lines(page) if kind is None]
        for _, paragraph in groupby(prose, lambda line: line.text != ""):
            lines = list(paragraph)
            text = "\n".join(line.text for line in lines).replace(r"\|", "|")
            for span in re.finditer(r"(?<!`)`([^`]+)`(?!`)", text):
                place = lines[text.count("\n", 0, span.start())].place
                found.append(Line(place, " ".join(span[1].split())))
    return found


def _pages(patterns):
    return [page for pattern in patterns for page in sorted(ROOT.glob(pattern))]


def _lines(page):
    """Every line that is no fence, with the kind of the block it stands in; None outside of all."""
    kind = None
    for number, text in enumerate(page.read_text().splitlines(), 1):
        fence = re.match(r" *```(\w*)", text)
        if fence is None:
            yield kind, Line(f"{page.relative_to(ROOT)}:{number}", text.strip())
        else:
            kind = (fence[1] or "text") if kind is None else None
