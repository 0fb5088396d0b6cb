"""What a model must satisfy: parsed, ranked first, and told to the sampler."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.errors import UserError
from research.ledger.settings import Constraint
from research.planning.metrics import check_constraints, default_metric, parse_constraint
from research.search.study import StudyView
from tests.support.synthetic import new_ledger, row, trial
from vae.corruption import Masking
from vae.data import Digits
from vae.likelihoods import Bernoulli, Gaussian
from vae.objectives import Iwae, Reconstruction
from vae.posteriors import Deterministic, FullCovariance
from vae.train_config import TrainConfig

AT_LEAST_SIX = Constraint(metric="val/active_units", relation=">=", bound=6)


def test_parsing():
    """Metric, relation and bound; spaces around them don't matter."""
    assert parse_constraint("val/active_units>=6") == AT_LEAST_SIX
    assert parse_constraint("val/kl <= 2.5") == Constraint(metric="val/kl", relation="<=", bound=2.5)
    assert str(AT_LEAST_SIX) == "val/active_units>=6"


@pytest.mark.parametrize("text", ["val/kl", "val/kl>2", "val/kl>=x", "val/kl>=inf", ">=3", "test/elbo>=-90"])
def test_nonsense_is_refused(text):
    """In one line that says what a constraint looks like, or which metric there is."""
    with pytest.raises(UserError):
        parse_constraint(text)


def test_what_is_not_reported_is_refused():
    """A constraint on samples needs them to be classified."""
    with pytest.raises(UserError, match=r"eval\.classified_samples"):
        check_constraints([parse_constraint("val/samples_as_asked>=0.9")], [TrainConfig()])


POINT = TrainConfig(posterior=Deterministic(), objective=Reconstruction())
GREY = TrainConfig(likelihood=Bernoulli(), data=Digits(binarisation="expected"))
DENSITY = TrainConfig(likelihood=Gaussian())


@pytest.mark.parametrize(
    ("constraint", "config", "why"),
    [
        ("val/kl>=1", POINT, "posterior.kind 'deterministic', a code without a density"),
        ("val/elbo>=-90", POINT, "code without a density"),
        ("val/nll_iwae<=90", POINT, "code without a density"),
        ("val/active_units>=5", POINT, "code without a density"),
        ("val/bits_per_dimension<=2", POINT, "code without a density"),
        ("val/squared_error<=2", TrainConfig(), "posterior.kind 'deterministic' alone"),
        ("val/denoise_error<=2", TrainConfig(), "corruption.kind is 'none'"),
        ("val/denoise_error<=2", POINT, "corruption.kind is 'none'"),
        ("val/bits_per_dimension<=2", GREY, "cross-entropy on grey pixels"),
        ("val/bits_per_dimension<=2", DENSITY, "without dequantisation"),
    ],
)
def test_what_no_trial_could_satisfy_is_refused(constraint, config, why):
    """A row without the figure violates every bound: a night of trials would all rank as infeasible."""
    with pytest.raises(UserError, match="can't be satisfied by any trial") as refused:
        check_constraints([parse_constraint(constraint)], [config, config])
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("constraint", "config"),
    [
        ("val/kl>=1", TrainConfig()),
        ("val/squared_error<=2", POINT),
        ("val/reconstruction<=90", POINT),
        ("val/denoise_error<=2", TrainConfig(corruption=Masking())),
        ("val/bits_per_dimension<=2", TrainConfig()),
        ("val/bits_per_dimension<=2", TrainConfig(likelihood=Gaussian(), data=Digits(dequantise=True))),
    ],
)
def test_what_is_reported_is_not(constraint, config):
    """Nor where only some of a space's configs report it: those can satisfy it."""
    check_constraints([parse_constraint(constraint)], [config])
    check_constraints([parse_constraint("val/denoise_error<=2")], [TrainConfig(), TrainConfig(corruption=Masking())])


def test_violation():
    """At most 0 where it is satisfied; infinite where nothing was reported."""
    assert AT_LEAST_SIX.violation(7) == -1
    assert AT_LEAST_SIX.violation(4) == 2
    assert AT_LEAST_SIX.violation(None) == float("inf")
    assert Constraint(metric="val/kl", relation="<=", bound=1).violation(3) == 2


def constrained(directory):
    """Trial 0 is best but has 5 active units; trials 1 and 2 have 6, trial 2 the better elbo."""
    ledger = new_ledger(directory, constraints=(AT_LEAST_SIX,))
    for number, epoch, elbo in ((0, 1, -10.0), (1, 2, -30.0), (2, 2, -20.0)):
        ledger.append(trial(number, params={}, distributions={}))
        ledger.append(row(number, epoch, elbo, "complete"))
    return ledger


def test_those_that_satisfy_it_rank_first(tmp_path):
    """However good the others are."""
    ledger = constrained(tmp_path / "quick")
    assert [view.number for view in ledger.ranked()] == [2, 1, 0]
    assert [ledger.feasible(view) for view in ledger.ranked()] == [True, True, False]


def test_the_study_knows(tmp_path):
    """Optuna's own view of a trial's constraints is the ledger's, told in this session or rebuilt in another."""
    ledger = constrained(tmp_path / "quick")
    for ended in (True, False):
        study = StudyView(ledger, Path(tmp_path) / f"study-{ended}.journal")
        for number in sorted(ledger.trials):
            study.add(ledger.trials[number], ended=ended)
            study.tell(ledger.trials[number])
        told = [dict(frozen.constraints) for frozen in study.study.get_trials()]
        assert told == [{"val/active_units>=6": violation} for violation in (1, 0, 0)]


def test_the_metric_that_nobody_named():
    """The bound; the likelihood where bounds misorder; errors where there is no bound."""
    point = TrainConfig(posterior=Deterministic(), objective=Reconstruction())
    assert default_metric([TrainConfig()]).name == "val/elbo"
    assert default_metric([TrainConfig(objective=Iwae())]).name == "val/nll_iwae"
    assert default_metric([TrainConfig(), TrainConfig(posterior=FullCovariance())]).name == "val/nll_iwae"
    assert default_metric([point]).name == "val/reconstruction"
    noisy = TrainConfig(posterior=Deterministic(), objective=Reconstruction(), corruption=Masking())
    assert default_metric([noisy]).name == "val/denoise_error"
