"""What a person may get wrong: one line with value, rule and remedy, exit code 2, nothing left behind, no Ray."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from research.cli import app as cli
from research.errors import UserError
from research.ledger.log import Ledger
from research.ledger.settings import Metric
from research.planning.earlier import learn_from
from research.planning.preflight import check_space
from research.search.spaces import load_space
from tests.support.synthetic import new_ledger, settings

MEASURE = "p(x) counts(0..16) 64d digits/validation@3d7478367d6d"

SPACE = """
from vae.data import Digits, Mnist
from vae.objectives import Elbo, LinearWarmup
from vae.likelihoods import Bernoulli
from vae.networks import Conv
from vae.posteriors import FullCovariance
from vae.train_config import Evaluation, TrainConfig

def space(trial):
    return TrainConfig({arguments})
"""


def refused(capsys, monkeypatch, *arguments):
    """The one line that ``research`` prints when it refuses these arguments."""
    monkeypatch.setattr(sys, "argv", ["research", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert "ray.tune" not in captured.err
    return captured.err


@pytest.fixture
def sweep(capsys, monkeypatch, tmp_path):
    """Try a sweep; the refusal's line. Nothing may be left in the storage."""

    def attempt(space, *options, name="x"):
        line = refused(
            capsys,
            monkeypatch,
            "sweep",
            space,
            "--storage",
            tmp_path / "storage",
            "--name",
            name,
            "--wandb",
            "disabled",
            *options,
        )
        assert not (tmp_path / "storage").exists()
        return line

    return attempt


@pytest.fixture
def space_of(tmp_path):
    """A space file whose configs have these arguments."""

    def write(arguments):
        path = tmp_path / "space.py"
        path.write_text(SPACE.format(arguments=arguments))
        return path

    return write


def test_unknown_space(sweep):
    """The nearest name is offered."""
    assert "did you mean 'quickstart'?" in sweep("quickstrat")


def test_misspelt_key(sweep, space_of):
    """A key that no config has is refused with the nearest that it has."""
    line = sweep(space_of("latent_sizes=4"))
    assert "latent_sizes" in line
    assert "latent_size" in line


def test_negative_beta(sweep, space_of):
    """Path, rule and value."""
    line = sweep(space_of("objective=Elbo(beta=-1.0)"))
    assert "beta must be greater than or equal to 0, got -1.0" in line


def test_a_bad_draw_names_what_was_drawn(sweep, space_of):
    """A range that reaches past what is possible is found before anything runs, with the values drawn."""
    line = sweep(space_of("objective=Elbo(beta=trial.suggest_float('beta', -1.0, 1.0))"))
    assert "drawn with beta=-" in line


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("val/elbow", "did you mean 'val/elbo'?"),
        ("train/loss", "not comparable"),
        ("test/elbo", "select on the test split"),
        ("val/elbo:min", "leave it out"),
        ("val/nll_iwae", "eval.nll_k > 0"),
    ],
)
def test_metrics_that_may_not_select(sweep, metric, why):
    """An unknown metric, one that does not compare, and test are refused with the reason."""
    assert why in sweep("quickstart", "--metric", metric)


def test_kl_alone_is_refused_while_beta_is_swept(sweep, space_of):
    """A swept β drives the KL to its optimum by itself."""
    swept = space_of("objective=Elbo(beta=trial.suggest_float('beta', 0.5, 4.0))")
    assert "objective.beta is swept" in sweep(swept, "--metric", "val/kl")


def test_unwritable_storage(capsys, monkeypatch, tmp_path):
    """A storage below a plain file can't be made."""
    (tmp_path / "file").write_text("")
    line = refused(capsys, monkeypatch, "sweep", "quickstart", "--storage", tmp_path / "file" / "below")
    assert "choose another --storage" in line


def test_missing_data(sweep, tmp_path):
    """A data directory without the set: what was looked for and how to give it."""
    line = sweep("vae", "--data-dir", tmp_path)
    assert "mnist" in line.lower()
    assert "--data-dir" in line


@pytest.mark.parametrize("name", ["../x", "/abs", ".", "..", "a/b", "x\n", "n" * 101, ""])
def test_names_that_are_no_plain_names(sweep, name):
    """A name can't leave the storage."""
    assert "--name" in sweep("quickstart", name=name)


