# A minute of chaos, as CI runs it: every kind of fault that one Redis allows, and nothing accepted may be lost; then
# less of it while hash slots of a Redis Cluster move. `make chaos` runs the same with other seeds, sizes and faults.

import asyncio
import os
import re
import sys

import pytest

from tests.support.browser import ROOT

COLUMNS = ("lost", "out of order", "duplicates", "wrong receiver", "gaps", "receipts", "events", "event bus", "ghosts")


async def chaos(*arguments: str) -> tuple[int, str]:
    """Run the runner in a process of its own: its exit status and its table."""
    command = [sys.executable, "-m", "tests.chaos", *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def rows_of(table: str) -> dict[str, str]:
    return dict(re.findall(r"^(?:WRONG )?(.+?)  +(\S.*)$", table, re.MULTILINE))


@pytest.mark.timeout(400)
async def test_a_minute_of_chaos_loses_nothing():
    seed = os.environ.get("IM_CHAOS_SEED", "1")
    status, table = await chaos(
        *("--seed", seed, "--seconds", "60", "--servers", "4", "--clients", "200", "--rate", "80")
    )
    rows = rows_of(table)
    assert status == 0, table
    assert {column: rows[column] for column in COLUMNS} == dict.fromkeys(COLUMNS, "0"), table
    assert int(rows["accepted"]) > 1000 and int(rows["delivered"]) > int(rows["accepted"]), table


@pytest.mark.timeout(300)
async def test_hash_slots_that_move_lose_nothing():
    status, table = await chaos(
        *("--cluster", "--faults", "reshard,kill,cut", "--every", "1", "3"),
        *("--seed", "1", "--seconds", "20", "--servers", "3", "--clients", "80", "--rate", "40"),
    )
    rows = rows_of(table)
    assert status == 0, table
    assert {column: rows[column] for column in COLUMNS} == dict.fromkeys(COLUMNS, "0"), table
    assert "reshard" in rows["faults"] and int(rows["accepted"]) > 200, table


@pytest.mark.parametrize("faults", [("--faults", "kill,fire"), ("--faults", "kill,reshard"), ("--cluster", "--losses")])
async def test_a_fault_that_nobody_knows_or_that_is_not_possible_is_refused(faults):
    status, table = await chaos(*faults)
    assert (status, table) == (2, "")
