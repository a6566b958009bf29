# What is due is ended in bounded batches, one after the other as long as there is more.
# The stand-in for Redis says how much is due; what a batch does is the script's, tested on a real one.

from types import SimpleNamespace
from typing import Any

from imserver.janitor import BATCH, BATCHES, Janitor


class Link:
    def __init__(self, due: int) -> None:
        self.due, self.calls = due, 0

    async def eval(self, script: Any, group: int, batch: int, *args: Any) -> list[int]:
        assert (script.name, batch) == ("sweep", BATCH)
        self.calls += 1
        gone = min(batch, self.due)
        self.due -= gone
        return [gone, 0, int(gone == batch), 0]


def sweep(link: Link) -> Any:
    hub: Any = SimpleNamespace(link=link, retention=(1, 1, 1))
    return Janitor(hub)._sweep(0)


async def test_the_clients_of_a_dead_server_go_one_batch_after_the_other():
    link = Link(due=18 * BATCH + 7)
    assert await sweep(link) is False
    assert (link.due, link.calls) == (0, 19)


async def test_other_groups_have_their_turn_before_all_of_one_is_done():
    link = Link(due=10 * BATCHES * BATCH)
    assert await sweep(link) is True
    assert link.calls == BATCHES