def test_grace_shorter_than_the_warm_up(sweep, space_of):
    """Both numbers are named."""
    space = space_of("objective=Elbo(beta_schedule=LinearWarmup(epochs=6.0))")
    line = sweep(space, "--grace", "2")
    assert "at least 6" in line
    assert "got 2" in line


def test_what_belongs_to_the_sweep_may_not_vary(sweep, space_of):
    """Split and evaluation seeds are no hyperparameters."""
    space = space_of("data=Digits(split_seed=trial.suggest_int('split', 0, 9))")
    assert "data.split_seed" in sweep(space)
    space = space_of("eval=Evaluation(seed=trial.suggest_int('s', 0, 9))")
    assert "eval" in sweep(space)


def test_configs_that_do_not_rank_together(sweep, space_of):
    """Both measures are printed."""
    space = space_of(
        "likelihood=Bernoulli(), data=Digits(binarisation=trial.suggest_categorical('b', ['expected', 'dynamic']))"
    )
    line = sweep(space)
    assert "expected-binary" in line
    assert "binary(seed=0)" in line


def test_a_network_that_does_not_fit_the_images(sweep, space_of):
    """Found on the driver, before a worker is held."""
    assert "at most 3 entries for images of 8×8" in sweep(space_of("network=Conv(channels=(8, 8, 8, 8))"))


def test_selecting_without_validation(sweep, space_of):
    """A space that trains on everything can't be searched."""
    assert "data.validation" in sweep(space_of("data=Digits(validation=0)"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--cpus-per-trial", "4096"], "--cpus-per-trial must be at most"),
        (["--gpus-per-trial", "64"], "--gpus-per-trial must be at most"),
        (["--concurrent", "4096"], "must be at most"),
        (["--scheduler", "pbt"], "takes no searcher"),
        (["--scheduler", "ash"], "--scheduler must be one of asha, hyperband, median, none"),
        (["--sampler", "tpee"], "did you mean 'tpe'?"),
        (["--sampler", "CmaEsSamplr"], "did you mean 'CmaEsSampler'?"),
        (["--sampler", "GridSampler"], "--sampler grid"),
        (["--sampler", "QMCSampler"], "--sampler quasi-random"),
        (["--sampler", "grid"], "'lr' is a range without steps"),
        (["--sampler-option", "startup=3"], "did you mean 'startup_trials'?"),
        (["--sampler-option", "startup_trials=0"], "startup_trials input should be greater than 0, got 0"),
        (["--sampler", "random", "--sampler-option", "x=1"], "random has no options"),
        (["--sampler-option", "x"], "NAME=VALUE"),
        (["--sampler", "GPSampler", "--sampler-option", "no_such=1"], "--sampler 'GPSampler' can't be made"),
        (["--sampler", "CmaEsSampler", "--metric", "val/elbo", "--metric", "val/active_units"], "refuses this sweep"),
        (["--metric", "val/elbo", "--metric", "val/elbo"], "given twice"),
        (["--metric", "model/parameters", "--metric", "time/train_seconds"], "measure cost alone"),
        (["--metric", "model/parameters"], "as one of several"),
        (["--stop-by", "val/elbo"], "two or more --metric"),
        (["--hours", "0"], "--hours must be above 0, got 0"),
        (["--patience", "-3"], "--patience must be above 0"),
        (["--replicates", "0"], "0"),
        (["--start-from", "nowhere"], "nowhere"),
        (["--learn-from", "nowhere"], "nowhere"),
        (["--wandb", "maybe"], "--wandb must be one of"),
        (["--trials", "0"], "0"),
        (["--trails", "3"], "--trials"),
    ],
)
def test_options_out_of_range(sweep, options, why):
    """Requests that can never be served are refused, not awaited."""
    assert why in sweep("quickstart", *options)


def test_directories_that_are_no_sweeps(capsys, monkeypatch, tmp_path):
    """Every verb that takes one says what it is not."""
    for verb in ("show", "resume"):
        assert "not a sweep directory" in refused(capsys, monkeypatch, verb, tmp_path)
    assert "holds no record.json: give a sweep's directory" in refused(capsys, monkeypatch, "reproduce", tmp_path)
    assert "holds no model: give a sweep's directory" in refused(capsys, monkeypatch, "evaluate", tmp_path)


