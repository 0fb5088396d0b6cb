"""The comparison key: figures rank together only where they are estimates of the same thing, made in the same way."""

from __future__ import annotations

import dataclasses

import pytest

from research.ledger.comparison import ALL, facts_of_recorded, why_not
from research.ledger.log import Ledger
from research.ledger.settings import Asha, Constraint, Metric
from research.search.early_stopping import value_at
from research.search.rung_table import RungTable
from research.views.report.comparison import figures
from research.worker.comparison import facts_of
from tests.support.synthetic import MEASURE, new_ledger, row, trial
from vae.corruption import Masking, SaltAndPepper
from vae.objectives import Iwae
from vae.optimizers import Adam
from vae.posteriors import FullCovariance
from vae.serialization import to_dict
from vae.train_config import Evaluation, TrainConfig

NLL = Metric(name="val/nll_iwae", direction="minimize")
BASE = TrainConfig(eval=Evaluation(nll_k=10, nll_images=100))


def facts(config, measure=MEASURE, examples=500):
    """The facts of a config's rows."""
    return facts_of(config, measure, examples=examples)


def with_eval(**changes):
    """``BASE`` with other evaluation settings."""
    return dataclasses.replace(BASE, eval=dataclasses.replace(BASE.eval, **changes))


@pytest.mark.parametrize(
    ("metric", "other", "named"),
    [
        ("val/elbo", with_eval(seed=3), "eval.seed is 3, not 0"),
        ("val/elbo", with_eval(samples=2), "eval.samples is 2, not 1"),
        ("val/elbo", dataclasses.replace(BASE, posterior=FullCovariance()), "full_covariance, not diagonal"),
        ("val/elbo", dataclasses.replace(BASE, objective=Iwae(k=5)), "diagonal, importance-weighted objective"),
        ("val/bits_per_dimension", dataclasses.replace(BASE, posterior=FullCovariance()), "full_covariance"),
        ("val/kl", with_eval(seed=1), "eval.seed is 1, not 0"),
        ("val/nll_iwae", with_eval(nll_k=200), "eval.nll_k is 200, not 10"),
        ("val/nll_iwae", with_eval(nll_images=50), "eval.nll_images is 50, not 100"),
        ("val/denoise_error", dataclasses.replace(BASE, corruption=Masking(fraction=0.3)), "corruption is"),
        ("val/samples_as_asked", with_eval(seed=2), "eval.seed is 2, not 0"),
    ],
)
def test_why_not_names_the_fact_that_differs(metric, other, named):
    """Each fact that a metric depends on is compared, and both values are in the answer."""
    base = BASE if metric != "val/denoise_error" else dataclasses.replace(BASE, corruption=SaltAndPepper())

    assert why_not([metric], facts(base), facts(base)) is None
    assert named in why_not([metric], facts(other), facts(base))


def test_why_not_differing_measures_are_refused_for_every_metric():
    """A measure says what a figure is a figure of."""
    assert "its measure is 'p(x|label)'" in why_not(
        ["model/parameters"], {"measure": "p(x|label)"}, {"measure": "p(x)"}
    )


@pytest.mark.parametrize(
    ("metric", "other"),
    [
        ("val/elbo", with_eval(nll_k=200, nll_images=7)),
        ("val/nll_iwae", with_eval(samples=9)),
        ("val/nll_iwae", dataclasses.replace(BASE, posterior=FullCovariance())),
        ("val/nll_iwae", dataclasses.replace(BASE, objective=Iwae(k=5))),
        ("val/elbo", dataclasses.replace(BASE, corruption=Masking(fraction=0.3))),
        ("val/elbo", dataclasses.replace(BASE, optimizer=Adam(lr=0.5), latent_size=3, seed=9)),
        ("val/elbo", with_eval(batch_size=7)),
    ],
)
def test_why_not_facts_that_a_metric_does_not_depend_on_are_not_compared(metric, other):
    """What makes the model better or worse is not compared, nor what only another metric depends on."""
    assert why_not([metric], facts(other), facts(BASE)) is None


def test_facts_of_more_images_than_there_are_examples_are_all_of_them():
    """Of 80 examples 100 images and 2,000 are the same 80."""
    few, many = facts(BASE, examples=80), facts(with_eval(nll_images=2000), examples=80)

    assert few["eval.nll_images"] == many["eval.nll_images"] == 80
    assert few["eval.subset"] == ALL
    assert why_not(["val/nll_iwae"], few, many) is None


