"""Finalists: which are trained again, with which seeds, and what their scores say, on invented ledgers."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from research.errors import UserError
from research.experiments import finalists
from research.ledger.log import Ledger
from research.ledger.settings import Metric, NoScheduler, Parent
from research.store.folders import write_sealed
from tests.support.synthetic import new_ledger, row, trial
from vae.networks import Conv
from vae.serialization import config_hash, to_dict
from vae.train_config import TrainConfig

SCORES = {1: [-101.0, -99.0, -103.0], 0: [-104.0, -100.0, -105.0]}


@pytest.fixture
def sweep(tmp_path):
    """Three trials of the search: 0 is its best, 2 its worst."""
    ledger = new_ledger(tmp_path / "s", trials=3)
    for number, elbo in enumerate((-98.0, -100.0, -120.0)):
        ledger.append(trial(number))
        ledger.append(row(number, 3, elbo, "complete"))
    return ledger


def prepared(sweep, **changes):
    """The finalists' ledger."""
    asked = {"top": 2, "seeds": 3, "resources": None, "command": []} | changes
    return Ledger.open(finalists.prepare(sweep, **asked))


def finish(ledger, scores):
    """Every finalist ends with its score, in order of seeds."""
    left = {origin: list(values) for origin, values in scores.items()}
    for number, view in sorted(ledger.trials.items()):
        if not view.terminal:
            value = left[view.created.parent_trial].pop(0)
            ledger.append(row(number, 3, value, "fail" if value is None else "complete", reason="it burst"))


def test_the_best_are_trained_again_with_fresh_seeds(sweep):
    """The same configs but for the seed, which no trial of the search had; nothing is stopped early."""
    ledger = prepared(sweep)
    assert ledger.settings.parent == Parent(name="quick", identity=sweep.identity)
    assert isinstance(ledger.settings.scheduler, NoScheduler)
    assert [view.created.parent_trial for view in ledger.trials.values()] == [0, 1] * 3
    searched = {view.created.seed for view in sweep.trials.values()}
    for view in ledger.trials.values():
        origin = sweep.trials[view.created.parent_trial].created
        assert view.created.config == {**origin.config, "seed": view.created.seed}
        assert view.created.seed not in searched
        assert not view.terminal
    seeds = {
        origin: {v.created.seed for v in ledger.trials.values() if v.created.parent_trial == origin}
        for origin in (0, 1)
    }
    assert seeds[0] == seeds[1]
    assert len(seeds[0]) == 3


def test_the_answer_is_by_mean_and_says_how_sure(sweep):
    """Order by mean of fresh seeds, not by the search's score; Welch's interval; gaps; the median seed's weights."""
    ledger = prepared(sweep)
    finish(ledger, SCORES)
    found = finalists.results(sweep)
    assert found["complete"]
    first, second = found["configurations"]
    assert (first["parent_trial"], second["parent_trial"]) == (1, 0)
    assert first["scores"] == SCORES[1]
    assert first["mean"] == statistics.fmean(SCORES[1])
    assert first["standard_error"] == pytest.approx(statistics.stdev(SCORES[1]) / math.sqrt(3))
    assert first["gap"] == pytest.approx(-100.0 - first["mean"])
    assert ledger.trials[first["kept_trial"]].rows[3].metrics["val/elbo"] == -101.0
    assert first["model"].endswith(f"finalists/models/trial-{first['kept_trial']:04d}")
    interval = stats.ttest_ind(SCORES[1], SCORES[0], equal_var=False).confidence_interval(0.95)
    assert (found["difference"]["low"], found["difference"]["high"]) == pytest.approx((interval.low, interval.high))
    assert found["difference"]["mean"] == pytest.approx(first["mean"] - second["mean"])
    # The curse is that of the search's own winner, whoever wins now.
    assert found["winners_curse"]["gap"] == pytest.approx(-98.0 - statistics.fmean(SCORES[0]))
    assert found["test"] is None


def test_where_less_is_better_the_signs_turn(tmp_path):
    """Gap and difference are positive where the search's score, and the first configuration, are better."""
    metric = Metric(name="val/reconstruction", direction="minimize")
    ledger = new_ledger(tmp_path / "s", trials=2, metric=metric)
    for number, elbo in enumerate((-98.0, -100.0)):
        ledger.append(trial(number))
        ledger.append(row(number, 3, elbo, "complete"))  # reconstruction is 0.8 of −elbo
    finish(prepared(ledger), {0: [-110.0, -111.0, -112.0], 1: [-120.0, -121.0, -123.0]})
    found = finalists.results(ledger)
    assert found["configurations"][0]["parent_trial"] == 0
    assert found["configurations"][0]["gap"] == pytest.approx(0.8 * (111.0 - 98.0))
    assert found["difference"]["mean"] > 0


