# What the benchmarks' report says of a row: ratios round by round, goals met, missed or not to be told, and its table.

from typing import Any

import pytest

from bench.errors import BenchError
from bench.report import Goal, Row, remarks, spread, table


def row(**changes: Any) -> Row:
    figures: dict[str, Any] = {"work": "fanout", "what": "CPU a frame, 128 B", "unit": "µs", "ours": [2, 3, 4]}
    return Row(**figures | {"load": 1.0} | changes)


def test_ratios_are_made_round_by_round_and_leave_out_a_round_without_a_figure():
    assert row(floor=[1, 0, 2]).ratios == [2, 2]
    assert row(peers={"other": [4, 3, 2]}).ratios_to("other") == [0.5, 1, 2]
    assert row().ratios_to("other") == []


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal(3, "ours"), True),
        (Goal(2.9, "ours"), False),
        (Goal(3, "ours", "least"), True),
        (Goal(3.1, "ours", "least"), False),
        (Goal(2, "ratio"), True),
        (Goal(1.9, "ratio"), False),
        (Goal(0.5, "other"), True),
        (Goal(0.4, "other"), False),
        (Goal(0.4, "absent"), None),
    ],
)
def test_a_goal_is_compared_with_the_median(goal, met):
    measured = row(floor=[1, 1.5, 4], peers={"other": [4, 6, 9]})
    assert goal.met(measured) is met


def test_a_row_has_one_goal_or_several():
    one, other = Goal(1, "ours"), Goal(2, "other")
    assert row().goals == ()
    assert row(goal=one).goals == (one,)
    assert row(goal=[one, other]).goals == (one, other)


def test_each_peer_has_a_line_and_its_goal_stands_there():
    goals = (Goal(1.3, "ratio"), Goal(0.6, "fast"), Goal(0.6, "absent"))
    text = table(
        [row(floor=[2, 2, 2], peers={"fast": [10, 10, 10], "lossy": []}, failed={"lossy": "gone"}, goal=goals)]
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert cells[0][4:9] == ["beside", "its figure", "ours/its", "goal", "met"]
    assert cells[2][:9] == [
        "fanout", "CPU a frame, 128 B", "µs", "3 (2-4)", "floor", "2 (2-2)", "1.5x (1-2)", "≤ 1.3x", "NO",
    ]  # fmt: skip
    assert cells[3][4:9] == ["fast", "10 (10-10)", "0.3x (0.2-0.4)", "≤ 0.6x", "yes"]
    assert cells[4][4:9] == ["lossy", "failed", "-", "", ""]
    assert cells[5][4:9] == ["absent", "-", "-", "≤ 0.6x", "-"]


def test_the_json_of_a_row_holds_what_was_derived_from_it():
    told = row(floor=[1, 1, 2], peers={"other": [4, 6, 8]}, goal=Goal(0.6, "other")).as_dict()
    assert told["ratios"] == [2, 3, 2]
    assert told["peer_ratios"] == {"other": [0.5, 0.5, 0.5]}
    assert told["goals"] == [{"of": "other", "goal": "≤ 0.6x", "met": True}]
    assert told["peers"] == {"other": [4, 6, 8]}


def test_what_is_missing_is_said_once():
    rows = [row(failed={"lossy": "3 closed"}), row(unit="ms", failed={"lossy": "3 closed"})]
    assert remarks(rows, {"other": "there is no go"}) == [
        "other was left out: there is no go.",
        "lossy failed (128 B): 3 closed",
    ]


def test_a_single_round_has_no_spread():
    assert spread([1234.5]) == "1234"
    assert spread([999.7]) == "1000"
    assert spread([]) == "-"


@pytest.mark.parametrize(
    ("text", "brief"), [("it ended", "it ended"), ("it ended\nfirst\nlast", "it ended: last"), ("", "")]
)
def test_an_error_that_quotes_a_log_is_told_in_one_line(text, brief):
    assert BenchError(text).brief == brief
