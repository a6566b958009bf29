# From outside the pods: a real nginx configured from the rendered Ingress, and a real Prometheus that scrapes the pods.
# Both run on this machine, so it must reach pods and Services: on a cluster where it can't, these tests are skipped.

import asyncio
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imhelper import ImHelper
from tests.e2e.outside import address, listens
from tests.e2e.stage import Json, Stage, wait_for
from tests.support.kube import get
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.support.ws import open_socket

pytestmark = pytest.mark.timeout(300)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine (Debian: apt-get install {name})")
    return found


@contextmanager
def _running(*command: str | Path) -> Iterator[None]:
    """A process for the length of a block."""
    process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None, f"{command[0]} has ended with {process.returncode}"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)


def _nginx_config(ingress: Json, stage: Stage, port: int, folder: Path) -> str:
    """What an Ingress controller makes of an Ingress: a location a path, to the Service that it names."""
    locations = []
    for path in ingress["spec"]["rules"][0]["http"]["paths"]:
        backend = path["backend"]["service"]["name"]
        locations.append(
            f"location {path['path']}/ {{ proxy_pass http://{address(stage, backend)}:6001; proxy_http_version 1.1; "
            "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_read_timeout 3600; }"
        )
    host = ingress["spec"]["rules"][0]["host"]
    paths = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    server = f"server {{ listen 127.0.0.1:{port}; server_name {host}; {' '.join(locations)} }}"
    return (
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; "
        f"events {{ worker_connections 512; }} http {{ access_log off; {paths} {server} }}\n"
    )


def test_per_pod_paths_through_nginx(stage, record, tmp_path):
    nginx = _program("nginx")
    stage.valkey()
    redis = f"redis://{address(stage, 'valkey')}:6379"
    port = free_port()
    template = f"ws://{{host}}:{port}/{{namespace}}/{{name}}/{{ordinal}}/ws"
    exposure = {"type": "PerPodPath", "host": "localhost", "maxOrdinals": 4, "urlTemplate": template}
    stage.imcluster(replicas=2, exposure=exposure)
    stage.ready()
    ingress = get("ingress", "chat", namespace=stage.namespace)
    config = tmp_path / "nginx.conf"
    config.write_text(_nginx_config(ingress, stage, port, tmp_path))
    with _running(nginx, "-c", config, "-p", tmp_path):
        wait_for("nginx", lambda: listens("127.0.0.1", port), 15)
        asyncio.run(_chat_while_a_server_leaves(redis, stage))
    after = get("ingress", "chat", namespace=stage.namespace)
    assert after["metadata"]["generation"] == ingress["metadata"]["generation"], "scaling never edits the Ingress"
    record(lost=0)


async def _chat_while_a_server_leaves(redis: str, stage: Stage) -> None:
    async with ImHelper(redis) as im:
        names = [f"browser-{n}" for n in range(12)]
        sent = await asyncio.gather(*(_follow(im, name, stage) for name in names), _scale_down(im, names, stage))
        servers = {server for visited in sent[:-1] for server in visited[:1]}
        assert servers == {"chat-0", "chat-1"}
        assert {visited[-1] for visited in sent[:-1]} == {"chat-0"}


async def _scale_down(im: ImHelper, names: list[str], stage: Stage) -> list[str]:
    async def all_online() -> bool:
        return all((await im.has_online_many(names)).values())

    await eventually(all_online, 30, "every client to be online")
    await asyncio.to_thread(stage.kubectl, "scale", "imc", "chat", "--replicas=1")
    for number in range(60):
        await im.send_message("biz", names, {"n": number})
        await asyncio.sleep(0.1)
    await asyncio.to_thread(stage.ready)
    await im.send_message("biz", names, {"n": "end"})
    return []


async def _follow(im: ImHelper, name: str, stage: Stage) -> list[str]:
    """As the browser client does: connect, follow `move`, de-duplicate. The servers it was on, in order."""
    url, since = await im.prev_connect_server(name), None
    servers: list[str] = []
    got: dict[str, Any] = {}
    async with asyncio.timeout(90):
        while True:
            assert f"/{stage.namespace}/chat/" in url
            async with open_socket(url, envelope=True, since=since) as ws:
                servers.append((await ws.recv_kind("hello"))["server"])
                while (frame := await ws.recv_json(60))["t"] != "move":
                    got[frame["id"]] = frame["data"]["n"]
                    since = frame["pos"]
                    if frame["data"]["n"] == "end":
                        assert list(got.values()) == [*range(60), "end"]
                        return servers
                url, since = frame["url"], frame["pos"]


def test_prometheus_counts_the_connections_of_each_pod(stage, record, tmp_path):
    prometheus = _program("prometheus")
    stage.valkey()
    address(stage, "valkey")
    stage.imcluster(replicas=2)
    stage.ready()
    traffic = stage.traffic(servers=2)
    targets = [
        {"targets": [f"{p['status']['podIP']}:9600"], "labels": {"pod": p["metadata"]["name"]}} for p in stage.pods()
    ]
    scrape = {"job_name": "imserver", "scrape_interval": "1s", "static_configs": targets}
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}))
    port = free_port()
    options = (f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}", "--log.level=warn")
    with _running(prometheus, *options, f"--web.listen-address=127.0.0.1:{port}"):
        wait_for("Prometheus", lambda: listens("127.0.0.1", port), 30)

        def connections() -> dict[str, int]:
            query = urllib.parse.urlencode({"query": "sum by (pod) (imserver_connections)"})
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
            return {r["metric"]["pod"]: int(r["value"][1]) for r in result}

        wait_for("both pods", lambda: len(connections()) == 2, 30)
        expected = traffic.report()["by_server"]
        wait_for("the true numbers", lambda: connections() == expected, 15)
    record(lost=traffic.stop()["lost"])
