# Every relative link of the repository's Markdown leads somewhere, its anchor included; the pages keep to plain words.
# And what the README says can be typed is there to be typed.

import re
from pathlib import Path

import pytest

from tests.support import docs

PAGES = [
    *sorted(docs.ROOT.glob("*.md")),
    *sorted((docs.ROOT / "docs").rglob("*.md")),
    *(docs.ROOT / name / "README.md" for name in ("helper", "imserver", "clients/js", "examples/webchat")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", docs.prose(path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(docs.ROOT)))
def test_links_lead_somewhere(page):
    broken = []
    for link in LINK.findall(docs.prose(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(docs.ROOT)))
def test_pages_hold_no_emoji(page):
    assert EMOJI.findall(page.read_text("utf-8")) == []


def test_the_readmes_targets_are_the_makefiles():
    makefile = docs.read("Makefile")
    named = re.findall(r"\bmake ([a-z]+)\b", "\n".join(docs.blocks(docs.read("README.md"), "sh")))
    assert {"demo", "test"} <= set(named)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


def test_the_picture_reads_on_light_and_dark():
    picture = docs.read("docs/assets/architecture.svg")
    assert "prefers-color-scheme: dark" in picture
    assert "<title" in picture and "<desc" in picture and 'class="panel"' in picture