def test_settings_that_do_not_exist(capsys, monkeypatch, tmp_path):
    """``--set`` is checked like any config, with the nearest path."""
    out = tmp_path / "out"
    line = refused(capsys, monkeypatch, "train", "quickstart", "--set", "objective.betta=4", "--out", out)
    assert "did you mean 'objective.beta'?" in line
    assert "--set must be PATH=VALUE" in refused(
        capsys, monkeypatch, "train", "quickstart", "--set", "beta", "--out", out
    )
    line = refused(capsys, monkeypatch, "train", "quickstart", "--set", "optimizer.lr='1e-3'", "--out", out)
    assert "optimizer.lr" in line
    assert not out.exists()


def test_nothing_starts_ray_or_torch_to_say_help():
    """``research --help`` answers from what it needs alone."""
    code = "import sys; sys.argv = ['research', '--help']\nfrom research.cli.app import main\ntry:\n    main()\nexcept SystemExit:\n    pass\nassert not {'torch', 'ray', 'optuna', 'wandb'} & set(sys.modules), 'imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "host:port"])
def test_no_cluster_at_the_address(sweep, address):
    """Said within seconds, before a directory is made: Ray itself would wait for minutes."""
    assert "no Ray cluster answers" in sweep("quickstart", "--address", address, "--concurrent", "2")


def test_one_term_is_an_objective_only_beside_the_other(sweep, space_of):
    """While β is swept, rate alone, or rate beside a cost, is driven to 0; rate and distortion pay for each other."""
    swept = space_of("objective=Elbo(beta=trial.suggest_float('beta', 0.5, 4.0))")
    assert "objective.beta is swept" in sweep(swept, "--metric", "val/kl", "--metric", "model/parameters")
    assert "objective.beta is swept" in sweep(swept, "--metric", "val/kl", "--metric", "val/elbo")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ('{"latent_siz": 4}', "did you mean 'latent_size'?"),
        ('{"latent_size": 99}', "not in the space's range"),
        ("[]", "an object of parameters by name"),
        ("{", "is not JSON"),
    ],
)
def test_parameters_to_start_from_must_be_the_space_s(sweep, tmp_path, given, why):
    """What the space would silently ignore or draw anew is refused."""
    (tmp_path / "start.json").write_text(given)
    assert why in sweep("quickstart", "--start-from", tmp_path / "start.json")


BRANCHES = """
from vae.data import Digits
from vae.networks import Mlp
from vae.objectives import Elbo, Iwae
from vae.posteriors import FullCovariance
from vae.train_config import Evaluation, TrainConfig
from vae.conditioning import OnLabel, OnQuadrants

def space(trial):
    common = {"network": Mlp(hidden=(8,)), "latent_size": 2, "epochs": 2}
    if trial.suggest_int("rare", 0, 10**9) == 7:  # no survey draws this
        return TrainConfig(**common, ARGUMENTS)
    return TrainConfig(**common)
"""


@pytest.fixture
def rare(tmp_path):
    """A space with a branch that no survey draws, whose config has other arguments."""

    def write(arguments):
        path = tmp_path / "rare.py"
        path.write_text(BRANCHES.replace("ARGUMENTS", arguments))
        return path

    return write


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("eval=Evaluation(seed=3)", "eval.seed is 3, not 0"),
        ("eval=Evaluation(samples=4)", "eval.samples is 4, not 1"),
        ("posterior=FullCovariance()", "full_covariance, not diagonal"),
        ("objective=Iwae(k=5)", "importance-weighted objective"),
        ("conditioning=OnLabel()", "p(x|label)"),
        ("conditioning=OnQuadrants()", "its measure is"),
        ("data=Digits(split_seed=4)", "belongs to the sweep"),
        ("data=Digits(validation=50)", "belongs to the sweep"),
    ],
)
def test_sweep_start_from_a_config_that_does_not_compare_is_refused(sweep, rare, tmp_path, arguments, named):
    """A config to start from is held to the same key as every row, before Ray starts."""
    (tmp_path / "start.json").write_text('{"rare": 7}')
    line = sweep(rare(arguments), "--start-from", tmp_path / "start.json")
    assert "--start-from" in line
    assert named in line


