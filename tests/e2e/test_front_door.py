# The README's way onto Kubernetes, as a new user goes it: its commands and its ImCluster as they stand there, then the
# commands that the charts' NOTES print, and two tabs of a real browser that chat through the two port-forwards.

import asyncio
import json
import os
import re
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from playwright.async_api import expect

from tests.e2e.stage import IMSERVER, VALKEY, helm, wait_for
from tests.support import docs
from tests.support.browser import artifacts_folder, chromium_path
from tests.support.chatpage import chat_window, headless_chromium, open_tab, say, talk_to
from tests.support.kube import CRD, kubectl, require, run
from tests.support.process import Process
from tests.support.waiting import eventually

OPERATOR = os.environ.get("IM_E2E_OPERATOR", "localhost/operator:dev")
WEBCHAT = os.environ.get("IM_E2E_WEBCHAT", "localhost/webchat:dev")
SECTION = docs.section(docs.read("README.md"), "## On Kubernetes")
SYSTEM, NAMESPACE = "im-system", "chat"
PAGE = "http://localhost:5000"

pytestmark = pytest.mark.timeout(400)


class Installed(NamedTuple):
    """What `helm install` said: the NOTES of each chart."""

    operator: str
    chat: str


def _commands() -> list[str]:
    """The commands of the README, without its comments."""
    lines = [line for block in docs.blocks(SECTION, "sh") for line in block.splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines]


def _image(value: str, image: str) -> str:
    repository, _, tag = image.rpartition(":")
    return f"{value}.image.repository={repository},{value}.image.tag={tag}"


def _about_the_crd() -> list[str]:
    """What Helm wants to be told where the CRD is there already."""
    known = kubectl("get", "crd", CRD, "--ignore-not-found", "-o", "json")
    if not known:
        return []
    marks = json.loads(known)["metadata"].get("annotations", {})
    owner = (marks.get("meta.helm.sh/release-namespace"), marks.get("meta.helm.sh/release-name"))
    if owner == (SYSTEM, "imcluster"):
        return []
    return ["--take-ownership"] if owner == (None, None) else ["--set", "crds.install=false"]


def _more_options(chart: str) -> list[str]:
    """What a trial needs beside the README's words: images of this checkout, and to leave other operators alone."""
    if chart == "charts/imcluster":
        images = f"{_image('operator', OPERATOR)},{_image('imserver', IMSERVER)}"
        return ["--set", images, "--set", f"watchNamespaces={{{NAMESPACE}}}", *_about_the_crd()]
    return ["--set", f"{_image('webchat', WEBCHAT)},{_image('valkey', VALKEY)}"]


def _helm(command: str) -> str:
    """One `helm install` of the README, with the options of a trial; what it printed."""
    program, *arguments = shlex.split(command)
    assert program == "helm"
    (chart,) = [a for a in arguments if a.startswith("charts/")]
    arguments[arguments.index(chart)] = str(docs.ROOT / chart)
    return helm(*arguments, *_more_options(chart))


def _told(notes: str) -> list[str]:
    """The commands that NOTES print."""
    return [line.strip() for line in notes.splitlines() if line.startswith("   ") and "kubectl" in line]


@pytest.fixture
def installed() -> Iterator[Installed]:
    """Both charts as the README installs them; uninstalled afterwards, and no namespace stuck."""
    require("kubectl", "helm")
    there = {line.partition("/")[2] for line in kubectl("get", "namespaces", "-o", "name").split()}
    if there & {SYSTEM, NAMESPACE}:
        pytest.skip(f"this cluster has a namespace {SYSTEM} or {NAMESPACE} already")
    kubectl("create", "namespace", NAMESPACE)
    try:
        operator, chat = [_helm(c) for c in _commands() if c.startswith("helm ")]
        yield Installed(operator, chat)
    finally:
        kubectl("-n", NAMESPACE, "delete", "imc", "--all", "--timeout=90s", timeout=100)
        for release, namespace in (("chat", NAMESPACE), ("imcluster", SYSTEM)):
            with suppress(AssertionError):
                helm("uninstall", release, "--namespace", namespace, "--wait", "--timeout", "120s")
        kubectl("delete", "namespace", NAMESPACE, SYSTEM, "--ignore-not-found", "--timeout=90s", timeout=100)


