"""The command line of the benchmarks: `python -m bench [WORK …] [--quick] [sizes]`.

Prints a table, and with --json writes every round's figures; exits with 1 if a figure can't be trusted, never because
a goal was missed: whether a run was slow is for people to judge.
"""

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from bench.build import program
from bench.errors import BenchError
from bench.flame import record_into
from bench.natives import MODES, SOCKETS_A_PROCESS
from bench.options import FULL, GROWS, QUICK, Options
from bench.peers import PEERS, peer_versions, prepare
from bench.report import Row, machine, remarks, table
from bench.works import churn, crowd, direct, fanout, growth, handshakes, helper, kill, large, queries, rss, rss4
from imhelper import ImError

WORKS: dict[str, Callable[[Options], Awaitable[list[Row]]]] = {
    "rss": rss.measure,
    "fanout": fanout.measure_one,
    "burst": fanout.measure_burst,
    "large": large.measure,
    "handshakes": handshakes.measure,
    "direct": direct.measure,
    "rss4": rss4.measure,
    "queries": queries.measure,
    "growth": growth.measure,
    "churn": churn.measure,
    "helper": helper.measure,
    "kill": kill.measure,
    "crowd": crowd.measure,
}
# Works that measure peers, too.
BESIDE_PEERS = {"rss", "fanout", "burst", "handshakes", "direct"}
HELP = {
    "rounds": "paired rounds of each figure",
    "modes": "wire modes whose memory is read, comma-separated",
    "rss_sizes": "connections at which memory is read, rising, comma-separated",
    "settle_seconds": "quiet time before memory is read",
    "sockets": "members of the channel",
    "payloads": "payload sizes in bytes, comma-separated; 1:1 messages have the first",
    "repeats": "channel messages a round, one after another",
    "burst": "channel messages queued at once",
    "members": "members of a channel on several servers",
    "handshakes": "sockets opened a round",
    "clients": "clients connected for 1:1 messages while something grows",
    "rate": "1:1 messages a second while something grows",
    "seconds": "how long a round of 1:1 messages lasts",
    "single": "1:1 messages whose commands are counted",
    "addressees": "clients on two servers that 1:1 messages go to",
    "rates": "1:1 messages a second to those, comma-separated",
    "peers": "servers of other makes to measure beside ours, comma-separated, or none",
    "build": "whether peers that are not there yet are installed, yes or no",
    "connections": "quiet connections over four servers",
    "returning": "clients whose server is killed",
    "storm_rate": "1:1 messages a second to others before and while those come back",
    "sends": "sends a round of the helper's own rate",
    "in_flight": "sends under way at once, comma-separated",
    "receivers": "receivers of one send",
    "grow": "what grows, comma-separated",
    "known": "clients that Redis knows of, fewer and more, comma-separated",
    "channels": "channels that Redis knows of, fewer and more, comma-separated",
    "grown_members": "members of the channel, fewer and more, comma-separated",
    "grown_slots": "slots of the table, fewer and more, comma-separated",
    "grown_servers": "servers, fewer and more, comma-separated",
    "history": "entries that each slot's log retains, fewer and more, comma-separated",
    "calls": "calls of each question a round",
    "churn_rounds": "how often all sockets are opened and closed",
    "churn": "sockets opened and closed each time",
    "crowd": "clients connected at once",
    "crowd_seconds": "how long they are sent to",
    "crowd_rate": "1:1 messages a second to them",
    "shout_seconds": "seconds between two messages to all of them",
    "ping_seconds": "seconds between two pings to each of them",
}


