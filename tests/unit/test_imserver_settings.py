# Settings from the environment: each bad value is refused in one line with the variable, the value and what is allowed.
# Secrets are never part of such a line, nor of what a Settings object shows of itself.

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imhelper.core.topology import Limits
from imhelper.errors import SettingError
from imserver.settings import Settings, load_settings, unknown_settings
from tests.support.authority import Authority

BASE = {"IM_SERVER_NAME": "s1", "IM_URL": "ws://h:6001/ws"}
# Variable → (values that are refused, values that are taken with what they become).
CASES: dict[str, tuple[list[str], list[tuple[str, object]]]] = {
    "IM_PREFIX": (["{", "a}b", "x" * 129, "a\nb", "a\x85b"], [("im", "im"), ("a:b*ü", "a:b*ü")]),
    "IM_SERVER_NAME": (["-a", "a-", "a b", "a/b", "ü", "x" * 64, "a\n"], [("a", "a"), ("pod-0.x_y", "pod-0.x_y")]),
    "IM_URL": (
        [
            "http://h/ws",
            "ws://h",
            "ws://h/ws/",
            "ws://h/ws?x=1",
            "ws://h/ws#x",
            "ws://h /ws",
            "h/ws",
            "ws:///ws",
            "wss//h/ws",
            *("ws://h:port/ws", "ws://h:0/ws", "ws://h:65536/ws", "ws://:6001/ws", "ws://[::1/ws", "ws://[::g]/ws"),
            *('ws://h"/ws', "ws://h/é/ws", "ws://h/%zz/ws", "ws://h{ordinal}/ws", "ws://u:p@h/ws", "ws://h\udcff/ws"),
            *("ws://[1:2]/ws", "ws://ü/ws", "ws://h/" + "x" * 3000 + "/ws"),
        ],
        [(u, u) for u in ("ws://h/ws", "wss://h:1/a/b/0/ws", "ws://[::1]:6001/ws", "wss://a-b.c_d/~x/%20+;=/ws")],
    ),
    "IM_PORT": (["0", "-1", "65536", "x", "1.5", "1e3", " 80", "80\n", "٨", "9" * 5000], [("1", 1), ("65535", 65535)]),
    "IM_ADMIN_PORT": (["0", "-1", "65536", "x"], [("9601", 9601)]),
    "IM_MAX_CONNECTIONS": (["0", "-5", "1000001", "many"], [("1", 1), ("1000000", 1000000)]),
    "IM_MAX_SOCKETS_PER_CLIENT": (["0", "1001"], [("1", 1)]),
    "IM_MAX_PAYLOAD_BYTES": (["0", "16777217", "64k"], [("1", 1)]),
    "IM_PING_SECONDS": (["0", "0.9", "3601", "-1", "nan", "inf", "1e2", "1_0", ".5", "5."], [("1", 1.0), ("2.5", 2.5)]),
    "IM_GRACE_SECONDS": (["-1", "3601", "nan"], [("0", 0.0), ("0.5", 0.5)]),
    "IM_LEASE_SECONDS": (["0", "301"], [("1", 1.0)]),
    "IM_RETAIN_SECONDS": (["0", "86401"], [("11", 11.0)]),
    "IM_RETAIN_ENTRIES": (["0", "10000001"], [("1", 1)]),
    "IM_RETAIN_BYTES": (["65535", "17179869185"], [("65536", 65536)]),
    "IM_BUFFER_BYTES": (["4095", "1073741825"], [("4096", 4096)]),
    "IM_DRAIN_RATE": (["0", "1000001"], [("0.1", 0.1)]),
    "IM_DRAIN_TIMEOUT_SECONDS": (["-1", "86401"], [("0", 0.0)]),
    "IM_LOG_LEVEL": (["trace", "10"], [("DEBUG", "debug")]),
    "IM_LOG_FORMAT": (["xml"], [("JSON", "json")]),
    "IM_ALLOWED_ORIGINS": (
        ["example.org", "https://a/b", "ws://a", "https://a https://b", "https://", "https://h:99999", "https://u@h"],
        [
            ("https://A, http://b:80", ("https://a", "http://b:80")),
            *(("*", ()), ("https://a,*", ()), ("https://[::1]:8443", ("https://[::1]:8443",))),
        ],
    ),
    "IM_SLOTS": (
        ["8", "15", "1025", "2048", "x", "-64", " 64", "6_4", "+64", "64.0", "٦٤"],
        [("16", 16), ("100", 100), ("1024", 1024)],
    ),
    "IM_TOPOLOGY": (["auto", "kubernetes"], [("Operator", "operator")]),
    "IM_REDIS_PASSWORD_FILE": (["/nonexistent/file", "/"], []),
    "IM_REDIS_CA_FILE": (["/nonexistent/file", __file__], []),
    "IM_REDIS_CERT_FILE": (["/nonexistent/file"], []),
    "IM_REDIS_KEY_FILE": (["/nonexistent/file"], []),
}


