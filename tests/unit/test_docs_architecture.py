# docs/architecture.md against the tree: every module of the server is told of, and no file is named that is not there.

import re

from tests.support import docs

TEXT = docs.read("docs/architecture.md")
SERVER = docs.ROOT / "imserver/src/imserver"
HELPER = docs.ROOT / "helper/src/imhelper"


def test_every_module_of_the_server_is_told_of():
    told = {name for row in docs.rows(TEXT, "module") for name in docs.ticked(row[0])}
    there = {path.name for path in SERVER.glob("*.py")} - {"__init__.py", "__main__.py", "waiting.py"}
    assert told == there


def test_files_that_are_named_are_there():
    for name in re.findall(r"`([\w/.]+\.(?:py|lua))`", TEXT):
        assert any((root / name).exists() for root in (docs.ROOT, SERVER, HELPER, HELPER / "lua")), name


def test_scripts_that_are_named_are_there():
    lua = {path.stem for path in (HELPER / "lua").glob("*.lua")}
    assert {"connect", "close", "sweep", "send", "send_chan", "ack", "orphans", "verify"} <= lua & set(
        docs.ticked(TEXT)
    )
