"""A space with branches that its survey does not see: no figure of another kind is ranked, kept or printed as a best."""

from __future__ import annotations

import pytest

from research.ledger.log import Ledger
from tests.support.verbs import research

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# Draws are counted in a file. The survey and the rehearsal make fewer than 100 of them; from then on every second draw
# takes another branch, as a space that reads the time or a file could.
SPACE = """
from pathlib import Path
from vae.conditioning import OnLabel, OnQuadrants
from vae.data import Digits
from vae.likelihoods import Gaussian
from vae.networks import Mlp
from vae.objectives import Iwae
from vae.posteriors import FullCovariance
from vae.train_config import Evaluation, TrainConfig

COUNT = Path(__file__).with_name("count")
BRANCHES = [
    {"eval": Evaluation(seed=3)},
    {"conditioning": OnLabel()},
    {"conditioning": OnQuadrants()},
    {"likelihood": Gaussian()},
    {"objective": Iwae(k=5)},
    {"posterior": FullCovariance()},
    {"data": Digits(split_seed=4)},
]


def space(trial):
    drawn = int(COUNT.read_text()) if COUNT.exists() else 0
    COUNT.write_text(str(drawn + 1))
    latent_size = trial.suggest_int("latent_size", 2, 40)
    other = BRANCHES[drawn // 2 % len(BRANCHES)] if drawn >= 100 and drawn % 2 else {}
    return TrainConfig(network=Mlp(hidden=(8,)), latent_size=latent_size, epochs=2, **other)
"""


def test_sweep_draws_that_the_survey_missed_are_not_ranked(tmp_path):
    """Every trial of another branch ends by name before it is trained; the models and the ranking are of one kind."""
    (tmp_path / "branches.py").write_text(SPACE)
    (tmp_path / "count").write_text("20")  # nothing below 100 takes a branch
    ran = research(
        "sweep", tmp_path / "branches.py", "--trials", "30", "--name", "mixed", "--storage", tmp_path, "--scheduler", "none",
        "--wandb", "disabled", "--sampler", "random", "--seed", "1",
    )  # fmt: skip
    ledger = Ledger.open(tmp_path / "mixed")
    failed = [view for view in ledger.trials.values() if view.status == "FAIL"]

    assert ran.code == 0, ran.output
    assert len(failed) >= 7, "the branches were drawn"
    assert {view.fail_kind for view in failed} == {"incomparable"}
    assert not any(view.rows for view in failed)
    assert {view.created.config["eval"]["seed"] for view in ledger.ranked()} == {0}
    assert {view.created.config["conditioning"]["kind"] for view in ledger.ranked()} == {"none"}
    assert "incomparable" in ran.output
    kept = {path.name for path in (tmp_path / "mixed" / "models").iterdir()}
    assert kept == {f"trial-{view.number:04d}" for view in ledger.ranked()[:3]}
