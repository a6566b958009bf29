# What a run prints: what was done, what came of it, what Redis itself lost, and each column that must be 0.
# Examples of what was wrong follow, so that a failed run can be read without its logs; several runs get a line each.

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.run import Options, Outcome
from tests.chaos.verdict import BY_REDIS, COLUMNS

__all__ = ["Line", "line", "summary", "table"]

# The columns of the summary, short because twenty of them stand side by side.
_SHORT = {"out of order": "order", "wrong receiver": "receiver", "duplicates": "dupl.", "event bus": "bus"}
_SHORT_BY_REDIS = ("R:told", "R:plain", "R:receipts", "R:4002", "R:not recov.")


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _reconnects(outcome: Outcome) -> list[float]:
    return [s for c in outcome.ledger.clients for b in c.devices for s in b.reconnects]


def _counted(found: Mapping[int, int] | Mapping[str, int], between: str = " x ") -> str:
    return ", ".join(f"{n}{between}{what}" for what, n in sorted(found.items())) or "none"


def _part(title: str, rows: Sequence[tuple[str, object]], width: int) -> list[str]:
    return [f"{title} ".ljust(width + 12, "-"), *(f"{name:<{width}}  {value}" for name, value in rows)]


def table(options: Options, outcome: Outcome) -> str:
    """The whole report of one run, as text."""
    ledger, verdict = outcome.ledger, outcome.verdict
    reconnects = _reconnects(outcome)
    handshakes = Counter(int(at) for at in ledger.opened)
    devices = sum(len(c.devices) for c in ledger.clients)
    done: list[tuple[str, object]] = [
        ("seed", options.seed),
        ("run", f"{options.seconds:g} s, {options.servers} servers, {options.rate:g} messages/s"),
        ("Redis", f"{options.store.kind}, appendfsync {options.fsync}"),
        ("clients", f"{options.clients} with {devices} devices"),
        ("lease, grace", f"{options.lease:g} s, {options.grace:g} s"),
        ("faults", _counted(Counter(f.kind for f in ledger.faults), " ")),
        ("servers' exits", _counted(outcome.exits)),
        ("closes", _counted(ledger.closes)),
        ("refused handshakes", _counted(ledger.refused)),
        ("errors met", _counted(ledger.errors)),
    ]
    came: list[tuple[str, object]] = [
        *sorted((name, n) for name, n in verdict.counts.items() if name not in BY_REDIS),
        ("reconnects", len(reconnects)),
        ("reconnect p50", f"{_percentile(reconnects, 0.5):.2f} s"),
        ("reconnect p99", f"{_percentile(reconnects, 0.99):.2f} s"),
        ("peak handshakes/s", max(handshakes.values(), default=0)),
        ("peak memory of a server", f"{outcome.peak_kilobytes / 1024:.0f} MiB"),
        ("longest stall of the runner", f"{max(ledger.stalls, default=0.0):.2f} s"),
        ("settled after", f"{outcome.settled:.1f} s"),
    ]
    redis = [(name, verdict.counts.get(name, 0)) for name in BY_REDIS]
    wrong = [(f"WRONG {name}" if n else name, n) for name, n in verdict.wrong.items()]
    width = max(len(name) for name, _ in [*done, *came, *redis, *wrong])
    lines = _part("done", done, width) + _part("came of it", came, width)
    lines += _part(f"lost by Redis itself, in {len(ledger.losses)} losses", redis, width)
    lines += _part("each of these must be 0", wrong, width)
    lines += [*verdict.examples, *(f"note: {text}" for text in verdict.notes[:5])]
    if any(n for _, n in wrong):
        lines.append(f"logs: {options.folder}")
    return "\n".join(lines)


@dataclass
class Line:
    """One run of several, summed up; `bad` says what is wrong with it."""

    seed: int
    cells: dict[str, str]
    bad: str = ""


def line(options: Options, outcome: Outcome) -> Line:
    """Sum one run up."""
    verdict, ledger = outcome.verdict, outcome.ledger
    cells = {"accepted": str(verdict.counts["accepted"]), "delivered": str(verdict.counts["delivered"])}
    cells |= {_SHORT.get(name, name): str(verdict.wrong[name]) for name in COLUMNS}
    cells |= {short: str(verdict.counts.get(name, 0)) for short, name in zip(_SHORT_BY_REDIS, BY_REDIS, strict=True)}
    cells["p99"] = f"{_percentile(_reconnects(outcome), 0.99):.1f} s"
    cells["stall"] = f"{max(ledger.stalls, default=0.0):.1f} s"
    return Line(options.seed, cells, f"wrong; logs: {options.folder}" if any(verdict.wrong.values()) else "")


def summary(lines: Sequence[Line]) -> str:
    """A line for each run. `R:…` is what Redis itself lost, or told of by 4002 and `recovered: false`."""
    names = list(next((found.cells for found in lines if found.cells), {}))
    rows = [["seed", *names, ""]]
    rows += [[str(found.seed), *(found.cells.get(name, "-") for name in names), found.bad] for found in lines]
    widths = [max(len(row[at]) for row in rows) for at in range(len(names) + 1)]
    text = [
        "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    bad = sum(bool(found.bad) for found in lines)
    return "\n".join([*text, f"{len(lines)} runs, {bad or 'none'} of them wrong"])
