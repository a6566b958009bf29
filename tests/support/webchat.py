# A web chat as a process of its own for tests, beside the real Redis and imservers of tests/support.
# And the few calls that most tests of it make.

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from imhelper import ImHelper, NoServerError
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.waiting import eventually, wait_until

ROOT = Path(__file__).resolve().parents[2]


class WebChat(Process):
    """One `python -m examples.webchat` on a free port; its files lie below `folder`."""

    def __init__(self, redis_url: str, folder: Path, **settings: str | int) -> None:
        self.port = free_port()
        self.files = folder / "webchat-files"
        self.files.mkdir()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("IM_", "WEBCHAT_"))}
        own = {"IM_REDIS_URL": redis_url, "WEBCHAT_PORT": self.port, "TMPDIR": self.files}
        own["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {key: str(value) for key, value in {**inherited, **own, **settings}.items()}
        super().__init__("webchat", [sys.executable, "-m", "examples.webchat"], folder / "webchat.log", env)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it answers."""
        self.launch()
        wait_until(self._answers, 20, "/healthz of the web chat")

    def _answers(self) -> bool:
        if not self.running:
            raise AssertionError(f"the web chat ended with {self.returncode}:\n{self.output_tail}")
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


class Service:
    """The endpoints as a front end calls them; answers are parsed and must have the code expected."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def post(
        self, path: str, fields: Mapping[str, Any] | None = None, *, code: int = 0, status: int = 200, **more: Any
    ) -> dict[str, Any]:
        response = await self.client.post(path, data={**(fields or {}), **more})
        answer: dict[str, Any] = response.json()
        assert (response.status_code, answer["code"]) == (status, code), answer
        return answer

    async def server_for(self, client_id: str, **more: Any) -> str:
        """A URL with a fresh token."""
        url: str = (await self.post("/ws/pre-connect", websocketId=client_id, **more))["server"]
        return url

    async def online(self, chan: str) -> int:
        """How many are in a room, as `/ws/get-channels` says."""
        channels = (await self.post("/ws/get-channels"))["channels"]
        return sum(item["online"] for item in channels if item["chan"] == chan)


@asynccontextmanager
async def calling(webchat: WebChat) -> AsyncIterator[Service]:
    """Its endpoints, for the time of a block."""
    async with httpx.AsyncClient(base_url=webchat.url, timeout=20) as client:
        yield Service(client)


async def in_topology(redis_url: str, number: int) -> None:
    """Wait until the published topology has so many active servers."""

    async def agreed() -> bool:
        try:
            topology = await helper.topology()
        except NoServerError:
            return False
        return len([server for server in topology.servers if server.state == "active"]) == number

    async with ImHelper(redis_url) as helper:
        await eventually(agreed, 20, f"{number} servers in the topology")
