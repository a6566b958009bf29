# What requests ask for and how they are refused; and that the quick way of reading one agrees with `websockets`.
# The quick way may hand over whatever it likes, but what it takes it must take as the full parser does.

import json
from http import HTTPStatus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from imhelper.core.tokens import make_token
from imserver import handshake
from imserver.handshake import ENVELOPE, Asked, Refusal, Wanted, inspect, quick, response

TOKEN = make_token(9)
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def asked(path: str, origins: tuple[str, ...] = (), offered: str = "") -> Asked:
    return Asked(path, list(origins), offered, KEY)


def test_a_request_does_not_show_its_token():
    request = asked(f"/ws?token={TOKEN}", ("https://a.org",))
    shown = repr([request, inspect(request, (), 128)])
    assert TOKEN not in shown and "/ws" in shown and "slot 9" in shown


def test_a_token_and_a_position_are_read_from_the_query():
    assert inspect(asked(f"/ws?token={TOKEN}"), (), 128) == Wanted(TOKEN, 9, None, False)
    assert inspect(asked(f"/a/b/0/ws?x=1&since=1.2-3&token={TOKEN}"), (), 128) == Wanted(TOKEN, 9, "1.2-3", False)
    assert inspect(asked(f"/ws?token={TOKEN}&since="), (), 128) == Wanted(TOKEN, 9, "", False)
    assert inspect(asked(f"/ws?token={TOKEN}&since=1.2%2D3"), (), 128) == Wanted(TOKEN, 9, "1.2-3", False)


@pytest.mark.parametrize("offered", [ENVELOPE, f"a, {ENVELOPE}", f"{ENVELOPE},b", f"a,{ENVELOPE} , b"])
def test_the_envelope_is_chosen_wherever_it_is_offered(offered):
    assert inspect(asked(f"/ws?token={TOKEN}", offered=offered), (), 128) == Wanted(TOKEN, 9, None, True)


@pytest.mark.parametrize("offered", ["", "a", "imcluster.v2.json", f"x{ENVELOPE}", ENVELOPE.upper()])
def test_any_other_subprotocol_is_plain_mode(offered):
    assert inspect(asked(f"/ws?token={TOKEN}", offered=offered), (), 128) == Wanted(TOKEN, 9, None, False)


@pytest.mark.parametrize(
    "query",
    [
        *("", "?", "?token=", "?token=x", f"?tokens={TOKEN}", f"?Token={TOKEN}", f"?token={TOKEN}x"),
        *("?token=%ff%fe", "?token=\udcff", f"?token={TOKEN}&token=", "?token=" + "a" * 60000),
        *("?" + "&" * 50000, "?" + "a=b&" * 25 + f"token={TOKEN}"),
    ],
    # Without what is random: all workers must find the same tests.
    ids=lambda q: ascii(q.replace(TOKEN, "T"))[:20],
)
def test_no_readable_token_is_401(query):
    refusal = inspect(asked(f"/ws{query}"), (), 128)
    assert isinstance(refusal, Refusal) and refusal.status == HTTPStatus.UNAUTHORIZED
    assert inspect(asked(f"/ws?token={make_token(100)}"), (), 64) == refusal, "a slot that this cluster does not have"


@pytest.mark.parametrize("path", ["/", "", "*", "/wss", "/ws/", "/w", "/WS", "/ws#", "/ws%", "/ws;a", "http://h/x"])
def test_a_path_that_does_not_end_with_ws_is_404(path):
    refusal = inspect(asked(f"{path}?token={TOKEN}"), (), 128)
    assert isinstance(refusal, Refusal) and refusal.status == HTTPStatus.NOT_FOUND


def test_an_origin_must_be_one_of_those_allowed_when_there_is_a_list():
    allowed = ("https://a.org", "https://b.org:8443")
    for good in allowed:
        assert isinstance(inspect(asked(f"/ws?token={TOKEN}", (good,)), allowed, 128), Wanted)
    for bad in [
        (),
        ("https://c.org",),
        ("null",),
        ("https://a.org.evil",),
        ("http://a.org",),
        (*allowed,),
        ("https://a.org/",),
    ]:
        refusal = inspect(asked(f"/ws?token={TOKEN}", bad), allowed, 128)
        assert isinstance(refusal, Refusal) and refusal.status == HTTPStatus.FORBIDDEN
    assert isinstance(inspect(asked(f"/ws?token={TOKEN}", ("https://any",)), (), 128), Wanted)


