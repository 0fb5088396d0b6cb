"""A sweep that version 0.1.0 made still works: every verb is run on a copy of tests/fixtures/small-digits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from research import provenance
from research.ledger.log import Ledger
from research.ledger.records import load_record
from tests.support.places import FIXTURES
from tests.support.verbs import research

MADE_BY_0_1_0 = FIXTURES / "small-digits"
BEST_TRIAL = 1
RELATIVE = 1e-4  # how far figures may be apart where other kernels or threads computed them


@pytest.fixture
def sweep(tmp_path) -> Path:
    """A copy of the earlier sweep."""
    return Path(shutil.copytree(MADE_BY_0_1_0, tmp_path / "small-digits"))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Path:
    """A copy of the earlier sweep after ``resume``."""
    directory = Path(shutil.copytree(MADE_BY_0_1_0, tmp_path_factory.mktemp("resumed") / "small-digits"))
    ran = research("resume", directory, "--allow-changed-code")
    assert ran.code == 0, ran.output
    return directory


def same_kernels(record) -> bool:
    """Return True where this machine computes the bits of ``record``: its processor type and torch build."""
    here = provenance.hardware()
    return (
        record.versions["torch"] == provenance.versions()["torch"]
        and record.hardware["cpu"] == here["cpu"]
        and record.hardware["isa"] == here["isa"]
    )


def close(recorded, again) -> bool:
    """Return True where two values of a row agree to ``RELATIVE``; of a list, relative to its largest entry."""
    if isinstance(recorded, list):
        scale = max(map(abs, recorded))
        return all(abs(a - b) <= RELATIVE * scale for a, b in zip(recorded, again, strict=True))
    if isinstance(recorded, int | float) and not isinstance(recorded, bool):
        return abs(recorded - again) <= RELATIVE * abs(recorded)
    return recorded == again


def assert_reproduced(directory: Path, rank: int) -> None:
    """Train the trial of ``rank`` again and compare every figure of every row."""
    record = load_record(directory, rank)
    ran = research("reproduce", directory, "--rank", str(rank), "--json")
    answer = json.loads(ran.output)

    assert answer["rows"] == len(record.rows)
    if same_kernels(record):
        assert answer["verdict"] == "reproduced exactly", answer
        assert answer["differences"] == []
    else:
        assert answer["verdict"] == "reproduced within tolerance", answer
        assert all(close(each["recorded"], each["again"]) for each in answer["differences"]), answer


def test_show_prints_the_ranking_of_an_earlier_sweep(sweep):
    """The states and the best trial are those of the ledger."""
    text, as_json = research("show", sweep), research("show", sweep, "--json")

    assert text.code == as_json.code == 0, text.output
    assert "2 COMPLETE, 1 unfinished" in text.output
    assert json.loads(as_json.output)["best"][0]["trial"] == BEST_TRIAL


def test_report_writes_the_page_of_an_earlier_sweep(sweep):
    """The page and the figures as JSON."""
    page, figures = research("report", sweep), research("report", sweep, "--json")

    assert page.code == figures.code == 0, page.output + figures.output
    assert "small-digits" in (sweep / "report.html").read_text()
    assert json.loads(figures.output)


def test_evaluate_gives_the_row_of_an_earlier_model(sweep):
    """The bound and the importance-weighted estimate of the kept weights are those of the row that kept them."""
    model = sweep / "models" / f"trial-{BEST_TRIAL:04d}"
    record = load_record(model)
    row = next(row for row in record.rows if row["epoch"] == record.best_epoch)
    ran = research("evaluate", model, "--nll", "16", "--images", "100", "--threads", "2", "--json")
    answer = json.loads(ran.output)

    assert ran.code == 0, ran.output
    assert answer["measure"] == row["measure"]
    for name in ("val/elbo", "val/kl", "val/reconstruction", "val/nll_iwae"):
        assert answer[name] == (row[name] if same_kernels(record) else pytest.approx(row[name], rel=RELATIVE)), name


def test_reproduce_trains_an_earlier_trial_again(sweep):
    """Exactly where processor, torch build and threads are those of the record, else to a relative 1e-4."""
    assert_reproduced(sweep, rank=1)


@pytest.mark.slow
def test_resume_finishes_the_interrupted_trial_of_an_earlier_sweep(resumed):
    """Trial 2 goes on in the middle of its sixth epoch and comes out as if it had never been interrupted."""
    before, after = Ledger.open(MADE_BY_0_1_0), Ledger.open(resumed)
    trials = after.trials.values()

    assert [view.status for view in trials] == ["COMPLETE"] * 3
    assert {number: view.created for number, view in after.trials.items()} == {
        number: view.created for number, view in before.trials.items()
    }
    assert all(after.trials[2].rows[epoch] == row for epoch, row in before.trials[2].rows.items())
    rank_of_resumed = [view.number for view in after.ranked()].index(2) + 1
    assert_reproduced(resumed, rank_of_resumed)


@pytest.mark.slow
def test_extend_draws_more_trials_for_an_earlier_sweep(resumed, tmp_path):
    """A fourth trial is drawn by the sampler that knows the first three, and is ranked with them."""
    directory = Path(shutil.copytree(resumed, tmp_path / "small-digits"))
    ran = research("extend", directory, "--trials", "+1", "--allow-changed-code")
    ledger = Ledger.open(directory)

    assert ran.code == 0, ran.output
    assert len(ledger.trials) == 4
    assert all(view.status in {"COMPLETE", "PRUNED"} for view in ledger.trials.values())
    assert ledger.trials[3].created.config["eval"]["subset"] == "first"  # the rule of the rows that are there
