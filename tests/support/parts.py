"""The unions of TrainConfig, walked; and what each part needs beside it to make a config that can be run."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from vae.serialization import from_dict, to_dict
from vae.train_config import TrainConfig

# What has no default, by the part's kind: a new part that needs something adds its line here.
REQUIRED: dict[str, dict[str, Any]] = {
    "milestones": {"epochs": [1]},
    "image_folder": {"path": "faces"},
    "arrays": {"path": "table.csv"},
}

# What a part asks of the rest of the config, by dotted path.
COMPANIONS: dict[str, dict[str, Any]] = {
    "bernoulli": {"data.binarisation": "static"},
    "cyclical": {"epochs": 4},
    "label_conditional": {"conditioning": {"kind": "label"}},
    "deterministic": {"objective": {"kind": "reconstruction"}},
    "reconstruction": {"posterior": {"kind": "deterministic"}},
    "resnet": {"network.channels": [4, 8], "network.dense": 8},
    "factor_vae": {"objective.hidden": [8]},
}

# Parts inside a part that is not the default: what has to stand there first.
INSIDE: dict[str, dict[str, Any]] = {
    "objective.optimizer": {"objective": {"kind": "factor_vae", "hidden": [8]}},
    "objective.sparsity": {
        "objective": {"kind": "reconstruction"},
        "posterior": {"kind": "deterministic", "activation": "sigmoid"},
    },
}

# A user's own part for each place that takes one.
OUTSIDE = Path(__file__).with_name("outside.py")
EXTERNAL = {"objective": "Tempered", "likelihood": "Probit", "network": "Linear", "data": "Stripes"}


def members(annotation: Any) -> tuple[type, ...]:
    """The parts that ``annotation`` may hold: those of a union, or the one; () where it holds no part."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        return tuple(part for choice in get_args(annotation) for part in members(choice))
    if dataclasses.is_dataclass(annotation):
        return (annotation,)  # type: ignore[return-value]
    return ()


def walk(owner: type = TrainConfig, path: str = "") -> dict[str, tuple[type, ...]]:
    """Every place in a config that holds a part, by dotted path, with the parts that it may hold."""
    places: dict[str, tuple[type, ...]] = {}
    for name, annotation in get_type_hints(owner, include_extras=True).items():
        here = f"{path}.{name}" if path else name
        if parts := members(annotation):
            places[here] = parts
            for part in parts:
                places |= walk(part, here)
    return places


def kinds() -> list[tuple[str, type]]:
    """(place, part) for every part with a kind, in every union."""
    return [(path, part) for path, parts in walk().items() for part in parts if "kind" in get_type_hints(part)]


def kind_of(part: type) -> str:
    """The name by which JSON chooses ``part``."""
    return str(get_args(get_type_hints(part)["kind"])[0])


def config_with(path: str, part: type, **changes: Any) -> TrainConfig:
    """A small config that has ``part`` at ``path``, and what the part needs elsewhere."""
    kind = kind_of(part)
    required = REQUIRED.get(kind, {})
    if kind == "external":
        required = {"path": f"{OUTSIDE}:{EXTERNAL[path]}"}
    values: dict[str, Any] = to_dict(TrainConfig())
    values |= {"epochs": 1, "batch_size": 8, "latent_size": 2, "network": {"kind": "mlp", "hidden": [4]}}
    for place, value in INSIDE.get(path, {}).items():
        _put(values, place, value)
    _put(values, path, {"kind": kind} | required)
    for place, value in COMPANIONS.get(kind, {}).items():
        _put(values, place, value)
    if path == "data" and kind != "external":  # counts, whatever the set's own default: the likelihood is binomial
        values["data"]["binarisation"] = "none"
    return from_dict(values | changes)


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        values = values[name]
    values[last] = value