def refused(environment: dict[str, str]) -> str:
    with pytest.raises(SettingError) as caught:
        load_settings(BASE | environment)
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and text.isprintable()
    return text


@pytest.mark.parametrize(
    ("variable", "value"), [(v, bad) for v, (bads, _) in CASES.items() for bad in bads], ids=lambda x: ascii(x)[:40]
)
def test_a_bad_value_is_refused_with_its_name_itself_and_what_is_allowed(variable, value):
    text = refused({variable: value})
    assert text.startswith(f"{variable} must be ")
    assert text.endswith(f", not {value!r}")
    assert re.search(r"must be .{3,}, not", text)


@pytest.mark.parametrize(
    ("variable", "value", "wanted"), [(v, g, w) for v, (_, goods) in CASES.items() for g, w in goods]
)
def test_a_good_value_is_taken(variable, value, wanted):
    assert getattr(load_settings(BASE | {variable: value}), variable[3:].lower()) == wanted


def test_every_setting_has_its_bad_values_above():
    assert set(CASES) | {"IM_REDIS_URL", "IM_REDIS_USERNAME"} == {
        f"IM_{f.upper()}" for f in Settings.__dataclass_fields__
    }


@pytest.mark.parametrize("variable", CASES)
def test_an_empty_variable_counts_as_absent(variable):
    assert load_settings(BASE | {variable: ""} if variable not in BASE else BASE) == load_settings(BASE)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "localhost",
            "http://h",
            "redis://h:x",
            "redis://h:70000",
            "redis://h/x",
            "redis://a,b",
            "redis+sentinel://h",
        ),
        *("redis+cluster://h/3", "redis://h?nope=1", "unix://relative", "redis://[::1", "rediss://h?ssl_cert_reqs=no"),
    ],
)
def test_a_bad_redis_url_is_refused_by_the_variables_name_without_its_secrets(url):
    with_secret = url.replace("://", "://joe:hunter2@") if "://" in url and "unix" not in url else url
    text = refused({"IM_REDIS_URL": with_secret})
    assert "IM_REDIS_URL" in text and "redis_url" not in text
    shown = f"it begins with {url.partition(':')[0]}://, and the rest" if "://" in url else "it"
    assert text.endswith(f"; {shown} is not shown, for it may hold a password")
    assert "hunter2" not in text and "joe" not in text


def test_grace_must_be_shorter_than_retention_and_certificate_and_key_come_together(tmp_path):
    assert refused({"IM_GRACE_SECONDS": "60"}).startswith("IM_GRACE_SECONDS must be less than IM_RETAIN_SECONDS (60)")
    assert "not '10'" in refused({"IM_RETAIN_SECONDS": "5"})
    file = tmp_path / "x"
    file.write_text("x")
    text = refused({"IM_REDIS_CERT_FILE": str(file)})
    assert text == f"IM_REDIS_CERT_FILE and IM_REDIS_KEY_FILE must be set together, not '{file}' and None"
    assert load_settings(BASE | {"IM_REDIS_PASSWORD_FILE": str(file)}).redis_password_file == str(file)
    file.write_bytes(b"\xff")
    assert "a readable file of UTF-8, not" in refused({"IM_REDIS_PASSWORD_FILE": str(file)})


