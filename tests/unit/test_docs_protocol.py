# docs/protocol.md against the code: close codes, refusals and limits that are told are those that are there.
# Its transcript is held to a real session by tests/integration/test_docs_protocol.py.

import re

from imhelper.core.ids import ID_MAX_BYTES
from imserver import drain, handshake, heard, hub
from imserver.socket import FRAME_MAX, HEAD_MAX
from tests.support import docs

TEXT = docs.read("docs/protocol.md")
CODES = {int(row[0]) for row in docs.rows(TEXT, "code")}


def _sources(folder: str, suffix: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted((docs.ROOT / folder).rglob(f"*.{suffix}")))


def test_every_close_code_of_the_server_is_documented():
    closes = re.findall(
        r"(?:close(?:_all)?|Misspoken)\((?:self, )?([14]\d{3})\b", _sources("imserver/src/imserver", "py")
    )
    assert {int(code) for code in closes} >= {1007, 1012, 4000, 4001, 4002, 4500, 4501, 4502}
    assert {int(code) for code in closes} - {1008} <= CODES  # 1008: the admin port, which has no WebSockets


def test_every_close_code_of_the_browser_client_is_documented():
    codes = docs.read("clients/js/src/codes.js")
    named = re.findall(r"^  [A-Z_]+: (\d{4}),$", codes, re.MULTILINE)
    assert named and {int(code) for code in named} <= CODES


def test_every_refusal_is_documented():
    refusals = [v for m in (handshake, hub) for v in vars(m).values() if isinstance(v, handshake.Refusal)]
    statuses = {status for row in docs.rows(TEXT, "status") for status in re.findall(r"\d{3}", row[0])}
    assert len(refusals) >= 6
    assert {str(r.status.value) for r in refusals} | {"403", "404"} <= statuses
    assert all((r.retry_after is not None) == (r.status == 503) for r in refusals)


def test_the_limits_are_the_codes():
    assert f"{FRAME_MAX:,} bytes" in TEXT and FRAME_MAX == 4096
    assert f"{HEAD_MAX // 1024} KiB of request" in TEXT
    assert f"{heard.SHARE_BYTES / heard.TICK_SECONDS / 1024:g} KiB a second" in TEXT
    assert f"1 to {ID_MAX_BYTES} bytes" in TEXT
    assert f"within {hub.PATIENCE_SECONDS:g} s" in TEXT
    assert f"({drain.TOKEN_MS // 1000} s)" in TEXT
    assert f"`{handshake.ENVELOPE}`" in TEXT
