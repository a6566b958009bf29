"""How clients reach the servers, as the part of an ImCluster's spec that says so.
`spec.py` holds the rest; `routes.py` makes Services, Ingresses and URLs of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .schema import Rule, at

__all__ = ["IN_CLUSTER", "PER_POD_PATH", "SHARED", "Exposure"]

IN_CLUSTER, SHARED, PER_POD_PATH = "InCluster", "Shared", "PerPodPath"


@dataclass(frozen=True, slots=True)
class ExposureTls:
    """Whether clients connect by wss, and with which certificate the Ingress does so."""

    enabled: bool = at("Whether URLs begin with wss://.", True)
    secret_name: str | None = at(
        "Secret with the certificate for the Ingress; without it the Ingress controller's own is used.",
        None,
        max_length=253,
    )


@dataclass(frozen=True, slots=True)
class ParentRef:
    """A Gateway that carries the routes."""

    name: str = at("Name of the Gateway.", max_length=253, min_length=1)
    namespace: str | None = at("Namespace of the Gateway; by default the ImCluster's.", None, max_length=63)
    section_name: str | None = at("Listener of the Gateway.", None, max_length=253)


@dataclass(frozen=True, slots=True)
class Gateway:
    """Routes of the Gateway API instead of an Ingress: one HTTPRoute a pod."""

    parent_refs: tuple[ParentRef, ...] = at("The Gateways that carry the routes.", min_items=1, max_items=8)


@dataclass(frozen=True, slots=True)
class Service:
    """The Service (or, with PerPodPath, the Services) that clients come through."""

    type: str = at("Type of the Service.", "ClusterIP", enum=("ClusterIP", "NodePort", "LoadBalancer"))
    annotations: dict[str, str] = at("Annotations of the Service.", dict, max_properties=64)
    external_traffic_policy: str | None = at(
        "Whether traffic from outside stays on its node.", None, enum=("Cluster", "Local")
    )


@dataclass(frozen=True, slots=True)
class Exposure:
    """How clients reach the servers, and so what their URLs are."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.type != 'PerPodPath' || has(self.host)",
            "must be with a host when the type is PerPodPath",
        ),
        Rule(
            "self.type != 'Shared' || has(self.host) || has(self.urlTemplate)",
            "must be with a host or a urlTemplate when the type is Shared",
        ),
        Rule(
            "!has(self.gateway) || !has(self.ingressClassName)",
            "must be with either a gateway or an ingressClassName, not both",
        ),
        Rule(
            "!has(self.gateway) || self.type == 'PerPodPath'",
            "must be of type PerPodPath to be carried by a gateway",
        ),
        Rule(
            "self.type != 'PerPodPath' || !has(self.urlTemplate) || self.urlTemplate.contains('{ordinal}') "
            "|| self.urlTemplate.contains('{pod}') || self.urlTemplate.contains('{nodePort}')",
            "must be with a urlTemplate that holds {ordinal}, {pod} or {nodePort} when the type is PerPodPath",
        ),
        Rule(
            "!has(self.urlTemplate) || !self.urlTemplate.contains('{host}') || has(self.host)",
            "must be with a host when the urlTemplate holds {host}",
        ),
        Rule(
            "!has(self.urlTemplate) || !self.urlTemplate.contains('{nodePort}') "
            "|| has(self.service) && has(self.service.type) && self.service.type != 'ClusterIP'",
            "must be with a service.type of NodePort or LoadBalancer when the urlTemplate holds {nodePort}",
        ),
    )

    type: str = at(
        "InCluster: each pod by its name, inside the cluster. Shared: one Service, any pod serves any client. "
        "PerPodPath: one path a pod, through an Ingress or a Gateway.",
        IN_CLUSTER,
        enum=(IN_CLUSTER, SHARED, PER_POD_PATH),
    )
    host: str | None = at(
        "Host name in the clients' URLs.",
        None,
        max_length=253,
        rules=(
            Rule(
                "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
                "must be a host name in lower case, like chat.example.org",
            ),
        ),
    )
    path: str | None = at(
        "Path before the ordinal or /ws; by default /NAMESPACE/NAME with PerPodPath and nothing with Shared.",
        None,
        max_length=255,
        rules=(
            Rule(
                "self.matches('^(/[A-Za-z0-9._~-]+)+$')",
                "must be a path like /chat, without a slash at its end",
            ),
        ),
    )
    tls: ExposureTls = at("Encryption between clients and the Ingress or Gateway.", ExposureTls)
    ingress_class_name: str | None = at(
        "Class of the Ingress. With Shared an Ingress is made only if this is set.", None, max_length=253, min_length=1
    )
    gateway: Gateway | None = at("Use routes of the Gateway API instead of an Ingress.", None)
    service: Service = at("The Service that clients come through.", Service)
    max_ordinals: int = at(
        "Pods for which PerPodPath writes paths in advance, so that scaling never edits the Ingress.",
        64,
        minimum=1,
        maximum=1000,
    )
    annotations: dict[str, str] = at("Annotations of the Ingress or the routes.", dict, max_properties=64)
    url_template: str | None = at(
        "URL of a server instead of the one that the type gives; knows {namespace} {name} {pod} {ordinal} {host} "
        "{nodePort}.",
        None,
        max_length=1024,
        rules=(
            Rule(
                "self.matches('^wss?://[^ ?#]+/ws$')",
                "must be a URL that begins with ws:// or wss:// and ends with /ws",
            ),
            Rule(
                "self.replace('{namespace}', '').replace('{name}', '').replace('{pod}', '').replace('{ordinal}', '')"
                ".replace('{host}', '').replace('{nodePort}', '').matches('^[^{}]*$')",
                "must be with no other placeholders than {namespace} {name} {pod} {ordinal} {host} {nodePort}",
            ),
        ),
    )