def test_files_that_hold_no_certificates_are_refused(tmp_path):
    authority = Authority(tmp_path / "authority")
    (cert, key), (_, other) = authority.sign("a", "a"), authority.sign("b", "b")
    base = {"IM_REDIS_URL": "rediss://h", "IM_REDIS_CA_FILE": authority.ca, "IM_REDIS_CERT_FILE": cert}
    assert load_settings(BASE | base | {"IM_REDIS_KEY_FILE": key}).redis_key_file == key
    for wrong in (other, cert, __file__):
        text = refused(base | {"IM_REDIS_KEY_FILE": wrong})
        assert text.endswith(f"must be a certificate and its key in PEM, not {cert!r} and {wrong!r}")


def test_the_defaults_are_the_contracts():
    s = load_settings({})
    assert (s.port, s.admin_port, s.lease_seconds, s.grace_seconds, s.slots, s.topology) == (
        6001,
        9600,
        5,
        10,
        None,
        "self",
    )
    assert s.limits == Limits() and (s.limits.retain_seconds, s.limits.retain_entries) == (60, 10000)
    assert (s.limits.max_payload_bytes, s.buffer_bytes, s.ping_seconds) == (65536, 262144, 25)
    assert re.fullmatch(r"wss?://[^/]+:6001/ws", s.url) and s.server_name.endswith("6001")


def test_a_host_whose_name_is_no_server_name_must_set_one(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "höst")
    with pytest.raises(SettingError, match="IM_SERVER_NAME must be set"):
        load_settings({})
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 80)
    assert len(load_settings({}).server_name) <= 63


@pytest.mark.parametrize("url", ["redis://h", "redis+sentinel://h/m", "redis+cluster://h", "unix:///s", None])
@pytest.mark.parametrize("names", [("CA",), ("CERT", "KEY")])
def test_certificates_without_tls_stop_the_start(tmp_path, url, names):
    authority = Authority(tmp_path / "authority")
    cert, key = authority.sign("a", "a")
    paths = {"CA": authority.ca, "CERT": cert, "KEY": key}
    files = {f"IM_REDIS_{name}_FILE": paths[name] for name in names}
    text = refused(files | ({"IM_REDIS_URL": url} if url else {}))
    begin = f"IM_REDIS_{names[0]}_FILE, which is {paths[names[0]]!r}, needs TLS"
    assert text == f"{begin}: IM_REDIS_URL must begin with rediss:// or rediss+"
    for good in ("rediss://h", "rediss+sentinel://h/m", "rediss+cluster://h", "valkeys://h"):
        load_settings(BASE | files | {"IM_REDIS_URL": good})


def test_nothing_shows_the_redis_url():
    assert "hunter2" not in repr(load_settings(BASE | {"IM_REDIS_URL": "redis://joe:hunter2@h"}))


def test_misspelt_variables_are_told():
    assert unknown_settings({"IM_PORTS": "1", "IM_REDIS_PASSWORD": "x", "PATH": "", "IM_PORT": "1"}) == [
        "IM_PORTS",
        "IM_REDIS_PASSWORD",
    ]
    assert load_settings(BASE | {"IM_PORTS": "1"}) == load_settings(BASE)


@given(
    st.sampled_from(
        sorted(set(CASES) - {"IM_REDIS_PASSWORD_FILE", "IM_REDIS_CA_FILE", "IM_REDIS_CERT_FILE", "IM_REDIS_KEY_FILE"})
    ),
    st.text(st.characters(exclude_characters="\0"), max_size=12),
)
def test_no_value_leaks_another_error(variable, value):
    try:
        load_settings(BASE | {variable: value})
    except SettingError as error:
        assert variable in str(error) and str(error).isprintable()
