# docs/data-model.md against the code: keys, scripts, log entries, vectors and records as another helper reads them.
# When a script's head has changed, run this once with IM_UPDATE_DOCS=1: it writes the quotations anew.

import json
import os
import re
from zlib import crc32

import pytest

from imhelper.core import keys
from imhelper.core.leases import parse_leases
from imhelper.core.payload import message_id
from imhelper.core.slots import group_of, slot_of
from imhelper.core.tokens import slot_of_token
from imhelper.core.topology import Topology
from tests.support import docs

TEXT = docs.read("docs/data-model.md")
LUA = {path.stem: path.read_text("utf-8") for path in (docs.ROOT / "helper/src/imhelper/lua").glob("*.lua")}
SCRIPTS = sorted(set(LUA) - {"lib"})
CODE = {name: re.sub(r"--.*", "", text) for name, text in LUA.items()}


def _shape(key: str) -> str:
    """A key without what varies: `T:bs:BOOT` and `{im:0}:bs:5c0f` are both `bs`, `T:idem:r:ID:C` is `idem:r`."""
    parts = re.sub(r"^(T|P|\{[^}]*\}):", "", key).split(":")
    return ":".join(part for part in parts if re.fullmatch(r"[a-z]+", part))


def _documented() -> set[str]:
    return {_shape(docs.ticked(row[0])[0]) for row in docs.rows(TEXT, "key")}


def _head(name: str) -> str:
    lines = []
    for line in LUA[name].splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").removeprefix(" "))
    return "\n".join(lines)


# Keys.


def test_every_key_of_the_scripts_is_documented_and_nothing_else():
    used = {_shape(":" + name) for text in CODE.values() for name in re.findall(r"T \.\. ':([a-z:]+)'", text)}
    used.discard("")
    elsewhere = {"servers", "topo"}  # named in the scripts under the global tag
    assert used | elsewhere == _documented()


def test_every_key_that_the_code_names_is_documented():
    made = {
        _shape(value)
        for name in keys.__all__
        if not name.endswith("_tag")
        for value in [getattr(keys, name)(*_arguments(name))]
    }
    assert made <= _documented()


def _arguments(name: str) -> list[str]:
    count = getattr(keys, name).__code__.co_argcount
    return ["im" if name in ("publisher", "servers", "topology") else "{im:0}", *["0"] * (count - 1)]


def test_the_tags_are_the_codes():
    assert keys.group_tag("im", 0) == "{im:0}" and "{im:0}" in TEXT
    assert keys.global_tag("im") == "{im}" and "`P` stands for the tag `{PREFIX}`" in TEXT


# Scripts.


def test_every_script_is_documented_and_nothing_else():
    said = re.findall(r"^#### `(\w+)`(?: \(global\))?$", TEXT, re.MULTILINE)
    assert sorted(said) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_head_of_a_script_is_quoted(name):
    is_global = re.search(r"KEYS\[1\] is the global tag|global tag", _head(name)) or name == "view"
    heading = f"#### `{name}`" + (" (global)" if is_global else "")
    quoted = docs.blocks(docs.section(TEXT, heading), "text")
    if os.environ.get("IM_UPDATE_DOCS") and quoted[0] != _head(name) + "\n":
        path = docs.ROOT / "docs/data-model.md"
        path.write_text(path.read_text("utf-8").replace(quoted[0], _head(name) + "\n"), "utf-8")
        return
    assert quoted and quoted[0] == _head(name) + "\n", "run this test again with IM_UPDATE_DOCS=1 and look at the text"


@pytest.mark.parametrize("name", SCRIPTS)
def test_who_writes_a_key_names_scripts_that_exist(name):
    """A script that is documented as writing some key is one, and each one that is named exists."""
    writers = {w for row in docs.rows(TEXT, "key") for w in docs.ticked(row[4])}
    assert writers - {"mb:", "grace"} <= set(SCRIPTS)


# Log entries.


def _entries(call: str) -> set[tuple[str, ...]]:
    """The names of the fields, in order, of each entry that the scripts write by a call that begins like this."""
    found = set()
    for text in CODE.values():
        for arguments in re.findall(rf"{call}, ('.*)\)", text):
            found.add(tuple(name.strip("'") for name in arguments.split(", ")[::2]))
    return found


def test_log_entries_have_the_documented_fields_in_order():
    said = {tuple(re.findall(r"(?:^|, )`([a-z])`", row[1])): docs.ticked(row[0]) for row in docs.rows(TEXT, "kind")}
    assert set(said) == _entries(r"(?:append|write)\([\w\[\], ]+, [#\w\[\]]+")
    assert all(kind == [fields[0]] for fields, kind in said.items())


def test_events_and_the_outbox_have_the_documented_fields():
    assert _entries(r"XADD', T \.\. ':ev', .*'\*'") == {("e", "c", "s", "m")}
    assert {"e", "c", "s", "m"} <= set(docs.ticked(docs.section(TEXT, "### Events")))
    assert _entries(r"XADD', T \.\. ':out', '\*'") == {("r", "f", "c", "s", "t", "p")}


# Vectors and records.


def test_the_slot_vectors_hold():
    for client, crc, of128, of1024, group in docs.rows(TEXT, "client_id"):
        (name,) = docs.ticked(client)
        assert f"{crc32(name.encode()):08x}" == docs.ticked(crc)[0]
        assert (slot_of(name, 128), slot_of(name, 1024)) == (int(of128), int(of1024))
        assert group_of(slot_of(name, 128), 16) == int(group)


def test_the_message_id_vectors_hold():
    for row in docs.rows(TEXT, "sender"):
        sender, key, expected = (docs.ticked(cell)[0] for cell in row)
        assert message_id(sender, key) == expected


def test_the_token_example_names_its_slot():
    (example,) = (t for t in docs.ticked(docs.section(TEXT, "### Tokens")) if re.match(r"[0-9a-f]+\.\w{10}", t))
    assert slot_of_token(example, 128) == 0x47


def test_the_topology_example_is_what_the_code_writes():
    (example,) = docs.blocks(docs.section(TEXT, "## The topology record"), "json")
    assert json.loads(Topology.from_json(example, 7).to_json()) == json.loads(example)


def test_the_lease_example_is_read_by_the_code():
    (example,) = docs.blocks(docs.section(TEXT, "## Leases"), "text")
    lease = parse_leases([b"im-1", example.rstrip("\n").encode()], 1795450826123)["im-1"]
    assert (lease.boot, lease.beat, lease.age, lease.state) == ("5c0f3a9be1d24477", 1842, 1.0, "active")
    assert (lease.url, lease.connections) == ("ws://10.0.0.1:6001/ws", 5120)
