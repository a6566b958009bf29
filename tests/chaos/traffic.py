# What the business does in a run: sends of all kinds, joins, leaves, repeats; clients that go away and come back.
# Every call is written into the ledger with the time at which it began and the time at which it had succeeded.

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from imhelper import ImHelper
from imhelper.errors import NoServerError, RedisUnavailableError
from tests.chaos.device import Device
from tests.chaos.ledger import Change, Client, Ledger, Send, now

__all__ = ["Traffic", "make_clients"]

log = logging.getLogger(__name__)
R = TypeVar("R")

TICK_SECONDS = 0.02
# More calls than these under way (Redis is away) and new ones are left out.
IN_FLIGHT = 2000
GIVE_UP_SECONDS = 60.0
# A call that took no longer was tried once.
PROMPT_SECONDS = 0.5
PAD = "x" * 80


def make_clients(ledger: Ledger, helper: ImHelper, number: int, rng: random.Random) -> list[Device]:
    """Clients of both modes with one or two devices each, some of them with names that are legal but unpleasant."""

    async def get_url(client_id: str, avoid: str | None) -> str:
        return await helper.prev_connect_server(client_id, "meta of " + client_id, avoid=avoid)

    devices = []
    for n in range(number):
        client_id = f"{rng.getrandbits(64):016x}-{n}" if n % 7 else f"ü {{:*}} '\"\\ {n}"
        client = Client(n, client_id, envelope=n % 3 != 0)
        ledger.clients.append(client)
        for _ in range(2 if n % 9 in (2, 3) else 1):
            devices.append(Device(ledger, client, get_url, rng.getrandbits(32)))
    return devices