def test_extend_a_space_of_other_evaluation_settings_is_refused(capsys, monkeypatch, tmp_path, space_of):
    """Trials of another evaluation seed, or another family of posteriors, would not rank with those that are there."""
    comparison = {"eval.seed": 0, "eval.samples": 8, "bound": "diagonal", "measure": MEASURE}
    new_ledger(tmp_path / "s", space=load_space("quickstart").source, measure=MEASURE, comparison=comparison)
    for arguments, named in (
        ("eval=Evaluation(seed=5, samples=8)", "eval.seed is 5, not 0"),
        ("eval=Evaluation(samples=8), posterior=FullCovariance()", "full_covariance, not diagonal"),
    ):
        options = ["extend", tmp_path / "s", "--allow-changed-code", "--trials", "+1", "--space", space_of(arguments)]
        assert named in refused(capsys, monkeypatch, *options)


def test_sweep_a_space_that_varies_its_data_is_refused_by_name(sweep, tmp_path, monkeypatch):
    """What changes the data belongs to the sweep; equal files under two paths are the same data."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).gamma(2.0, size=(400, 30))
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", x=values)
    np.savez(tmp_path / "three.npz", x=values + 1)
    space = tmp_path / "varied.py"

    def of(choices, default):
        space.write_text(VARIED.replace("CHOICES", choices).replace("DEFAULT", default))
        return space

    line = sweep(of('"scaling", ["none", "unit"]', 'path="one.npz"'))
    assert "the space varies data.scaling" in line
    assert "belongs to the sweep" in line
    line = sweep(of('"path", ["one.npz", "three.npz"]', 'scaling="none"'))
    assert "the space varies data.path" in line
    same = check_space(load_space(str(of('"path", ["one.npz", "two.npz"]', 'scaling="none"'))), **NOTHING_ASKED)
    assert {config.data.path for config in same.survey.configs} == {"one.npz", "two.npz"}


NOTHING_ASKED = {"metric": None, "epochs": 1, "seed": 0, "data_dir": None}
VARIED = """
from vae.data import Arrays
from vae.likelihoods import Gaussian
from vae.networks import Mlp
from vae.train_config import TrainConfig

def space(trial):
    name, choices = CHOICES
    data = Arrays(DEFAULT, **{name: trial.suggest_categorical(name, choices)})
    return TrainConfig(data=data, likelihood=Gaussian(), network=Mlp(hidden=(8,)), latent_size=2, epochs=1)
"""


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "nothing to extend"),
        (["--trials", "3"], "at least the sweep's 8, got '3'"),
        (["--trials", "+0"], "--trials must be +N"),
        (["--trials", "many"], "--trials must be +N"),
        (["--patience", "+x"], "--patience must be +N or a new limit"),
        (["--trials", "+4", "--space", "iwae"], "misorders"),
        (["--trials", "+4", "--space", "nowhere"], "unknown space"),
    ],
)
def test_a_sweep_is_extended_by_what_compares(capsys, monkeypatch, tmp_path, options, why):
    """An extension that adds nothing, or whose trials would not rank with the others, is refused; nothing is written."""
    ledger = new_ledger(tmp_path / "s", space=load_space("quickstart").source)
    before = len(ledger)
    line = refused(capsys, monkeypatch, "extend", tmp_path / "s", "--allow-changed-code", *options)
    assert why in line
    assert len(Ledger.open(tmp_path / "s")) == before


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        ({"metric": Metric(name="val/nll_iwae", direction="minimize")}, "ranks by ['val/nll_iwae (minimize)']"),
        ({"measure": "other"}, "its measure is 'other'"),
        ({"replicates": 3}, "has replicates 3"),
        ({}, "no trial of that sweep has finished"),
    ],
)
def test_only_what_compares_is_learned_from(tmp_path, theirs, why):
    """Another sweep's trials enter the study when metric, direction and data agree; the difference is printed."""
    new_ledger(tmp_path / "other", **theirs)
    with pytest.raises(UserError, match=re.escape(why)):
        learn_from(tmp_path / "other", settings(), {3})
