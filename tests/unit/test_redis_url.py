# imhelper.core.redis_url: every form of URL, what wins over what, and that no secret leaks.
# Nothing connects here.

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imhelper.core.redis_url import Address, parse_redis_url
from imhelper.errors import SettingError


@pytest.mark.parametrize(
    ("url", "kind", "addresses", "db", "tls", "service"),
    [
        ("redis://localhost", "single", [("localhost", 6379)], 0, False, ""),
        ("redis://", "single", [("localhost", 6379)], 0, False, ""),
        ("REDIS://r.example:7000/3", "single", [("r.example", 7000)], 3, False, ""),
        ("valkey://r:1", "single", [("r", 1)], 0, False, ""),
        ("rediss://[::1]:7000/?db=2", "single", [("::1", 7000)], 2, True, ""),
        ("redis://[fe80::1]", "single", [("fe80::1", 6379)], 0, False, ""),
        ("unix:///run/redis.sock?db=1", "single", [("/run/redis.sock", 0)], 1, False, ""),
        ("redis+sentinel://a:1,b/main/4", "sentinel", [("a", 1), ("b", 26379)], 4, False, "main"),
        ("sentinel://a/main", "sentinel", [("a", 26379)], 0, False, "main"),
        ("rediss+sentinel://a/main", "sentinel", [("a", 26379)], 0, True, "main"),
        ("redis+cluster://a:1,b:2", "cluster", [("a", 1), ("b", 2)], 0, False, ""),
        ("cluster://a/0", "cluster", [("a", 6379)], 0, False, ""),
        ("rediss+cluster://a", "cluster", [("a", 6379)], 0, True, ""),
    ],
)
def test_forms(url, kind, addresses, db, tls, service):
    config = parse_redis_url(url)
    assert (config.kind, list(config.addresses), config.db, config.tls, config.service) == (
        kind,
        [Address(*a) for a in addresses],
        db,
        tls,
        service,
    )


def test_credentials_are_unquoted_and_arguments_win():
    config = parse_redis_url("redis://us%40er:p%3Ass@h/0")
    assert config.credentials() == ("us@er", "p:ss")
    assert parse_redis_url("redis://:only@h").credentials() == (None, "only")
    assert parse_redis_url("redis://u:p@h", username="v", password=lambda: "q").credentials() == ("v", "q")
    assert parse_redis_url("unix://u:p@/s").credentials() == ("u", "p")
    assert parse_redis_url("redis://h").credentials() == (None, None)


def test_tls_options():
    config = parse_redis_url("rediss://h?ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k&ssl_check_hostname=false")
    assert (config.ssl_ca_certs, config.ssl_certfile, config.ssl_keyfile) == ("/ca", "/c", "/k")
    assert (config.ssl_cert_reqs, config.ssl_check_hostname) == ("required", False)
    assert parse_redis_url("rediss://h", ssl_ca_certs="/other").ssl_ca_certs == "/other"
    assert parse_redis_url("rediss://h").ssl_check_hostname
    lax = parse_redis_url("rediss://h?ssl_cert_reqs=CERT_NONE")
    assert (lax.ssl_cert_reqs, lax.ssl_check_hostname) == ("none", False)


@pytest.mark.parametrize("argument", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_certificates_without_tls_are_an_error_that_names_both(argument):
    with pytest.raises(SettingError, match=f"{argument} needs TLS: redis_url must begin with rediss://"):
        parse_redis_url("redis://u:hush@h", **{argument: "/file"})
    assert not parse_redis_url("redis://h", **{argument: ""}).tls


def test_sentinel_credentials_are_apart():
    config = parse_redis_url("redis+sentinel://u:p@a/m?sentinel_username=su&sentinel_password=sp")
    assert config.credentials() == ("u", "p")
    assert (config.sentinel_username, config.sentinel_password) == ("su", "sp")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("localhost:6379", "must begin with one of redis://"),
        ("http://h", "must begin with one of"),
        ("redis://a,b", "one host"),
        ("redis://h:99999", "port must be 1 to 65535"),
        ("redis://h:0", "port must be 1 to 65535"),
        ("redis://h:abc", "port must be a number"),
        ("redis://h/x", "db must be a number"),
        ("redis://h/1/2", "at most a database number"),
        ("redis://h?timeout=3", "unknown option 'timeout'"),
        ("redis://[::1", "close an IPv6"),
        ("unix://relative", "absolute path"),
        ("redis+sentinel://a:1", "name the service"),
        ("redis+sentinel://a/b/c/d", "name the service"),
        ("redis+cluster://a/3", "must not name a database"),
        ("redis+cluster://a,,b", "empty host"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs must be one of"),
        ("redis://:pa?ss=word@h", "must be written as %3F"),
        ("redis://h?ssl_ca_certs=/ca", "ssl_ca_certs needs TLS: redis_url must begin with rediss://"),
        ("unix:///s?ssl_certfile=/c", "ssl_certfile needs TLS"),
        ("sentinel://a/m?ssl_keyfile=/k", r"ssl_keyfile needs TLS: redis_url must begin with rediss\+sentinel://"),
        ("cluster://a?ssl_cert_reqs=none", r"ssl_cert_reqs needs TLS: redis_url must begin with rediss\+cluster://"),
        ("valkey://h?ssl_check_hostname=false", "ssl_check_hostname needs TLS"),
        (None, "must be a str"),
    ],
)
def test_bad_urls_are_refused_in_one_sentence(url, text):
    with pytest.raises(SettingError, match=text) as caught:
        parse_redis_url(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("redis://u:hush@h/x", "redis://u:hush@h:x", "redis://u:hush@a,b", "http://u:hush@h"),
        *("redis://:pa?hush@h", "redis://:pa?hush=1@h", "redis://:pa/hush@h", "redis://:hush/word@h"),
    ],
)
def test_no_error_quotes_the_url(url):
    with pytest.raises(SettingError) as caught:
        parse_redis_url(url)
    assert "hush" not in str(caught.value)


def test_no_error_quotes_a_password_of_digits():
    with pytest.raises(SettingError) as caught:
        parse_redis_url("redis://:123456/x@h")
    assert "123456" not in str(caught.value)


@pytest.mark.parametrize("option", [{"username": 7}, {"password": b"hush"}])
def test_a_login_is_a_str_or_a_callable(option):
    with pytest.raises(SettingError, match=f"{next(iter(option))} must be a str or a callable"):
        parse_redis_url("redis://h", **option)


async def _awaited() -> str:
    return "hush"


@pytest.mark.parametrize("answer", [lambda: b"hush", _awaited], ids=["bytes", "coroutine"])
def test_a_callable_that_gives_no_str_is_told_without_what_it_gave(answer):
    with pytest.raises(TypeError, match="must return a str") as caught:
        parse_redis_url("redis://h", password=answer).credentials()
    assert "hush" not in str(caught.value)


def test_repr_and_description_hold_no_secret():
    config = parse_redis_url("redis+sentinel://user:hush@a:1,b:2/m?sentinel_password=hush2", password="hush3")
    for text in (repr(config), config.describe()):
        assert "hush" not in text and "user" not in text
    assert config.describe() == "a:1,b:2 (Sentinel, m)"


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text):
    for url in (text, f"redis://{text}", f"redis+sentinel://{text}"):
        with contextlib.suppress(SettingError):
            parse_redis_url(url)