@pytest.fixture
def forward(tmp_path: Path, processes: Callable[[Process], None]) -> Callable[[str], None]:
    """Runs a port-forward until the test ends, once its port on this machine takes connections."""

    def start(command: str) -> None:
        port = int(re.findall(r" (\d+):\d+$", command)[0])
        if _listens(port):
            pytest.skip(f"port {port} of this machine is taken")
        process = Process(f"port-forward {port}", shlex.split(command), tmp_path / f"{port}.log", os.environ)
        processes(process)
        process.launch()
        wait_for(f"the port-forward: {process.output_tail}", partial(_listens, port), 30)

    return start


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _listing() -> dict[str, str]:
    """What `kubectl get imc` shows, by column."""
    header, row = kubectl("-n", NAMESPACE, "get", "imc").splitlines()
    return dict(zip(header.split(), row.split(), strict=True))


def test_the_imcluster_of_the_readme_has_ten_lines_at_most():
    (text,) = docs.blocks(SECTION, "yaml")
    assert len(text.splitlines()) <= 10
    exposure: dict[str, Any] = yaml.safe_load(text)["spec"]["exposure"]
    assert exposure == {"type": "Shared", "urlTemplate": "ws://localhost:6001/ws"}


async def test_a_chat_in_the_browser(installed, forward, tmp_path):
    chromium_path()
    after_helm = [command for command in _commands() if command.startswith("kubectl ")]
    apply_, *then = after_helm
    assert _told(installed.chat) == then[:3], "README and NOTES tell the same"
    assert shlex.split(apply_) == ["kubectl", "apply", "-f", "chat.yaml"]
    (text,) = docs.blocks(SECTION, "yaml")
    (tmp_path / "chat.yaml").write_text(text)
    see_operator, _, _ = _told(installed.operator)
    assert "successfully rolled out" in run(*shlex.split(see_operator))

    run("kubectl", "apply", "-f", str(tmp_path / "chat.yaml"))
    wait, sockets, page = then[:3]
    assert "condition met" in await asyncio.to_thread(run, *shlex.split(wait), timeout=200)
    await asyncio.to_thread(forward, sockets)
    await asyncio.to_thread(forward, page)

    async with headless_chromium() as browser, chat_window(browser) as window:
        ada = await open_tab(window, PAGE, "Ada")
        bob = await open_tab(window, PAGE, "Bob")
        await talk_to(ada, "Bob")
        await say(ada, "Is anybody out there?")
        await expect(ada.locator("#log .msg-meta").last).to_contain_text("✓✓ delivered")
        await talk_to(bob, "Ada")
        await expect(bob.locator("#log .bubble")).to_have_text("Is anybody out there?")
        await say(bob, "Two port-forwards away.")
        await expect(ada.locator("#log .bubble").last).to_have_text("Two port-forwards away.")
        await expect(ada.locator("#servers .server")).to_have_count(3)
        await ada.screenshot(path=artifacts_folder() / "front-door.png")

        # The operator writes counters every 15 s at most.
        await eventually(lambda: _listing()["CONNECTIONS"] == "2", 60, "both tabs in the listing")
        columns = ["NAME", "DESIRED", "READY", "CONNECTIONS", "EPOCH", "STATUS", "AGE"]
        shown = _listing()
        assert list(shown) == columns
        assert [shown[name] for name in ("NAME", "DESIRED", "READY", "STATUS")] == ["chat", "3", "3", "Ready"]

    tested = await asyncio.to_thread(helm, "test", "chat", "--namespace", NAMESPACE, "--logs", "--timeout", "120s")
    assert "a WebSocket was opened with a token for ws://localhost:6001/ws" in tested
