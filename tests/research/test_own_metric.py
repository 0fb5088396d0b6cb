"""A metric of a user's own in a sweep: ranked by, constrained, compared by its source, and known to every view."""

from __future__ import annotations

import shutil

import pytest

import research
from research.errors import UserError
from research.ledger.comparison import why_not
from research.ledger.metrics import METRICS, RANKING, depends_on, external_fact
from research.planning.metrics import parse_constraint, parse_metric
from research.planning.prepare import prepare
from tests.support.places import FIXTURES, ROOT
from vae.external_metric import ExternalMetric

FILE = str(ROOT / "tests" / "support" / "metrics.py")
SPACE = """
from vae.data import Digits
from vae.external_metric import ExternalMetric
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.train_config import TrainConfig

def space(trial):
    own = (ExternalMetric(name="sharpness", path={path!r}, direction="maximize"),)
    return TrainConfig(data=Digits(), likelihood=Binomial(), network=Mlp(hidden=(trial.suggest_int("w", 8, 64),)), latent_size=4,
                       epochs=2, metrics={metrics})
"""


@pytest.fixture
def request_of(tmp_path, monkeypatch):
    """A sweep of a space with a metric of its own, in a file beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(FILE, tmp_path / "mine.py")
    (tmp_path / "space.py").write_text(SPACE.format(path="mine.py:sharpness", metrics="own"))

    def request(**options):
        fields = {"space": "space.py", "trials": 2, "address": "none", "wandb": "disabled", "scheduler": "none"}
        return research.SweepRequest(**(fields | {"name": "s", "storage": tmp_path} | options))

    return request


def test_sweep_ranks_by_an_own_metric_with_replicates_and_a_constraint(request_of):
    """The better direction is the metric's; the row of two seeds has the mean and its error."""
    sweep = research.run_sweep(
        request_of(metric="val/sharpness", constraint="val/sharpness>=0", replicates=2), quiet=True
    )
    assert (sweep.metric.name, sweep.metric.direction) == ("val/sharpness", "maximize")
    first, second = sweep.ledger.ranked()
    values = [view.curve("val/sharpness")[view.best(sweep.metric).epoch] for view in (first, second)]
    assert values[0] >= values[1]
    row = first.best(sweep.metric)
    assert row.metrics["val/sharpness_se"] >= 0
    assert row.comparison[external_fact("val/sharpness")].startswith("mine.py:sharpness ")
    assert row.worker["external"].keys() == {"mine.py:sharpness"}
    assert max(sweep.curves()["value"]) == max(max(view.curve("val/sharpness").values()) for view in (first, second))


def test_rows_of_other_source_or_settings_do_not_compare():
    """By the fact of the metric, and by that metric only."""
    one, other = ({"measure": "m", external_fact("val/mine"): text} for text in ("a.py:f 1", "a.py:f 2"))
    assert (
        why_not(["val/mine"], one, other) == "val/mine does not compare: its metric val/mine is a.py:f 1, not a.py:f 2"
    )
    assert why_not(["val/elbo"], one, other) is None
    assert why_not(["val/mine"], one, one) is None


def test_space_that_varies_its_metrics_is_refused(request_of, tmp_path):
    """They belong to the sweep."""
    varied = SPACE.format(path="mine.py:sharpness", metrics='own if trial.params["w"] > 30 else ()')
    (tmp_path / "space.py").write_text(varied)
    with pytest.raises(UserError, match="the space varies metrics"):
        prepare(request_of())


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("val/sharpnes", "did you mean 'val/sharpness'"),
        ("val/sharpness:min", "is better maximised; got direction 'min'"),
    ],
)
def test_own_metric_that_is_misspelt_is_refused(request_of, metric, told):
    """As the project's own are."""
    with pytest.raises(UserError, match=told):
        prepare(request_of(metric=metric))


def test_parse_takes_own_metrics_only_where_the_space_has_them():
    """With their direction."""
    own = [ExternalMetric(name="sharpness", path=f"{FILE}:sharpness", direction="maximize")]
    assert parse_metric("val/sharpness", own).direction == "maximize"
    assert parse_constraint("val/sharpness>=1", own).metric == "val/sharpness"
    with pytest.raises(UserError, match="unknown metric 'val/sharpness'"):
        parse_metric("val/sharpness")


def test_every_figure_of_real_rows_is_registered():
    """Of the fixture's sweep: figures of the validation split, and those of cost."""
    ledger = research.open_sweep(FIXTURES / "small-digits").ledger
    names = {name for view in ledger.trials.values() for row in view.rows.values() for name in row.metrics}
    assert {name for name in names if name.startswith(("val/", "time/", "model/"))} <= METRICS.keys()
    for name in RANKING:
        assert isinstance(depends_on(name), tuple)
