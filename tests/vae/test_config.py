"""TrainConfig as JSON: round trips, a hash that means identity, and refusals that a person can act on."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.places import ROOT
from tests.support.strategies import train_configs
from vae.config import ConfigError
from vae.corruption import Masking
from vae.networks import Conv, Mlp
from vae.objectives import Cyclical
from vae.optimizers import Adam, Milestones
from vae.serialization import config_hash, from_dict, from_json, to_dict, to_json, with_values
from vae.train_config import TrainConfig


def shuffled(values, order):
    """The same JSON values with every object's keys in another order."""
    if isinstance(values, dict):
        items = [(key, shuffled(value, order)) for key, value in values.items()]
        order.shuffle(items)
        return dict(items)
    return [shuffled(value, order) for value in values] if isinstance(values, list) else values


def refusal(values):
    """The one line that refuses these JSON values, or this JSON text."""
    with pytest.raises(ConfigError) as caught:
        from_json(values) if isinstance(values, str) else from_dict(values)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    assert "pydantic" not in line
    return line


@settings(max_examples=150)
@given(train_configs())
def test_round_trip(config):
    """What is written is read back equal, with the same text and the same hash."""
    text = to_json(config)
    again = from_json(text)
    assert again == config
    assert to_json(again) == text
    assert config_hash(again) == config_hash(config)
    assert from_dict(to_dict(config)) == config
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


@settings(max_examples=50)
@given(train_configs(), st.randoms(use_true_random=False))
def test_the_hash_does_not_depend_on_the_order_of_keys(config, order):
    """Keys in any order are the same config and hash."""
    text = json.dumps(shuffled(to_dict(config), order))
    assert config_hash(from_json(text)) == config_hash(config)


@settings(max_examples=50)
@given(train_configs(), train_configs())
def test_the_hash_is_the_identity(one, other):
    """Equal configs have equal hashes, others others."""
    assert (one == other) == (config_hash(one) == config_hash(other))


METRIC = f"{ROOT / 'tests' / 'support' / 'metrics.py'}:sharpness"


def test_every_field_is_in_the_hash():
    """Changing any one leaf of a config changes its hash: nothing that is trained is left out."""
    base = to_dict(TrainConfig(network=Conv(), corruption=Masking(), gradient_clip=1.0, ema_decay=0.9))
    seen = {config_hash(from_dict(base))}
    changes = {
        "data.validation": 7,
        "data.split_seed": 1,
        "network.channels": [3],
        "network.kernel": 3,
        "network.dense": 7,
        "network.activation": "tanh",
        "network.normalisation": "group",
        "network.dropout": 0.5,
        "latent_size": 3,
        "objective.beta": 2,
        "objective.free_bits": 0.5,
        "optimizer.lr": 0.5,
        "optimizer.betas": [0.5, 0.5],
        "optimizer.eps": 1e-3,
        "optimizer.weight_decay": 0.5,
        "optimizer.amsgrad": True,
        "initialisation.weights": "xavier_normal",
        "initialisation.output_bias": "data_mean",
        "epochs": 3,
        "batch_size": 3,
        "gradient_clip": 2.0,
        "ema_decay": 0.5,
        "seed": 3,
        "precision": "bfloat16",
        "compile": True,
        "eval.seed": 3,
        "eval.samples": 3,
        "eval.batch_size": 3,
        "eval.nll_k": 3,
        "eval.nll_images": 3,
        "corruption.fraction": 0.5,
        "metrics": [{"kind": "external", "name": "mine", "path": METRIC, "direction": "minimize"}],
    }
    for path, value in changes.items():
        seen.add(config_hash(with_values(from_dict(base), {path: value})))
    assert len(seen) == len(changes) + 1
    untouched = set(leaves(base)) - set(changes)
    # What these depend on is another part's, and so are their changes.
    assert untouched == {
        "conditioning.kind",
        "corruption.kind",
        "data.binarisation",
        "data.dequantise",
        "data.kind",
        "likelihood.kind",
        "network.kind",
        "objective.beta_schedule.kind",
        "objective.kind",
        "eval.classified_samples",
        "eval.subset",  # added later: neither of its two values is hashed, see test_config_hash.py
        "optimizer.kind",
        "posterior.kind",
        "prior.kind",
        "schedule.kind",
    }


