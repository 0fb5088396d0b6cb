"""A sweep, grown, judged by finalists and reported: the same figures in the ledger, the study, W&B's files and the page."""

from __future__ import annotations

import json
import re

import optuna
import pandas as pd
import pytest

from research.experiments import finalists
from research.ledger.log import Ledger
from tests.support.verbs import research
from tests.support.wandb_reader import read_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CONCURRENT = ("--concurrent", "2")


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Twenty trials on digits, four more, two finalists with two seeds, a report; the sweep's directory."""
    storage = tmp_path_factory.mktemp("grown")
    asked = ("--trials", "20", "--epochs", "4", "--name", "s", "--storage", storage, "--wandb", "offline", *CONCURRENT)
    place = storage / "s"
    for arguments in (
        ("sweep", "quickstart", *asked),
        ("extend", place, "--trials", "+4"),
        ("finalists", place, "--top", "2", "--seeds", "2", "--nll", "8", "--images", "20"),
        ("report", place),
        ("report", place, "--json", "--out", storage / "report.json"),
        ("report", place, "--parquet", storage / "tables"),
    ):
        done = research(*arguments, timeout=600)
        assert done.code == 0, done.output
    return place


def test_an_extended_sweep_has_all_its_trials(grown):
    """Twenty and four, none run twice, the later ones known to the sampler that knew the first."""
    ledger = Ledger.open(grown)
    assert ledger.trained == 24
    assert ledger.settings.trials == 24
    assert ledger.created.settings.trials == 20
    assert all(view.terminal for view in ledger.trials.values())
    again = research("sweep", "quickstart", "--name", "s", "--storage", grown.parent)
    assert again.code == 2
    assert "exists already" in again.output


def test_figures_agree_to_the_last_digit(grown):
    """Each trial's best value: ledger, Optuna study, W&B summary, the page, and the tables beside it."""
    ledger = Ledger.open(grown)
    backend = optuna.storages.journal.JournalFileBackend(str(grown / "study.journal"))
    study = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    runs = {run.config["trial"]: run for run in read_runs(grown) if "trial" in run.config}
    table = pd.read_parquet(grown.parent / "tables" / "trials.parquet").set_index("number")
    page = (grown / "report.html").read_text(encoding="utf-8")
    exact = set(re.findall(r"-\d+\.\d{6,}", page))
    assert len(ledger.trials) == 24
    for number, view in ledger.trials.items():
        assert study.trials[number].state.name == view.status
        best = view.best(ledger.settings.metric)
        value = best.metrics["val/elbo"]
        if view.status == "COMPLETE":
            assert study.trials[number].value == value
        assert study.trials[number].intermediate_values == view.curve("val/elbo")
        assert runs[number].summary["best/val/elbo"] == value
        assert table.loc[number, "val/elbo"] == value
        if number in {other.number for other in ledger.ranked()[:3]}:
            assert repr(value) in exact


def test_finalists_agree_with_their_ledger_and_the_page(grown):
    """Means and seeds follow from the finalists' own rows; test was looked at once a seed; the page shows it."""
    found = finalists.results(Ledger.open(grown))
    own = Ledger.open(grown / "finalists")
    assert found["complete"]
    assert len(own.trials) == 4
    for row in found["configurations"]:
        scores = [
            view.best(own.settings.metric).metrics["val/elbo"]
            for view in own.trials.values()
            if view.created.parent_trial == row["parent_trial"]
        ]
        assert row["scores"] == scores
        assert row["mean"] == pytest.approx(sum(scores) / len(scores))
    assert found["test"]["looks"] == 2
    shown = json.loads(research("show", grown, "--json").output)
    assert shown["looks_at_test"] == 2
    page = (grown / "report.html").read_text(encoding="utf-8")
    assert repr(found["configurations"][0]["mean"]) in page
    # Asked again: nothing is trained and nothing new is looked at.
    again = research("finalists", grown, "--top", "2", "--seeds", "2", "--nll", "8", "--images", "20", "--json")
    assert json.loads(again.output) == found


def test_a_front_with_early_stopping(tmp_path):
    """Rate against distortion with ASHA and NSGA-II on real trials: no trial lost, the front is the brute-force one."""
    asked = (
        "--trials",
        "12",
        "--epochs",
        "4",
        "--min-population",
        "2",
        "--sampler",
        "nsga2",
        "--sampler-option",
        "population=4",
    )
    objectives = ("--metric", "val/reconstruction:min", "--metric", "val/kl:min")
    done = research(
        "sweep", "beta_vae", "--data", "digits", *objectives, *asked, "--name", "f", "--storage", tmp_path,
        "--wandb", "disabled", *CONCURRENT,
    )  # fmt: skip
    assert done.code == 0, done.output
    ledger = Ledger.open(tmp_path / "f")
    states = [view.status for view in ledger.trials.values()]
    assert set(states) == {"COMPLETE", "PRUNED"}
    points = {n: ledger.point(v) for n, v in ledger.trials.items() if v.status == "COMPLETE"}
    front = [n for n, p in points.items() if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points.values())]
    assert sorted(view.number for view in ledger.front()) == sorted(front)
    shown = json.loads(research("show", tmp_path / "f", "--json").output)
    worst = [max(p[i] for p in points.values()) for i in (0, 1)]
    assert shown["hypervolume"]["reference"] == worst
    volume, height = 0.0, worst[1]
    for a, b in sorted(points[n] for n in set(front)):
        volume += (worst[0] - a) * (height - b) if b < height else 0.0
        height = min(height, b)
    assert shown["hypervolume"]["value"] == pytest.approx(volume)
