# A minute of chaos, as CI runs it: every kind of fault that one Redis allows, and nothing accepted may be lost.
# `make chaos` runs the same with other seeds, sizes and faults.

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


@pytest.mark.timeout(400)
async def test_a_minute_of_chaos_loses_nothing():
    seed = os.environ.get("IM_CHAOS_SEED", "1")
    status, table = await chaos(
        *("--seed", seed, "--seconds", "60", "--servers", "4", "--clients", "200", "--rate", "80")
    )
    rows = dict(re.findall(r"^(?:WRONG )?(.+?)  +(\S.*)$", table, re.MULTILINE))
    assert status == 0, table
    assert {column: rows[column] for column in COLUMNS} == dict.fromkeys(COLUMNS, "0"), table
    assert int(rows["accepted"]) > 1000 and int(rows["delivered"]) > int(rows["accepted"]), table


async def test_a_fault_that_nobody_knows_is_refused():
    status, table = await chaos("--faults", "kill,fire")
    assert (status, table) == (2, "")
