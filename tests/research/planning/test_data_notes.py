"""Remarks on the data are given before anything trains: by plan, train and sweep."""

from __future__ import annotations

import numpy as np
import pytest

from research.planning.data_notes import data_notes
from vae.data import Arrays, load_training
from vae.likelihoods import Binomial, DiscretisedLogistic
from vae.train_config import TrainConfig


@pytest.mark.parametrize(
    ("levels", "likelihood", "noted"),
    [(255, Binomial(), True), (255, DiscretisedLogistic(), False), (16, Binomial(), False)],
    ids=["wide binomial", "logistic", "narrow binomial"],
)
def test_data_notes_name_a_binomial_that_is_too_narrow(tmp_path, levels, likelihood, noted):
    """It can be worse than a uniform guess on 0..255, and is exact for a few levels."""
    values = np.arange(60 * 4, dtype=np.int64).reshape(60, 4) % (levels + 1)
    np.savez(tmp_path / "a.npz", x=values)
    config = TrainConfig(data=Arrays(path="a.npz", levels=levels), likelihood=likelihood)
    found = data_notes(load_training(config.data, tmp_path), [config])
    assert [note for note in found if "too narrow for values 0..255" in note] == (found if noted else [])
    assert bool(found) is noted
