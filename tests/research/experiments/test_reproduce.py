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


WHOLE = ROW | {
    "val/nll_iwae": 90.0,
    "val/nll_iwae_standard_error": 3.0,
    "val/nll_iwae_change_from_half_k": -0.2,
    "val/nll_iwae_k": 16,
    "val/nll_iwae_images": 100,
    "val/active_units": 6,
    "val/collapsed": False,
    "val/kl_per_dimension": [12.0, 8.0, 1e-9],
    "val/samples_as_asked": 0.9,
    "train/loss": 101.0,
    "train/gradient_norm": 7.0,
    "train/tc": 1e-4,
    "model/parameters": 1000,
    "weights": "ema",
    "step": 10,
}
MACHINE = 1e-4  # how far another machine's kernels are off, relative


@pytest.mark.parametrize(
    ("name", "forged"),
    [
        ("val/nll_iwae", -10.0),
        ("val/nll_iwae", 89.9),
        ("val/nll_iwae", None),
        ("val/nll_iwae_standard_error", 0.1),
        ("val/nll_iwae_change_from_half_k", -5.0),
        ("val/nll_iwae_k", 17),
        ("val/nll_iwae_images", 99),
        ("val/active_units", 3),
        ("val/collapsed", True),
        ("val/kl_per_dimension", [12.0, 7.0, 1e-9]),
        ("val/kl_per_dimension", [12.0, 8.0]),
        ("val/samples_as_asked", 0.5),
        ("train/loss", 102.0),
        ("train/gradient_norm", 9.0),
        ("train/tc", 3.0),
        ("model/parameters", 1001),
        ("weights", "raw"),
        ("step", 11),
        ("val/elbo", "-100.0"),
        ("val/elbo", True),
    ],
)
def test_judge_looks_at_every_figure_of_a_row(name, forged):
    """A recorded figure that is too good, whichever it is, does not pass as within tolerance."""
    assert verdict(WHOLE | {name: forged}, WHOLE) == "did not reproduce"
    assert judge([WHOLE | {name: forged}] * 2, [WHOLE] * 2, compare([WHOLE | {name: forged}] * 2, [WHOLE] * 2)) == (
        "did not reproduce"
    )


def test_judge_passes_what_another_machine_computes():
    """Sums move by a rounding error, counts by one, and what is next to nothing by all of itself."""
    moved = {
        n: v * (1 + MACHINE) if isinstance(v, float) and not n.startswith("time/") else v for n, v in WHOLE.items()
    }
    moved |= {"val/active_units": 5, "val/kl_per_dimension": [12.001, 7.999, 3e-9], "train/tc": 2e-4}
    assert verdict(WHOLE, moved) == "reproduced within tolerance"


def test_judge_of_figures_on_one_side_alone():
    """A figure that later code has learned to report is no difference; one that the record has lost is."""
    more = WHOLE | {"val/invented": 1.0}
    differences = compare([WHOLE], [more])
    assert judge([WHOLE], [more], differences, same_code=False) == "reproduced within tolerance"
    assert judge([WHOLE], [more], differences, same_code=True) == "did not reproduce"
    assert verdict(more, WHOLE) == "did not reproduce"
    without = {name: value for name, value in WHOLE.items() if name != "val/nll_iwae"}
    lost = compare([without], [WHOLE])
    assert judge([without], [WHOLE], lost, ranked_by="val/nll_iwae") == "did not reproduce"


def test_judge_of_replicates_that_agree_allows_rounding():
    """Where all seeds have one value, their spread is nothing, and the rule without a spread holds."""
    same = ROW | {"val/elbo_replicates": [-100.0, -100.0], "val/elbo_se": 0.0}
    assert verdict(same, same | {"val/elbo": -100.01, "val/elbo_replicates": [-100.01, -100.01]}) == (
        "reproduced within tolerance"
    )


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
