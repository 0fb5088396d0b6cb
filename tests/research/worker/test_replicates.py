"""Several seeds of a configuration: the row is their mean, the kept weights are the median's, a failure is named."""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.intervals import median_index
from research.worker.replicates import mean_row, row_of_kept, seeds_of, train_together
from tests.support.synthetic import science
from vae.data import Digits, load_training
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.train import train
from vae.train_config import TrainConfig

CONFIG = TrainConfig(data=Digits(), network=Mlp(hidden=(16,)), latent_size=2, epochs=2, seed=5, optimizer=Adam(lr=1e-3))


@pytest.fixture(scope="module")
def data():
    """The bundled digits."""
    return load_training(CONFIG.data, None)


def test_one_replicate_is_an_ordinary_run(data):
    """The very rows and weights."""
    for alone, together in zip(train(CONFIG, data), train_together(CONFIG, data, 1, metric="val/elbo"), strict=True):
        assert science(together.row) == science(alone.row)
        assert together.kept == 0


def test_the_row_is_the_mean_of_runs_alone(data):
    """Three replicates in step equal three runs by themselves; spread, values and the bound's identity follow."""
    runs = [[r.row for r in train(dataclasses.replace(CONFIG, seed=seed), data)] for seed in seeds_of(5, 3)]
    for epoch, together in enumerate(train_together(CONFIG, data, 3, metric="val/elbo")):
        each = [run[epoch]["val/elbo"] for run in runs]
        row = together.row
        assert together.stacked, "the model is small"
        assert row["val/elbo_replicates"] == pytest.approx(each, rel=1e-6)
        each = row["val/elbo_replicates"]
        assert row["val/elbo"] == pytest.approx(statistics.fmean(each), abs=1e-9)
        assert row["val/elbo"] == -(row["val/reconstruction"] + row["val/kl"])
        assert row["val/elbo_se"] == pytest.approx(statistics.stdev(each) / math.sqrt(3))
        assert row["epoch"] == epoch + 1
        assert each[row["replicate"]] == statistics.median(each)
        assert row_of_kept(row)["val/elbo"] == statistics.median(each)
        kept = together.results[together.kept].row
        assert row_of_kept(row)["val/kl"] == kept["val/kl"]


def test_replicates_resume_bit_for_bit(data):
    """From the states of the first epoch, the second is what it would have been."""
    whole = train_together(CONFIG, data, 2, metric="val/elbo")
    states = [copy.deepcopy(result.state) for result in next(whole).results]
    second = next(whole)
    (again,) = train_together(CONFIG, data, 2, metric="val/elbo", resume=states)
    assert science(again.row) == science(second.row)


def test_a_diverging_replicate_is_named(data):
    """The configuration fails with the replicate, its seed and the step, and nothing goes on."""
    wild = dataclasses.replace(CONFIG, optimizer=Adam(lr=1e12))
    *_, last = train_together(wild, data, 2, metric="val/elbo")
    assert last.diverged is not None
    assert last.diverged.startswith("replicate 1 of 2, seed 5: ")


def test_an_exception_names_the_replicate(data, monkeypatch):
    """A bug in one seed's run says which it was."""

    def broken(config, *_, **__):
        if config.seed != 5:
            raise MemoryError("no more")
        yield from train(config, data)

    monkeypatch.setattr("research.worker.replicates.train", broken)
    monkeypatch.setattr("research.worker.replicates.pays", lambda *_: False)
    with pytest.raises(MemoryError) as caught:
        next(train_together(CONFIG, data, 2, metric="val/elbo"))
    assert f"replicate 2 of 2, seed {seeds_of(5, 2)[1]}" in caught.value.__notes__[0]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9, unique=True))
def test_the_kept_one_is_the_lower_median(values):
    """Half of the others are no better, half no worse."""
    assert values[median_index(values)] == statistics.median_low(values)


def test_a_missing_figure_has_no_mean():
    """A value that was not finite in one replicate is None in the row, not the mean of the others."""
    rows = [
        {"epoch": 1, "val/elbo": -1.0, "val/kl_per_dimension": [1.0, 2.0]},
        {"epoch": 1, "val/elbo": None, "val/kl_per_dimension": [3.0, 2.0]},
    ]
    mean = mean_row(rows)
    assert mean["val/elbo"] is None
    assert mean["val/kl_per_dimension"] == [2.0, 2.0]
    assert "val/elbo_se" not in mean


def test_seeds_are_of_the_trial():
    """The first is the trial's own; others follow from it; a longer list begins with a shorter one."""
    assert seeds_of(7, 4)[:2] == seeds_of(7, 2)
    assert seeds_of(7, 4)[0] == 7
    assert len(set(seeds_of(7, 50))) == 50
