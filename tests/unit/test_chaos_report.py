# The chaos runner's reports of runs made by hand: what was wrong must stand out, of one run and of several.
# They are all that most readers see of a run.

import argparse
from pathlib import Path

import pytest

from tests.chaos.__main__ import seeds_of
from tests.chaos.ledger import Ledger
from tests.chaos.report import Line, line, summary, table
from tests.chaos.run import Options, Outcome
from tests.chaos.store import Store
from tests.chaos.verdict import BY_REDIS, COLUMNS, Verdict

OPTIONS = Options(7, 60, 4, 200, 80, ["kill"], (1, 2), 3, 6, "always", Store, Path("logs"))


def outcome() -> Outcome:
    verdict = Verdict()
    verdict.counts |= {"accepted": 1000, "delivered": 3000, BY_REDIS[0]: 12}
    return Outcome(verdict, Ledger())


def test_each_column_has_a_row_and_what_is_wrong_stands_out():
    made = outcome()
    for column in COLUMNS:
        assert f"\n{column}  " in table(OPTIONS, made)
    assert f"\n{BY_REDIS[0]}  " in table(OPTIONS, made)
    made.verdict.fault("lost", "a message")
    text = table(OPTIONS, made)
    assert "\nWRONG lost" in text and "lost: a message" in text and "logs: logs" in text


def test_a_summary_has_a_line_for_each_run_and_counts_those_that_are_wrong():
    bad = outcome()
    bad.verdict.fault("ghosts", "somebody")
    lines = [line(OPTIONS, outcome()), line(OPTIONS, bad), Line(9, {}, "did not come to its end")]
    assert [bool(found.bad) for found in lines] == [False, True, True]
    head, first, second, third, total = summary(lines).splitlines()
    assert head.split()[:3] == ["seed", "accepted", "delivered"]
    assert first.split()[:3] == ["7", "1000", "3000"] and first.split().count("12") == 1
    assert second.endswith("wrong; logs: logs") and third.endswith("did not come to its end")
    assert total == "3 runs, 2 of them wrong"


@pytest.mark.parametrize(("text", "seeds"), [("7", [7]), ("1-3", [1, 2, 3]), ("1,5,7-8", [1, 5, 7, 8])])
def test_seeds(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-2-3", "-4"])
def test_what_are_no_seeds(text):
    with pytest.raises(argparse.ArgumentTypeError):
        seeds_of(text)
