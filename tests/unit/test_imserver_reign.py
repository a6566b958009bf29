# Failover, restart or a slot that was moved: told apart by what two Redis processes say of themselves.
# Taken for a move, a failover would lose messages in silence; the other way round, clients reload for nothing.

import pytest

from imserver.reign import NOBODY, Reign, failed_over, reign_of

OLD = Reign(b"run1", b"history1", NOBODY)
PROMOTED = Reign(b"run2", b"history2", OLD.history)
OTHER = Reign(b"run3", b"history3", NOBODY)
OTHER_PROMOTED = Reign(b"run3", b"history3", b"something")


@pytest.mark.parametrize(
    ("now", "uptime", "left", "expected"),
    [
        (OLD, 100, None, False),
        (Reign(b"run1", b"its first replica came", NOBODY), 100, None, False),
        (Reign(b"run1", b"history4", b"history2"), 100, None, True),
        (Reign(b"run2", b"history2", NOBODY), 3, None, False),
        (PROMOTED, 100, None, True),
        (PROMOTED, 100, OLD, True),
        (OTHER, 100, None, True),
        (OTHER, 100, OLD, False),
        (OTHER_PROMOTED, 100, OLD, False),
        (OTHER, 100, Reign(b"run1", b"history4", b"history2"), True),
        (OTHER, 100, PROMOTED, True),
    ],
    ids=[
        "the same",
        "the same, with a first replica",
        "a replica meanwhile, and a primary again",
        "restarted",
        "its replica",
        "its replica, and it does not know yet",
        "another, and nobody saw the old one",
        "another, and the old one is in power",
        "another that was a replica once",
        "another, and the old one has another history",
        "another, and a third one was left",
    ],
)
def test_what_a_change_of_process_means(now, uptime, left, expected):
    assert failed_over(OLD, 5.0, now, uptime, left) is expected


def test_only_a_primary_reigns():
    info = b"# Server\r\nrun_id:r\r\n# Replication\r\nrole:%s\r\nmaster_replid:h\r\nmaster_replid2:b\r\n"
    assert reign_of(info % b"master") == Reign(b"r", b"h", b"b")
    assert reign_of(info % b"slave") is None
