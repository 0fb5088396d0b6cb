"""The spaces that come with the project: short, always valid, and what they sample is what is trained."""

from __future__ import annotations

import ast
import importlib
import itertools
import math
import subprocess
import sys
from functools import cache
from pathlib import Path

import optuna
import pytest

import search_spaces
from research.ledger.settings import Asha, rungs
from research.planning.metrics import check_metric, default_metric
from research.planning.preflight import resolve_scheduler
from research.search.spaces import load_space, survey
from tests.support.small import digits, few_digits
from vae.measure import measure_of
from vae.serialization import config_hash, from_json, to_dict, to_json
from vae.train import train
from vae.train_config import TrainConfig

FOLDER = Path(search_spaces.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
DRAWS = 100

# What a sweep is ranked by when nobody says: the bound, but for these.
METRICS = {
    "autoencoder": "val/reconstruction",
    "denoising_autoencoder": "val/denoise_error",
    "iwae": "val/nll_iwae",
    "sparse_autoencoder": "val/reconstruction",
    "wae_mmd": "val/reconstruction",
}


def space_of(name):
    """The space's function."""
    return importlib.import_module(f"search_spaces.{name}").space


@cache
def drawn(name):
    """100 random draws: what was suggested, of which distributions, and the config."""
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
    assert set(NAMES) == {
        "annealed_vae",
        "autoencoder",
        "beta_tcvae",
        "beta_vae",
        "cvae",
        "cyclical_vae",
        "denoising_autoencoder",
        "denoising_vae",
        "dip_vae",
        "factor_vae",
        "free_bits_vae",
        "full_covariance",
        "info_vae",
        "iwae",
        "learned_variance",
        "likelihoods",
        "mixture_prior",
        "quadrants",
        "quickstart",
        "resnet",
        "sparse_autoencoder",
        "vae",
        "vamp_prior",
        "wae_mmd",
    }


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short_enough_to_copy(name):
    """25 to 60 lines, with a docstring: what a person would start their own from."""
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert 25 <= len(source.splitlines()) <= 60
    assert ast.get_docstring(ast.parse(source))
    assert space_of(name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_every_draw_is_a_valid_config(name):
    """100 draws give 100 configs that survive JSON, and more than a few different ones."""
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
    for params, of, config in drawn(name)[:20]:
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
    for params, _, config in drawn(name)[:20]:
        absent = set(every) - set(params)
        assert space(optuna.trial.FixedTrial(params)) == config
        assert space(optuna.trial.FixedTrial({p: every[p] for p in absent} | params)) == config


def kinds(values):
    """The kinds of all parts in a config's JSON values, by their place."""
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": kind for inner, kind in kinds(value).items()}
        elif name == "kind":
            found[name] = value
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_of_it_can_be_ranked_and_its_parts_train(name):
    """Draws share one measure and their default metric may rank them; each combination of parts trains two epochs.

    Spaces of MNIST are drawn with the digits in its place, binarised alike: what they need else is the same.
    """
    configs = survey(load_space(name), epochs=None, seed=0, data="digits").configs
    metric = default_metric(configs)
    assert metric.name == METRICS.get(name, "val/elbo")
    check_metric(metric, configs)
    data = digits()
    assert len({str(measure_of(config, data.validation, levels=data.levels)) for config in configs}) == 1
    scheduler = resolve_scheduler(Asha(), configs, grace=None)
    assert rungs(scheduler, configs[0].epochs), "no trial would ever be stopped early"
    by_parts = {tuple(sorted(kinds(to_dict(config)).items())): config for config in configs}
    for config in by_parts.values():
        rows = [result.row for result in itertools.islice(train(config, few_digits(64, 24)), 2)]
        assert [row["epoch"] for row in rows] == [1, 2]
        assert math.isfinite(rows[-1]["train/loss"])
        assert math.isfinite(rows[-1][metric.name])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["denoising_autoencoder", "iwae"])
def test_a_sweep_of_it_runs_through_ray(name, tmp_path):
    """A tiny sweep of a space that is not ranked by the bound ends well and says what it ranked by."""
    arguments = ["sweep", name, "--trials", "3", "--epochs", "2", "--storage", tmp_path, "--wandb", "disabled"]
    arguments += ["--name", "tiny", "--concurrent", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "research.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [sys.executable, "-m", "research.cli", "show", str(tmp_path / "tiny")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert METRICS[name] in shown.stdout
