"""`python -m imhelper`: what an on-call person asks, servers, topology, a client, a channel, a slot, or a test message.
Tables for people, `--json` for scripts; tokens and passwords are never shown."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from .core import keys
from .core.slots import group_of, slot_of
from .errors import ImError
from .sync import ImHelper

__all__ = ["main"]

MEMBERS_SHOWN = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error (told in one line on stderr), 2 for bad usage."""
    options = _parser().parse_args(argv)
    try:
        # The URL comes from the environment where it can: arguments are visible to everyone in the process list.
        url = options.redis_url or os.environ.get("IM_REDIS_URL") or "redis://localhost"
        prefix = options.prefix or os.environ.get("IM_PREFIX") or "im"
        with ImHelper(
            url,
            prefix=prefix,
            timeout=options.timeout,
            username=os.environ.get("IM_REDIS_USERNAME"),
            password=_password(),
            ssl_ca_certs=os.environ.get("IM_REDIS_CA_FILE"),
            ssl_certfile=os.environ.get("IM_REDIS_CERT_FILE"),
            ssl_keyfile=os.environ.get("IM_REDIS_KEY_FILE"),
        ) as helper:
            answer, table = COMMANDS[options.command](helper, options)
    except (ImError, OSError) as error:
        print(f"imhelper: {error}", file=sys.stderr)
        return 1
    print(json.dumps(answer, ensure_ascii=False, indent=2) if options.json else table)
    return 0


