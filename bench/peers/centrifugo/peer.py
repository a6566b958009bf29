"""Centrifugo with its memory engine, and with its Redis engine and history, which is its form of a resume.

Users sign in with a JWT and are subscribed by the server: to a channel of everybody and to a personal one.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import secrets
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

from bench.cluster import free_ports, http_status
from bench.peers.base import Peer, Sent, order_talk, user
from bench.peers.centrifugo import build as program
from bench.procs import Child, Speaker
from bench.valkey import Valkey

EVERYONE = "everyone:all"
READY_SECONDS = 20
# What "resume" means with us: whoever was away for some minutes gets what was missed.
RESUME = {"history_size": 100, "history_ttl": "300s", "force_recovery": True}


class Centrifugo(Peer):
    """One node with the memory engine: no Redis, no history, no presence, the least that Centrifugo does."""

    name = "centrifugo"
    mode = "centrifugo"

    @classmethod
    def prepare(cls, *, build: bool) -> str | None:
        """Needs Go, once, to build it."""
        return program.build(allowed=build)

    async def engine(self, stack: AsyncExitStack) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings of the engine, and options of the channels."""
        return {"type": "memory"}, {}

    async def start(self, stack: AsyncExitStack) -> None:
        """Starts the nodes, for several of them one more that takes the API calls, and the sender."""
        self._secret, key = secrets.token_hex(16), secrets.token_hex(16)
        engine, channel = await self.engine(stack)
        self._ports = free_ports(self.nodes + (self.nodes > 1))
        nodes = []
        for index, port in enumerate(self._ports):
            name = f"{self.name}-{index}"
            config = self.folder / f"{name}.json"
            config.write_text(json.dumps(_settings(port, self._secret, key, engine, channel)))
            node = Child(name, [program.binary(), "-c", config], self.folder / f"{name}.log")
            nodes.append(await stack.enter_async_context(node))
        for node, port in zip(nodes, self._ports, strict=True):
            await _ready(node, port)
        self.servers = nodes[: self.nodes]
        self.senders = nodes[self.nodes :]
        command = [sys.executable, "-m", "bench.peers.centrifugo.sender", str(self._ports[-1])]
        log = self.folder / f"{self.name}-sender.log"
        environment = os.environ | {"BENCH_API_KEY": key}
        self._sender = await stack.enter_async_context(Speaker(f"{self.name}-sender", command, log, environment))
        await self._sender.hear("ready")

    def mint(self, first: int, count: int) -> list[str]:
        """The URL of the bidirectional protocol and the connect command with the user's JWT."""
        lines = []
        for index in range(first, first + count):
            token = _jwt(self._secret, {"sub": user(index), "channels": [EVERYONE]})
            command = json.dumps({"id": 1, "connect": {"token": token}}, separators=(",", ":"))
            port = self._ports[index % self.nodes]
            lines.append(f"ws://127.0.0.1:{port}/connection/websocket {command}")
        return lines

    async def shout(self, size: int, count: int) -> None:
        """One API request with `count` publications."""
        order = {"op": "shout", "channel": EVERYONE, "size": size, "count": count}
        await self._sender.ask(json.dumps(order), "sent")


class CentrifugoRedis(Centrifugo):
    """Nodes with the Redis engine, history and recovery on; the API has a node of its own, without clients."""

    name = "centrifugo-redis"
    clusters = True

    async def engine(self, stack: AsyncExitStack) -> tuple[dict[str, Any], dict[str, Any]]:
        """A Valkey of its own, and channels that remember."""
        valkey = await stack.enter_async_context(Valkey(self.folder, free_ports(1)[0], f"{self.name}-valkey"))
        self.redis = valkey
        return {"type": "redis", "redis": {"address": [valkey.url]}}, RESUME | {"presence": self.presence}

    async def talk(self, size: int, count: int, rate: float, users: int, patience: float) -> Sent:
        """Publications to personal channels, what is due at a time in one API request."""
        return await order_talk(self._sender, size, count, rate, users, patience)


def _settings(port: int, secret: str, key: str, engine: dict[str, Any], channel: dict[str, Any]) -> dict[str, Any]:
    """A node's configuration file; what is not named has Centrifugo's default."""
    personal = {"enabled": True, "personal_channel_namespace": "personal"}
    return {
        "http_server": {"address": "127.0.0.1", "port": port},
        "log": {"level": "warn"},
        "engine": engine,
        "client": {"token": {"hmac_secret_key": secret}, "subscribe_to_user_personal_channel": personal},
        "channel": {"namespaces": [{"name": "personal"} | channel, {"name": "everyone"} | channel]},
        "http_api": {"key": key},
        "health": {"enabled": True},
        "usage_stats": {"disabled": True},
        # Its own advice for many connections: a write buffer is borrowed for a write, not held by each connection.
        "websocket": {"use_write_buffer_pool": True},
    }


async def _ready(node: Child, port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        node.check_alive()
        if await http_status(port, "/health") == 200:
            return
        await asyncio.sleep(0.05)
    raise node.fail(f"was not ready within {READY_SECONDS} s")


def _jwt(secret: str, claims: dict[str, Any]) -> str:
    """A JSON Web Token with HMAC-SHA256 (RFC 7519, RFC 7515)."""
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    signed = b".".join(_base64(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return (signed + b"." + _base64(hmac.digest(secret.encode(), signed, hashlib.sha256))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
