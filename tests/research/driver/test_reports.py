"""Epochs that are reported together: the same rows, decisions and weights as when each is reported by itself."""

from __future__ import annotations

import itertools
import signal
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import research.worker.trial as worker
from research.driver.audience import Silent
from research.driver.in_process import InProcess
from research.driver.session import run
from research.driver.stopping import Stop
from research.ledger.events import RowReported, RowsReported
from research.ledger.log import Ledger
from research.ledger.settings import Asha, Hyperband, MedianRule, Metric, NoScheduler, RandomSearch, Resources
from research.search.spaces import Space
from research.store.folders import read_folder
from tests.support.by_hand import DriverByHand, report_of
from tests.support.synthetic import new_ledger, row, science
from vae.networks import Mlp
from vae.train_config import TrainConfig

TOGETHER = 1000.0  # seconds: no trial of these tests takes so long


def rows_of(ledger):
    """Every trial's draws, rows without times, and decisions."""
    return {
        view.number: (
            view.created.params,
            view.status,
            view.reason,
            {epoch: (science(row.metrics), row.decision, row.judged) for epoch, row in view.rows.items()},
        )
        for view in ledger.trials.values()
    }


def events_with_rows(ledger):
    """The number of epochs in each event with rows, for each trial."""
    found = {number: [] for number in ledger.trials}
    for event in Ledger(ledger.directory).refresh():
        if isinstance(event, RowReported | RowsReported):
            found[event.trial].append(len(event.rows) if isinstance(event, RowsReported) else 1)
    return found


def kept(ledger):
    """The weights of the kept models."""
    return {path.name: read_folder(path)["model.safetensors"] for path in (ledger.directory / "models").iterdir()}


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 5},
        {"epochs": 5, "scheduler": Asha(min_population=2, reduction=2)},
        {"epochs": 5, "scheduler": MedianRule(grace=2, min_population=2)},
        {"epochs": 5, "metric": Metric(direction="minimize")},  # then each trial's best epoch is its first
        {"epochs": 5, "replicates": 2},
    ],
    ids=["no early stopping", "asha", "median rule", "first epoch is the best", "replicates"],
)
def test_report_of_several_epochs_equals_one_of_each(begin, changes):
    """Rows, decisions and kept weights are equal; checkpoints are fewer, and those of both sweeps are equal."""
    apart, its_space = begin("apart", **changes)
    run(apart, its_space, Silent(), InProcess())
    together, its_space = begin("together", report_seconds=TOGETHER, **changes)
    run(together, its_space, Silent(), InProcess())
    apart, together = Ledger.open(apart.directory), Ledger.open(together.directory)

    assert rows_of(together) == rows_of(apart)
    assert kept(together) == kept(apart)
    assert all(counts == [1] * len(counts) for counts in events_with_rows(apart).values())
    assert len(together) < len(apart)
    for number, view in together.trials.items():
        best, hashes = view.best(together.settings.metric), apart.trials[number].rows
        assert best.checkpoint is not None
        assert view.rows[max(view.rows)].checkpoint is not None
        for epoch, each in view.rows.items():
            assert each.checkpoint_sha256 in {None, hashes[epoch].checkpoint_sha256}


def test_report_without_early_stopping_holds_all_epochs_of_a_short_trial(begin):
    """No decision is due before the last epoch, so that the trial reports once. Each row has its own time."""
    ledger, its_space = begin(epochs=4, report_seconds=TOGETHER)
    run(ledger, its_space, Silent(), InProcess())
    assert set(map(tuple, events_with_rows(ledger).values())) == {(4,)}
    for view in Ledger.open(ledger.directory).trials.values():
        times = [datetime.fromisoformat(view.rows[epoch].time) for epoch in (1, 2, 3, 4)]
        assert all(earlier < later for earlier, later in itertools.pairwise(times))
        assert datetime.fromisoformat(view.started) < times[0]


def test_report_is_made_at_every_epoch_that_is_decided(begin):
    """With rungs at 1 and 2 the epochs 3 to 5 of a trial that goes on are reported together."""
    changes = {"trials": 4, "epochs": 5, "scheduler": Asha(min_population=2, reduction=2)}
    ledger, its_space = begin(report_seconds=TOGETHER, **changes)
    run(ledger, its_space, Silent(), InProcess())
    counts = events_with_rows(ledger)
    assert counts[0] == [1] * 5, "nobody else has reached a rung: a judgement is owed at every epoch"
    assert all(each in ([1], [1, 1], [1, 1, 2, 1], [1, 1, 3]) for number, each in counts.items() if number > 0)


def test_stop_in_the_middle_of_an_epoch_loses_no_waiting_epoch(begin, monkeypatch):
    """The epochs before the stop get their rows, and the resumed trial goes on from the step of the stop."""
    whole, its_space = begin("whole", epochs=5, report_seconds=TOGETHER)
    run(whole, its_space, Silent(), InProcess())

    stopped, its_space = begin("stopped", epochs=5, report_seconds=TOGETHER)
    per_epoch = whole.trials[0].rows[1].metrics["step"]
    steps = itertools.count(1)
    before = Stop.asked

    def counted(self):
        if next(steps) == 3 * per_epoch + 3:
            signal.raise_signal(signal.SIGINT)
        return before(self)

    monkeypatch.setattr(Stop, "asked", counted)
    outcome = run(stopped, its_space, Silent(), InProcess())
    monkeypatch.undo()
    assert outcome.signal == signal.SIGINT
    rows = Ledger.open(stopped.directory).trials[0].rows
    assert sorted(rows) == [1, 2, 3]

    run(stopped, its_space, Silent(), InProcess())
    again = Ledger.open(stopped.directory)
    assert rows_of(again) == rows_of(Ledger.open(whole.directory))
    assert kept(again) == kept(whole)
    assert again.trials[0].rows[4].worker["continued_after_step"] > 3 * per_epoch


