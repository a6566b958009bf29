# The CRD comes from the operator's types, and the chart's copy of it can't drift; bounds agree with the servers' own.

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from imoperator.crd import chart_template, crd
from imoperator.schema import At, at, camel, openapi, parse
from imoperator.spec import Server, Spec, parse_spec
from imserver.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_the_charts_crd_is_the_generated_one():
    committed = (ROOT / "charts" / "imcluster" / "templates" / "crd.yaml").read_text()
    assert committed == chart_template(), "run: python -m imoperator crd --chart > charts/imcluster/templates/crd.yaml"


def _walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _walk(inner, f"{path}.{name}")
    if "items" in schema:
        yield from _walk(schema["items"], f"{path}[]")


@pytest.mark.parametrize(("path", "schema"), [(p, s) for p, s in _walk(SCHEMA) if p], ids=lambda v: str(v)[:60])
def test_every_field_is_described_and_bounded(path, schema):
    if path in (".metadata", ".apiVersion", ".kind") or (
        path.startswith(".spec.podTemplate") and path.endswith(("[]", "[].name"))
    ):
        return
    if not path.endswith("[]"):
        assert schema.get("description"), path
    kind = schema["type"]
    if kind == "string":
        assert "maxLength" in schema or "enum" in schema or schema.get("format") == "date-time", path
    elif kind in ("integer", "number"):
        assert "minimum" in schema and "maximum" in schema, path
    elif kind == "array":
        assert "maxItems" in schema, path


def test_rules_speak_in_sentences_that_say_what_must_be():
    rules = [r for _, s in _walk(SCHEMA) for r in s.get("x-kubernetes-validations", ())]
    assert len(rules) > 15
    assert all(r["message"].startswith("must be ") for r in rules)


def test_the_servers_settings_have_the_same_names_bounds_and_defaults_as_in_imserver():
    properties = SCHEMA["properties"]["spec"]["properties"]["server"]["properties"]
    defaults = load_settings({"IM_SERVER_NAME": "x", "IM_URL": "ws://x/ws"})
    for field in fields(Server):
        schema = properties[camel(field.name)]
        if field.name not in ("log_format", "allowed_origins"):
            assert schema["default"] == getattr(defaults, field.name), field.name
        for bound in ("minimum", "maximum"):
            if bound in schema:
                load_settings({f"IM_{field.name.upper()}": str(schema[bound])} | _room(field.name))


def _room(name: str) -> dict[str, str]:
    """Grace must be shorter than the retention, whatever is tried."""
    others = {
        "grace_seconds": {"IM_RETAIN_SECONDS": "86400"},
        "retain_seconds": {"IM_GRACE_SECONDS": "0"},
    }
    return {"IM_SERVER_NAME": "x", "IM_URL": "ws://x/ws"} | others.get(name, {})


def test_the_servers_settings_that_the_operator_does_not_set_itself_are_all_there():
    set_by_the_operator = {"redis_url", "redis_username", "redis_password_file", "redis_ca_file", "redis_cert_file"}
    set_by_the_operator |= {"redis_key_file", "prefix", "server_name", "url", "port", "admin_port", "slots"}
    set_by_the_operator |= {"drain_rate", "drain_timeout_seconds", "topology"}
    settings = load_settings({"IM_SERVER_NAME": "x", "IM_URL": "ws://x/ws"})
    names = set(type(settings).__dataclass_fields__) - set_by_the_operator
    assert names == {field.name for field in fields(Server)}


def test_a_manifest_is_read_with_its_defaults():
    spec = parse_spec({"redis": {"url": "redis://r"}, "server": {"graceSeconds": 3}, "unknown": 1})
    assert (spec.replicas, spec.slots, spec.redis.prefix, spec.server.grace_seconds) == (1, 128, "im", 3.0)
    assert spec.exposure.tls.enabled


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        ({}, "spec.redis is required"),
        ({"redis": "x"}, "spec.redis must be an object"),
        ({"redis": {}, "replicas": "3"}, "spec.replicas must be of type int"),
        ({"redis": {}, "replicas": True}, "spec.replicas must be of type int"),
        ({"redis": {}, "imagePullSecrets": {}}, "spec.imagePullSecrets must be a list"),
        ({"redis": {"urlFrom": {"secretKeyRef": {"name": "x"}}}}, "spec.redis.urlFrom.secretKeyRef.key is required"),
    ],
)
def test_what_another_releases_crd_let_through_is_told_in_one_sentence(manifest, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        parse(Spec, manifest)


def test_a_field_without_bounds_is_no_schema():
    from dataclasses import make_dataclass

    for kind in (int, str, tuple[str, ...], dict[str, str], bytes):
        cls = make_dataclass("Loose", [("field", kind, at("text"))])
        with pytest.raises(TypeError):
            openapi(cls, "loose")
    assert At("text").maximum is None