def test_more_seeds_and_more_configs_are_added_to_what_is_there(sweep):
    """Nothing is trained twice: only what is missing is created."""
    ledger = prepared(sweep)
    finish(ledger, SCORES)
    more = prepared(sweep, top=3, seeds=4)
    assert len(more.trials) == 12
    assert more.settings.trials == 12
    assert sum(not view.terminal for view in more.trials.values()) == 6
    assert len({(view.created.parent_trial, view.created.seed) for view in more.trials.values()}) == 12


def test_a_seed_that_fails_is_named_and_not_averaged(sweep):
    """Its configuration goes on with the others."""
    ledger = prepared(sweep)
    finish(ledger, {1: [-101.0, None, -103.0], 0: [-104.0, -100.0, -105.0]})
    row_of_1 = next(r for r in finalists.results(sweep)["configurations"] if r["parent_trial"] == 1)
    assert row_of_1["mean"] == -102.0
    (told,) = row_of_1["failed"]
    assert "it burst" in told
    assert told.startswith("seed ")


def test_only_an_ended_sweep_has_finalists(tmp_path):
    """A sweep without a result, one that runs, and finalists themselves are refused."""
    ledger = new_ledger(tmp_path / "s")
    with pytest.raises(UserError, match="no trial with a result"):
        prepared(ledger)
    ledger.append(trial(0))
    ledger.append(row(0, 3, -9.0, "complete"))
    ledger.append(trial(1))
    with pytest.raises(UserError, match="trial 1 has not ended"):
        prepared(ledger)
    ledger.append(row(1, 3, -9.5, "complete"))
    place = prepared(ledger).directory
    with pytest.raises(UserError, match="holds finalists already"):
        finalists.prepare(Ledger.open(place), top=1, seeds=2, resources=None, command=[])


def test_no_finalists_no_answer(sweep):
    """None, not an empty table."""
    assert finalists.results(sweep) is None


def test_a_look_at_test_is_that_of_the_configuration_it_was_taken_of(sweep):
    """When more seeds choose another configuration, the figures of the one before are not shown as its own."""
    ledger = prepared(sweep)
    finish(ledger, SCORES)
    seen = {"parent_trial": 1, "looks": 3, "metrics": {}}
    write_sealed(ledger.directory / "test.json", seen)
    assert finalists.results(sweep)["test"] == seen
    more = prepared(sweep, seeds=4)
    finish(more, {1: [-400.0], 0: [-100.0]})
    found = finalists.results(sweep)
    assert found["configurations"][0]["parent_trial"] == 0
    assert found["test"] is None


def test_finalists_of_small_models_are_stacked_where_that_is_faster(sweep, tmp_path):
    """A slot's share of them at a time; as the sweep was told where it was told; one by one where models can't be stacked."""
    assert prepared(sweep).settings.stack == 6  # two configurations, three seeds, one slot
    told = new_ledger(tmp_path / "told", trials=1, stack=2)
    told.append(trial(0))
    told.append(row(0, 3, -98.0, "complete"))
    assert prepared(told).settings.stack == 2
    conv = TrainConfig(network=Conv(channels=(4,)))
    other = new_ledger(tmp_path / "conv", trials=1)
    other.append(trial(0, config=to_dict(conv), config_hash=config_hash(conv), seed=conv.seed))
    other.append(row(0, 3, -98.0, "complete"))
    assert prepared(other).settings.stack == 1


def curves_of(*values):
    """Curves from lists of figures, the first at epoch 1."""
    return [dict(enumerate(each, start=1)) for each in values]


def test_fresh_scores_of_one_replicate_are_each_seeds_own_best():
    """A score in the search is the best epoch of one run, and so is each fresh one."""
    curves = curves_of([1.0, 5.0, 2.0], [4.0, 3.0, 0.0])

    assert finalists.fresh_scores(curves, 1, 1.0) == [5.0, 4.0]
    assert finalists.fresh_scores(curves, 1, -1.0) == [1.0, 0.0]


