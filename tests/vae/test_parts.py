"""What every part promises, whatever it is: the unions of TrainConfig are walked, so a new part is tested by joining."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tests.support.parts import config_with, kind_of, kinds, walk
from tests.support.small import few_digits, noise_images, run
from vae.config import ConfigError
from vae.data import Digits, load_training
from vae.serialization import config_hash, from_dict, from_json, to_dict, to_json
from vae.train_config import TrainConfig

PARTS = kinds()
IDS = [f"{path}={kind_of(part)}" for path, part in PARTS]
# The sets that are no digits, as small noise of their own shape: channels, height, width, classes.
SHAPES = {
    "digits": (1, 8, 8, 10),
    "mnist": (1, 28, 28, 10),
    "fashion_mnist": (1, 28, 28, 10),
    "kmnist": (1, 28, 28, 10),
    "emnist": (1, 28, 28, 47),
    "cifar10": (3, 32, 32, 10),
    "svhn": (3, 32, 32, 10),
    "omniglot": (1, 28, 28, 12),
    "celeba": (3, 64, 64, 2),
    "image_folder": (3, 9, 7, 2),
    "arrays": (1, 1, 11, 2),
}


def data_for(config):
    """A few examples of the config's own set, or noise of its shape where it would have to be downloaded."""
    if isinstance(config.data, Digits):
        return few_digits(24, 12)
    if config.data.kind == "external":
        return load_training(config.data, None)
    channels, height, width, classes = SHAPES[config.data.kind]
    return noise_images((channels, height, width), classes=classes)


def test_the_unions_are_walked():
    """Every place that holds parts is found, nested ones too: what is below tests what there is."""
    places = walk()
    assert {
        "data",
        "network",
        "prior",
        "likelihood",
        "conditioning",
        "objective",
        "objective.beta_schedule",
        "optimizer",
        "schedule",
        "initialisation",
        "eval",
    } <= set(places)
    assert len(PARTS) >= 29
    # One kind may be in two places (both schedules have a constant), never twice in one.
    for path, parts in places.items():
        names = [kind_of(part) for place, part in PARTS if place == path]
        assert len(names) == len(set(names))
        assert len(parts) == 1 or len(names) == len(parts), f"{path}: a union is told apart by kind"


@pytest.mark.parametrize(("path", "part"), PARTS, ids=IDS)
def test_it_trains(path, part):
    """An epoch (or as many as it needs) on a few images ends with a finite held-out bound, or reconstruction."""
    config = config_with(path, part)
    rows, _ = run(config, data_for(config))
    assert len(rows) == config.epochs
    assert math.isfinite(rows[0]["val/elbo" if config.posterior.has_density else "val/reconstruction"])
    assert math.isfinite(rows[0]["train/loss"])


@pytest.mark.parametrize(("path", "part"), PARTS, ids=IDS)
def test_it_survives_json(path, part):
    """Written and read back, it is the same part in the same place, all defaults written out."""
    config = config_with(path, part)
    again = from_json(to_json(config))
    assert again == config
    assert config_hash(again) == config_hash(config)
    here, values = again, to_dict(config)
    for name in path.split("."):
        here, values = getattr(here, name), values[name]
    assert type(here) is part
    assert set(values) == {field.name for field in dataclasses.fields(part)}


@pytest.mark.parametrize(("path", "part"), PARTS, ids=IDS)
def test_it_refuses_an_unknown_key(path, part):
    """A key that the part doesn't have is refused by its path, and a misspelt one with the right name."""
    values = to_dict(config_with(path, part))
    here = values
    for name in path.split("."):
        here = here[name]
    right = dict(here)
    here["no_such_key"] = 1
    with pytest.raises(ConfigError, match=f"unknown key '{path}.no_such_key'"):
        from_dict(values)
    del here["no_such_key"]
    for name, value in right.items():
        if name == "kind":
            continue
        here[f"{name}x"] = value
        with pytest.raises(ConfigError) as refusal:
            from_dict(values)
        assert str(refusal.value) == f"unknown key '{path}.{name}x': did you mean '{path}.{name}'?"
        del here[f"{name}x"]
    assert from_dict(values) == config_with(path, part)


@pytest.mark.parametrize(("path", "part"), PARTS, ids=IDS)
def test_it_is_a_frozen_config_with_a_docstring(path, part):
    """A part can't change after it was checked, and says what it is."""
    config = config_with(path, part)
    for name in path.split("."):
        config = getattr(config, name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.kind = "other"
    assert part.__doc__
    assert not part.__doc__.startswith(f"{part.__name__}(")  # what dataclass would have made up


def test_parts_without_a_kind_refuse_an_unknown_key_too():
    """Initialisation and evaluation, which have no alternatives, and the config itself."""
    for path in ("initialisation", "eval"):
        with pytest.raises(ConfigError, match=f"unknown key '{path}.no_such_key'"):
            from_dict({path: {"no_such_key": 1}})
    with pytest.raises(ConfigError, match="unknown key 'no_such_key'"):
        from_dict({"no_such_key": 1})
    assert from_dict({}) == TrainConfig()
