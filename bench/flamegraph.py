"""A flame graph as a small SVG: folded stacks in, one static file out, without scripts and without tiny frames.

Pure. Wide frames are where the time goes; the tooltip of a frame says how much.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from itertools import groupby

WIDTH, HEIGHT, TOP = 1200, 17, 40
LETTER = 6.6
# The smallest share of the whole that is drawn; raised until the file is small enough.
SHARE = 0.002
MOST_BYTES = 150_000
# Frames without a name, and what inlining puts where it is not; a stack that ends in a wait cost nothing.
_NOISE = re.compile(r"0x[0-9a-f]+ |_?_?Py_X?(DECREF|INCREF|NewRef) ")
_WAITS = re.compile(r"(epoll_p?wait|select|poll|sem_wait|pthread_cond_\w+|futex\w*) ")
_FILE = re.compile(r"\((?:[^()]*/)?([^()/]+?)(?::\d+)?\)$")


@dataclass
class _Frame:
    samples: int = 0
    below: dict[str, "_Frame"] = field(default_factory=dict)


def fold(lines: Iterable[str]) -> Counter[tuple[str, ...]]:
    """Stacks with their samples, from lines `outer;inner;innermost COUNT`; any other line is passed over.

    Waiting is left out, and so are frames that say nothing.
    """
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        stack, _, count = line.rstrip().rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";") if frame and not _NOISE.match(frame)]
        if frames and count.isdigit() and not _WAITS.match(frames[-1]):
            stacks[tuple(name for name, _ in groupby(frames))] += int(count)
    return stacks


def _short(frame: str) -> str:
    """`name (file.py)`: no path of the machine that it was recorded on, no line."""
    return _FILE.sub(r"(\1)", frame.strip())


def svg(stacks: Counter[tuple[str, ...]], title: str) -> str:
    """The graph, outermost frames on top, at most MOST_BYTES long."""
    root = _Frame()
    for stack, count in stacks.items():
        root.samples += count
        frame = root
        for name in stack:
            frame = frame.below.setdefault(name, _Frame())
            frame.samples += count
    share = SHARE
    while len((text := _draw(root, title, share)).encode()) > MOST_BYTES:
        share *= 1.5
    return text


def _draw(root: _Frame, title: str, share: float) -> str:
    boxes: list[str] = []
    depth = 0

    def draw(name: str, frame: _Frame, left: float, level: int) -> None:
        nonlocal depth
        width = WIDTH * frame.samples / root.samples
        depth = max(depth, level)
        part = 100 * frame.samples / root.samples
        shown = name if len(name) * LETTER < width else name[: max(0, int(width / LETTER) - 2)] + ".."
        text = f'<text x="{left + 3:.1f}" y="{TOP + HEIGHT * level + 12}">{escape(shown)}</text>' if width > 25 else ""
        boxes.append(
            f"<g><title>{escape(name)}: {part:.1f}%</title>"
            f'<rect x="{left:.1f}" y="{TOP + HEIGHT * level}" width="{max(0.4, width - 0.4):.1f}" '
            f'height="{HEIGHT - 1}" fill="{_colour(name)}"/>{text}</g>'
        )
        inner = left
        for child_name, child in sorted(frame.below.items()):
            if child.samples >= share * root.samples:
                draw(child_name, child, inner, level + 1)
            inner += WIDTH * child.samples / root.samples

    if root.samples:
        draw(f"all: {root.samples} samples", root, 0, 0)
    height = TOP + HEIGHT * (depth + 1) + 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="monospace" font-size="11">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="3" y="20" font-size="14">{escape(title)}</text>\n'
    )
    return head + "\n".join(boxes) + "\n</svg>\n"


def _colour(name: str) -> str:
    """The same warm colour for the same file, so that layers are told apart."""
    mark = zlib.crc32(name.rpartition(" (")[2].encode())
    return f"hsl({mark % 60},80%,{65 + mark // 60 % 15}%)"
