# Runs what docs/examples shows, as a reader would: FastAPI with its lifespan, Django in a process, a Celery worker.
# Messages are looked for in Redis, where the helper puts them; the servers are scripts only (`Boot`).

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from imhelper.sync import ImHelper
from tests.support.boot import Boot
from tests.support.process import Process
from tests.support.waiting import eventually, wait_until

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def boot(redis_server):
    """A cluster of one server in the test's Redis."""
    boot = Boot(redis_server.url, "im")
    boot.publish()
    yield boot
    boot.link.close()


def example(name: str) -> ModuleType:
    """Import an example by its file."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_fastapi_lifespan(redis_server, boot, monkeypatch):
    monkeypatch.setenv("IM_REDIS_URL", redis_server.url)
    app = example("fastapi_lifespan").app
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http,
    ):
        url = (await http.post("/connect", headers={"x-user": "ann"})).json()["url"]
        assert await asyncio.to_thread(boot.connect, url) == "ann"
        await eventually(lambda: app.state.im.get_chan_client_list("lobby"))
        answer = await http.post("/say", headers={"x-user": "ann"}, params={"text": "hello"})
        assert re.fullmatch(r"[\w-]{22}", answer.json()["id"])
        assert boot.sent() == [("ann", (), "lobby", {"from": "ann", "text": "hello"})]
        boot.beat(state="draining")

        async def refused() -> bool:
            answer = await http.post("/connect", headers={"x-user": "ann"}, params={"failed": url})
            return answer.status_code == 503 and "retry-after" in answer.headers

        await eventually(refused)


DJANGO = """
    import sys
    sys.path.insert(0, sys.argv[1])
    import django_on_commit as shop
    from django.test import Client

    shop.create_tables()
    client = Client()
    for item in ("tea", "unobtainium", "milk"):
        answer = client.post("/orders", {"user": "ann", "item": item})
        print(item, answer.status_code)
"""


def test_django_on_commit(redis_server, boot):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DJANGO), EXAMPLES],
        env={**os.environ, "IM_REDIS_URL": redis_server.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.split() == ["tea", "200", "unobtainium", "409", "milk", "200"], done.stderr
    assert [(m[0], m[1], m[3]["item"]) for m in boot.sent()] == [("shop", ("ann",), "tea"), ("shop", ("ann",), "milk")]


def test_celery_task(redis_server, boot, tmp_path, processes, monkeypatch):
    env = {
        **os.environ,
        "IM_REDIS_URL": redis_server.url,
        "CELERY_BROKER_URL": f"{redis_server.url}/1",
        "PYTHONPATH": str(EXAMPLES),
    }
    arguments = ["-A", "celery_task", "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "info"]
    worker = Process("celery", [sys.executable, "-m", "celery", *arguments], tmp_path / "celery.log", env)
    processes(worker)
    worker.launch()
    worker.wait_output("ready.", 40)
    for name in ("IM_REDIS_URL", "CELERY_BROKER_URL"):
        monkeypatch.setenv(name, env[name])
    celery_task = example("celery_task")
    for i in range(6):
        celery_task.notify.delay("ann", f"text {i}")
    wait_until(lambda: len(boot.sent()) >= 6, 20, "what the workers send")
    sent = boot.sent()
    assert sorted(m[3]["text"] for m in sent) == [f"text {i}" for i in range(6)]
    assert {m[0] for m in sent} == {"shop"}
    # The same task again, as a worker that died after sending would cause: the same id, no second message.
    twice = {celery_task.notify.apply(args=("ann", "twice"), task_id="one-task").get() for _ in range(2)}
    assert len(twice) == 1 and sum(m[3]["text"] == "twice" for m in boot.sent()) == 1
    celery_task.app.close()
    worker.stop()


def test_what_the_reference_shows_runs(redis_server, boot, monkeypatch):
    """The Python blocks of docs/helper.md, and of the helper's README, in order."""
    monkeypatch.setenv("IM_REDIS_URL", redis_server.url)
    with ImHelper(redis_server.url) as helper:
        for name in ("alice", "bob"):
            boot.connect(helper.prev_connect_server(name))
    for path in (ROOT / "docs" / "helper.md", ROOT / "helper" / "README.md"):
        blocks = re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        assert blocks, path
        for block in blocks:
            text = block.replace("redis://localhost:6379", redis_server.url)
            names: dict[str, object] = {}
            if re.search(r"^(async |.*\bawait )", text, re.MULTILINE):
                source = "async def main():\n" + textwrap.indent(text, "    ")
                exec(compile(source, str(path), "exec"), names)  # noqa: S102 - our own documentation
                main = names["main"]
                assert callable(main)
                asyncio.run(main())
            else:
                exec(compile(text, str(path), "exec"), names)  # noqa: S102 - our own documentation
