"""TrainConfig to JSON and back, its hash, and refusals worded for people."""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from vae.config import ConfigError, nearest
from vae.train_config import TrainConfig

_ADAPTER = TypeAdapter(TrainConfig)
_DISCRIMINATOR = "kind"


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """``config`` as JSON values, every default written out."""
    return cast("dict[str, Any]", _ADAPTER.dump_python(config, mode="json"))


def to_json(config: TrainConfig) -> str:
    """Canonical JSON: sorted keys, no spaces. Equal configs give equal text."""
    return json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_hash(config: TrainConfig) -> str:
    """sha256 of the canonical JSON."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()


def from_json(text: str) -> TrainConfig:
    """The config that ``text`` says. Keys left out take their defaults.

    Raises:
        ConfigError: one line with path, value, rule and nearest valid name.

    """
    try:
        values = json.loads(text, object_pairs_hook=_refuse_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # an integer of thousands of digits, brackets nested as deep
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not JSON that can be read: {error}") from None
    return from_dict(values)


def from_dict(values: object) -> TrainConfig:
    """The config that JSON ``values`` say; see :func:`from_json`."""
    try:
        return _ADAPTER.validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def with_values(config: TrainConfig, assignments: dict[str, Any]) -> TrainConfig:
    """``config`` with JSON values put at dotted paths, e.g. ``{"objective.beta": 4}``.

    Setting a part's ``kind`` starts that part from its defaults; it comes before the part's own keys, in
    whatever order they are given. Raises ConfigError as :func:`from_json` does.
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
        here[last] = value  # a key that the part doesn't have is refused with the rest, below
    return from_dict(values)


def explain(error: ValidationError) -> str:
    """One line for the first thing that pydantic found wrong: path, value, rule, remedy."""
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
        case "json_invalid":  # a lone surrogate, which Python's reader lets through
            return f"not JSON: {first['ctx']['error']}"
        case _:
            rule = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
            return f"{path or 'the config'} must be {rule}, got {_short(value)}"


def _walk(location: tuple[int | str, ...], owner: str) -> tuple[str, list[str]]:
    """The dotted path of pydantic's ``location`` without union tags, and the names valid at its last step.

    ``owner``: the class that was being made. A part made by itself, as a space does, is where its path begins.
    """
    schema: dict[str, Any] = _ADAPTER.json_schema()
    definitions = schema.get("$defs", {})

    def resolve(node: dict[str, Any]) -> dict[str, Any]:
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


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigError(f"key {_short(key)} appears twice; keep one")
        values[key] = value
    return values