def _password() -> str | None:
    path = os.environ.get("IM_REDIS_PASSWORD_FILE")
    if not path:
        return None
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def _common(**default: Any) -> argparse.ArgumentParser:
    """The options of every command; `default=SUPPRESS` where what stands before the command must not be undone."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--redis-url", metavar="URL", help="default: $IM_REDIS_URL, then redis://localhost", **default)
    common.add_argument("--prefix", help="default: $IM_PREFIX, then im", **default)
    common.add_argument("--timeout", type=float, metavar="SECONDS", help="default: 5", **{"default": 5.0, **default})
    common.add_argument("--json", action="store_true", help="print JSON", **default)
    return common


def _parser() -> argparse.ArgumentParser:
    text = "Look into an ImCluster through its Redis."
    parser = argparse.ArgumentParser(prog="python -m imhelper", description=text, parents=[_common()])
    common = _common(default=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, *arguments: tuple[str, str]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[common])
        for argument, meaning in arguments:
            command.add_argument(argument, help=meaning)
        return command

    add("servers", "every server: state, connections, age of its lease, URL")
    add("topology", "the topology in force and how many slots each server has")
    add("client", "one client: online or not, where its slot is, sockets, channels", ("id", "the client id"))
    add("chan", "one channel: how many members, and who (the first 100)", ("name", "the channel"))
    slot = add("slot", "one slot: its server, its log, who reads it")
    slot.add_argument("number", type=int, help="the slot's number")
    send = add(
        "send",
        "send a text to clients, or with --chan to a channel",
        ("sender", "the sender's id"),
        ("message", "text"),
    )
    send.add_argument("receivers", nargs="*", help="client ids")
    send.add_argument("--chan", help="send to this channel instead")
    send.add_argument("--parse", action="store_true", help="the message is JSON, not text")
    return parser


def _table(rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """Columns, each as wide as it must be; control characters are shown, not obeyed."""
    texts = [list(head)] if head else []
    texts += [["" if cell is None else _safe(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in texts) for i in range(len(texts[0]))] if texts else []
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in texts)


def _safe(cell: Any) -> str:
    text = str(cell)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _age(seconds: float | None) -> str:
    return "no lease" if seconds is None else f"{seconds:.1f} s"


def _servers(helper: ImHelper, _: argparse.Namespace) -> tuple[Any, str]:
    servers = helper.servers()
    rows = [(s.name, s.state, s.connections, _age(s.lease_age), s.url) for s in servers]
    return [asdict(s) for s in servers], _table(rows, ("NAME", "STATE", "CONNECTIONS", "LEASE AGE", "URL"))


def _topology(helper: ImHelper, _: argparse.Namespace) -> tuple[Any, str]:
    topology = helper.topology()
    answer = {"epoch": topology.epoch, **json.loads(topology.to_json())}
    limits = ", ".join(f"{name}={value}" for name, value in asdict(topology.limits).items())
    facts = [
        ("epoch", topology.epoch),
        ("format", topology.format),
        ("slots", topology.slots),
        ("groups", topology.groups),
        ("limits", limits),
    ]
    rows = [(s.name, s.state, topology.table.count(i), s.url) for i, s in enumerate(topology.servers)]
    return answer, f"{_table(facts)}\n\n{_table(rows, ('SERVER', 'STATE', 'SLOTS', 'URL'))}"


def _client(helper: ImHelper, options: argparse.Namespace) -> tuple[Any, str]:
    topology = helper.topology()
    client_id = options.id
    online = helper.has_online(client_id)
    slot = slot_of(client_id, topology.slots)
    group = group_of(slot, topology.groups)
    server = topology.server_of_slot(slot)
    raw = helper._link.command(group, "HGETALL", keys.client_sockets(_tag(helper, group), client_id))
    boots = {lease.boot: name for name, (lease, _) in helper._view.leases.items()}
    sockets = []
    for sid, value in zip(raw[::2], raw[1::2], strict=True):
        boot, _, number = sid.decode().partition(".")
        start, mode, ms, metadata = value.decode("utf-8", "replace").split("\n", 3)
        sockets.append(
            {
                "server": boots.get(boot, f"boot {boot} (no lease)"),
                "socket": number,
                "mode": {"p": "plain", "e": "envelope"}.get(mode, mode),
                "since": start,
                "connected_ms": int(ms),
                "metadata": metadata,
            }
        )
    answer = {
        "client": client_id,
        "online": online,
        "slot": slot,
        "table_server": server.name if server else None,
        "sockets": sockets,
        "chans": helper.get_chan_list_by_client_id(client_id),
    }
    state = "online" if sockets else "in grace" if online else "offline"
    facts = [
        ("client", client_id),
        ("state", state),
        ("slot", slot),
        ("table's server", answer["table_server"]),
        ("chans", ", ".join(answer["chans"]) or "none"),
    ]
    rows = [tuple(s.values()) for s in sockets]
    head = ("SERVER", "SOCKET", "MODE", "FROM", "CONNECTED (MS)", "METADATA")
    return answer, _table(facts) + (f"\n\n{_table(rows, head)}" if rows else "")


def _chan(helper: ImHelper, options: argparse.Namespace) -> tuple[Any, str]:
    online = helper.get_chan_online(options.name)
    members = [member for member, _ in zip(helper.iter_chan(options.name), range(MEMBERS_SHOWN), strict=False)]
    answer = {"chan": options.name, "online": online, "members": members, "all_shown": online <= len(members)}
    more = "" if answer["all_shown"] else f"\n… and {online - len(members)} more"
    return answer, _table([("chan", options.name), ("online", online)]) + "".join(
        f"\n{_safe(m)}" for m in members
    ) + more


def _slot(helper: ImHelper, options: argparse.Namespace) -> tuple[Any, str]:
    topology = helper.topology()
    slot = options.number
    if not 0 <= slot < topology.slots:
        raise ImError(f"slot must be 0 to {topology.slots - 1}, not {slot}")
    group = group_of(slot, topology.groups)
    tag = _tag(helper, group)
    server = topology.server_of_slot(slot)
    log = keys.log(tag, slot)
    last = helper._link.command(group, "HGET", keys.last_ids(tag), slot)
    first = helper._link.command(group, "XRANGE", log, "-", "+", "COUNT", 1)
    answer = {
        "slot": slot,
        "group": group,
        "table_server": server.name if server else None,
        "log_entries": helper._link.command(group, "XLEN", log),
        "log_bytes": helper._link.command(group, "MEMORY", "USAGE", log) or 0,
        "first_id": first[0][0].decode() if first else None,
        "last_id": last.decode() if last else None,
    }
    return answer, _table((name.replace("_", " "), value) for name, value in answer.items())


def _send(helper: ImHelper, options: argparse.Namespace) -> tuple[Any, str]:
    if bool(options.receivers) == (options.chan is not None):
        raise ImError("send needs either receivers or --chan")
    try:
        message = json.loads(options.message) if options.parse else options.message
    except ValueError as error:
        raise ImError(f"--parse: the message is not JSON: {error}") from None
    if options.chan is not None:
        message_id = helper.send_chan_message(options.sender, options.chan, message)
    else:
        message_id = helper.send_message(options.sender, options.receivers, message)
    return {"id": message_id}, f"sent, id {message_id}"


def _tag(helper: ImHelper, group: int) -> str:
    return keys.group_tag(helper._link.prefix, group)


COMMANDS: dict[str, Callable[[ImHelper, argparse.Namespace], tuple[Any, str]]] = {
    "servers": _servers,
    "topology": _topology,
    "client": _client,
    "chan": _chan,
    "slot": _slot,
    "send": _send,
}