class Traffic:
    """Sends at `rate` messages a second until stopped."""

    def __init__(
        self, ledger: Ledger, helper: ImHelper, devices: list[Device], rng: random.Random, rate: float, grace: float
    ) -> None:
        self._ledger = ledger
        self._helper = helper
        self._devices = devices
        self._rng = rng
        self._rate = rate
        self._grace = grace
        self._count = len(ledger.clients)
        self._chans = [f"room {n} {{*:'" for n in range(max(2, self._count // 12))]
        self._memberships: set[tuple[int, str]] = set()
        self._locked: set[tuple[int, str]] = set()
        self._uid = 0
        self._tasks: set[asyncio.Task[object]] = set()
        self._running = True
        self._of_client: dict[int, list[Device]] = {}
        for device in devices:
            self._of_client.setdefault(device.client.number, []).append(device)

    @property
    def in_flight(self) -> int:
        """Calls that have not succeeded yet."""
        return len(self._tasks)

    async def run(self) -> None:
        """Until `stop`."""
        owed, last = 0.0, now()
        while self._running:
            await asyncio.sleep(TICK_SECONDS)
            time = now()
            owed = min(owed + (time - last) * self._rate, self._rate)
            last = time
            while owed >= 1:
                owed -= 1
                self._one()

    async def fill_chans(self) -> None:
        """Give each channel some members before the run begins."""
        for chan in self._chans:
            for number in self._rng.sample(range(self._count), min(12, self._count)):
                self._spawn(self._join(number, chan))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def fill(self, chan: str, numbers: list[int]) -> None:
        """Make some clients members of a channel."""
        await asyncio.gather(*(self._join(number, chan) for number in numbers))

    async def flood(self, chan: str, messages: int, size: int, seconds: float) -> None:
        """Send so many large messages to a channel, spread over some time; they are accepted some time later."""
        for _ in range(messages):
            self._spawn(self._publish(self._record(self._someone(), (), chan, False), "x" * size))
            await asyncio.sleep(seconds / messages)

    async def stop(self) -> None:
        """No new calls; those under way are finished."""
        self._running = False
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a business call failed", exc_info=error)
            self._ledger.broken_promises.append(f"a business call failed: {error!r}")

    def _someone(self) -> int:
        # A few are popular, so that order and shared replays are put to the test.
        return self._rng.randrange(self._count if self._rng.random() < 0.8 else max(2, self._count // 20))

    def _one(self) -> None:
        if len(self._tasks) > IN_FLIGHT:
            return
        rng, die = self._rng, self._rng.random()
        if die < 0.45:
            self._send((self._someone(),), receipt=False)
        elif die < 0.60:
            self._send((self._someone(),), receipt=True)
        elif die < 0.72:
            self._send(tuple({self._someone() for _ in range(rng.randint(2, 8))}), receipt=False)
        elif die < 0.78:
            self._send(tuple({self._someone() for _ in range(rng.randint(2, 8))}), receipt=True)
        elif die < 0.93:
            self._spawn(self._publish(self._record(self._someone(), (), rng.choice(self._chans), False)))
        elif die < 0.932:
            self._spawn(self._disconnect(self._someone()))
        elif die < 0.975 or not self._memberships:
            self._spawn(self._join(self._someone(), rng.choice(self._chans)))
        else:
            self._spawn(self._leave(*rng.choice(tuple(self._memberships))))

    def _record(self, sender: int, receivers: tuple[int, ...], chan: str | None, receipt: bool) -> Send:
        self._uid += 1
        send = self._ledger.sends[self._uid] = Send(self._uid, sender, receivers, chan, receipt, now())
        return send

    def _send(self, receivers: tuple[int, ...], receipt: bool) -> None:
        sender = self._someone()
        receivers = tuple(r for r in receivers if r != sender)
        if not receipt and self._rng.random() < 0.05:
            receivers = (*receivers, sender)
        if receipt and not self._ledger.clients[sender].envelope:
            # A plain client's receipt names only the payload.
            receivers = receivers[:1]
        if receivers:
            self._spawn(self._publish(self._record(sender, receivers, None, receipt)))

    async def _publish(self, send: Send, pad: str = PAD) -> None:
        rng, clients = self._rng, self._ledger.clients
        form = rng.randrange(2 if send.receipt else 3)
        text = f"{send.uid} {pad}"
        message: object = (text, {"u": send.uid, "é": pad}, text.encode())[form]
        sender, key = clients[send.sender].client_id, f"key {send.uid}"
        names = [clients[r].client_id for r in send.receivers]
        covered = set(names if send.chan is None else [send.chan])

        async def once() -> str:
            if send.chan is not None:
                return await self._helper.send_chan_message(sender, send.chan, message, idempotency_key=key)
            return await self._helper.send_message(sender, names, message, send.receipt, idempotency_key=key)

        async def attempt() -> None:
            send.tries += 1
            try:
                send.ids.add(await once())
            except RedisUnavailableError as error:
                if error.message_id is None or error.idempotency_key != key or not set(error.uncovered) <= covered:
                    self._ledger.broken_promises.append(f"a failed send tells wrong things: {error!r}")
                else:
                    send.ids.add(error.message_id)
                raise

        if await self._until_done(attempt):
            send.ended = now()
            if rng.random() < 0.03:
                await self._until_done(attempt)

    async def _until_done(self, call: Callable[[], Awaitable[object]]) -> bool:
        deadline = now() + GIVE_UP_SECONDS
        while True:
            try:
                await call()
            except (NoServerError, RedisUnavailableError) as error:
                # No server: Redis has lost the topology, and it is not published again yet.
                self._ledger.errors[f"a call: {type(error).__name__}"] += 1
                if now() > deadline:
                    return False
                await asyncio.sleep(self._rng.uniform(0.05, 0.5))
            else:
                return True

    async def _join(self, number: int, chan: str) -> None:
        await self._change(number, chan, True)

    async def _leave(self, number: int, chan: str) -> None:
        await self._change(number, chan, False)

    async def _change(self, number: int, chan: str, join: bool) -> None:
        key = number, chan
        if key in self._locked:
            return
        self._locked.add(key)
        client_id = self._ledger.clients[number].client_id
        began = now()
        done: list[bool] = []
        tries = 0

        async def call() -> None:
            nonlocal tries
            tries += 1
            if join:
                done.append(await self._helper.join_chan(client_id, chan))
            else:
                done.append(await self._helper.leave_chan(client_id, chan) > 0)

        try:
            if await self._until_done(call):
                # A leave that found nothing is one all the same: afterwards the client is no member.
                if join and not done[-1]:
                    # Offline now; but a try whose answer was lost, perhaps the helper's own, may have found it online.
                    if tries > 1 or now() - began > PROMPT_SECONDS:
                        self._ledger.joins[key].append(Change(began, now(), certain=False))
                    return
                (self._ledger.joins if join else self._ledger.leaves)[key].append(Change(began, now()))
                (self._memberships.add if join else self._memberships.discard)(key)
            else:
                self._ledger.broken_promises.append(f"a join or leave never succeeded: {key}")
        finally:
            self._locked.discard(key)

    async def _disconnect(self, number: int) -> None:
        client = self._ledger.clients[number]
        change = Change(now(), float("inf"))
        client.disconnects.append(change)
        if not await self._until_done(lambda: self._helper.disconnect(client.client_id, "chaos")):
            self._ledger.broken_promises.append(f"a disconnect never succeeded: {client.client_id!r}")
        change.ended = now()
        # The user signs in again.
        await asyncio.sleep(self._rng.uniform(0.2, 2.0))
        for device in self._of_client[number]:
            for _ in range(300):
                if not device.connected or device.book.connections[-1].opened > change.began:
                    break
                # It has not heard of the end yet: signing in again would be undone by that.
                await asyncio.sleep(0.1)
            self._come_back(device)

    # Clients that go and come.

    def go_away(self) -> None:
        """A device of some client closes in order and comes back, mostly within grace, sometimes long after."""
        device = self._rng.choice(self._devices)
        if device.wanted and device.connected and device.client.gone is None:
            device.leave()
            times = self._rng.choice((0.1, 0.3, 0.6, 0.6, 2.0, 3.5))
            asyncio.get_running_loop().call_later(self._grace * times, self._come_back, device)

    def _come_back(self, device: Device) -> None:
        if device.client.gone is None:
            device.start()

    def leave_for_good(self) -> None:
        """All devices of some client close and never come back."""
        client = self._rng.choice(self._ledger.clients)
        if client.gone is None:
            client.gone = now()
            for device in self._of_client[client.number]:
                device.leave()
