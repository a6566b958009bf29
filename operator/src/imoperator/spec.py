"""The spec of an ImCluster as types: the one source of the CRD's schema, its defaults, bounds and sentences.
`crd.py` generates the CRD from these classes; the operator reads manifests into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .exposure import IN_CLUSTER, PER_POD_PATH, SHARED, Exposure
from .schema import Rule, at, parse

__all__ = [
    "IN_CLUSTER",
    "PER_POD_PATH",
    "SHARED",
    "Drain",
    "Exposure",
    "KeyRef",
    "PodTemplate",
    "Redis",
    "Rollout",
    "Server",
    "Spec",
    "parse_spec",
]

_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_KEY = r"^[-._a-zA-Z0-9]+$"


@dataclass(frozen=True, slots=True)
class KeyRef:
    """A key of a Secret of the same namespace."""

    name: str = at("Name of the Secret, in the namespace of the ImCluster.", max_length=253, min_length=1)
    key: str = at("Key in the Secret.", max_length=253, min_length=1)


@dataclass(frozen=True, slots=True)
class FromSecret:
    """A value that is held by a Secret."""

    secret_key_ref: KeyRef = at("Where the value is.")


@dataclass(frozen=True, slots=True)
class SecretName:
    """A whole Secret of the same namespace."""

    name: str = at("Name of the Secret, in the namespace of the ImCluster.", max_length=253, min_length=1)


@dataclass(frozen=True, slots=True)
class FromTlsSecret:
    """A certificate and its key, in a Secret of type kubernetes.io/tls."""

    secret_ref: SecretName = at("The Secret; it holds tls.crt and tls.key.")


@dataclass(frozen=True, slots=True)
class RedisTls:
    """TLS towards Redis; the scheme of the URL (rediss://) turns it on."""

    ca_from: FromSecret | None = at("The authority that signed Redis's certificate (PEM).", None)
    cert_from: FromTlsSecret | None = at("The certificate with which servers and operator log in.", None)


@dataclass(frozen=True, slots=True)
class Redis:
    """How servers and operator reach Redis. Secrets are mounted, so that a rotation rolls nothing."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.url) != has(self.urlFrom)", "must be given by exactly one of url and urlFrom"),
        Rule(
            "!has(self.tls) || !has(self.url) || self.url.startsWith('rediss')",
            "must be with a url that begins with rediss when there is tls",
        ),
    )

    url: str | None = at(
        "Address of Redis: redis://, rediss://, or with +sentinel or +cluster. A password does not belong here.",
        None,
        max_length=2048,
        rules=(
            Rule(
                "self.matches('^(rediss?([+](sentinel|cluster))?|sentinel|cluster)://[^ ]+$')",
                "must be a URL like redis://host:6379, rediss://, redis+sentinel:// or redis+cluster://",
            ),
            Rule(
                "!self.matches('^[a-z+]+://[^/@]*:[^/@]+@')",
                "must be without a password: put it into a Secret and name that in passwordFrom or urlFrom",
            ),
            Rule(
                "!self.matches('[?&]sentinel_password=')",
                "must be without the Sentinels' password: put the URL into a Secret and name that in urlFrom",
            ),
            Rule(
                "!self.matches('^[a-z+]*sentinel://') || self.matches('^[a-z+]+://[^/?]+/[^/?]+')",
                "must be with the service that Sentinel monitors, like redis+sentinel://host/SERVICE",
            ),
        ),
    )
    url_from: FromSecret | None = at("Address of Redis, held by a Secret. A changed value rolls the servers.", None)
    username: str | None = at("User name at Redis (ACL).", None, max_length=128, min_length=1)
    password_from: FromSecret | None = at("Password at Redis. It is read again at each connection.", None)
    tls: RedisTls | None = at("Certificates for rediss://.", None)
    prefix: str = at(
        "Prefix of all keys. One prefix belongs to one ImCluster for ever.",
        "im",
        max_length=63,
        rules=(
            Rule(
                "self.matches('^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$')",
                "must be letters, digits, '-', '_' or '.', and begin and end with a letter or a digit",
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class Server:
    """Settings of the servers (environment of imserver, see contract part 5). A change rolls the servers."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("self.graceSeconds < self.retainSeconds", "must be with graceSeconds less than retainSeconds"),
    )

    max_connections: int = at("WebSockets a server takes; more get 503.", 18000, minimum=1, maximum=1000000)
    max_sockets_per_client: int = at(
        "WebSockets one client may hold; the oldest is closed.", 16, minimum=1, maximum=1000
    )
    max_payload_bytes: int = at("The largest message, in bytes.", 65536, minimum=1, maximum=16777216)
    ping_seconds: float = at("Time between two pings of a WebSocket, in seconds.", 25.0, minimum=1, maximum=3600)
    grace_seconds: float = at(
        "How long a client without a WebSocket still counts as online, in seconds.", 10.0, minimum=0, maximum=3600
    )
    lease_seconds: float = at(
        "How long a silent server still counts as alive, in seconds.", 5.0, minimum=1, maximum=300
    )
    retain_seconds: float = at("How long messages are kept for `since`, in seconds.", 60.0, minimum=1, maximum=86400)
    retain_entries: int = at("How many messages a slot keeps for `since`.", 10000, minimum=1, maximum=10000000)
    retain_bytes: int = at(
        "How many bytes of messages a slot keeps for `since`.", 16777216, minimum=65536, maximum=17179869184
    )
    buffer_bytes: int = at(
        "How much may wait to be written to one WebSocket, in bytes.", 262144, minimum=4096, maximum=1073741824
    )
    log_level: str = at("How much the servers log.", "info", enum=("debug", "info", "warning", "error"))
    log_format: str = at("How the servers log.", "json", enum=("text", "json"))
    allowed_origins: tuple[str, ...] = at(
        "Origins whose pages may connect, like https://example.org; empty allows all.",
        (),
        max_items=64,
        item_max_length=255,
        list_type="set",
        rules=(
            Rule(
                "self.all(o, o == '*' || o.matches('^https?://[^/ ,]+$'))",
                "must be origins like https://example.org, or *",
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class Drain:
    """How fast clients are moved away from a server that leaves."""

    sockets_per_second: float = at(
        "WebSockets moved a second; more when the timeout would not do.",
        200.0,
        minimum=0.1,
        maximum=1000000,
        # The API server compares a whole number with the whole part of the minimum.
        rules=(Rule("self >= 0.1", "must be at least 0.1"),),
    )
    timeout_seconds: int = at(
        "After this time, in seconds, what is still connected is closed.", 300, minimum=1, maximum=86400
    )


@dataclass(frozen=True, slots=True)
class Rollout:
    """How changed servers replace the old ones."""

    max_surge: int = at("Servers started in addition for the time of a roll-out.", 1, minimum=0, maximum=10)
    progress_deadline_seconds: int = at(
        "After this time, in seconds, a new server that is not ready stops the roll-out.",
        600,
        minimum=10,
        maximum=86400,
    )
    paused: bool = at("Hold roll-outs: no further server is drained or replaced.", False)


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """What is added to the servers' pods. A change rolls the servers."""

    labels: dict[str, str] = at("Further labels.", dict, max_properties=64, item_max_length=63)
    annotations: dict[str, str] = at("Further annotations.", dict, max_properties=64, item_max_length=65536)
    resources: dict[str, Any] = at("Requests and limits of the server's container, as in a Pod.", dict, free=True)
    affinity: dict[str, Any] | None = at("Instead of preferring different nodes; as in a Pod.", None, free=True)
    tolerations: tuple[dict[str, Any], ...] = at("As in a Pod.", (), max_items=64)
    node_selector: dict[str, str] = at("As in a Pod.", dict, max_properties=64, item_max_length=63)
    topology_spread_constraints: tuple[dict[str, Any], ...] = at(
        "Instead of spreading over nodes; as in a Pod.", (), max_items=16
    )
    priority_class_name: str | None = at("As in a Pod.", None, max_length=253)
    env: tuple[dict[str, Any], ...] = at(
        "Further environment of the server's container. What it takes from Secrets and ConfigMaps rolls the servers "
        "when it changes.",
        (),
        max_items=128,
        item_named=True,
        rules=(
            Rule(
                "self.all(e, !e.name.startsWith('IM_'))",
                "must be with names that do not begin with IM_: those have fields of their own",
            ),
        ),
    )
    volumes: tuple[dict[str, Any], ...] = at("Further volumes, as in a Pod.", (), max_items=32)
    volume_mounts: tuple[dict[str, Any], ...] = at("Where the volumes are mounted.", (), max_items=32)


@dataclass(frozen=True, slots=True)
class Spec:
    """The desired state of an ImCluster."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.replicas <= self.exposure.maxOrdinals",
            "must be with replicas at most exposure.maxOrdinals",
        ),
    )

    redis: Redis = at("How Redis is reached.")
    replicas: int = at("How many servers run. The operator never writes it.", 1, minimum=0, maximum=1000)
    image: str | None = at(
        "Image of the servers; by default the operator's own choice.", None, max_length=1024, min_length=1
    )
    image_pull_policy: str | None = at(
        "When the image is pulled; by default the operator's own choice.",
        None,
        enum=("Always", "IfNotPresent", "Never"),
    )
    image_pull_secrets: tuple[SecretName, ...] = at("Secrets for pulling the image.", (), max_items=16)
    slots: int = at(
        "Into how many parts the clients are divided.",
        128,
        minimum=16,
        maximum=1024,
        rules=(Rule("self in [16, 32, 64, 128, 256, 512, 1024]", "must be a power of two from 16 to 1024"),),
    )
    server: Server = at("Settings of the servers.", Server)
    exposure: Exposure = at("How clients reach the servers.", Exposure)
    drain: Drain = at("How clients are moved away from a server that leaves.", Drain)
    rollout: Rollout = at("How changed servers replace the old ones.", Rollout)
    pod_template: PodTemplate = at("What is added to the servers' pods.", PodTemplate)


def parse_spec(manifest: Mapping[str, Any]) -> Spec:
    """The spec of an ImCluster's manifest. Raises ValueError for what does not fit this release's types."""
    spec: Spec = parse(Spec, manifest)
    return spec
