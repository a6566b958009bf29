# Clients and a business service inside the cluster, for the e2e tests; the imserver image runs it, mounted.
# Every client counts what it gets and follows `move` and close codes as the browser client does.
#
#   python traffic.py --clients 3 --rate 50     3 clients a slot, 50 messages a second; report in /tmp/report.json
#   touch /tmp/again                            every client asks for another URL, as a page that is loaded again
#   touch /tmp/stop                             send no more, wait for what is under way, write the last report

import argparse
import asyncio
import json
import os
import secrets
import time
from collections import Counter
from pathlib import Path
from zlib import crc32

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from imhelper import ImHelper
from imhelper.errors import ImError

REPORT, STOP, AGAIN = Path("/tmp/report.json"), Path("/tmp/stop"), Path("/tmp/again")
ENVELOPE = Subprotocol("imcluster.v1.json")
FAILED = (OSError, TimeoutError, InvalidHandshake, ConnectionClosed, ImError)


class Client:
    """One user of the business system: reconnects for ever, de-duplicates by id, notes order and gaps."""

    def __init__(self, name: str, helper: ImHelper) -> None:
        self.name, self.helper = name, helper
        self.got: dict[str, int] = {}
        self.last_number = -1
        self.pos: str | None = None
        self.server = ""
        self.connected = False
        self.duplicates = self.disorder = self.gaps = self.moves = self.tries = 0
        self.codes: Counter[str] = Counter()
        self.again = asyncio.Event()
        self.away_since: float | None = None
        self.longest_away = 0.0

    async def run(self) -> None:
        url, avoid = None, None
        while True:
            try:
                url = url or await self.helper.prev_connect_server(self.name, avoid=avoid)
                url = await self._serve(url)
                avoid = None
            except FAILED as error:
                self.tries += 1
                if self.connected:
                    self.away_since = self.away_since or time.monotonic()
                self.connected = False
                code = getattr(getattr(error, "rcvd", None), "code", None)
                self.codes[str(code or type(error).__name__)] += 1
                avoid = url if url and code != 1012 else None
                url = None
                await asyncio.sleep(0.2)

    async def _serve(self, url: str) -> str | None:
        """Until the server says `move`: then the URL to go on with; None to ask for one."""
        since = f"&since={self.pos}" if self.pos else ""
        async with connect(url + since, subprotocols=[ENVELOPE], open_timeout=10, ping_interval=None) as raw:
            hello = json.loads(await asyncio.wait_for(raw.recv(), 10))
            if self.away_since is not None:
                self.longest_away = max(self.longest_away, time.monotonic() - self.away_since)
                self.away_since = None
            if since and not hello["recovered"]:
                self.gaps += 1
            if self.server and hello["server"] != self.server:
                self.moves += 1
            self.server, self.connected = hello["server"], True
            # Before the first message it is all that a client has to go on from.
            self.pos = hello["pos"]
            pinger = asyncio.get_running_loop().create_task(self._ping(raw))
            closer = asyncio.get_running_loop().create_task(self._close_once_asked(raw))
            try:
                while True:
                    envelope = json.loads(await raw.recv())
                    self.pos = envelope.get("pos", self.pos)
                    if envelope["t"] == "msg":
                        self._take(envelope)
                    elif envelope["t"] == "move":
                        return str(envelope["url"])
            except ConnectionClosed:
                if not self.again.is_set():
                    raise
                self.again.clear()
                return None
            finally:
                pinger.cancel()
                closer.cancel()

    async def _close_once_asked(self, raw: ClientConnection) -> None:
        await self.again.wait()
        await raw.close()

    async def _ping(self, raw: ClientConnection) -> None:
        while True:
            await asyncio.sleep(10)
            await raw.send('{"t":"ping"}')

    def _take(self, envelope: dict[str, object]) -> None:
        key, data = str(envelope["id"]), envelope["data"]
        if key in self.got:
            self.duplicates += 1
            return
        self.got[key] = 1
        number = data["n"] if isinstance(data, dict) else -1
        if number < self.last_number:
            self.disorder += 1
        self.last_number = max(self.last_number, number)


