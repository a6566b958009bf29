# docs/architecture.md against the tree: every module of server and operator is told of, and no file is named that is
# not there.

import re

import pytest

from tests.support import docs

TEXT = docs.read("docs/architecture.md")
SERVER = docs.ROOT / "imserver/src/imserver"
OPERATOR = docs.ROOT / "operator/src/imoperator"
HELPER = docs.ROOT / "helper/src/imhelper"


@pytest.mark.parametrize(
    ("heading", "folder", "plain"),
    [("## imserver", SERVER, {"waiting.py"}), ("## The operator", OPERATOR, set())],
    ids=["imserver", "operator"],
)
def test_every_module_is_told_of(heading, folder, plain):
    told = {name for row in docs.rows(docs.section(TEXT, heading), "module") for name in docs.ticked(row[0])}
    there = {path.name for path in folder.glob("*.py")} - {"__init__.py", "__main__.py"} - plain
    assert told == there


def test_files_that_are_named_are_there():
    for name in re.findall(r"`([\w/.]+\.(?:py|lua))`", TEXT):
        assert any((root / name).exists() for root in (docs.ROOT, SERVER, OPERATOR, HELPER, HELPER / "lua")), name


def test_scripts_that_are_named_are_there():
    lua = {path.stem for path in (HELPER / "lua").glob("*.lua")}
    assert {"connect", "close", "sweep", "send", "send_chan", "ack", "orphans", "verify"} <= lua & set(
        docs.ticked(TEXT)
    )
