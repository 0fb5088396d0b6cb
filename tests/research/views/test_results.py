"""A sweep in a notebook: tables from the ledger, and the code of docs/report.md as it is printed there."""

from __future__ import annotations

import re

import pytest

from research.errors import UserError
from research.views.results import Sweep, open_sweep
from tests.support.invented import TWO, whole
from tests.support.places import ROOT

GUIDE = ROOT / "docs" / "report.md"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A sweep with trials of every fate."""
    return whole(tmp_path_factory.mktemp("sweeps") / "every", conditional=True)


def test_the_guides_code_runs(ledger):
    """The first block of docs/report.md gives what it says."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    names = {"directory": ledger.directory}
    exec(blocks[0], names)
    assert max(names["by_activation"]) == ledger.ranked()[0].best(ledger.settings.metric).metrics["val/elbo"]
    assert {view.number for view in ledger.trials.values() if view.rows} == set(names["curves"].columns)
    assert pytest.approx(1.0) == names["matters"]["val/elbo"].sum()
    assert names["front"].empty
    assert ledger.ranked()[0].number == names["best"]["number"]
    assert len(ledger.trials) == len(names["study"].trials)
    assert names["finalists"] is None


def test_trials_have_what_the_ledger_has(ledger):
    """Status, seed, epochs, parameters, the best row's figures; whole numbers stay whole beside missing ones."""
    table = Sweep(ledger).trials().set_index("number")
    for number, view in ledger.trials.items():
        row = table.loc[number]
        assert (view.status, view.created.seed, max(view.rows, default=0)) == (
            row["status"],
            row["seed"],
            row["epochs"],
        )
        best = view.best(ledger.settings.metric)
        if best is not None:
            assert best.metrics["val/elbo"] == row["val/elbo"]
            assert best.epoch == row["best_epoch"]
        assert view.created.config["optimizer"]["lr"] == row["config/optimizer.lr"]
    assert str(table["best_epoch"].dtype) == "Int64"
    assert "[400]" in set(table["config/network.hidden"]) or table["config/network.hidden"].str.startswith("[").all()


def test_the_study_tells_the_truth(ledger):
    """COMPLETE with the best of its curve, PRUNED with the last, failed and skipped trials as FAIL; numbers are ours."""
    study = Sweep(ledger).study()
    for view, trial in zip(ledger.trials.values(), study.trials, strict=True):
        assert {"SKIPPED": "FAIL"}.get(view.status, view.status) == trial.state.name
        curve = list(view.curve("val/elbo").values())
        if view.status in {"COMPLETE", "PRUNED"}:
            assert (max(curve) if view.status == "COMPLETE" else curve[-1]) == trial.value
            assert view.created.params == trial.params
    assert ledger.ranked()[0].number == study.best_trial.number


def test_the_study_of_several_objectives(tmp_path):
    """COMPLETE trials have their point, PRUNED ones nothing, and the front is the ledger's."""
    ledger = whole(tmp_path / "two", objectives=TWO)
    study = Sweep(ledger).study()
    for view, trial in zip(ledger.trials.values(), study.trials, strict=True):
        assert (list(ledger.point(view)) if view.status == "COMPLETE" else None) == trial.values
        assert trial.intermediate_values == {}
    assert {view.number for view in ledger.front()} == {trial.number for trial in study.best_trials}
    assert [view.number for view in ledger.front()] == list(Sweep(ledger).front()["trial"])


def test_importances_are_the_same_each_time(ledger):
    """The forest is seeded."""
    assert Sweep(ledger).importances().equals(open_sweep(ledger.directory).importances())


def test_a_rank_that_is_not_there(ledger):
    """Ranks beyond the ranked trials, and models that were not kept, are refused in one line."""
    with pytest.raises(UserError, match="11 trials have a finite val/elbo"):
        Sweep(ledger).rank(12)
    with pytest.raises(UserError, match="was not kept"):
        Sweep(ledger).model(1)
