# The chaos runner's command line: `python -m tests.chaos --seed 7 --seconds 60 --servers 4 --clients 2000 --rate 500`.
# Exit code 0 when every run came to its end and every "wrong" column of its table is 0, else 1.

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import uvloop

from tests.chaos.cluster import ClusterStore
from tests.chaos.faults import CLUSTER, FAULTS, LOSSY, SENTINEL, SINGLE
from tests.chaos.report import Line, line, summary, table
from tests.chaos.run import Options, Outcome, run
from tests.chaos.sentinel import SentinelStore
from tests.chaos.store import Store

log = logging.getLogger("chaos")


def _faults(text: str) -> list[str]:
    kinds = [] if text == "none" else text.split(",")
    unknown = sorted(set(kinds) - set(FAULTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(FAULTS)}")
    return kinds


def seeds_of(text: str) -> list[int]:
    """`7`, `1-20` or `1,5,7-9`."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            span = range(int(first), int(last or first) + 1)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: not like 7, 1-20 or 1,5,7-9") from None
        if not span:
            raise argparse.ArgumentTypeError(f"{part}: ends before it begins")
        found += span
    return found


def _options() -> tuple[list[int], Options]:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", "--seeds", type=seeds_of, default=[1], help="7, or several runs: 1-20, 1,5,7-9")
    parser.add_argument("--seconds", type=float, default=60, help="of faults and traffic, before it settles")
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=500, help="messages a second")
    parser.add_argument("--faults", type=_faults, help="none, or some: kill,freeze,…; otherwise all")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--losses", action="store_true", help="one Redis, which may lose what it acknowledged")
    kind.add_argument("--sentinel", action="store_true", help=SentinelStore.kind)
    kind.add_argument("--cluster", action="store_true", help=ClusterStore.kind)
    parser.add_argument("--every", type=float, nargs=2, default=(1.5, 5.0), help="seconds between two faults")
    parser.add_argument("--lease", type=float, default=3.0, help="seconds")
    parser.add_argument("--grace", type=float, default=6.0, help="seconds")
    parser.add_argument("--fsync", choices=("always", "everysec"), default="always", help="Redis's appendfsync")
    parser.add_argument("--keep", type=Path, help="a folder for the logs, kept; otherwise kept only on failure")
    args = parser.parse_args()
    chosen = {k: v for k, v in vars(args).items() if k not in ("keep", "losses", "sentinel", "cluster", "seed")}
    store, possible = _kind(args)
    if args.faults is None:
        chosen["faults"] = possible
    elif impossible := sorted(set(args.faults) - set(possible) - ({*LOSSY} if store is Store else set())):
        parser.error(f"{', '.join(impossible)}: not with {store.kind}")
    return args.seed, Options(**chosen, seed=args.seed[0], store=store, folder=args.keep or Path())


def _kind(args: argparse.Namespace) -> tuple[type[Store], list[str]]:
    """The Redis of the run, and what `all` faults are there."""
    if args.cluster:
        return ClusterStore, CLUSTER
    if args.sentinel:
        return SentinelStore, SENTINEL
    return Store, LOSSY if args.losses else SINGLE


def _run(options: Options) -> Outcome:
    log.info("seed %d, logs in %s", options.seed, options.folder)
    options.folder.mkdir(parents=True, exist_ok=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(options))


def _one_of_many(options: Options, keep: bool) -> Line:
    """Run one seed, print its table, and sum it up. What stops a run is its result, and the next seed goes on."""
    try:
        outcome = _run(options)
    except Exception as error:
        log.exception("seed %d did not come to its end", options.seed)
        return Line(options.seed, {}, f"did not come to its end: {error!r}; logs: {options.folder}")
    print(table(options, outcome), flush=True)
    found = line(options, outcome)
    if not found.bad and not keep:
        shutil.rmtree(options.folder, ignore_errors=True)
    return found


def main() -> int:
    """Run each seed, one after the other; print each table and, of several, a summary."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)7d %(message)s", stream=sys.stderr)
    logging.getLogger("imhelper").setLevel(logging.ERROR)
    seeds, options = _options()
    keep = options.folder != Path()
    base = options.folder if keep else Path(tempfile.mkdtemp(prefix="chaos-"))
    lines = []
    for seed in seeds:
        folder = base / f"seed{seed}" if len(seeds) > 1 else base
        lines.append(_one_of_many(replace(options, seed=seed, folder=folder), keep))
        if len(seeds) > 1:
            print(f"\n{summary(lines)}\n", flush=True)
    if not keep and not any(found.bad for found in lines):
        shutil.rmtree(base, ignore_errors=True)
    return 1 if any(found.bad for found in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
