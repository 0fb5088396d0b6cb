"""Conversion of a TrainConfig to JSON and back, its hash, and readable error messages."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter, ValidationError

from vae.config import ConfigError, nearest
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

_ADAPTER = TypeAdapter(TrainConfig)
_DISCRIMINATOR = "kind"
_Schema = dict[str, Any]  # a JSON schema

# All fields that parts gained after version 0.1.0, as (class, field), with the value that a record without the field
# means. This is the behaviour of the code before the field existed. A field with that value or its default is left out of
# the hash, so that the hashes in earlier ledgers, checkpoints and records still match. Add every new field of a part of
# TrainConfig to this list.
LATER_FIELDS: dict[tuple[str, str], JsonValue | tuple[()]] = {
    ("Arrays", "reading"): 1,
    ("ImageFolder", "reading"): 1,
    ("ImageFolder", "background"): "white",
    ("Evaluation", "subset"): "first",
    ("TrainConfig", "metrics"): (),
}


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return ``config`` as JSON values. Every default is written out."""
    return cast("dict[str, Any]", _ADAPTER.dump_python(config, mode="json"))


def to_json(config: TrainConfig) -> str:
    """Return ``config`` as canonical JSON: sorted keys, no spaces. Equal configs give equal text."""
    return json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_hash(config: TrainConfig) -> str:
    """Return the SHA-256 of the canonical JSON, without those ``LATER_FIELDS`` that have their default or earlier value."""
    values = to_dict(config)
    _leave_out_later_fields(config, values)
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def from_record(values: object) -> TrainConfig:
    """Return the config that a ledger, a record or a model folder holds.

    Recorded configs have every field of the version that wrote them. A field that is missing was added later: it gets
    its value from ``LATER_FIELDS``, which may differ from today's default.

    Raises:
        ConfigError: As in :func:`from_json`.

    """
    config = from_dict(values)
    return config if not LATER_FIELDS else cast("TrainConfig", _with_earlier_values(config, values))


def in_sweep_of(config: TrainConfig, recorded: Mapping[str, Any]) -> TrainConfig:
    """Return ``config`` with the evaluation of the sweep that holds ``recorded``, the recorded values of another config.

    A sweep keeps the rules that it began with, because its rows are ranked together. An earlier version's space could
    not name the later fields of ``eval``. Where ``recorded`` lacks one, ``config`` gets its earlier value.
    """
    known = recorded.get("eval", {})
    earlier: dict[str, Any] = {
        name: value for (owner, name), value in LATER_FIELDS.items() if owner == "Evaluation" and name not in known
    }
    if not earlier:
        return config
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, **earlier))


