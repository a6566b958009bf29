# Reads the repository's Markdown for the tests that hold it to the code: tables, code blocks, sections, links.
# It knows just as much Markdown as docs/ uses.

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
# What docs/deploy.md adds to deploy/imcluster.acl on a Redis Cluster.
CLUSTER_RULES = {"+cluster|slots"}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"(?<!\\)\|")
_TICKED = re.compile(r"`([^`]+)`")


class Block(NamedTuple):
    """A fenced code block: its language and its text."""

    language: str
    text: str


def read(path: str) -> str:
    """A file of the repository, by its path from the root."""
    return (ROOT / path).read_text("utf-8")


def blocks(text: str, language: str | None = None) -> list[str]:
    """The texts of the fenced code blocks, of one language or of all."""
    found = [Block(*match) for match in _FENCE.findall(text)]
    return [block.text for block in found if language in (None, block.language)]


def prose(text: str) -> str:
    """The text without its fenced code blocks."""
    return _FENCE.sub("", text)


def rows(text: str, first_header: str) -> list[list[str]]:
    """The rows, as cells, of all tables whose first column's header is `first_header`."""
    found: list[list[str]] = []
    inside = False
    for line in prose(text).splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in _CELL.split(line.strip())[1:-1]]
        if cells[0] == first_header:
            inside = True
        elif inside and set(cells[0]) - set("-: "):
            found.append(cells)
    assert found, f"no table with a column {first_header!r}"
    return found


def ticked(text: str) -> list[str]:
    """What stands between backticks."""
    return _TICKED.findall(text)


def section(text: str, heading: str) -> str:
    """What stands under a heading (`### name`), up to the next heading of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    lines = text.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.strip() == heading]
    assert len(starts) == 1, f"{heading!r} stands {len(starts)} times"
    collected: list[str] = []
    fenced = False
    for line in lines[starts[0] + 1 :]:
        fenced ^= line.startswith("```")
        if not fenced and re.match(rf"#{{1,{level}}} ", line):
            break
        collected.append(line)
    return "".join(collected)