class Traffic:
    """All clients, the sender, and the report."""

    def __init__(self, helper: ImHelper, clients: list[Client], rate: float, servers: int) -> None:
        self.helper, self.clients, self.rate = helper, clients, rate
        self.mean = len(clients) / servers
        self.expected: dict[str, set[str]] = {c.name: set() for c in clients}
        self.room: set[str] = set()
        self.sent = self.refused = 0
        self.highest_share = 0.0
        self.sending = True
        self.run = secrets.token_hex(8)

    async def send(self) -> None:
        number = 0
        while self.sending:
            client = self.clients[number % len(self.clients)]
            number += 1
            key = f"{self.run}-{number}"
            message = await self._until_accepted(client.name, number, key)
            to_all = number % int(self.rate) == 0
            for name in self.room if to_all else (client.name,):
                self.expected[name].add(message)
            self.sent += 1
            await asyncio.sleep(1 / self.rate)

    async def _until_accepted(self, name: str, number: int, key: str) -> str:
        """Send to one client, and once a second to the channel; repeated with its key until Redis accepts it."""
        while True:
            try:
                if number % int(self.rate) == 0:
                    return await self.helper.send_chan_message("biz", "room", {"n": number}, idempotency_key=key)
                return await self.helper.send_message("biz", name, {"n": number}, idempotency_key=key)
            except ImError:
                self.refused += 1
                await asyncio.sleep(0.2)

    async def watch(self) -> None:
        while True:
            held = Counter(c.server for c in self.clients if c.connected)
            if held:
                self.highest_share = max(self.highest_share, max(held.values()) / self.mean)
            self.write(final=False)
            await asyncio.sleep(0.5)

    def missing(self) -> int:
        return sum(len(self.expected[c.name] - c.got.keys()) for c in self.clients)

    def write(self, *, final: bool) -> None:
        codes: Counter[str] = Counter()
        for client in self.clients:
            codes.update(client.codes)
        report = {
            "final": final,
            "clients": len(self.clients),
            "connected": sum(c.connected for c in self.clients),
            "sent": self.sent,
            "refused": self.refused,
            "lost": self.missing(),
            "missing": [f"{c.name} {m}" for c in self.clients for m in self.expected[c.name] - c.got.keys()][:5],
            "duplicates": sum(c.duplicates for c in self.clients),
            "disorder": sum(c.disorder for c in self.clients),
            "gaps": sum(c.gaps for c in self.clients),
            "most_moves": max(c.moves for c in self.clients),
            "moves": sum(c.moves for c in self.clients),
            "codes": codes,
            "longest_away": round(max(c.longest_away for c in self.clients), 2),
            "highest_share": round(self.highest_share, 3),
            "by_server": Counter(c.server for c in self.clients if c.connected),
        }
        temporary = REPORT.with_suffix(".new")
        temporary.write_text(json.dumps(report))
        temporary.rename(REPORT)


def names(per_slot: int, slots: int = 128) -> list[str]:
    """Client ids of which every slot has equally many, so that shares of clients are shares of slots."""
    count: Counter[int] = Counter()
    found: list[str] = []
    number = 0
    while len(found) < per_slot * slots:
        name = f"user-{number}"
        number += 1
        slot = crc32(name.encode()) % slots
        if count[slot] < per_slot:
            count[slot] += 1
            found.append(name)
    return found


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=3, help="clients a slot")
    parser.add_argument("--rate", type=float, default=50, help="messages a second")
    parser.add_argument("--servers", type=int, default=3, help="servers that the mean is of")
    args = parser.parse_args()
    password = os.environ.get("IM_REDIS_PASSWORD_FILE")
    helper = ImHelper(
        os.environ["IM_REDIS_URL"],
        prefix=os.environ.get("IM_PREFIX", "im"),
        password=(lambda: Path(password).read_text().strip()) if password else None,
        ssl_ca_certs=os.environ.get("IM_REDIS_CA_FILE"),
        ssl_certfile=os.environ.get("IM_REDIS_CERT_FILE"),
        ssl_keyfile=os.environ.get("IM_REDIS_KEY_FILE"),
    )
    clients = [Client(name, helper) for name in names(args.clients)]
    traffic = Traffic(helper, clients, args.rate, args.servers)
    tasks = [asyncio.create_task(c.run()) for c in clients]
    while sum(c.connected for c in clients) < len(clients):
        traffic.write(final=False)
        await asyncio.sleep(0.2)
    for client in clients[::4]:
        if not await helper.join_chan(client.name, "room"):
            raise SystemExit(f"{client.name} is not online")
        traffic.room.add(client.name)
    sender, watcher = asyncio.create_task(traffic.send()), asyncio.create_task(traffic.watch())
    while not STOP.exists():
        if AGAIN.exists():
            AGAIN.unlink()
            for client in clients:
                client.again.set()
        for task in (*tasks, sender, watcher):
            if task.done():
                task.result()
        await asyncio.sleep(0.2)
    traffic.sending = False
    await sender
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        if not traffic.missing():
            break
    watcher.cancel()
    traffic.write(final=True)
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main())