def test_fresh_scores_of_replicates_are_of_the_best_epoch_of_their_mean_curve():
    """The mean curve is 2.5, 4, 1: its best epoch is 2, which is not the second seed's own."""
    curves = curves_of([1.0, 5.0, 2.0], [4.0, 3.0, 0.0])

    for replicates in (2, 3):  # with fewer seeds than replicates, all there are
        assert finalists.fresh_scores(curves, replicates, 1.0) == [5.0, 3.0]
        assert finalists.fresh_scores(curves, replicates, -1.0) == [2.0, 0.0]


def test_fresh_scores_of_more_seeds_than_replicates_are_of_groups_of_as_many():
    """Their mean is the mean over the groups of two of the best epoch of each group's mean curve."""
    values = [[1.0, 5.0, 2.0], [4.0, 3.0, 0.0], [0.0, 1.0, 9.0]]
    groups = [(0, 1), (1, 2), (2, 0)]
    best = [max((values[a][e] + values[b][e]) / 2 for e in range(3)) for a, b in groups]

    assert statistics.fmean(finalists.fresh_scores(curves_of(*values), 2, 1.0)) == pytest.approx(statistics.fmean(best))


def test_fresh_scores_need_an_epoch_that_all_of_a_group_have():
    """As a row of replicates has no figure where one of them has none."""
    assert finalists.fresh_scores([{1: 9.0, 2: 1.0}, {2: 3.0}], 2, 1.0) == [1.0, 3.0]
    assert finalists.fresh_scores([{1: 9.0}, {2: 3.0}], 2, 1.0) == []
    assert finalists.fresh_scores([], 2, 1.0) == []


@pytest.mark.parametrize(("replicates", "seeds"), [(1, 5), (3, 3), (3, 5), (4, 8)])
def test_fresh_scores_are_unbiased_where_nothing_was_selected(replicates, seeds):
    """The gap of a trial that nobody chose is 0 on average; each seed's own best epoch would give it a sign."""
    draw = np.random.default_rng(0)
    gaps, own = [], []
    for _ in range(3000):
        search = draw.normal(size=(replicates, 10)).mean(0).max()
        curves = draw.normal(size=(seeds, 10))
        fresh = finalists.fresh_scores(curves_of(*curves.tolist()), replicates, 1.0)
        gaps.append(search - statistics.fmean(fresh))
        own.append(search - curves.max(1).mean())

    error = statistics.stdev(gaps) / math.sqrt(len(gaps))
    assert statistics.fmean(gaps) == pytest.approx(0.0, abs=3 * error)
    if replicates > 1:
        assert statistics.fmean(own) < -0.5


def trained_curves(ledger, curves):
    """Every finalist of trial 0 ends with the next of these curves."""
    for (number, _), values in zip(sorted(ledger.trials.items()), curves, strict=True):
        for epoch, value in enumerate(values, start=1):
            ledger.append(row(number, epoch, value, "complete" if epoch == len(values) else "continue"))


def test_gap_of_replicates_compares_best_epochs_of_mean_curves(tmp_path):
    """The ledger says how many replicates a score of the search is the mean of; scores and ranking stay by seed."""
    ledger = new_ledger(tmp_path / "s", trials=1, replicates=2)
    ledger.append(trial(0))
    ledger.append(row(0, 3, -90.0, "complete"))
    trained_curves(prepared(ledger, seeds=2), [[-110.0, -100.0, -120.0], [-95.0, -105.0, -130.0]])

    found = finalists.results(ledger)
    (only,) = found["configurations"]
    # The mean curve is −102.5, −102.5, −125; of equals the first epoch counts.
    assert only["gap"] == pytest.approx(-90.0 + 102.5)
    assert only["gap_standard_error"] == pytest.approx(statistics.stdev([-110.0, -95.0]) / math.sqrt(2))
    assert found["winners_curse"]["gap"] == only["gap"]
    assert found["winners_curse"]["standard_error"] == only["gap_standard_error"]
    assert only["scores"] == [-100.0, -95.0]
    assert only["mean"] == -97.5


def test_gap_of_a_trial_that_was_stopped_early_is_of_the_epochs_that_it_reached(tmp_path):
    """Fresh seeds train on, and what they gain after that epoch is no part of the winner's curse."""
    ledger = new_ledger(tmp_path / "s", trials=1)
    ledger.append(trial(0))
    ledger.append(row(0, 1, -120.0, "continue"))
    ledger.append(row(0, 2, -110.0, "pruned"))
    trained_curves(prepared(ledger, seeds=2), [[-125.0, -112.0, -90.0], [-120.0, -114.0, -92.0]])

    (only,) = finalists.results(ledger)["configurations"]
    assert only["gap"] == pytest.approx(-110.0 + 113.0)
    assert only["mean"] == -91.0