@pytest.mark.parametrize("retry_after", [None, 5])
def test_a_refusal_is_a_whole_http_response_with_a_json_body(retry_after):
    raw = response(handshake.UNAUTHORIZED._replace(retry_after=retry_after))
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert status == "HTTP/1.1 401 Unauthorized"
    assert fields["Content-Type"] == "application/json" and int(fields["Content-Length"]) == len(body)
    assert fields["Connection"] == "close" and fields.get("Retry-After") == (None if retry_after is None else "5")
    assert set(json.loads(body)) == {"error", "message"}


GOOD = {
    "Host": "h:6001",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY.decode(),
    "Sec-WebSocket-Version": "13",
}


def request(path: str = f"/ws?token={TOKEN}", fields: dict[str, str] | None = None, more: str = "") -> bytes:
    lines = [f"{n}: {v}" for n, v in (GOOD if fields is None else fields).items()]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines]).encode("latin-1") + b"\r\n" + more.encode("latin-1") + b"\r\n"


def full(data: bytes) -> tuple[int | None, Asked | None]:
    """What the full way makes of the same bytes: the status of its answer and what was asked."""
    parser: ServerProtocol = handshake.new_parser()
    parser.receive_data(data)
    for event in parser.events_received():
        if isinstance(event, Request):
            return parser.accept(event).status_code, handshake.asked(event)
    return None, None


def test_the_quick_way_reads_what_browsers_send():
    browser = GOOD | {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)",
        "Connection": "keep-alive, Upgrade",
        "Origin": "https://a.org",
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol": f"a, {ENVELOPE}",
    }
    found = quick(request(fields=browser))
    assert found == Asked(f"/ws?token={TOKEN}", ["https://a.org"], f"a, {ENVELOPE}", KEY)
    assert full(request(fields=browser)) == (101, found)


@pytest.mark.parametrize("envelope", [True, False])
def test_the_101_is_that_of_the_rfc(envelope):
    lines = handshake.switching(asked("/ws"), Wanted(TOKEN, 9, None, envelope)).split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
    # The example of RFC 6455 section 1.3.
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert (f"Sec-WebSocket-Protocol: {ENVELOPE}".encode() in lines) == envelope
    assert lines[-2:] == [b"", b""]


ODD_FIELDS = st.dictionaries(
    st.sampled_from(
        [*GOOD, "host", "Origin", "Sec-WebSocket-Protocol", "Content-Length", "Transfer-Encoding", "Expect", "X"]
    ),
    st.sampled_from(
        ["", "websocket", "WebSocket", "Upgrade", "keep-alive, upgrade", "close", "13", "8", KEY.decode(), "0", "5"]
    )
    | st.sampled_from(
        [
            "AAAA",
            "A" * 22 + "==",
            "A" * 24,
            "h",
            "a\tb",
            "a b ",
            "ü",
            "\x00",
            "a, b",
            "chunked",
            "100-continue",
            ",",
            "a,",
            "a b, c",
            "a;b",
        ]
    ),
    max_size=3,
)
PATHS = st.sampled_from(
    ["/ws", "/", "/ws?token=a b", "/ws?ü", "/ws?\x7f", "ws", "*", "", "/" + "a" * 9000, "/ws?token=%00"]
)
MORE = st.sampled_from(
    ["", "", "", "X: y\r\n", "Host: i\r\n", "Origin: a\r\nOrigin: b\r\n", " folded\r\n", "no colon\r\n", "X : y\r\n"]
)


@settings(max_examples=300)
@example({"Sec-WebSocket-Protocol": ""}, set(), "/ws", "", b"")
@example({}, set(), "/" + "a" * 9000, "", b"")
@given(
    ODD_FIELDS,
    st.sets(st.sampled_from(list(GOOD)), max_size=1),
    PATHS,
    MORE,
    st.sampled_from([b"", b"", b"\x89\x80abcd", b"x"]),
)
def test_what_the_quick_way_takes_the_full_way_takes_just_so(fields, without, path, more, tail):
    data = request(path, {n: v for n, v in (GOOD | fields).items() if n not in without}, more) + tail
    found = quick(data)
    if found is not None:
        assert full(data) == (101, found)


@given(st.binary(max_size=200))
def test_the_quick_way_takes_no_garbage(data):
    assert quick(data) is None
    assert quick(data + request()) is None or not data
