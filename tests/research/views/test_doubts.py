"""Models that trained and are of no use: named in the live view, at the end, and in the report."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from research.views.doubts import doubts, warnings
from research.views.live import LiveView
from research.views.report.page import html
from research.views.show import glance
from tests.support.invented import drawn
from tests.support.synthetic import new_ledger, row, trial
from vae.measure import uniform_nll

COLOUR = "p(x) counts(0..255) 3072d image_folder/validation@3d7478367d6d"
UNIFORM = 3072 * math.log(256)


@pytest.mark.parametrize(
    ("measure", "nll"),
    [
        (COLOUR, UNIFORM),
        ("p(x|label) counts(0..16) 64d digits/validation@3d7478367d6d", 64 * math.log(17)),
        ("p(x) binary(seed=0) 784d mnist/test@6d4950903bed", 784 * math.log(2)),
        ("p(x) expected-binary 784d mnist/validation@6d4950903bed", 784 * math.log(2)),
        ("p(x) real((x+u)/256,seed=0) 784d mnist/validation@6d4950903bed", 0.0),
        ("p(x) unit(x) 30d arrays/validation@6d4950903bed", 0.0),
        ("p(x) real(x) 30d arrays/validation@6d4950903bed", None),
        ("p(x) real(x/255) 784d mnist/validation@6d4950903bed", None),
        ("", None),
        ("counts-16|8x8|data=feed", None),
    ],
    ids=str,
)
def test_uniform_nll_is_of_a_guess_that_takes_all_values_alike(measure, nll):
    """D·log(levels) of counts, 0 of densities on [0, 1], nothing where values have no bounds."""
    assert nll == (None if nll is None else pytest.approx(uniform_nll(measure)))
    assert (uniform_nll(measure) is None) == (nll is None)


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"val/elbo": -1.01 * UNIFORM}, ["worse than a uniform guess: 8.1 bits per dimension, where a guess"]),
        ({"val/elbo": -0.99 * UNIFORM}, []),
        ({"val/elbo": -1.01 * UNIFORM, "val/nll_iwae": 0.99 * UNIFORM}, []),
        ({"val/reconstruction": 1.01 * UNIFORM}, ["worse than a uniform guess"]),
        ({"val/elbo": -5.0, "val/kl": 0.02, "val/collapsed": True}, ["collapsed: its code says nothing"]),
        ({"val/elbo": -5.0, "val/collapsed": False}, []),
        ({"val/elbo": -5.0, "val/collapsed": 0.25}, []),
        ({"val/elbo": float("nan")}, []),
        ({}, []),
    ],
    ids=str,
)
def test_doubts_are_of_rows_that_are_worse_than_no_model(metrics, told):
    """Each doubt begins as it should; a sound row has none."""
    found = doubts(metrics, COLOUR, {})
    assert len(found) == len(told)
    assert all(doubt.startswith(start) for doubt, start in zip(found, told, strict=True))


@pytest.mark.parametrize(("kind", "named"), [("binomial", True), ("discretised_logistic", False)])
def test_the_remedy_of_a_binomial_is_a_discretised_logistic(kind, named):
    """Only where that is not used already."""
    found = doubts({"val/elbo": -4 * UNIFORM}, COLOUR, {"likelihood": {"kind": kind}})
    assert ("use likelihood.kind 'discretised_logistic'" in found[0]) is named


@pytest.fixture
def sweep(tmp_path):
    """A sweep on colour images; the best of three models is worse than a uniform guess, the last collapsed."""
    ledger = new_ledger(tmp_path / "colours", trials=3, keep=3, measure=COLOUR)
    for number, collapsed in enumerate((False, False, True)):
        ledger.append(drawn(number))
        metrics = {"epoch": 1, "val/elbo": -4 * UNIFORM - number, "val/kl": 0.01, "val/collapsed": collapsed}
        metrics |= {"measure": COLOUR}
        ledger.append(row(number, 1, None, "complete", metrics=metrics))
    return ledger


def shown(renderable):
    """What a console prints of it."""
    console = Console(file=io.StringIO(), width=300)
    console.print(renderable, highlight=False)
    return console.file.getvalue()


def test_a_useless_model_is_named_wherever_models_are_shown(sweep):
    """The live view's table and lines, the end of a sweep, and the report."""
    console = Console(file=io.StringIO(), width=300)
    view = LiveView(console, sweep)
    told = "warning: the model of trial 0 is worse than a uniform guess: 32.0 bits per dimension"
    assert told in shown(view.frame())
    view.ended(sweep.trials[2])
    assert "warning: worse than a uniform guess, collapsed" in console.file.getvalue()
    ended = shown(glance(sweep))
    assert f"{told}, where a guess that takes all values alike has 8.0; a binomial is too narrow" in ended
    assert "'discretised_logistic'; so are 2 more of these trials" in ended
    assert "warning: the model of trial 2 is collapsed" in ended
    assert "Warning: the best model, of trial 0, is worse than a uniform guess" in html([sweep])


def test_sound_models_are_not_warned_of(tmp_path):
    """Nothing is said of a sweep whose models are sound."""
    ledger = new_ledger(tmp_path / "quick", trials=1)
    ledger.append(trial(0))
    ledger.append(row(0, 1, -90.0, "complete"))
    assert warnings(ledger, ledger.ranked()) == []
    assert "warning" not in shown(glance(ledger)).lower()
