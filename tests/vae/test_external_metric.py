"""Metrics of a user's own: computed on the validation split once per epoch, and nothing else changes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from tests.support.places import ROOT
from vae.config import ConfigError
from vae.data import Digits, load_training
from vae.external import external_sources, named_parts
from vae.external_metric import RESERVED, ExternalMetric
from vae.fast.stacked import train_stacked
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.serialization import config_hash, from_dict, from_json, to_dict, to_json
from vae.train import train
from vae.train_config import TrainConfig

FILE = str(ROOT / "tests" / "support" / "metrics.py")
PLAIN = TrainConfig(
    data=Digits(), likelihood=Binomial(), network=Mlp(hidden=(8,), dropout=0.1), latent_size=2, epochs=2, seed=3
)


def metric(function, **more):
    """A metric of the test's own file."""
    return ExternalMetric(**({"name": function, "path": f"{FILE}:{function}", "direction": "minimize"} | more))


def rows(config):
    """Every epoch's row, without times, and the last weights."""
    torch.set_num_threads(1)
    results = list(train(config, load_training(config.data, None)))
    found = [{name: value for name, value in one.row.items() if not name.startswith("time/")} for one in results]
    return found, results[-1].state.weights()


def test_metric_is_in_every_row_and_changes_nothing_else():
    """Weights and figures are those of a run without it, bit for bit, though the function draws random numbers."""
    own = (metric("sharpness", settings={"scale": 2.0}), metric("careless"))
    plain, weights = rows(PLAIN)
    found, its_weights = rows(dataclasses.replace(PLAIN, metrics=own))
    for row in found:
        assert row.pop("val/sharpness") > 0
        assert row.pop("val/careless") == 287  # of the validation split; the model is not in training
    assert found == plain
    for name, tensor in weights.items():
        assert torch.equal(tensor, its_weights[name])


def test_metric_that_writes_into_its_examples_changes_no_data():
    """The data are kept in memory for other trials."""
    data = load_training(PLAIN.data, None)
    before = data.validation.labels.clone(), data.validation.images.clone()
    rows(dataclasses.replace(PLAIN, metrics=(metric("spoils"),), epochs=1))
    assert torch.equal(data.validation.labels, before[0])
    assert torch.equal(data.validation.images, before[1])


def test_metric_settings_reach_the_function():
    """Twice the scale is twice the figure."""
    own = (metric("sharpness", name="one"), metric("sharpness", name="two", settings={"scale": 2.0}))
    found, _ = rows(dataclasses.replace(PLAIN, metrics=own, epochs=1))
    assert found[0]["val/two"] == 2 * found[0]["val/one"]


def test_metric_that_is_not_finite_is_nan_in_the_row():
    """The run goes on; a sweep that ranks by it fails the trial."""
    found, _ = rows(dataclasses.replace(PLAIN, metrics=(metric("not_finite"),), epochs=1))
    assert math.isnan(found[0]["val/not_finite"])


@pytest.mark.parametrize(
    ("function", "error", "told"),
    [
        ("nothing", ValueError, "metric 'nothing' must return a number, got list"),
        ("raises", ValueError, "metric 'raises' failed: KeyError: 'no such layer'"),
    ],
)
def test_metric_that_gives_no_number_ends_the_run(function, error, told):
    """By the metric's name."""
    with pytest.raises(error, match=told):
        rows(dataclasses.replace(PLAIN, metrics=(metric(function),), epochs=1))


def test_config_with_a_metric_goes_to_json_and_back():
    """And its hash differs from the plain one's, which did not change when the field came."""
    config = dataclasses.replace(PLAIN, metrics=(metric("sharpness", measure="of digits"),))
    assert from_json(to_json(config)) == config
    assert config_hash(config) != config_hash(PLAIN)
    values = to_dict(PLAIN)
    del values["metrics"]
    assert config_hash(from_dict(values)) == config_hash(PLAIN)
    assert external_sources(config) == {f"{FILE}:sharpness": config.metrics[0].source_sha256}
    assert named_parts(to_dict(config)) == [f"{FILE}:sharpness"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"name": "elbo"}, "'elbo' is taken"),
        ({"name": "mine_k"}, "'mine_k' is taken"),
        ({"name": "Mine"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"direction": "up"}, "direction"),
        ({"path": f"{FILE}:absent"}, "has no function 'absent'"),
        ({"path": "math:sqrt"}, "has no function 'sqrt'"),
        ({"path": "shutil:rmtree"}, "has no function 'rmtree'"),
        ({"path": "nowhere.py:f"}, "can't be imported"),
    ],
    ids=str,
)
def test_metric_that_can_not_be_is_refused_in_one_line(more, told):
    """While the config is read."""
    values = to_dict(PLAIN)
    values["metrics"] = [
        {"kind": "external", "name": "mine", "path": f"{FILE}:sharpness", "direction": "minimize"} | more
    ]
    with pytest.raises(ConfigError, match=told) as refused:
        from_dict(values)
    assert "\n" not in str(refused.value)


def test_two_metrics_of_one_name_are_refused():
    """A row has one figure of a name."""
    with pytest.raises(ValueError, match="metrics must have different names, got mine, mine"):
        dataclasses.replace(PLAIN, metrics=(metric("sharpness", name="mine"), metric("careless", name="mine")))


def test_reserved_names_are_those_of_real_rows():
    """Whatever a row of the validation split has, no metric can be called so."""
    configs = [PLAIN, dataclasses.replace(PLAIN, eval=dataclasses.replace(PLAIN.eval, nll_k=2, nll_images=20))]
    for config in configs:
        found, _ = rows(dataclasses.replace(config, epochs=1))
        for name in found[0]:
            if name.startswith("val/"):
                own = name.removeprefix("val/")
                assert own in RESERVED or own.endswith(("_standard_error", "_change_from_half_k", "_k", "_images")), own


def test_metric_of_a_stacks_member_is_that_of_its_own_run():
    """Members are evaluated one by one, to rounding as alone."""
    own = (metric("sharpness"),)
    configs = [
        dataclasses.replace(PLAIN, network=Mlp(hidden=(8,)), metrics=own, seed=seed, epochs=1) for seed in (3, 4)
    ]
    torch.set_num_threads(1)
    stacked = next(iter(train_stacked(configs, load_training(Digits(), None), [None, None], "cpu")))
    for position, config in enumerate(configs):
        alone, _ = rows(config)
        assert stacked[position].row["val/sharpness"] == pytest.approx(alone[0]["val/sharpness"], rel=1e-4)
