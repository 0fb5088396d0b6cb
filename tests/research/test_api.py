"""The Python API from a script: a sweep from a function, resumed by the command line, its models loaded."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import research
from research.errors import UserError
from research.ledger.log import Ledger
from tests.support.places import FIXTURES

SCRIPT = textwrap.dedent("""
    import research
    from vae.data import Digits
    from vae.likelihoods import Binomial
    from vae.networks import Mlp
    from vae.train_config import TrainConfig

    WIDTHS = [8, 16]

    def mine(trial):
        return TrainConfig(data=Digits(), likelihood=Binomial(), network=Mlp(hidden=(trial.suggest_categorical("w", WIDTHS),)),
                           latent_size=trial.suggest_int("z", 2, 6), epochs=2)

    sweep = research.run_sweep(research.SweepRequest(
        space=mine, trials=2, address="none", name="s", wandb="disabled", sampler="random"))
    print("trained", len(sweep.trials()))
""")


def test_run_sweep_of_a_scripts_function_is_extended_by_the_command_line(tmp_path):
    """The recorded source draws on, without the script."""
    (tmp_path / "script.py").write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
    )
    assert ran.returncode == 0, ran.stderr
    assert "sweep sweeps/s: 2 trials of space mine" in ran.stdout
    assert ran.stdout.endswith("trained 2\n")
    (tmp_path / "script.py").unlink()
    more = [sys.executable, "-m", "research.cli", "extend", "sweeps/s", "--trials", "+1", "--address", "none"]
    ran = subprocess.run(more, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    ledger = Ledger.open(tmp_path / "sweeps" / "s")
    assert ledger.trained == 3
    assert "WIDTHS = [8, 16]" in ledger.settings.space.source


def test_load_model_evaluate_and_open_sweep_take_a_sweep(tmp_path):
    """The fixture's best model, by the sweep and by its folder."""
    sweep = research.open_sweep(FIXTURES / "small-digits")
    best = sweep.ledger.ranked()[0]
    config, model = research.load_model(FIXTURES / "small-digits")
    assert config.latent_size == model.latent_size == best.created.config["latent_size"]
    row = research.evaluate(FIXTURES / "small-digits" / "models" / f"trial-{best.number:04d}")
    assert row["val/elbo"] == pytest.approx(best.curve("val/elbo")[best.best(sweep.metric).epoch], rel=1e-4)


def test_run_sweep_refuses_a_taken_name_in_one_line(tmp_path):
    """As the command line does."""
    (tmp_path / "s").mkdir()
    with pytest.raises(UserError, match="exists already"):
        research.run_sweep(research.SweepRequest(space="quickstart", storage=tmp_path, name="s"), quiet=True)