def leaves(values, path=""):
    """Dotted paths of what is no object."""
    for key, value in values.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from leaves(value, here)
        else:
            yield here


def test_whole_numbers_are_numbers():
    """``4`` and ``4.0`` are the same β; ``10.0`` is no number of epochs."""
    assert config_hash(from_json('{"objective": {"kind": "elbo", "beta": 4}}')) == config_hash(
        from_json('{"objective": {"kind": "elbo", "beta": 4.0}}')
    )
    assert refusal('{"epochs": 10.0}') == "epochs must be integer, got 10.0"


def test_the_empty_config_is_the_default():
    """Keys left out take their defaults."""
    assert from_json("{}") == TrainConfig()


def test_a_config_is_frozen():
    """Nothing can be changed after it was checked; a changed copy is checked again."""
    config = TrainConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="greater than 0"):
        dataclasses.replace(config, epochs=0)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"epocs": 3}', "unknown key 'epocs': did you mean 'epochs'?"),
        ('{"objective": {"kind": "elbo", "bta": 3}}', "unknown key 'objective.bta': did you mean 'objective.beta'?"),
        (
            '{"objective": {"kind": "elbo", "beta_schedule": {"kind": "cyclical", "cycle": 2}}}',
            "unknown key 'objective.beta_schedule.cycle': did you mean 'objective.beta_schedule.cycles'?",
        ),
        (
            '{"network": {"kind": "conv", "hidden": [3]}}',
            (
                "unknown key 'network.hidden': valid: network.activation, network.channels, network.dense, "
                "network.dropout, network.kernel, network.kind, network.normalisation"
            ),
        ),
        (
            '{"network": {"kind": "cnv"}}',
            "network.kind must be one of mlp, conv, resnet, external, got 'cnv' (did you mean 'conv'?)",
        ),
        ('{"optimizer": {"kind": "adam", "lr": "1e-3"}}', "optimizer.lr must be number, got '1e-3'"),
        ('{"epochs": true}', "epochs must be integer, got True"),
        ('{"epochs": "10"}', "epochs must be integer, got '10'"),
        ('{"epochs": null}', "epochs must be integer, got None"),
        ('{"epochs": 0}', "epochs must be greater than 0, got 0"),
        ('{"compile": 1}', "compile must be boolean, got 1"),
        ('{"seed": -1}', "seed must be greater than or equal to 0, got -1"),
        ('{"objective": {"kind": "elbo", "beta": -1}}', "objective.beta must be greater than or equal to 0, got -1"),
        ('{"objective": {"kind": "elbo", "beta": NaN}}', "objective.beta must be a finite number, got nan"),
        ('{"objective": {"kind": "elbo", "beta": Infinity}}', "objective.beta must be a finite number, got inf"),
        ('{"objective": {"kind": "elbo", "beta": 1e999}}', "objective.beta must be a finite number, got inf"),
        ('{"ema_decay": 1.0}', "ema_decay must be less than 1, got 1.0"),
        ('{"gradient_clip": 0}', "gradient_clip must be greater than 0, got 0"),
        ('{"eval": {"nll_k": 5001}}', "eval.nll_k must be less than or equal to 5000, got 5001"),
        ('{"network": {"kind": "mlp", "hidden": [400, 0]}}', "network.hidden[1] must be greater than 0, got 0"),
        ('{"network": {"kind": "mlp", "dropout": 1.0}}', "network.dropout must be less than 1, got 1.0"),
        ('{"network": {"kind": "conv", "kernel": 6}}', "network.kernel must be 3, 4 or 5, got 6"),
        (
            '{"schedule": {"kind": "milestones", "epochs": []}}',
            "schedule.epochs must have at least 1 entries, got []",
        ),
        ('{"schedule": {"kind": "milestones"}}', "schedule.epochs is missing"),
        ('{"schedule": {"factor": 1}}', "schedule.kind is missing, got {'factor': 1}"),
        ('{"precision": "float16"}', "precision must be 'float32' or 'bfloat16', got 'float16'"),
        ('{"epochs": 1, "epochs": 2}', "key 'epochs' appears twice; keep one"),
        ('{"eval": {"seed": 1, "seed": 1}}', "key 'seed' appears twice; keep one"),
        ("{", "not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        ("", "not JSON: Expecting value at line 1, column 1"),
        ("[]", "the config must be an object, got []"),
        ('{"network": 3}', "network must be an object, got 3"),
    ],
)
def test_what_is_refused_and_how(text, line):
    """One line says the path, the value, the rule, and the nearest valid name."""
    assert refusal(text) == line