def test_trial_that_fails_has_the_rows_of_all_epochs_before(begin, monkeypatch):
    """An exception of a part in the third epoch does not take the first two with it."""
    train = worker.train_together

    def broken(config, *arguments, **named):
        epochs = train(config, *arguments, **named)
        yield next(epochs)
        yield next(epochs)
        raise KeyError("no such layer")

    monkeypatch.setattr(worker, "train_together", broken)
    ledger, its_space = begin(trials=1, report_seconds=TOGETHER)
    run(ledger, its_space, Silent(), InProcess())
    view = Ledger.open(ledger.directory).trials[0]
    assert (view.status, view.fail_kind, sorted(view.rows)) == ("FAIL", "bug", [1, 2])
    assert "no such layer" in view.reason


def test_trial_continues_from_an_earlier_checkpoint_to_the_same_rows(begin):
    """The checkpoint of the last row is damaged: the epochs since the one before are trained again, to the same bits."""
    settings = {"trials": 1, "epochs": 6, "metric": Metric(direction="minimize")}  # the first epoch is the best
    whole, its_space = begin("whole", report_seconds=0.0, **settings)
    run(whole, its_space, Silent(), InProcess())

    class EndsTheSession(Exception):
        """Stands for a kill of the driver."""

    class Killed(Silent):
        """Ends the session after the fourth row."""

        def row(self, row):
            if row.epoch == 4:
                raise EndsTheSession

    ledger, its_space = begin("killed", report_seconds=0.0, **settings)
    with pytest.raises(EndsTheSession):
        run(ledger, its_space, Killed(), InProcess())
    ledger = Ledger.open(ledger.directory)
    state = ledger.directory / ledger.trials[0].rows[4].checkpoint / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])

    run(ledger, its_space, Silent(), InProcess())
    again = Ledger.open(ledger.directory)
    assert rows_of(again) == rows_of(Ledger.open(whole.directory))
    assert again.trials[0].attempt == 1


SCHEDULERS = [
    Asha(grace=1, reduction=2, min_population=2),
    Asha(grace=2, reduction=3, min_population=4),
    Hyperband(reduction=2, min_population=2),
    MedianRule(grace=2, min_population=2),
    NoScheduler(),
]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: scheduler.kind)
@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_decisions_on_groups_up_to_the_next_decision_are_those_on_single_epochs(tmp_path_factory, scheduler, data):
    """Whatever the curves and the order of the reports: a group that ends where a decision is due changes no decision."""
    epochs, count = 12, 5
    curves = [[data.draw(st.floats(-100, 0)) for _ in range(epochs)] for _ in range(count)]
    folder = tmp_path_factory.mktemp("sweeps")

    def driver_of(name):
        resources = Resources(concurrent=count)
        ledger = new_ledger(
            folder / name, trials=count, epochs=epochs, sampler=RandomSearch(), resources=resources, scheduler=scheduler
        )

        def space(trial):
            trial.suggest_float("x", 0, 1)
            return TrainConfig(epochs=epochs, latent_size=2 + trial.number, network=Mlp(hidden=(2,)))

        driver = DriverByHand(ledger, Space(function=space, source=ledger.settings.space)).driver
        for _ in range(count):
            driver.next()
        return driver

    one, grouped = driver_of("one"), driver_of("grouped")
    done = dict.fromkeys(range(count), 0)
    while running := [number for number in done if not grouped.ledger.trials[number].terminal]:
        number = data.draw(st.sampled_from(running))
        until = grouped.due([number])[number]
        first = done[number] + 1
        rows = [row(number, epoch, curves[number][epoch - 1]) for epoch in range(first, until + 1)]
        reports = [report_of(each, epochs=epochs) for each in rows]
        for report in reports:
            one.report(report)
        merged = report_of(rows[0], epochs=epochs, rows=[report.rows[0] for report in reports])
        grouped.report(merged)
        done[number] = until
    assert rows_of(grouped.ledger) == rows_of(one.ledger)


def test_rows_after_the_one_that_ends_a_trial_are_not_written(tmp_path):
    """A figure that is not finite in the middle of a report fails the trial there."""
    ledger = new_ledger(tmp_path / "s", trials=1, epochs=5, sampler=RandomSearch(), scheduler=NoScheduler())
    driver = DriverByHand(ledger, Space(function=lambda _: TrainConfig(epochs=5), source=ledger.settings.space)).driver
    driver.next()
    reports = [report_of(row(0, epoch, None if epoch == 3 else -1.0), epochs=5) for epoch in (1, 2, 3, 4)]
    merged = report_of(row(0, 1, -1.0), epochs=5, rows=[report.rows[0] for report in reports])
    assert driver.report(merged) == "fail"
    assert driver.due([0]) == {}
    view = Ledger.open(tmp_path / "s").trials[0]
    assert (sorted(view.rows), view.fail_kind) == ([1, 2, 3], "diverged")


@pytest.mark.parametrize("epochs", [[2, 1], [1, 1]], ids=["not in order", "twice"])
def test_event_of_rows_out_of_order_is_refused(tmp_path, epochs):
    """Nobody writes such an event; a ledger that holds one was altered."""
    ledger = new_ledger(tmp_path / "s", trials=1)
    driver = DriverByHand(ledger, Space(function=lambda _: TrainConfig(epochs=5), source=ledger.settings.space)).driver
    driver.next()
    time = "2026-01-01T00:00:00+00:00"
    with pytest.raises(ValueError, match="not in order"):
        ledger.append(RowsReported.of([row(0, epoch, -1.0, time=time) for epoch in epochs]))
