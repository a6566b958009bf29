# docs/settings.md against imserver.settings: each setting once, with its default and what is allowed.
# And the sentences there that the code can prove: how a bad value is met, what is hidden.

import pytest

from imhelper.errors import SettingError
from imserver.settings import _RULES, Settings, load_settings
from tests.support import docs

ROWS = {docs.ticked(row[0])[0]: row for row in docs.rows(docs.read("docs/settings.md"), "variable")}
NAMES = {f"IM_{name.upper()}": name for name in Settings.__dataclass_fields__}


def test_every_setting_is_documented_and_nothing_else():
    assert set(ROWS) == set(NAMES)
    assert {f"IM_{name.upper()}" for name in _RULES} == set(NAMES)


@pytest.mark.parametrize("variable", sorted(NAMES))
def test_the_default_is_the_codes(variable):
    said = ROWS[variable][1]
    default = Settings.__dataclass_fields__[NAMES[variable]].default
    if default is None or default == ():
        assert said.startswith("none"), f"{variable} has no default"
    elif default == "":
        # Made from the machine's name; the test below shows how.
        assert said in ("host name and port, `HOST-PORT`", "`ws://HOST:PORT/ws`")
    else:
        assert docs.ticked(said) == [f"{default:g}" if isinstance(default, float) else str(default)]


def test_names_are_made_from_the_host(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    settings = load_settings({"IM_PORT": "7001"})
    assert (settings.server_name, settings.url) == ("box-7001", "ws://box:7001/ws")


@pytest.mark.parametrize("variable", sorted(NAMES))
def test_what_is_allowed_is_the_codes(variable):
    assert ROWS[variable][2] == _RULES[NAMES[variable]][0].replace("1e+06", "1000000")


@pytest.mark.parametrize("variable", sorted(NAMES))
def test_each_meaning_is_told(variable):
    assert len(ROWS[variable][3].split()) >= 4


def test_the_documented_defaults_are_accepted():
    plain = {v: docs.ticked(row[1])[0] for v, row in ROWS.items() if row[1].startswith("`") and "HOST" not in row[1]}
    assert load_settings(plain) == load_settings({})


def test_a_bad_value_is_refused_in_one_line_that_says_all_three():
    with pytest.raises(SettingError) as caught:
        load_settings({"IM_PORT": "70000"})
    text = str(caught.value)
    assert "\n" not in text
    assert "IM_PORT" in text and "70000" in text and ROWS["IM_PORT"][2] in text


def test_the_forms_of_the_redis_url_are_read():
    from imhelper.core.redis_url import parse_redis_url

    forms = docs.blocks(docs.read("docs/settings.md"), "text")[0]
    schemes = {word.partition("://")[0] for word in forms.split() if "://" in word}
    assert {"redis", "rediss", "unix", "redis+sentinel", "rediss+cluster", "valkeys"} <= schemes
    for scheme in schemes:
        rest = "/tmp/a.sock" if scheme == "unix" else "h1/SERVICE" if "sentinel" in scheme else "h1"
        parse_redis_url(f"{scheme}://{rest}")


def test_the_options_of_the_redis_url_are_the_codes():
    from imhelper.core.redis_url import _OPTIONS

    sentence = docs.read("docs/settings.md").partition("Options of the query:")[2].partition("Another option")[0]
    assert set(docs.ticked(sentence)) - {"none", "optional", "required"} == set(_OPTIONS)


def test_the_exit_statuses_are_the_codes():
    from imserver.__main__ import EXIT_SETTING
    from imserver.app import EXIT_FAILED, EXIT_FENCED

    said = {int(row[0]) for row in docs.rows(docs.read("docs/settings.md"), "status")}
    assert said == {0, EXIT_FAILED, EXIT_SETTING, EXIT_FENCED}


def test_what_must_be_equal_on_all_servers_is_what_is_published():
    sentence = docs.read("docs/settings.md").partition("**Settings that must be equal")[2].partition("All but the")[0]
    published = {f"IM_{name.upper()}" for name in Settings().limits.__dataclass_fields__}
    assert set(docs.ticked(sentence)) == published | {"IM_PREFIX", "IM_TOPOLOGY"}