@pytest.mark.parametrize(
    "text",
    [
        "1" * 5000,
        '{"epochs": ' + "1" * 5000 + "}",
        "[" * 100_000,
        '{"a\\ud800": 1}',
        '{"network": {"kind": "\\ud800"}}',
    ],
    ids=["long-number", "long-epochs", "deep", "surrogate-key", "surrogate-kind"],
)
def test_hostile_text_is_refused(text):
    """JSON that no reader can take is refused like any other mistake."""
    assert refusal(text).startswith("not JSON")


COMBINATIONS = [
    ({"likelihood": {"kind": "bernoulli"}}, "likelihood.kind 'bernoulli' needs data.binarisation"),
    (
        {"data": {"kind": "digits", "binarisation": "static"}},
        "likelihood.kind 'binomial' needs data.binarisation 'none'",
    ),
    ({"data": {"kind": "mnist"}}, "likelihood.kind 'binomial' needs data.binarisation 'none', got 'dynamic'"),
    (
        {"likelihood": {"kind": "gaussian"}, "data": {"kind": "digits", "binarisation": "expected"}},
        "likelihood.kind 'gaussian' needs data.binarisation 'none', got 'expected'",
    ),
    ({"data": {"kind": "digits", "dequantise": True}}, "data.dequantise needs a density, likelihood.kind 'gaussian'"),
    (
        {
            "data": {"kind": "digits", "dequantise": True, "binarisation": "static"},
            "likelihood": {"kind": "bernoulli"},
        },
        "data.dequantise needs a density",
    ),
    ({"prior": {"kind": "label_conditional"}}, "prior.kind 'label_conditional' needs conditioning.kind 'label'"),
    (
        {"objective": {"kind": "elbo", "beta_schedule": {"kind": "linear_warmup", "epochs": 11}}},
        "objective.beta_schedule.epochs must be at most epochs (10), got 11",
    ),
    (
        {"objective": {"kind": "elbo", "beta_schedule": {"kind": "cyclical", "cycles": 11}}},
        "objective.beta_schedule.cycles must be at most epochs (10), got 11",
    ),
    ({"data": {"kind": "digits", "validation": 0}, "eval": {"nll_k": 5}}, "eval.nll_k needs a validation split"),
    (
        {
            "data": {"kind": "digits", "binarisation": "expected"},
            "likelihood": {"kind": "bernoulli"},
            "eval": {"nll_k": 5},
        },
        "eval.nll_k needs a normalised likelihood",
    ),
    ({"optimizer": {"kind": "sgd", "nesterov": True}}, "optimizer: nesterov needs momentum > 0 and dampening = 0"),
    (
        {"optimizer": {"kind": "sgd", "nesterov": True, "momentum": 0.9, "dampening": 0.1}},
        "optimizer: nesterov needs momentum > 0 and dampening = 0",
    ),
]


@pytest.mark.parametrize(("values", "start"), COMBINATIONS, ids=[start[:50] for _, start in COMBINATIONS])
def test_combinations_that_mean_nothing(values, start):
    """Parts that don't go together are refused with the field that mends it, from JSON and from Python."""
    assert refusal(values).startswith(start)


@pytest.mark.parametrize(
    "values",
    [
        {"objective": {"kind": "elbo", "beta_schedule": {"kind": "linear_warmup", "epochs": 10}}},
        {"objective": {"kind": "elbo", "beta_schedule": {"kind": "cyclical", "cycles": 10}}},
        {"data": {"kind": "digits", "validation": 0}},
        {"data": {"kind": "digits", "dequantise": True}, "likelihood": {"kind": "gaussian"}},
        {"prior": {"kind": "label_conditional"}, "conditioning": {"kind": "label"}},
        {"optimizer": {"kind": "sgd", "nesterov": True, "momentum": 0.9}},
    ],
    ids=str,
)
def test_their_neighbours_are_allowed(values):
    """Each refused combination has a neighbour that means something."""
    from_dict(values)


