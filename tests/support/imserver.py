# Real imserver processes for tests: `python -m imserver` with settings by environment, on free ports.
# Each tells its URLs and metrics, and can be stopped, killed, frozen and started again under the same name.

import http.client
import os
import sys
from pathlib import Path

from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.waiting import wait_until

Setting = str | int | float
_BASE_SETTINGS: dict[str, Setting] = {"IM_TOPOLOGY": "self", "IM_LOG_LEVEL": "debug", "PYTHONUNBUFFERED": "1"}


class ImServer(Process):
    """One imserver.

    Args:
        name: `IM_SERVER_NAME`.
        redis_url: `IM_REDIS_URL`.
        folder: where its log goes; it must exist.
        settings: further environment variables of the contract's part 5; they win over the defaults.
    """

    def __init__(self, name: str, redis_url: str, folder: Path, **settings: Setting) -> None:
        self.port = free_port()
        self.admin_port = free_port()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("IM_")}
        env: dict[str, Setting] = {
            **inherited,
            **_BASE_SETTINGS,
            "IM_REDIS_URL": redis_url,
            "IM_SERVER_NAME": name,
            "IM_PORT": self.port,
            "IM_ADMIN_PORT": self.admin_port,
            "IM_URL": f"ws://127.0.0.1:{self.port}/ws",
            **settings,
        }
        texts = {key: str(value) for key, value in env.items()}
        super().__init__(name, [sys.executable, "-m", "imserver"], folder / f"{name}.log", texts)

    def limit_files(self, files: int) -> None:
        """From its next start on it may open so many files, by its soft and hard limit."""
        self.arguments = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *self.arguments]

    @property
    def url(self) -> str:
        """The public URL that the topology gives for this server (`IM_URL`)."""
        assert self.env is not None
        return self.env["IM_URL"]

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def admin_get(self, path: str) -> tuple[int, str]:
        """GET `path` of the admin port: status and body; `ConnectionError` or `TimeoutError` if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def ready(self) -> bool:
        """Whether /readyz says 200; a process that has ended raises, with its last words."""
        if not self.running:
            raise AssertionError(f"imserver {self.name} ended with {self.returncode}:\n{self.output_tail}")
        try:
            return self.admin_get("/readyz")[0] == 200
        except (ConnectionError, TimeoutError, http.client.HTTPException):
            return False

    def wait_ready(self, timeout: float = 20) -> None:
        wait_until(self.ready, timeout, f"/readyz of {self.name}")

    def start(self, timeout: float = 20) -> None:
        """Start (again, under the same name and ports) and wait until it is ready."""
        self.launch()
        self.wait_ready(timeout)

    def metrics(self) -> dict[str, float]:
        """The samples of /metrics by name: `imserver_connections`, `imserver_disconnects_total{code="1012"}`, …"""
        status, body = self.admin_get("/metrics")
        if status != 200:
            raise AssertionError(f"/metrics of {self.name} answered {status}: {body}")
        samples = (line.rsplit(" ", 1) for line in body.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}
