"""What a driver keeps up to date equals what one would find by looking at all trials again."""

from __future__ import annotations

import dataclasses
import io
import math
import random
from collections import Counter

import pytest
from rich.console import Console

from research.ledger import pareto
from research.ledger.budget import since_best
from research.ledger.events import TrialFailed, TrialRetried
from research.ledger.log import Ledger
from research.ledger.settings import Asha, Constraint, Hyperband, MedianRule, Metric, rungs
from research.ledger.trial_view import TIMES, TrialView
from research.search.early_stopping import running_mean, value_at
from research.search.rung_table import RungTable
from research.search.study import SEEN, SEEN_BEST, StudyView
from research.views.live import LiveView
from research.views.show import counts
from tests.support.synthetic import new_ledger, row, session, trial

FRONT = (Metric(name="val/reconstruction", direction="minimize"), Metric(name="val/kl", direction="minimize"))
SWEEPS = {
    "plain": {},
    "minimised": {"metric": Metric(name="val/kl", direction="minimize")},
    "constrained": {"constraints": (Constraint(metric="val/active_units", relation=">=", bound=6.0),)},
    "front": {"objectives": FRONT, "constraints": (Constraint(metric="val/active_units", relation="<=", bound=6.0),)},
    "hyperband": {"scheduler": Hyperband()},
    "median": {"scheduler": MedianRule(min_population=2)},
}


def invented(ledger: Ledger, luck: random.Random, events: int) -> None:
    """Append ``events`` events as they may come: trials side by side, told twice, retried, failed, ended."""
    ledger.append(session(1))
    for _ in range(events):
        number = luck.randrange(max(1, len(ledger.trials) + 1))
        if number not in ledger.trials:
            ledger.append(trial(len(ledger.trials)))
            continue
        epoch = max(ledger.trials[number].rows, default=0) + luck.choice([0, 1, 1, 1])
        kind = luck.random()
        if kind < 0.05:
            ledger.append(TrialFailed(trial=number, kind=luck.choice(["bug", "duplicate"]), reason="invented"))
        elif kind < 0.1:
            ledger.append(TrialRetried(trial=number, attempt=1, reason="invented"))
        else:
            elbo = None if kind < 0.15 else round(luck.gauss(-30, 3), 1)  # rounded: some are equal
            decision = "fail" if elbo is None else luck.choices(["continue", "complete", "pruned"], [4, 1, 1])[0]
            one = row(number, epoch, elbo, decision)
            metrics = dict(one.metrics) | dict.fromkeys(TIMES, luck.choice([0.25, 1.5, None]))
            metrics["val/active_units"] = luck.randrange(4, 9)
            if luck.random() < 0.5 and elbo is not None:  # off the diagonal: a front of more than one
                metrics["val/kl"] = luck.randrange(1, 9)
            ledger.append(dataclasses.replace(one, metrics=metrics))


def slow_curve(view: TrialView, metric: str) -> dict[int, float]:
    """The finite values by epoch, from the rows."""
    values = {epoch: view.rows[epoch].metrics.get(metric) for epoch in sorted(view.rows)}
    return {epoch: float(value) for epoch, value in values.items() if isinstance(value, int | float)}


def slow_ranks(ledger: Ledger) -> dict[int, int]:
    """The Pareto rank of each complete and feasible trial."""
    points = {
        view.number: ledger.point(view)
        for view in ledger.trials.values()
        if view.status == "COMPLETE" and ledger.feasible(view) and ledger.point(view) is not None
    }
    if not ledger.settings.objectives:
        return {}
    return dict(zip(points, pareto.ranks(list(points.values()), ledger.settings.objectives), strict=True))