def test_every_leaf_refuses_a_wrong_type():
    """A list where there is none, an object, or text for a number: refused with the path of the leaf."""
    base = to_dict(TrainConfig())
    for path in leaves(base):
        for wrong in ({"a": 1}, "nonsense", [["x"]]):
            values = json.loads(json.dumps(base))
            here = values
            *parents, last = path.split(".")
            for name in parents:
                here = here[name]
            here[last] = wrong
            line = refusal(values)
            # A kind that is no text is named by its part.
            assert path in line or (last == "kind" and ".".join(parents) in line), line


def test_with_values():
    """Dotted paths set single values and leave all others."""
    config = with_values(TrainConfig(), {"objective.beta": 4, "epochs": 3, "network.hidden": [5, 6]})
    assert config == dataclasses.replace(
        TrainConfig(),
        objective=dataclasses.replace(TrainConfig().objective, beta=4.0),
        epochs=3,
        network=Mlp(hidden=(5, 6)),
    )


def test_with_values_and_a_new_kind():
    """A new kind starts from its own defaults; its keys may be set with it, in any order; the same kind keeps all."""
    config = with_values(TrainConfig(), {"network.kind": "conv"})
    assert config.network == Conv()
    for assignments in (
        {"network.kind": "conv", "network.channels": [8, 16]},
        {"network.channels": [8, 16], "network.kind": "conv"},
    ):
        assert with_values(TrainConfig(), assignments).network == Conv(channels=(8, 16))
    needed = {"schedule.kind": "milestones", "schedule.epochs": [3]}
    assert with_values(TrainConfig(), needed).schedule == Milestones(epochs=(3,))
    nested = {"objective.beta_schedule.kind": "cyclical", "objective.beta_schedule.cycles": 2}
    assert with_values(TrainConfig(), nested).objective.beta_schedule == Cyclical(cycles=2)
    own = TrainConfig(optimizer=Adam(lr=0.5))
    assert with_values(own, {"optimizer.kind": "adam"}) == own


@pytest.mark.parametrize(
    ("assignments", "line"),
    [
        ({"objective.bta": 3}, "unknown key 'objective.bta': did you mean 'objective.beta'?"),
        ({"objectiv.beta": 3}, "unknown key 'objectiv.beta': did you mean 'objective'?"),
        ({"objective.beta": -1}, "objective.beta must be greater than or equal to 0, got -1"),
        ({"network.channels": [3]}, "unknown key 'network.channels': valid: network.activation, network.dec"),
        (
            {"objective.beta_shedule.epochs": 3},
            "unknown key 'objective.beta_shedule.epochs': did you mean 'objective.beta_sc",
        ),
        ({"network.hidden.0": 3}, "unknown key 'network.hidden.0': did you mean 'network.hidden'?"),
        ({"epochs.x": 3}, "unknown key 'epochs.x': did you mean 'epochs'?"),
        ({"schedule.kind": "milestones"}, "schedule.epochs is missing"),
        (
            {"network.kind": "cnv"},
            "network.kind must be one of mlp, conv, resnet, external, got 'cnv' (did you mean 'conv'?)",
        ),
        ({"likelihood.kind": "bernoulli"}, "likelihood.kind 'bernoulli' needs data.binarisation"),
    ],
    ids=str,
)
def test_with_values_refuses(assignments, line):
    """A misspelt path or an impossible value is refused like a whole config."""
    with pytest.raises(ConfigError) as caught:
        with_values(TrainConfig(), assignments)
    assert str(caught.value).startswith(line)


@settings(max_examples=40)
@given(train_configs(), st.data())
def test_with_values_sets_any_leaf_of_any_config(config, data):
    """Putting a config's own values back, leaf by leaf, gives the config."""
    values = to_dict(config)
    paths = list(leaves(values))
    chosen = data.draw(st.lists(st.sampled_from(paths), unique=True, max_size=6))
    assignments = {}
    for path in chosen:
        value = values
        for name in path.split("."):
            value = value[name]
        assignments[path] = value
    assert with_values(config, assignments) == config


def test_a_long_value_is_shortened():
    """A refusal shows no more of a value than fits a line."""
    assert len(refusal({"precision": "x" * 10_000})) < 200


def test_shuffling_shuffles():
    """The helper of the hash test does change the order of keys."""
    base = to_dict(TrainConfig())
    assert any(list(shuffled(base, random.Random(seed))) != list(base) for seed in range(5))
