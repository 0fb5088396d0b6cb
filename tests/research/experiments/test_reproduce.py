"""The verdict on rows trained again: exact, within tolerance, or not; and what tolerance is."""

from __future__ import annotations

import statistics

import pytest

from research.errors import UserError
from research.experiments.reproduce import compare, judge, reproduce
from research.experiments.tolerance import tolerance
from research.ledger.records import TrialRecord
from research.worker.rows import finite
from tests.support.synthetic import new_ledger, row, trial
from vae.data import Digits, load_training
from vae.fast.stacked import train_stacked
from vae.measure import measure_of
from vae.networks import Mlp
from vae.objectives import Elbo
from vae.serialization import config_hash, to_dict
from vae.train_config import TrainConfig

ROW = {
    "epoch": 1,
    "val/elbo": -100.0,
    "val/kl": 20.0,
    "val/reconstruction": 80.0,
    "measure": "m",
    "time/train_seconds": 1.0,
}
EACH = [-99.0, -100.0, -101.0]


def verdict(before, after):
    """Of one row."""
    return judge([before], [after], compare([before], [after]))


def test_times_are_not_compared():
    """Two runs are never equally fast."""
    assert verdict(ROW, ROW | {"time/train_seconds": 9.0}) == "reproduced exactly"


@pytest.mark.parametrize(
    ("elbo", "expected"),
    [
        (-100.0, "reproduced exactly"),
        (-100.0 - 1e-12, "reproduced within tolerance"),
        (-100.09, "reproduced within tolerance"),
        (-100.11, "did not reproduce"),
        (None, "did not reproduce"),
    ],
)
def test_a_thousandth_where_no_spread_was_measured(elbo, expected):
    """Relative to what was recorded."""
    assert verdict(ROW, ROW | {"val/elbo": elbo}) == expected


@pytest.mark.parametrize(("off", "expected"), [(2.9, "reproduced within tolerance"), (3.1, "did not reproduce")])
def test_three_spreads_where_seeds_were_replicated(off, expected):
    """The standard deviation over the record's own replicates decides."""
    replicated = ROW | {"val/elbo_replicates": EACH}
    assert tolerance(replicated, "val/elbo") == 3 * statistics.stdev(EACH) == 3.0
    assert verdict(replicated, replicated | {"val/elbo": -100.0 - off}) == expected


def test_another_measure_or_a_missing_row_never_passes():
    """Numbers of other data are other numbers."""
    assert verdict(ROW, ROW | {"measure": "n"}) == "did not reproduce"
    assert judge([ROW, ROW], [ROW], []) == "did not reproduce"


def stack_of_three(directory):
    """A sweep whose trials 0, 1 and 2 trained as a stack; the first is stopped after an epoch, as early stopping does."""
    configs = [
        TrainConfig(network=Mlp(hidden=(8,)), latent_size=2, epochs=2, seed=seed, objective=Elbo(beta=seed + 0.5))
        for seed in range(3)
    ]
    data = load_training(Digits(), None)
    measure = str(measure_of(configs[0], data.validation, levels=data.levels))
    ledger = new_ledger(directory, data_hash=data.data_hash, split_hash=data.split_hash, measure=measure)
    for number, config in enumerate(configs):
        ledger.append(trial(number, config=to_dict(config), config_hash=config_hash(config), seed=config.seed))
    runs = train_stacked(configs, data)
    for epoch, ended in ((1, {0}), (2, None)):
        results = next(runs) if epoch == 1 else runs.send({0})
        for position, result in results.items():
            decision = "pruned" if ended == {position} else "complete" if epoch == 2 else "continue"
            stack = {"members": list(results), "position": list(results).index(position)}
            ledger.append(
                row(position, epoch, -1.0, decision, metrics=finite(result.row), worker={"threads": 1, "stack": stack})
            )
    return ledger


def test_a_stacked_trial_is_repeated_with_its_stack_or_alone(tmp_path):
    """Its record has the whole stack: with that it comes out the same, alone within tolerance at least, and it says so."""
    ledger = stack_of_three(tmp_path / "s")
    record = TrialRecord.of(ledger, 2)
    assert record.stacked is not None
    assert (record.stacked.position, len(record.stacked.configs), record.stacked.epochs) == (2, 3, [1, 2, 2])
    assert TrialRecord.from_json(record.to_json(), "here") == record
    asked = {"data_dir": None, "device": "cpu", "on_row": lambda _: None}
    assert reproduce(record, stacked=True, **asked).verdict == "reproduced exactly"
    alone = reproduce(record, **asked)
    assert alone.verdict != "did not reproduce"
    assert "stack: of 3 trials -> alone" in alone.surroundings


def test_a_trial_that_was_alone_has_no_stack_to_repeat(tmp_path):
    """``--stacked`` is refused for it, by its number."""
    ledger = new_ledger(tmp_path / "s")
    ledger.append(trial(4))
    ledger.append(row(4, 1, -1.0, "complete"))
    record = TrialRecord.of(ledger, 4)
    assert record.stacked is None
    with pytest.raises(UserError, match="trial 4 trained alone"):
        reproduce(record, data_dir=None, device="cpu", on_row=lambda _: None, stacked=True)