def _list_of(convert: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple(convert(part) for part in text.split(","))

    parse.__name__ = f"comma-separated {convert.__name__}"
    return parse


def parse(arguments: Sequence[str]) -> tuple[list[str], Options, Path | None, Path | None]:
    """Works, sizes, where the JSON and where flame graphs go. Exits with 2 and a sentence on a bad argument."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"{', '.join(WORKS)}; all of them by default")
    parser.add_argument("--quick", action="store_true", help="small sizes: some minutes, figures only to look at")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there")
    flame = (
        "record where the time of each work goes there (needs py-spy); the figures of such a run are not to be quoted"
    )
    parser.add_argument("--flame", type=Path, metavar="DIR", help=flame)
    for field in dataclasses.fields(Options):
        default = getattr(FULL, field.name)
        convert = _list_of(type(default[0])) if isinstance(default, tuple) else type(default)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=convert,
            metavar="N",
            help=f"{HELP[field.name]} (full {default}, quick {getattr(QUICK, field.name)})",
        )
    given = parser.parse_args(arguments)
    if unknown := set(given.works) - set(WORKS):
        parser.error(f"no such work: {', '.join(sorted(unknown))}; there are {', '.join(WORKS)}")
    sizes = {field.name: getattr(given, field.name) for field in dataclasses.fields(Options)}
    chosen = {name: value for name, value in sizes.items() if value is not None}
    options = dataclasses.replace(QUICK if given.quick else FULL, **chosen)
    if options.peers == ("none",):
        options = dataclasses.replace(options, peers=())
    if complaint := _complaint(options):
        parser.error(complaint)
    return given.works or list(WORKS), options, given.json, given.flame


def _complaint(options: Options) -> str | None:
    """What is wrong with the sizes, if anything."""
    for name, value in dataclasses.asdict(options).items():
        figures = value if isinstance(value, tuple) else (value,)
        if name != "settle_seconds" and any(not isinstance(figure, str) and figure <= 0 for figure in figures):
            return f"--{name.replace('_', '-')} must be above 0"
    if not set(options.modes) <= set(MODES):
        return f"--modes must be of {', '.join(MODES)}"
    if not set(options.peers) <= set(PEERS):
        return f"--peers must be of {', '.join(PEERS)}, or none"
    if options.build not in ("yes", "no"):
        return "--build must be yes or no"
    if not set(options.grow) <= set(GROWS):
        return f"--grow must be of {', '.join(GROWS)}"
    if list(options.rss_sizes) != sorted(set(options.rss_sizes)):
        return "--rss-sizes must rise"
    for name in ("known", "channels", "grown_members", "grown_slots", "grown_servers", "history"):
        sizes = getattr(options, name)
        if len(sizes) != 2 or sizes[0] >= sizes[1]:
            return f"--{name.replace('_', '-')} must be two numbers, the smaller first"
    if any(clients < channels for clients, channels in zip(options.known, options.channels, strict=True)):
        return "--channels must not be more than --known: each channel has a member"
    if min(options.payloads) < 32:
        return "--payloads must be at least 32: they carry a time stamp"
    sockets = max(*options.rss_sizes, options.sockets, options.clients, options.handshakes * options.rounds)
    sockets = max(sockets, options.addressees, options.grown_members[1], options.churn, options.returning)
    if sockets > SOCKETS_A_PROCESS - 500:
        return f"at most {SOCKETS_A_PROCESS - 500} sockets fit into one process; this needs {sockets}"
    return None


async def run(works: Sequence[str], options: Options, flame: Path | None = None) -> list[Row]:
    """The rows of the works, in their order; what is going on goes to stderr."""
    rows: list[Row] = []
    recording = record_into(flame)
    for name in ("loadgen", "floor"):
        program(name)  # a missing compiler is told before anything is started
    for work in works:
        start = time.monotonic()
        rows += await WORKS[work](options)
        print(f"bench: {work} took {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        for file in recording.write(work) if recording else ():
            print(f"bench: wrote {file}", file=sys.stderr, flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    works, options, json_file, flame = parse(sys.argv[1:] if arguments is None else arguments)
    names = options.peers if BESIDE_PEERS & set(works) else ()
    able, left_out = prepare(names, build=options.build == "yes")
    options = dataclasses.replace(options, peers=able)
    for name, reason in left_out.items():
        print(f"bench: {name} is left out: {reason}", file=sys.stderr, flush=True)
    try:
        rows = asyncio.run(run(works, options, flame))
    except (BenchError, ImError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    about = machine() | (peer_versions() if able else {})
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(table(rows))
    for note in remarks(rows, left_out):
        print(note)
    if json_file is not None:
        result = {
            "machine": about,
            "options": dataclasses.asdict(options),
            "left_out": left_out,
            "rows": [row.as_dict() for row in rows],
        }
        json_file.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return 0
