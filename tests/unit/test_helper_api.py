# Locks the helper's public names, what they look like to a typed user, and that the blocking form is up to date.
# Nothing connects here.

import importlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import imhelper
import imhelper.sync
import imhelper.testing
import imhelper.testing.sync
from imhelper import errors

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    "ChanOnline",
    "ImError",
    "ImHelper",
    "InvalidIdError",
    "Limits",
    "MessageError",
    "NoServerError",
    "RedisUnavailableError",
    "SendEvent",
    "Server",
    "ServerEntry",
    "SettingError",
    "Subscription",
    "Topology",
    "TopologyError",
}
METHODS = {
    "clear_chan_client",
    "close",
    "disconnect",
    "event_bus",
    "get_chan_client_list",
    "get_chan_list",
    "get_chan_list_by_client_id",
    "get_chan_online",
    "get_client_list_by_online",
    "get_online_count",
    "has_online",
    "has_online_many",
    "iter_chan",
    "iter_online",
    "join_chan",
    "leave_chan",
    "on_send",
    "prev_connect_server",
    "send_chan_message",
    "send_message",
    "servers",
    "topology",
}


@pytest.mark.parametrize("module", [imhelper, imhelper.sync])
def test_public_names(module):
    assert set(module.__all__) == PUBLIC
    assert {name for name in dir(module.ImHelper) if not name.startswith("_")} == METHODS


@pytest.mark.parametrize("module", [imhelper.testing, imhelper.testing.sync])
def test_public_names_for_testing(module):
    assert set(module.__all__) == {"FakeImHelper", "Sent"}
    assert {n for n in dir(module.FakeImHelper) if not n.startswith("_")} == METHODS | {"available", "connect", "sent"}


def test_all_errors_are_of_one_tree_and_the_same_in_both_forms():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), imhelper.ImError)
        assert getattr(imhelper, name) is getattr(imhelper.sync, name) is getattr(errors, name)
    assert issubclass(imhelper.InvalidIdError, ValueError) and issubclass(imhelper.SettingError, ValueError)


def test_every_public_method_says_what_it_does():
    for module in (imhelper, imhelper.sync, imhelper.testing, imhelper.testing.sync):
        for name in module.__all__:
            assert getattr(module, name).__doc__, name
    for name in METHODS:
        assert getattr(imhelper.ImHelper, name).__doc__, name


def test_every_module_can_be_imported_alone():
    root = ROOT / "helper" / "src"
    for path in sorted((root / "imhelper").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        assert importlib.import_module(name).__doc__, name


def test_importing_the_blocking_form_starts_nothing():
    code = "import imhelper.sync, sys, threading; print(threading.active_count(), 'argparse' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split()[0] == "1"


def test_the_blocking_form_is_up_to_date():
    check = [sys.executable, str(ROOT / "tools" / "unasync.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_typed_user_gets_exact_types(tmp_path):
    user = tmp_path / "user.py"
    user.write_text(
        textwrap.dedent(
            """
            from collections.abc import AsyncIterator, Iterator
            from typing import assert_type

            from imhelper import ChanOnline, ImHelper, SendEvent, Server, Subscription, Topology
            from imhelper import sync
            from imhelper.testing import FakeImHelper, Sent
            from imhelper.testing.sync import FakeImHelper as BlockingFake

            def hook(event: SendEvent) -> None:
                assert_type(event.receivers, tuple[str, ...])

            async def use(im: ImHelper) -> None:
                assert_type(await im.prev_connect_server("a", avoid=None), str)
                assert_type(await im.send_message("a", ["b"], {"x": 1}, True, idempotency_key="k"), str)
                assert_type(await im.has_online_many(["a"]), dict[str, bool])
                assert_type(await im.get_chan_list(), list[ChanOnline])
                assert_type(await im.servers(), list[Server])
                assert_type(await im.topology(), Topology)
                assert_type(im.iter_online(), AsyncIterator[str])
                assert_type(await im.event_bus(lambda c, m: None, hook2), Subscription)
                im.on_send.append(hook)
                async with im as same:
                    assert_type(same, ImHelper)

            async def hook2(client_id: str, metadata: str) -> None: ...

            def block(im: sync.ImHelper) -> None:
                assert_type(im.send_chan_message("a", "c", b""), str)
                assert_type(im.join_chan("a", "c"), bool)
                assert_type(im.leave_chan("a", "c", "d"), int)
                assert_type(im.iter_chan("c"), Iterator[str])
                with im.event_bus(print, print, group="g") as running:
                    assert_type(running, sync.Subscription)

            async def fake() -> None:
                await use(FakeImHelper())
                assert_type(FakeImHelper().sent, list[Sent])
                block(BlockingFake())
            """
        )
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path), str(user)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