def as_earlier(owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values``, the JSON of a part of class ``owner``, without later fields that hold their earlier value.

    This makes a config of an earlier version equal to the same config of this version.
    """
    return {
        name: value
        for name, value in values.items()
        if (owner, name) not in LATER_FIELDS or value != LATER_FIELDS[owner, name]
    }


def _leave_out_later_fields(value: object, json_value: JsonValue) -> None:
    """Delete from ``json_value``, the JSON of ``value``, every later field that is not hashed."""
    if dataclasses.is_dataclass(value) and isinstance(json_value, dict):
        for field in dataclasses.fields(value):
            held = getattr(value, field.name)
            owner = (type(value).__name__, field.name)
            if owner in LATER_FIELDS and (held == _default(field) or json_value[field.name] == LATER_FIELDS[owner]):
                del json_value[field.name]
            else:
                _leave_out_later_fields(held, json_value[field.name])
    elif isinstance(value, tuple | list) and isinstance(json_value, list):
        for entry, its_json in zip(value, json_value, strict=True):
            _leave_out_later_fields(entry, its_json)


def _with_earlier_values(value: object, json_value: object) -> object:
    """Return ``value`` with the earlier value in each later field that its JSON ``json_value`` lacks."""
    if dataclasses.is_dataclass(value) and isinstance(json_value, dict):
        changes: dict[str, object] = {}
        for field in dataclasses.fields(value):
            owner, held = (type(value).__name__, field.name), getattr(value, field.name)
            if field.name in json_value:
                changed: object = _with_earlier_values(held, json_value[field.name])
            else:
                changed = LATER_FIELDS.get(owner, held)
            if changed is not held:
                changes[field.name] = changed
        return dataclasses.replace(value, **changes) if changes and not isinstance(value, type) else value
    if isinstance(value, tuple) and isinstance(json_value, list):
        return tuple(_with_earlier_values(*pair) for pair in zip(value, json_value, strict=True))
    return value


def _default(field: dataclasses.Field[Any]) -> object:
    """Return the default of a dataclass's field; ``MISSING`` if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def from_json(text: str, *, recorded: bool = False) -> TrainConfig:
    """Return the config of the JSON ``text``. Missing keys get their defaults.

    ``recorded`` is True for text that this program wrote; see :func:`from_record`.

    Raises:
        ConfigError: The text is no valid config. The message is one line with path, value, rule and nearest valid name.

    """
    try:
        values = json.loads(text, object_pairs_hook=_refuse_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # integers of thousands of digits, or deeply nested brackets
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not JSON that can be read: {error}") from None
    return from_record(values) if recorded else from_dict(values)


def from_dict(values: object) -> TrainConfig:
    """Return the config of the JSON ``values``; see :func:`from_json`."""
    try:
        return _ADAPTER.validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def with_values(config: TrainConfig, assignments: Mapping[str, object]) -> TrainConfig:
    """Return ``config`` with JSON values set at dotted paths, e.g. ``{"objective.beta": 4}``.

    Another ``kind`` resets a part to its defaults. It is always set before the part's own keys.

    Raises:
        ConfigError: A path does not exist, or as in :func:`from_json`.

    """
    values = to_dict(config)
    kinds_first = sorted(assignments, key=lambda path: path.rpartition(".")[2] != _DISCRIMINATOR)
    for path in kinds_first:
        value = assignments[path]
        *parents, last = path.split(".")
        here = values
        for depth, name in enumerate(parents):
            if not isinstance(here.get(name), dict):
                where = _join(".".join(parents[:depth]), "")
                raise ConfigError(f"unknown key {path!r}: {nearest(name, here, prefix=where)}")
            here = here[name]
        if last == _DISCRIMINATOR and here.get(last) != value:
            here.clear()
        here[last] = value  # unknown keys are refused below
    return from_dict(values)


def explain(error: ValidationError) -> str:
    """Return one line for pydantic's first error: path, value, rule and remedy."""
    first = error.errors(include_url=False)[0]
    path, fields = _walk(first["loc"], error.title)
    path = path if len(path) <= 200 else f"{path[:197]}..."  # noqa: PLR2004 - about two lines
    value = first["input"]
    match first["type"]:
        case "unexpected_keyword_argument":
            parent, _, last = path.rpartition(".")
            return f"unknown key {path!r}: {nearest(last, fields, prefix=_join(parent, ''))}"
        case "union_tag_invalid":
            tags = [tag.strip("'") for tag in first["ctx"]["expected_tags"].split(", ")]
            kind = first["ctx"]["tag"]
            return (
                f"{_join(path, _DISCRIMINATOR)} must be one of {', '.join(tags)}, got {kind!r} ({nearest(kind, tags)})"
            )
        case "union_tag_not_found":
            return f"{_join(path, _DISCRIMINATOR)} is missing, got {_short(value)}"
        case "value_error":
            message = str(first["ctx"]["error"])
            return f"{path}: {message}" if path else message
        case "missing":
            return f"{path} is missing"
        case "too_short":
            return f"{path} must have at least {first['ctx']['min_length']} entries, got {_short(value)}"
        case "json_invalid":  # a lone surrogate, which Python's reader accepts
            return f"not JSON: {first['ctx']['error']}"
        case _:
            rule = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
            return f"{path or 'the config'} must be {rule}, got {_short(value)}"


def _walk(location: tuple[int | str, ...], owner: str) -> tuple[str, list[str]]:
    """Return the dotted path of pydantic's ``location`` without union tags, and the valid names at its last step.

    ``owner`` is the class that was being made. The path of a part that is made alone, as in a space, begins with its name.
    """
    schema: _Schema = _ADAPTER.json_schema()
    definitions = schema.get("$defs", {})

    def resolve(node: _Schema) -> _Schema:
        while "$ref" in node:
            node = definitions[node["$ref"].rpartition("/")[2]]
        return node

    alone = owner in definitions and owner != TrainConfig.__name__
    path = owner if alone else ""
    node = definitions[owner] if alone else resolve(schema)
    valid = list(node.get("properties", {}))
    for step in location:
        mapping = node.get("discriminator", {}).get("mapping", {})
        if isinstance(step, str) and step in mapping:
            node = resolve({"$ref": mapping[step]})
            valid = list(node.get("properties", {}))
            continue
        path = f"{path}[{step}]" if isinstance(step, int) else _join(path, step)
        properties = node.get("properties", {})
        valid = list(properties)
        node = resolve(properties.get(step, {})) if isinstance(step, str) else {}
    return path, valid


def _join(parent: str, name: str | int) -> str:
    return f"{parent}.{name}" if parent else str(name)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - about one line


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigError(f"key {_short(key)} appears twice; keep one")
        values[key] = value
    return values