def test_facts_of_an_earlier_row_follow_from_its_config():
    """A row without stored facts has those of its config, and of a subset the rule of that version."""
    config = to_dict(BASE)
    config["eval"].pop("subset", None)
    on_some = facts_of_recorded(config, {"measure": MEASURE, "val/nll_iwae_images": 100})
    on_all = facts_of_recorded(config, {"measure": MEASURE, "val/nll_iwae_images": 80})

    assert on_some["eval.subset"] == "first"
    assert on_all["eval.subset"] == ALL
    assert on_all["eval.nll_images"] == 80
    assert why_not(["val/nll_iwae"], on_all, facts(BASE, examples=80)) is None


def mixed(directory, **changes):
    """A sweep of which trial 1 has another evaluation seed, and the better figures; trial 2 is as trial 0."""
    ledger = new_ledger(directory, scheduler=Asha(grace=1, min_population=2), **changes)
    for number, (elbo, seed) in enumerate(((-50.0, 0), (-10.0, 3), (-40.0, 0))):
        config = to_dict(TrainConfig(latent_size=2 + number, eval=Evaluation(seed=seed)))
        ledger.append(trial(number, config=config))
        ledger.append(row(number, 1, elbo))
        ledger.append(row(number, 3, elbo, decision="complete"))
    return ledger


def test_ledger_a_row_that_does_not_compare_is_not_ranked_and_has_failed(tmp_path):
    """The trial is FAIL by name in every view, also in a ledger of an earlier version, which stored no facts."""
    mixed(tmp_path / "s")
    ledger = Ledger.open(tmp_path / "s")

    assert [view.number for view in ledger.ranked()] == [2, 0]
    assert ledger.trials[1].status == "FAIL"
    assert ledger.trials[1].fail_kind == "incomparable"
    assert "eval.seed is 3, not 0" in ledger.trials[1].reason
    assert ledger.standing.states == {"COMPLETE": 2, "FAIL": 1}


def test_rung_table_a_row_that_does_not_compare_stops_nobody(tmp_path):
    """Early stopping looks at the values of trials that compare alone."""
    ledger = mixed(tmp_path / "s")
    ledger.append(trial(3))
    seen = RungTable(ledger, value_at).others(ledger.trials[3], 1, below=4, epochs=3)

    assert sorted(seen) == [-50.0, -40.0]


def test_ledger_a_constraint_is_compared_too(tmp_path):
    """A trial whose constraint is measured in another way is not called feasible."""
    constraint = Constraint(metric="val/nll_iwae", relation="<=", bound=100.0)
    ledger = new_ledger(tmp_path / "s", constraints=(constraint,))
    for number, k in enumerate((10, 200)):
        config = to_dict(TrainConfig(latent_size=2 + number, eval=Evaluation(nll_k=k)))
        ledger.append(trial(number, config=config))
        ledger.append(row(number, 3, -10.0, decision="complete"))

    assert "eval.nll_k is 200, not 10" in ledger.trials[1].reason
    assert [view.number for view in ledger.ranked()] == [0]


@pytest.mark.parametrize(
    ("metric", "one", "other", "comparable"),
    [
        (NLL, Evaluation(nll_k=10), Evaluation(nll_k=200), False),
        (NLL, Evaluation(nll_k=10, nll_images=50), Evaluation(nll_k=10, nll_images=60), False),
        (Metric(), Evaluation(nll_k=10), Evaluation(nll_k=200), True),
        (Metric(), Evaluation(seed=1), Evaluation(), False),
    ],
)
def test_report_sweeps_that_do_not_compare_have_no_ranks(tmp_path, metric, one, other, comparable):
    """Two sweeps are ranked side by side only where the metric's figures compare; else the page says which differs."""
    ledgers = []
    for name, settings in (("a", one), ("b", other)):
        ledger = new_ledger(tmp_path / name, name=name, metric=metric)
        ledger.append(trial(0, config=to_dict(TrainConfig(eval=settings)), params={}, distributions={}))
        figure = row(0, 3, -10.0, decision="complete")
        metrics = {**figure.metrics, "val/nll_iwae": 9.0, "val/nll_iwae_images": settings.nll_images}
        ledger.append(dataclasses.replace(figure, metrics=metrics))
        ledgers.append(ledger)
    compared = figures(ledgers)["comparison"]

    assert compared["comparable"] is comparable
    assert [sweep["rank"] is not None for sweep in compared["sweeps"]] == [comparable] * 2
    if not comparable:
        assert "does not compare" in compared["refused"]
