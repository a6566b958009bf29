"""From dataclasses to an OpenAPI schema as CRDs want it, and from a manifest to those dataclasses.
So the operator's types and the CRD have one source: each field carries its description and bounds as metadata."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

__all__ = ["At", "Rule", "at", "camel", "openapi", "parse", "rules_of"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule and the sentence that whoever breaks it gets."""

    rule: str
    message: str

    def to_schema(self) -> Json:
        """As it stands under x-kubernetes-validations."""
        return {"rule": self.rule, "message": self.message}


@dataclass(frozen=True, slots=True)
class At:
    """What a field may hold. Bounds are on the value, or on each item of a list when they begin with `item_`."""

    description: str
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    enum: tuple[str, ...] = ()
    min_items: int | None = None
    max_items: int | None = None
    item_max_length: int | None = None
    item_pattern: str | None = None
    item_named: bool = False
    max_properties: int | None = None
    list_type: str | None = None
    list_map_keys: tuple[str, ...] = ()
    free: bool = False
    rules: tuple[Rule, ...] = ()
    name: str | None = None
    format: str | None = None


def at(description: str, default: Any = MISSING, **bounds: Any) -> Any:
    """A dataclass field with its schema. A mutable default is given as a factory: `default=dict`."""
    metadata = {"schema": At(description, **bounds)}
    if callable(default) and default is not MISSING:
        return dataclasses.field(default_factory=default, metadata=metadata)
    if default is MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def camel(name: str) -> str:
    """`max_payload_bytes` → `maxPayloadBytes`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def rules_of(cls: type) -> tuple[Rule, ...]:
    """The CEL rules that stand on a whole object of this type."""
    found: tuple[Rule, ...] = getattr(cls, "RULES", ())
    return found


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _not_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (only,) = [a for a in get_args(hint) if a is not type(None)]
        return only
    return hint


def openapi(cls: type, description: str) -> Json:
    """The schema of a dataclass. Raises TypeError for a field whose type or bounds a CRD can't have."""
    properties: Json = {}
    required: list[str] = []
    for field in dataclasses.fields(cls):
        schema_at: At = field.metadata["schema"]
        name = schema_at.name or camel(field.name)
        properties[name] = _field(_not_none(_hints(cls)[field.name]), schema_at, f"{cls.__name__}.{field.name}")
        if field.default is not MISSING and field.default not in (None, ()):
            properties[name]["default"] = _plain(field.default)
        elif field.default_factory is not MISSING:
            default = field.default_factory()
            if is_dataclass(default):
                # Written out: the API server checks a default against the rules before it fills in nested ones.
                nested = properties[name]["properties"]
                properties[name]["default"] = {k: v["default"] for k, v in nested.items() if "default" in v}
        elif field.default is MISSING:
            required.append(name)
    schema: Json = {"type": "object", "description": description, "properties": properties}
    if required:
        schema["required"] = required
    if rules_of(cls):
        schema["x-kubernetes-validations"] = [r.to_schema() for r in rules_of(cls)]
    return schema


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _field(hint: Any, at_: At, where: str) -> Json:
    origin = get_origin(hint) or hint
    if is_dataclass(hint) and isinstance(hint, type):
        schema = openapi(hint, at_.description)
        if at_.rules:
            schema.setdefault("x-kubernetes-validations", []).extend(r.to_schema() for r in at_.rules)
        return schema
    schema = {"description": at_.description}
    if hint is bool:
        schema["type"] = "boolean"
    elif hint in (int, float):
        schema |= {"type": "integer" if hint is int else "number"}
        if at_.minimum is None or at_.maximum is None:
            raise TypeError(f"{where} has no bounds")
        schema |= {"minimum": at_.minimum, "maximum": at_.maximum}
        if hint is int:
            schema["format"] = "int64" if at_.maximum > 2**31 - 1 else "int32"
    elif hint is str:
        schema |= _string(at_, where)
    elif origin is tuple:
        schema |= _list(get_args(hint)[0], at_, where)
    elif origin is dict:
        schema |= _map(get_args(hint)[1], at_, where)
    else:
        raise TypeError(f"{where}: {hint} can't be in a CRD")
    if at_.rules:
        schema["x-kubernetes-validations"] = [r.to_schema() for r in at_.rules]
    return schema


def _string(at_: At, where: str) -> Json:
    schema: Json = {"type": "string"}
    if at_.enum:
        return schema | {"enum": list(at_.enum)}
    if at_.format:
        return schema | {"format": at_.format}
    if at_.max_length is None:
        raise TypeError(f"{where} has no bound on its length")
    schema["maxLength"] = at_.max_length
    if at_.min_length is not None:
        schema["minLength"] = at_.min_length
    if at_.pattern is not None:
        schema["pattern"] = at_.pattern
    return schema


def _list(item: Any, at_: At, where: str) -> Json:
    if at_.max_items is None:
        raise TypeError(f"{where} has no bound on its items")
    schema: Json = {"type": "array", "maxItems": at_.max_items}
    if at_.min_items is not None:
        schema["minItems"] = at_.min_items
    if is_dataclass(item) and isinstance(item, type):
        schema["items"] = openapi(item, f"One of {where.rpartition('.')[2].replace('_', ' ')}.")
    elif item is str:
        bounds = At("", max_length=at_.item_max_length, pattern=at_.item_pattern)
        schema["items"] = _string(bounds, where)
    else:
        schema["items"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        if at_.item_named:
            schema["items"] |= {"required": ["name"], "properties": {"name": {"type": "string", "maxLength": 253}}}
    if at_.list_type:
        schema["x-kubernetes-list-type"] = at_.list_type
    if at_.list_map_keys:
        schema["x-kubernetes-list-map-keys"] = list(at_.list_map_keys)
    return schema


def _map(value: Any, at_: At, where: str) -> Json:
    if at_.free:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if value is not str or at_.max_properties is None:
        raise TypeError(f"{where} must be a bounded map of strings")
    values = {"type": "string", "maxLength": at_.item_max_length or 4096}
    return {"type": "object", "maxProperties": at_.max_properties, "additionalProperties": values}


def parse(cls: type, manifest: Mapping[str, Any], where: str = "spec") -> Any:
    """The dataclass out of a manifest's object. What is absent takes its default; unknown fields are ignored.

    The API server has checked the bounds; this raises ValueError only for what no longer fits the types, which can
    be when a CRD of another release let it through.
    """
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        name = field.metadata["schema"].name or camel(field.name)
        if manifest.get(name) is None:
            if field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{where}.{name} is required")
            continue
        values[field.name] = _value(_not_none(hints[field.name]), manifest[name], f"{where}.{name}")
        pattern = field.metadata["schema"].pattern
        if pattern and isinstance(values[field.name], str) and not re.search(pattern, values[field.name]):
            raise ValueError(f"{where}.{name} must match {pattern}")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint) or hint
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be an object")
        return parse(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list")
        return tuple(_value(get_args(hint)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be an object")
        return dict(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where} must be of type {hint.__name__}")
    return value
