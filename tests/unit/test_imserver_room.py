# How many sockets there is room for: files bound all, settings bound the open ones, silence keeps nobody out.

import resource
import subprocess
import sys

import pytest

from imserver.room import OURS, SPARE, Room


@pytest.mark.parametrize(
    ("wanted", "files", "connections", "sockets"),
    [
        (18000, 1 << 20, 18000, 18000 + SPARE),
        (18000, 20000, 18000, 18000 + SPARE),
        (18000, 1024, 720, 1024 - OURS),
        (5, 1024, 5, 1024 - OURS),
        (5, 10, 2, 2),
    ],
)
def test_files_are_kept_for_what_is_no_client(wanted, files, connections, sockets):
    room: Room[str] = Room(wanted, files)
    assert (room.connections, room.sockets) == (connections, sockets)


def test_who_was_silent_longest_goes_and_who_spoke_stays():
    room: Room[int] = Room(1, OURS + 4)
    assert [room.come(n, n) for n in range(1, 5)] == [None] * 4
    room.spoke(1)
    assert [room.come(n, 5) for n in (5, 6)] == [2, 3]
    for n in (4, 5, 6):
        room.spoke(n)
    room.spoke(4)
    assert room.come(7, 5) == 7, "nobody is silent but the one that came"


@pytest.mark.parametrize(("hard", "expected"), [(4000, 4000), (3000, 3000), (100, 100)])
def test_the_soft_limit_is_raised_as_far_as_need_be(hard, expected):
    code = (
        "import resource; from imserver.room import open_files;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}));"
        "print(open_files(2720), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip(f"this process may not open {hard} files")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(expected)] * 2


def test_a_limit_that_is_high_enough_is_left_alone():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        "import resource; from imserver.room import open_files;"
        "print(open_files(1), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    if soft < 1 + SPARE + OURS:
        pytest.skip("the limit of this process is low")
    assert done.stdout.strip().endswith(f"({soft}, {hard})")
