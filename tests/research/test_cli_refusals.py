"""What a person may get wrong: one line with value, rule and remedy, exit code 2, nothing left behind, no Ray."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from research import cli

SPACE = """
from vae.data import Digits, Mnist
from vae.objectives import Elbo, LinearWarmup
from vae.likelihoods import Bernoulli
from vae.networks import Conv
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
        (["--scheduler", "pbt"], "--scheduler must be one of"),
        (["--sampler", "tpee"], "--sampler must be one of"),
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
    assert "neither" in refused(capsys, monkeypatch, "reproduce", tmp_path)
    assert "not a readable model folder" in refused(capsys, monkeypatch, "evaluate", tmp_path)


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
    code = "import sys; sys.argv = ['research', '--help']\nfrom research.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\nassert not {'torch', 'ray', 'optuna', 'wandb'} & set(sys.modules), 'imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "host:port"])
def test_no_cluster_at_the_address(sweep, address):
    """Said within seconds, before a directory is made: Ray itself would wait for minutes."""
    assert "no Ray cluster answers" in sweep("quickstart", "--address", address, "--concurrent", "2")
