# The rules for client ids, channels, prefixes, metadata and receivers (contract part 1), by example and by law.
# What is legal must pass untouched; what is not must be named in one line, without a UnicodeError.

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imhelper.core import ids
from imhelper.errors import ImError, InvalidIdError, SettingError

CHECKS = [ids.check_client, ids.check_chan]
LEGAL = [
    "a",
    ":",
    "{",
    "}",
    "{}",
    "*",
    "?",
    "[a]",
    "'",
    '"',
    "\\",
    "a b",
    "ü",
    "👩‍👩‍👧",
    "\u2028",
    "%",
    "\u00a0",
    "x" * 128,
    "ü" * 64,
]
CONTROLS = [*map(chr, range(0x20)), "\x7f", *map(chr, range(0x80, 0xA0))]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("value", LEGAL)
def test_legal_ids_pass_as_they_are(check, value):
    assert check(value) is value


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_control_characters_are_refused_wherever_they_stand(check, control):
    for value in (control, f"a{control}", f"{control}a", f"a{control}b"):
        with pytest.raises(InvalidIdError, match="control characters"):
            check(value)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("value", ["", "x" * 129, "ü" * 65, "👍" * 33])
def test_the_length_counts_bytes_of_utf8(check, value):
    with pytest.raises(InvalidIdError, match=f"1 to 128 UTF-8 bytes long, not {len(value.encode())}"):
        check(value)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("value", ["\ud800", "a\udfff", "\ud83d"])
def test_lone_surrogates_are_refused_in_words_that_can_be_printed(check, value):
    with pytest.raises(InvalidIdError, match="surrogate") as caught:
        check(value)
    str(caught.value).encode()


@pytest.mark.parametrize("check", [*CHECKS, ids.check_prefix])
@pytest.mark.parametrize("value", [None, 5, b"a", ["a"], True])
def test_what_is_no_str_is_named_by_its_type(check, value):
    with pytest.raises(InvalidIdError, match=type(value).__name__):
        check(value)


def test_errors_are_value_errors_and_im_errors():
    assert issubclass(InvalidIdError, ValueError) and issubclass(InvalidIdError, ImError)
    assert issubclass(SettingError, ValueError) and issubclass(SettingError, ImError)


@given(st.text(st.characters(), max_size=140))
def test_an_id_passes_exactly_when_the_contract_allows_it(value):
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        size = 0
    legal = 1 <= size <= 128 and not any(unicodedata.category(c) == "Cc" for c in value)
    try:
        assert ids.check_client(value) == value and legal
    except InvalidIdError as error:
        assert not legal
        assert "\n" not in str(error)


@pytest.mark.parametrize("value", ["{", "a}", "{im}"])
def test_a_prefix_has_no_braces(value):
    with pytest.raises(InvalidIdError, match="braces"):
        ids.check_prefix(value)


def test_a_prefix_may_else_be_what_an_id_may():
    assert ids.check_prefix("a:b*'\"ü") == "a:b*'\"ü"


def test_metadata_is_bounded_in_bytes():
    assert ids.check_metadata("") == ""
    assert ids.check_metadata("\n\x00" + "ü" * 2047) == "\n\x00" + "ü" * 2047
    for bad, said in [
        ("ü" * 2049, "4096 UTF-8 bytes long, not 4098"),
        (b"x", "bytes"),
        (None, "NoneType"),
        ("\ud800", "surr"),
    ]:
        with pytest.raises(SettingError, match=said):
            ids.check_metadata(bad)


def test_receivers_are_each_taken_once_in_their_order():
    assert ids.unique("abc") == ["abc"]
    assert ids.unique(["b", "a", "b"]) == ["b", "a"]
    assert ids.unique(x for x in "xyx") == ["x", "y"]
    assert ids.unique([]) == []


@pytest.mark.parametrize("value", [b"ab", bytearray(b"a"), 5, None, [1], ["a", None], ["a", ""], [b"a"]])
def test_bad_receivers_are_refused_as_a_whole(value):
    with pytest.raises(InvalidIdError):
        ids.unique(value)
