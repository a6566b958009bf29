"""Generates the CustomResourceDefinition from the typed spec: `python -m imoperator crd` prints it.
The chart's template is this text; a test fails when the two differ."""

from __future__ import annotations

from typing import Any

import yaml

from .names import GROUP, KIND, PLURAL, SHORT, SINGULAR, VERSION
from .schema import openapi
from .spec import Spec

__all__ = ["chart_template", "crd", "crd_yaml"]

Json = dict[str, Any]


def _string(description: str, length: int = 1024, **more: Any) -> Json:
    return {"type": "string", "description": description, "maxLength": length, **more}


def _count(description: str, most: int = 2**31 - 1) -> Json:
    return {"type": "integer", "format": "int64", "description": description, "minimum": 0, "maximum": most}


def _condition() -> Json:
    return {
        "type": "object",
        "description": "What is true about the cluster.",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": _string("Ready, Progressing or Degraded.", 316),
            "status": {"type": "string", "description": "Whether it is so.", "enum": ["True", "False", "Unknown"]},
            "reason": _string("One word for programs.", 1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
            "message": _string("A sentence for people.", 32768),
            "lastTransitionTime": {
                "type": "string",
                "format": "date-time",
                "description": "When the status changed last.",
            },
            "observedGeneration": _count("The generation of the spec that this is about.", 2**53),
        },
    }


def _server() -> Json:
    return {
        "type": "object",
        "description": "One server.",
        "required": ["name", "state"],
        "properties": {
            "name": _string("Name of the pod.", 253),
            "url": _string("URL that clients get.", 2048),
            "state": {
                "type": "string",
                "description": "active: gets clients; draining: its clients are moved away; absent: not in the table.",
                "enum": ["active", "draining", "absent"],
            },
            "connections": _count("WebSockets that it holds, at most 15 s old."),
            "slots": _count("Slots that the table gives it.", 1024),
        },
    }


def _status() -> Json:
    return {
        "type": "object",
        "description": "The observed state, written by the operator.",
        "properties": {
            "observedGeneration": _count("The generation of the spec that the operator has acted on.", 2**53),
            "replicas": _count("Pods that exist."),
            "readyReplicas": _count("Pods that are ready."),
            "selector": _string("Selector of the pods, for autoscalers.", 1024),
            "epoch": _count("Version of the table in force.", 2**53),
            "connections": _count("WebSockets of all servers, at most 15 s old.", 2**53),
            "servers": {
                "type": "array",
                "description": "The servers by name.",
                "maxItems": 1100,
                "items": _server(),
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
            "conditions": {
                "type": "array",
                "description": "Ready, Progressing and Degraded.",
                "maxItems": 16,
                "items": _condition(),
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        },
    }


def _immutable(path: str, field: str, default: str, what: str) -> Json:
    new, old = f"self.{path}", f"oldSelf.{path}"
    holder = path.rpartition(".")[0]
    at_new, at_old = f"has(self.{holder}) && has({new})", f"has(oldSelf.{holder}) && has({old})"
    rule = f"({at_new} ? {new} : {default}) == ({at_old} ? {old} : {default})"
    return {"rule": rule, "message": f"must be left as it is: {what} can't change after creation", "fieldPath": field}


def _columns() -> list[Json]:
    def column(name: str, path: str, type_: str, priority: int = 0) -> Json:
        return {"name": name, "jsonPath": path, "type": type_} | ({"priority": priority} if priority else {})

    return [
        column("Desired", ".spec.replicas", "integer"),
        column("Ready", ".status.readyReplicas", "integer"),
        column("Connections", ".status.connections", "integer"),
        column("Epoch", ".status.epoch", "integer"),
        column("Status", '.status.conditions[?(@.type=="Ready")].reason', "string"),
        column("Age", ".metadata.creationTimestamp", "date"),
        column("Message", '.status.conditions[?(@.type=="Ready")].message', "string", 1),
    ]


def crd() -> Json:
    """The CustomResourceDefinition as a manifest."""
    root = {
        "type": "object",
        "description": "A cluster of imservers: WebSocket servers that push messages to clients.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "imcluster.io/v1"},
            "kind": {"type": "string", "description": "ImCluster"},
            "metadata": {"type": "object"},
            "spec": openapi(Spec, "The desired state."),
            "status": _status(),
        },
        "x-kubernetes-validations": [
            _immutable("spec.slots", ".spec.slots", "128", "slots"),
            _immutable("spec.redis.prefix", ".spec.redis.prefix", "'im'", "redis.prefix"),
            {
                "rule": "self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "message": "must be named by at most 52 lower-case letters, digits and '-', beginning with a letter",
            },
        ],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": _columns(),
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "schema": {"openAPIV3Schema": root},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def crd_yaml() -> str:
    """The CustomResourceDefinition as YAML."""
    text: str = yaml.safe_dump(crd(), sort_keys=False, width=110, allow_unicode=True)
    return text


def chart_template() -> str:
    """The CustomResourceDefinition as the chart's template: optional, and kept when the chart is uninstalled."""
    manifest = crd()
    manifest["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    text: str = yaml.safe_dump(manifest, sort_keys=False, width=110, allow_unicode=True)
    head = "{{- /* Generated by `python -m imoperator crd --chart` from the operator's typed spec; don't edit. */ -}}\n"
    return f"{head}{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n"
