"""A small sweep of the digits that runs in the process of a test."""

from __future__ import annotations

import pytest

from research.ledger.settings import NoScheduler, RandomSearch, Resources
from research.planning.preflight import check_space
from research.search.spaces import Space
from tests.support.synthetic import settings
from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.train_config import TrainConfig


def space(trial):
    """Tiny models of the digits."""
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(8,)),
        latent_size=trial.suggest_int("latent_size", 2, 8),
        optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True)),
        epochs=3,
    )


@pytest.fixture(scope="module")
def found():
    """The checks of the space."""
    return check_space(Space(function=space, source=settings().space), metric=None, epochs=3, seed=0, data_dir=None)


@pytest.fixture
def begin(tmp_path, found):
    """Begin a sweep; return its ledger and space."""

    def begin(name="s", function=space, **changes):
        from research.driver.lifecycle import create

        fields = {
            "trials": 3,
            "epochs": 3,
            "keep": 1,
            "sampler": RandomSearch(),
            "scheduler": NoScheduler(),
            "resources": Resources(concurrent=1, threads=1),
            "measure": found.measure,
            "comparison": found.comparison,
            "data_hash": found.data.data_hash,
            "split_hash": found.data.split_hash,
            "wandb": "disabled",
            "report_seconds": 0.0,
        }
        ledger = create(tmp_path / name, settings(name=name, **(fields | changes)), [])
        return ledger, Space(function=function, source=ledger.settings.space)

    return begin