def slow_ranked(ledger: Ledger, statuses: set[str]) -> list[int]:
    """All trials sorted by what they are ranked by."""
    metric, ranks = ledger.settings.metric, slow_ranks(ledger)
    pick, sign = (max, -1.0) if metric.direction == "maximize" else (min, 1.0)
    keyed = [
        (not ledger.feasible(v), ranks.get(v.number, math.inf), sign * pick(curve.values()), v.number)
        for v in ledger.trials.values()
        if v.status in statuses and (curve := slow_curve(v, metric.name))
    ]
    return [number for *_, number in sorted(keyed)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", SWEEPS)
def test_what_is_kept_is_what_all_trials_say(kind, seed, tmp_path):
    """Ranking, front, counts, budget and rungs equal a look at all trials, at any moment and after a reopening."""
    luck = random.Random(seed)
    written = new_ledger(tmp_path / "s", **SWEEPS[kind])
    for view in written.trials.values():
        view.curve("val/elbo")
    for _ in range(2):
        invented(written, luck, 60)
        for ledger in (written, Ledger.open(tmp_path / "s")):
            views = list(ledger.trials.values())
            for view in views:
                for name in ("val/elbo", "val/kl"):
                    assert view.curve(name) == slow_curve(view, name)
                    assert list(view.curve(name)) == sorted(view.curve(name))
            assert [v.number for v in ledger.ranked()] == slow_ranked(ledger, {"COMPLETE", "PRUNED"})
            running = {"COMPLETE", "PRUNED", "RUNNING"}
            assert [v.number for v in ledger.ranked(include_running=True)] == slow_ranked(ledger, running)
            assert ledger.pareto_ranks() == slow_ranks(ledger)
            assert {s: n for s, n in counts(ledger).items() if n} == dict(Counter(v.status for v in views))
            assert ledger.trained == sum(v.status != "SKIPPED" for v in views)
            assert list(ledger.standing.running) == [v.number for v in views if not v.terminal]
            assert ledger.standing.epochs == sum(len(v.rows) for v in views)
            assert ledger.standing.seconds == sum(v.seconds or 0.0 for v in views)
            best = {v.number for v in ledger.front()} or set(slow_ranked(ledger, {"COMPLETE", "PRUNED"})[:1])
            places = [place for number, place in ledger.standing.places.items() if number in best]
            assert since_best(ledger) == (len(ledger.standing.places) - 1 - max(places) if places else 0)
            assert set(ledger.standing.places) == {v.number for v in views if v.terminal and v.status != "SKIPPED"}
            rungs_agree(ledger, luck)


def rungs_agree(ledger: Ledger, luck: random.Random) -> None:
    """The table of rungs holds what each trial had come to there, and no trial that may not be seen."""
    scheduler, metric = ledger.settings.scheduler, ledger.settings.metric
    value = running_mean if isinstance(scheduler, MedianRule) else value_at
    table = RungTable(ledger, value)
    for view in ledger.trials.values():
        for rung in rungs(scheduler, 9):
            below = luck.randrange(len(ledger.trials) + 2)
            others = [v for v in ledger.trials.values() if v.number < below and v is not view]
            if isinstance(scheduler, Hyperband):
                others = [v for v in others if scheduler.bracket(9, v.number) == scheduler.bracket(9, view.number)]
            expected = [found for v in others if (found := value(v, metric, rung)) is not None]
            assert table.others(view, rung, below=below, epochs=9).tolist() == expected


def test_the_table_of_rungs_grows_with_the_sweep(tmp_path):
    """Trials that come to a rung after the table was read are in it, however many."""
    ledger = new_ledger(tmp_path / "s", scheduler=Asha(grace=1))
    ledger.append(trial(0))
    table = RungTable(ledger, value_at)
    for number in range(1, 140):
        ledger.append(trial(number))
        ledger.append(row(number, 1, -float(number)))
        if number in {1, 63, 64, 139}:
            seen = table.others(ledger.trials[0], 1, below=1000, epochs=3)
            assert seen.tolist() == [-float(n) for n in range(1, number + 1)]


def test_a_small_sweep_shows_its_sampler_every_trial(tmp_path, monkeypatch):
    """TPE sees all of as many trials as the limit; of more, the best and the newest, and those that run."""
    monkeypatch.setattr("research.search.study.SEEN", 12)
    monkeypatch.setattr("research.search.study.SEEN_BEST", 4)
    ledger = new_ledger(tmp_path / "s")
    study = StudyView(ledger, tmp_path / "s" / "study.journal")
    for number in range(30):
        ledger.append(trial(number, distributions={}))
        if number < 28:
            # 3, 7 and 11 are the best complete ones; every third is pruned, and a pruned one is better than all.
            value = -1.0 if number in {3, 7, 11} else 0.0 if number == 6 else -50.0 - number
            ledger.append(row(number, 1, value, "pruned" if number % 3 == 0 and number != 3 else "complete"))
        study.add(ledger.trials[number], ended=True)
        if len(study.results) <= 12:
            assert study._seen() is None
    assert (SEEN, SEEN_BEST) == (1000, 100)

    shown = study._seen()
    assert shown is not None
    with study.storage.showing(shown):
        numbers = [one.number for one in study.study.get_trials(deepcopy=False)]
    complete_best = {3, 7, 11, 1}
    assert numbers == sorted(complete_best | {20, 21, 22, 23, 24, 25, 26, 27} | {28, 29})
    assert len(study.study.get_trials()) == 30, "everybody else sees all"


def test_the_live_table_has_no_more_rows_than_the_screen(tmp_path):
    """Of hundreds of running trials those are drawn that there is room for; the others are counted."""
    ledger = new_ledger(tmp_path / "s", trials=60)
    for number in range(60):
        ledger.append(trial(number))
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, height=30)
    screen.print(LiveView(screen, ledger).frame())
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()

    assert "and 40 more" in text
    assert text.count("0/") == 20
