"""The spaces that come with the project: short, always valid, and what they sample is what is trained."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import math
from functools import cache
from pathlib import Path

import optuna
import pytest
from small import few_digits, noise_images, run

import search_spaces
from research.metrics import default_metric
from research.preflight import check_space, resolve_scheduler
from research.settings import Asha
from research.spaces import load_space
from vae.data import Digits, Mnist
from vae.networks import Conv, Mlp
from vae.objectives import Capacity, Cyclical
from vae.serialization import config_hash, from_json, to_json
from vae.train_config import Evaluation, TrainConfig

FOLDER = Path(search_spaces.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
DRAWS = 200


def space_of(name):
    """The space's function."""
    return importlib.import_module(f"search_spaces.{name}").space


@cache
def drawn(name):
    """200 random draws: what was suggested, of which distributions, and the config."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    draws = []
    for _ in range(DRAWS):
        trial = study.ask()
        config = space_of(name)(trial)
        draws.append((dict(trial.params), dict(trial.distributions), config))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return draws


def test_the_spaces_that_are_promised_exist():
    """A sweep can be started by these names."""
    assert {"quickstart", "vae", "beta_vae", "cvae"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short_enough_to_copy(name):
    """25 to 60 lines, with a docstring: what a person would start their own from."""
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert 25 <= len(source.splitlines()) <= 60
    assert ast.get_docstring(ast.parse(source))
    assert space_of(name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_every_draw_is_a_valid_config(name):
    """200 draws give 200 configs that survive JSON, and more than a few different ones."""
    hashes = set()
    for _, _, config in drawn(name):
        assert isinstance(config, TrainConfig)
        assert from_json(to_json(config)) == config
        hashes.add(config_hash(config))
    assert len(hashes) > DRAWS * 0.9


@pytest.mark.parametrize("name", NAMES)
def test_what_belongs_to_the_sweep_is_not_varied(name):
    """The data, its split, the evaluation and the epochs are one for all trials; the seed is not the space's."""
    for values in (
        {config.data for _, _, config in drawn(name)},
        {config.eval for _, _, config in drawn(name)},
        {config.epochs for _, _, config in drawn(name)},
        {config.seed for _, _, config in drawn(name)},
    ):
        assert len(values) == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_sampled_is_what_is_trained(name):
    """Each suggested value changes the config when it alone changes: none is drawn and then forgotten."""
    space = space_of(name)
    defaults, distributions = {}, {}
    for params, of, _ in drawn(name):
        defaults = params | defaults
        distributions |= of
    changed = dict.fromkeys(distributions, 0)
    for params, of, config in drawn(name)[:40]:
        assert space(optuna.trial.FixedTrial(defaults | params)) == config
        for parameter in of:
            other = next(
                (p[parameter] for p, _, _ in drawn(name) if parameter in p and p[parameter] != params[parameter]),
                None,
            )
            assert other is not None, f"{parameter} has one value only"
            assert space(optuna.trial.FixedTrial(defaults | params | {parameter: other})) != config, parameter
            changed[parameter] += 1
    assert all(changed.values())


@pytest.mark.parametrize("name", NAMES)
def test_conditional_parameters_are_asked_for_only_where_they_matter(name):
    """A parameter that some draws don't have is one whose value would change nothing in them."""
    space = space_of(name)
    every = {}
    for params, _, _ in drawn(name):
        every = params | every
    for params, _, config in drawn(name)[:40]:
        absent = set(every) - set(params)
        assert space(optuna.trial.FixedTrial(params)) == config
        assert space(optuna.trial.FixedTrial({p: every[p] for p in absent} | params)) == config


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_over_it_would_begin(name):
    """On the digits, seen as its own set is: the draws share one measure, their metric orders them, the rungs suit."""
    found = check_space(load_space(name), metric=None, epochs=None, seed=0, data_dir=None, data="digits")
    assert found.metric.name.startswith("val/")
    assert isinstance(resolve_scheduler(Asha(), found.survey.configs, grace=None), Asha)


def cut_down(config):
    """The same kind of run, small enough for a test."""
    network = config.network
    if isinstance(network, Mlp):
        network = dataclasses.replace(network, hidden=tuple(min(width, 8) for width in network.hidden))
    elif isinstance(network, Conv):
        network = dataclasses.replace(network, channels=tuple(min(c, 3) for c in network.channels), dense=6)
    evaluation = Evaluation(samples=min(2, config.eval.samples), nll_k=min(2, config.eval.nll_k))
    objective = config.objective
    if isinstance(objective, Capacity):
        objective = dataclasses.replace(objective, epochs=1.0)
    epochs = 9 if isinstance(getattr(objective, "beta_schedule", None), Cyclical) else 1
    return dataclasses.replace(
        config, network=network, objective=objective, batch_size=8, epochs=epochs, eval=evaluation
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_trains(name):
    """One tiny run of each combination of parts that the space can draw ends with a finite bound."""
    seen = set()
    for _, _, config in drawn(name):
        schedule = getattr(config.objective, "beta_schedule", None)
        parts = tuple(
            part if part is None else part.kind
            for part in (config.network, config.prior, config.conditioning, config.likelihood, schedule)
        )
        if parts in seen:
            continue
        seen.add(parts)
        data = few_digits(24, 12) if isinstance(config.data, Digits) else noise_images((1, 28, 28))
        assert isinstance(config.data, Digits | Mnist)
        rows, _ = run(cut_down(config), data)
        assert math.isfinite(rows[-1][default_metric([cut_down(config)]).name])
    assert seen
