# The table that a run prints: what was done, what came of it, and each column that must be 0.
# Examples of what was wrong follow it, so that a failed run can be read without its logs.

from collections import Counter

from tests.chaos.run import Options, Outcome

__all__ = ["table"]


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def table(options: Options, outcome: Outcome) -> str:
    """The whole report, as text."""
    ledger, verdict = outcome.ledger, outcome.verdict
    reconnects = [s for c in ledger.clients for b in c.devices for s in b.reconnects]
    handshakes = Counter(int(at) for at in ledger.opened)
    faults = Counter(f.kind for f in ledger.faults)
    devices = sum(len(c.devices) for c in ledger.clients)
    rows: list[tuple[str, object]] = [
        ("seed", options.seed),
        ("run", f"{options.seconds:g} s, {options.servers} servers, {options.rate:g} messages/s, {options.fsync}"),
        ("clients", f"{options.clients} with {devices} devices"),
        ("lease, grace", f"{options.lease:g} s, {options.grace:g} s"),
        ("faults", ", ".join(f"{n} {kind}" for kind, n in sorted(faults.items())) or "none"),
        ("servers' exits", ", ".join(f"{n} x {code}" for code, n in sorted(outcome.exits.items())) or "none"),
        ("closes", ", ".join(f"{n} x {code}" for code, n in sorted(ledger.closes.items())) or "none"),
        ("refused handshakes", ", ".join(f"{n} x {code}" for code, n in sorted(ledger.refused.items())) or "none"),
        ("errors met", ", ".join(f"{n} x {text}" for text, n in sorted(ledger.errors.items())) or "none"),
        *sorted(verdict.counts.items()),
        ("reconnects", len(reconnects)),
        ("reconnect p50", f"{_percentile(reconnects, 0.5):.2f} s"),
        ("reconnect p99", f"{_percentile(reconnects, 0.99):.2f} s"),
        ("peak handshakes/s", max(handshakes.values(), default=0)),
        ("peak memory of a server", f"{outcome.peak_kilobytes / 1024:.0f} MiB"),
        ("longest stall of the runner", f"{max(ledger.stalls, default=0.0):.2f} s"),
        ("settled after", f"{outcome.settled:.1f} s"),
    ]
    wrong = [(f"WRONG {name}" if n else name, n) for name, n in verdict.wrong.items()]
    width = max(len(name) for name, _ in rows + wrong)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines.append("-" * (width + 12) + " each of these must be 0")
    lines += [f"{name:<{width}}  {n}" for name, n in wrong]
    lines += [*verdict.examples, *(f"note: {text}" for text in verdict.notes[:5])]
    if any(n for _, n in wrong):
        lines.append(f"logs: {options.folder}")
    return "\n".join(lines)
