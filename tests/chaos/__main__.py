# The chaos runner's command line: `python -m tests.chaos --seed 7 --seconds 60 --servers 4 --clients 2000 --rate 500`.
# Exit code 0 when every "wrong" column of the table is 0, else 1.

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.chaos.faults import FAULTS, LOSSY, SENTINEL, SINGLE
from tests.chaos.report import table
from tests.chaos.run import Options, run

log = logging.getLogger("chaos")


def _faults(text: str) -> list[str]:
    kinds = [] if text == "none" else text.split(",")
    unknown = sorted(set(kinds) - set(FAULTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(FAULTS)}")
    return kinds


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="of faults and traffic, before it settles")
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=500, help="messages a second")
    parser.add_argument("--faults", type=_faults, help="none, or some: kill,freeze,…; otherwise all")
    parser.add_argument("--losses", action="store_true", help="Redis may lose what it acknowledged, too")
    parser.add_argument("--sentinel", action="store_true", help="a primary, a replica and three Sentinels")
    parser.add_argument("--every", type=float, nargs=2, default=(1.5, 5.0), help="seconds between two faults")
    parser.add_argument("--lease", type=float, default=3.0, help="seconds")
    parser.add_argument("--grace", type=float, default=6.0, help="seconds")
    parser.add_argument("--fsync", choices=("always", "everysec"), default="always", help="Redis's appendfsync")
    parser.add_argument("--keep", type=Path, help="a folder for the logs, kept; otherwise kept only on failure")
    args = parser.parse_args()
    chosen = {k: v for k, v in vars(args).items() if k not in ("keep", "losses")}
    if args.faults is None:
        chosen["faults"] = SENTINEL if args.sentinel else LOSSY if args.losses else SINGLE
    return Options(**chosen, folder=args.keep or Path())


def main() -> int:
    """Run once and print the table."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)7d %(message)s", stream=sys.stderr)
    logging.getLogger("imhelper").setLevel(logging.ERROR)
    options = _options()
    if options.folder == Path():
        options.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    options.folder.mkdir(parents=True, exist_ok=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(run(options))
    print(table(options, outcome))
    return 1 if any(outcome.verdict.wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
