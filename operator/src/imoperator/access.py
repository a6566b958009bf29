"""Reads what the spec refers to: Redis's address and secrets, and the values whose change must roll the servers.
Secrets stay in memory; what goes into a manifest is a digest that tells nothing but whether they are the same."""

from __future__ import annotations

import asyncio
import hashlib
import re
from functools import lru_cache

from .api import Api
from .model import Cluster, Ref
from .redis import Access
from .spec import FromSecret
from .workload import references

__all__ = ["MissingReference", "digests_of", "qualified", "read_access"]

_ADDRESS = re.compile(r"^([A-Za-z0-9+]+://)([^/?]*@)?([^/?@]*)(.*)$", re.DOTALL)
# Some 20 ms, once for each value.
ROUNDS = 50_000


class MissingReference(Exception):
    """A Secret, a ConfigMap or a key that the spec names is not there, or holds nothing that can be used."""


async def _read(api: Api, namespace: str, ref: Ref) -> bytes:
    found = await api.value(namespace, ref)
    if found is None:
        raise MissingReference(f"{ref.kind} {ref.name!r} with the key {ref.key!r} is not there")
    return found


async def _text(api: Api, namespace: str, source: FromSecret) -> str:
    try:
        return (await _secret(api, namespace, source)).decode().strip()
    except UnicodeDecodeError:
        ref = source.secret_key_ref
        # The error itself would tell a byte of the secret.
        raise MissingReference(f"Secret {ref.name!r} must hold text in UTF-8 under the key {ref.key!r}") from None


async def _secret(api: Api, namespace: str, source: FromSecret) -> bytes:
    ref = source.secret_key_ref
    return await _read(api, namespace, Ref("Secret", ref.name, ref.key))


def qualified(url: str, namespace: str) -> str:
    """A Redis URL as a pod of another namespace must write it: a host without a dot is a Service of `namespace`."""
    found = _ADDRESS.match(url)
    if found is None:
        return url
    scheme, user, hosts, rest = found.groups()
    named = []
    for address in hosts.split(","):
        host, colon, port = address.partition(":")
        local = host and host != "localhost" and "." not in host and not address.startswith("[")
        named.append(f"{host}.{namespace}.svc{colon}{port}" if local else address)
    return f"{scheme}{user or ''}{','.join(named)}{rest}"


async def read_access(api: Api, cluster: Cluster) -> Access:
    """How this cluster's Redis is reached. Raises MissingReference, also for a value that is no text."""
    redis, namespace = cluster.spec.redis, cluster.key.namespace
    url, password, ca, cert, key = redis.url or "", None, None, None, None
    if redis.url_from is not None:
        url = await _text(api, namespace, redis.url_from)
    if redis.password_from is not None:
        password = await _text(api, namespace, redis.password_from)
    if redis.tls is not None and redis.tls.ca_from is not None:
        ca = await _secret(api, namespace, redis.tls.ca_from)
    if redis.tls is not None and redis.tls.cert_from is not None:
        name = redis.tls.cert_from.secret_ref.name
        cert = await _read(api, namespace, Ref("Secret", name, "tls.crt"))
        key = await _read(api, namespace, Ref("Secret", name, "tls.key"))
    return Access(qualified(url, namespace), redis.prefix, redis.username, password, ca, cert, key)


async def digests_of(api: Api, cluster: Cluster) -> dict[Ref, str]:
    """A digest of each value that pods read only when they start.

    Its salt is the ImCluster's uid: a Secret that was deleted and made again with the same content changes nothing.
    """
    found: dict[Ref, str] = {}
    for ref in references(cluster.spec):
        value = await api.value(cluster.key.namespace, ref)
        if value is not None:
            found[ref] = await asyncio.to_thread(_digest, cluster.uid.encode(), value)
    return found


@lru_cache(maxsize=1024)
def _digest(salt: bytes, content: bytes) -> str:
    """Slow, since the salt is no secret: who may read the manifest shall not find out a password by trying many."""
    return hashlib.pbkdf2_hmac("sha256", content, salt, ROUNDS).hex()
