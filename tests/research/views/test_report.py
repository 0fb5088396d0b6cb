"""The report: figures equal the ledger's to the last digit, nothing is loaded, and every kind of sweep has a page."""

from __future__ import annotations

import csv
import json
import re
import sys
from html import unescape
from html.parser import HTMLParser

import pandas as pd
import pytest

from research.cli import app as cli
from research.errors import CorruptFile, UserError
from research.experiments import finalists
from research.ledger.log import Ledger
from research.ledger.settings import Constraint, Metric, NoScheduler, Parent
from research.views.report import charts, export
from research.views.report.comparison import figures
from research.views.report.facts import facts, to_json
from research.views.report.page import html
from research.views.results import Sweep, open_sweep
from tests.support import synthetic
from tests.support.invented import TWO, drawn, last_row, models, run, values, whole
from tests.support.synthetic import failed, new_ledger


def body_of(page):
    """The page without plotly.js, whose strings name maps and licences that nothing here asks for."""
    before, _, rest = page.partition("<script")
    return before + rest.partition("</script>")[2]


def loaded_by(page):
    """What the page's elements and styles would fetch: everything but data, places in the page, and nothing."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(
                value for name, value in attrs if name in {"src", "href", "action", "srcset", "poster", "data"}
            )

    Reader().feed(body_of(page))
    styles = "".join(re.findall(r"<style>(.*?)</style>", page[: page.index("<script")], flags=re.DOTALL))
    found += re.findall(r"url\([^)]*\)|@import[^;]*", styles)
    return [value for value in found if not value.startswith(("data:", "#"))]


def table_of(page, name):
    """The rows of a table by its name: each cell's whole value, or its text."""
    content = re.search(rf'data-table="{name}".*?</table>', page, flags=re.DOTALL)[0]
    rows = re.findall(r"<tr>(.*?)</tr>", content, flags=re.DOTALL)
    return [
        [
            found[1] if (found := re.search(r'data-value="([^"]*)"', cell)) else unescape(re.sub("<.*?>", "", cell))
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL)
        ]
        for row in rows
    ]


def drawn_page(ledger):
    """The page of one sweep; all of Optuna's plots must have been drawn."""
    page = html([ledger])
    assert "can't draw this" not in page
    assert loaded_by(page) == []
    return page


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A sweep with trials of every fate and kept models."""
    made = whole(tmp_path_factory.mktemp("sweeps") / "every")
    models(made, "reconstructions.png", "samples.png", "traverse.png")
    return made


@pytest.fixture(scope="module")
def page(ledger):
    """Its page."""
    return drawn_page(ledger)


def test_json_has_the_ledgers_figures(ledger):
    """Every row of every trial is in the JSON as it is in the ledger, bit for bit."""
    told = json.loads(to_json(figures([ledger])))
    for view in ledger.trials.values():
        assert told["trials"][view.number]["rows"] == [dict(view.rows[e].metrics) for e in sorted(view.rows)]
        assert told["trials"][view.number]["params"] == dict(view.created.params)
    assert [one["trial"] for one in told["best"]] == [view.number for view in ledger.ranked()]


def test_csv_and_parquet_have_the_ledgers_figures(ledger, tmp_path):
    """Read back, each cell of trials and rows equals the ledger's value."""
    export.write_csv([ledger], tmp_path / "csv")
    export.write_parquet([ledger], tmp_path / "parquet")
    for rows, trials in (
        [list(csv.DictReader((tmp_path / f"csv/{name}.csv").read_text().splitlines())) for name in ("rows", "trials")],
        [pd.read_parquet(tmp_path / f"parquet/{name}.parquet").to_dict("records") for name in ("rows", "trials")],
    ):
        for row in rows:
            metrics = ledger.trials[int(row["trial"])].rows[int(row["epoch"])].metrics
            for name in ("val/elbo", "val/kl", "val/reconstruction", "time/train_seconds"):
                assert metrics[name] == float(row[name])
        assert len(rows) == sum(len(view.rows) for view in ledger.trials.values())
        assert [view.status for view in ledger.trials.values()] == [trial["status"] for trial in trials]
        assert [view.created.params["lr"] for view in ledger.trials.values()] == [float(t["params/lr"]) for t in trials]


def test_the_pages_cells_have_the_ledgers_figures(ledger, page):
    """A cell reads rounded and carries the ledger's value in full."""
    head, *rows = table_of(page, "best")
    for view, row in zip(ledger.ranked(), rows, strict=False):
        told = dict(zip(head, row, strict=True))
        best = view.best(ledger.settings.metric)
        for name in ("val/elbo", "val/reconstruction", "val/kl"):
            assert best.metrics[name] == float(told[name])
        assert view.created.params["lr"] == float(told["lr"])
    head, *rows = table_of(page, "trials")
    assert len(rows) == len(ledger.trials)


def test_nothing_is_loaded(page):
    """No address outside plotly.js's own strings: no fonts, no script, no picture from elsewhere."""
    assert "http" not in re.sub(r"plotlyServerURL", "", body_of(page)).replace("http-equiv", "")


def test_pictures_are_in_the_page(page):
    """Reconstructions, samples and traversals of each kept model, as data."""
    assert body_of(page).count('src="data:image/png;base64,') == 2 * 3
    assert "rank 1, trial" in page


def test_every_section_names_its_command(page):
    """A number's command stands below it."""
    for section in re.findall(r'<section id="(\S+)">(.*?)</section>', body_of(page), flags=re.DOTALL):
        assert "research " in section[1], section[0]


def test_text_is_escaped(page):
    """A failure's reason is text, whatever it holds."""
    assert "OutOfMemoryError: &lt;8 GiB&gt; &amp; no more" in page


def test_single_seeds_are_said_to_be_lucky(page):
    """Without finalists the page says what a best score is worth, and what to do."""
    assert "winner's curse" in unescape(page)
    assert "expect less if you train it again with another seed" in page
    assert "research finalists" in page


def test_early_stopping_is_said_to_select(page, tmp_path):
    """Importances of survivors are called that; a sweep without early stopping is not warned of."""
    assert "--scheduler none." in page
    ledger = new_ledger(tmp_path / "all", trials=5, epochs=9, scheduler=NoScheduler())
    for number in range(5):
        run(ledger, number, last=9, decision="complete")
    assert "Early stopping selected these" not in drawn_page(ledger)


def test_what_early_stopping_saved(ledger):
    """Epochs trained and full budgets are counted over complete and pruned trials; rungs over all."""
    told = facts(ledger)["rungs"]
    trained = 7 * 9 + (1 + 3 + 1 + 3)
    assert (trained, 11 * 9, 11 * 9 - trained) == (told["epochs_trained"], told["epochs_full"], told["epochs_saved"])
    assert told["rungs"] == [
        {"epoch": 1, "reached": 13, "stopped": 2},
        {"epoch": 3, "reached": 9, "stopped": 2},
    ]


def test_failures_by_kind(ledger):
    """Failures are counted by kind with an example; draws that were not trained are apart."""
    told = facts(ledger)
    assert {one["kind"]: one["count"] for one in told["failures"]} == {"diverged": 1, "out_of_memory": 1}
    assert [one["kind"] for one in told["skipped"]] == ["impossible"]


def test_time_is_the_rows_seconds(ledger):
    """A trial's seconds are those of its rows; utilisation comes with its definition."""
    told = facts(ledger)["time"]
    spent = sum(
        row.metrics["time/train_seconds"] + row.metrics["time/evaluation_seconds"]
        for view in ledger.trials.values()
        for row in view.rows.values()
    )
    assert pytest.approx(told["trial_seconds"], rel=1e-12) == spent
    assert told["utilisation"] == told["trial_seconds"] / (told["slots"] * told["wall_seconds"])
    assert "slots" in told["utilisation_is"]


def test_several_objectives(tmp_path):
    """The front is the ledger's, its hypervolume moocore's, and the reference is stated."""
    ledger = whole(tmp_path / "two", objectives=TWO, conditional=True)
    told = facts(ledger)["front"]
    assert [view.number for view in ledger.front()] == told["front"]
    points = {point["trial"]: point["values"] for point in told["points"]}
    assert {n: list(ledger.point(ledger.trials[n])) for n in points} == points
    assert [max(p[i] for p in points.values()) for i in (0, 1)] == told["reference"]
    page = drawn_page(ledger)
    _, *rows = table_of(page, "front")
    assert [[str(n), *map(repr, points[n])] for n in told["front"]] == [row[:3] for row in rows]
    assert repr(told["hypervolume"]) in page
    assert "measured from the reference point" in page


def test_conditional_parameters(tmp_path):
    """A parameter that only some configs have is named, shown where it is, and missing where it is not."""
    ledger = whole(tmp_path / "conditional", conditional=True)
    table = Sweep(ledger).trials()
    assert {True, False} == set(table["params/beta"].isna())
    assert "Only some configurations have beta." in drawn_page(ledger)
    assert "beta" not in facts(ledger)["importances"]["by_objective"]["val/elbo"]


def test_no_trial_complete(tmp_path):
    """A sweep that has just begun has a page."""
    ledger = new_ledger(tmp_path / "young", epochs=9)
    run(ledger, 0, last=2)
    page = drawn_page(ledger)
    assert "there is nothing to rank" in page
    assert "Not finished" in page


def test_no_trial_at_all(tmp_path):
    """So has one without a single draw."""
    drawn_page(new_ledger(tmp_path / "newborn"))


def test_one_trial(tmp_path):
    """And one of a single trial, for which nothing can be said about parameters."""
    ledger = new_ledger(tmp_path / "one", trials=1, epochs=9)
    run(ledger, 0, last=9, decision="complete")
    assert "too few to say anything about parameters" in drawn_page(ledger)
    assert "need 4" in Sweep(ledger).importances().attrs["reason"]


def test_all_alike(tmp_path):
    """Importances are refused where nothing was varied, or every value is the same."""
    ledger = new_ledger(tmp_path / "alike", trials=4, epochs=1)
    for number in range(4):
        ledger.append(drawn(number, epochs=1))
        ledger.append(last_row(number, values(0, 1)))
    assert "has the same val/elbo" in Sweep(ledger).importances().attrs["reason"]
    drawn_page(ledger)


def test_only_failures(tmp_path):
    """A sweep in which everything failed says so, by kind."""
    ledger = new_ledger(tmp_path / "failed", trials=2)
    for number in range(2):
        ledger.append(drawn(number))
        ledger.append(failed(number))
    page = drawn_page(ledger)
    assert table_of(page, "failed")[1:] == [["bug", "2", "0", "IndexError: list index out of range"]]


def test_no_bound(tmp_path):
    """An autoencoder's rows have no elbo and no kl: no plane of rate and distortion, and all else as usual."""
    ledger = new_ledger(
        tmp_path / "ae", trials=5, epochs=9, metric=Metric(name="val/reconstruction", direction="minimize")
    )
    for number in range(5):
        run(ledger, number, last=9, decision="complete", without=("val/elbo", "val/kl", "val/active"))
    page = drawn_page(ledger)
    assert 'id="rate-distortion"' not in page
    assert "val/elbo" not in body_of(page)


def test_constraints(tmp_path):
    """Which of the best satisfy the constraints is a column."""
    bound = Constraint(metric="val/active_units", relation=">=", bound=5)
    ledger = whole(tmp_path / "constrained", constraints=(bound,))
    head, *rows = table_of(drawn_page(ledger), "best")
    told = [row[head.index("satisfies constraints")] for row in rows]
    assert ["yes" if ledger.feasible(view) else "no" for view in ledger.ranked()][:10] == told


def test_replicates(tmp_path):
    """The standard error over replicates stands beside the value."""
    ledger = new_ledger(tmp_path / "replicates", trials=4, epochs=1, replicates=3)
    for number in range(4):
        ledger.append(drawn(number, epochs=1))
        ledger.append(last_row(number, values(number, 1, **{"val/elbo_se": 1 / 3})))
    head, *rows = table_of(drawn_page(ledger), "best")
    assert [repr(1 / 3)] * 4 == [row[head.index("± s.e.")] for row in rows]


FINALISTS = {
    "directory": "x/finalists",
    "seeds": 3,
    "metric": "val/elbo",
    "direction": "maximize",
    "complete": True,
    "configurations": [
        {
            "rank": rank,
            "parent_trial": trial,
            "params": {"lr": 0.1 / 3},
            "search": -100.0 / 3,
            "scores": [-34.1, -34.2, -34.3],
            "seeds": [1, 2, 3],
            "mean": -34.2 - rank / 7,
            "standard_error": 0.1 / 3,
            "gap": 0.7 / 3,
            "failed": [],
            "kept_trial": None,
            "model": None,
        }
        for rank, trial in ((1, 3), (2, 5))
    ],
    "difference": {"first": 3, "second": 5, "mean": 1 / 7, "low": -0.1 / 3, "high": 1.1, "level": 0.95},
    "winners_curse": {"gap": 0.7 / 3, "standard_error": 0.2 / 3, "of": 2},
    "test": {
        "metrics": {"test/elbo": {"mean": -35.1, "standard_error": 0.1 / 7, "values": [-35.0, -35.2]}},
        "looks": 1,
    },
}


def test_finalists(tmp_path, monkeypatch):
    """Fresh seeds replace the warning: means, their errors, the difference with its interval, and test marked as such."""
    ledger = whole(tmp_path / "finalists")
    monkeypatch.setattr(finalists, "results", lambda _: FINALISTS)
    page = drawn_page(ledger)
    for value in (-34.2 - 1 / 7, 0.1 / 3, 1 / 7, -0.1 / 3, 0.7 / 3, 0.1 / 7):
        assert f'data-value="{value!r}"' in page
    assert "the interval holds 0: no difference shown" in page
    assert "takes no part in it" in page
    assert "expect less if you train it again with another seed" not in page
    assert json.loads(to_json(figures([ledger])))["finalists"] == FINALISTS


def test_a_sweep_of_finalists(tmp_path):
    """Its trials are fresh seeds: the page says whose, and sends nobody to train finalists of finalists."""
    ledger = new_ledger(tmp_path / "fresh", trials=1, epochs=1, parent=Parent(name="search", identity="f00d"))
    ledger.append(synthetic.trial(0, distributions={}, parent_trial=7))
    ledger.append(last_row(0, values(0, 1)))
    page = drawn_page(ledger)
    assert "these are finalists of search" in page
    assert "research finalists" not in page


def test_bad_first_epochs_do_not_flatten_the_curves(tmp_path):
    """The first view leaves the worst of them out, and the caption says so; a sweep without such has all in view."""
    ledger = new_ledger(tmp_path / "steep", trials=1, epochs=40)
    ledger.append(drawn(0, epochs=40))
    for epoch in range(1, 41):
        metrics = values(0, epoch, **{"val/elbo": -1e6 if epoch == 1 else -100.0 - 1 / epoch})
        ledger.append(synthetic.row(0, epoch, None, "complete" if epoch == 40 else "continue", metrics=metrics))
    assert charts.leaves_out(charts.curves(ledger))
    assert "lie outside the first view" in drawn_page(ledger)


def test_sweeps_of_one_measure_are_ranked(tmp_path):
    """Two sweeps that compare are ranked by their best, and their best curves overlaid."""
    a, b = whole(tmp_path / "a", name="a"), whole(tmp_path / "b", name="b")
    run(b, 20, last=9, decision="complete")
    told = figures([a, b])["comparison"]
    assert told["comparable"]
    best = [max(view.curve("val/elbo").values()) for view in (a.ranked()[0], b.ranked()[0])]
    assert best == [one["value"] for one in told["sweeps"]]
    assert sorted([1, 2] if best[0] != best[1] else [1, 1]) == sorted(one["rank"] for one in told["sweeps"])
    page = html([a, b])
    assert "can't draw this" not in page
    assert "Best curves" in page
    assert loaded_by(page) == []


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({"measure": "p(x) other"}, ("counts-16|8x8|data=feed|split=beef", "p(x) other")),
        (
            {"metric": Metric(name="val/kl", direction="minimize")},
            ("val/elbo (maximize)", "val/kl (minimize)"),
        ),
    ],
)
def test_sweeps_that_do_not_compare_are_not_ranked(tmp_path, changes, both):
    """Both measures, or metrics, are printed; the sweeps stand side by side without ranks."""
    a, b = whole(tmp_path / "a", name="a"), whole(tmp_path / "b", name="b", **changes)
    told = figures([a, b])["comparison"]
    assert [one["rank"] for one in told["sweeps"]] == [None, None]
    assert all(text in told["refused"] for text in both)
    page = unescape(html([a, b]))
    assert all(text in page for text in both)
    head, *rows = table_of(page, "comparison")
    assert "rank" not in head
    assert len(rows) == 2
    assert "Best curves" not in page


def test_fronts_compare_from_one_reference(tmp_path):
    """Sweeps of the same objectives rank by hypervolume from the worst values of all their points."""
    a, b = (whole(tmp_path / name, name=name, objectives=TWO) for name in "ab")
    run(b, 21, last=9, decision="complete")
    told = figures([a, b])["comparison"]
    volumes = [one["hypervolume"] for one in told["sweeps"]]
    assert volumes[1] >= volumes[0] > 0
    assert told["sweeps"][1]["rank"] == 1
    assert len(TWO) == len(told["reference"])


def test_bad_input_is_one_line(tmp_path):
    """No sweep and a damaged ledger are refused by name."""
    with pytest.raises(UserError, match="is not a sweep directory"):
        open_sweep(tmp_path)
    ledger = whole(tmp_path / "torn")
    (ledger.directory / "ledger" / "00000005.json").write_text("{")
    with pytest.raises(CorruptFile, match=r"00000005\.json is damaged"):
        open_sweep(ledger.directory)
    with pytest.raises(UserError, match=r"must be a folder, or a file that ends in \.csv"):
        export.write_csv([whole(tmp_path / "fine")], tmp_path / "trials.parquet")


def test_the_verb(tmp_path, monkeypatch, capsys):
    """``research report DIR`` writes DIR/report.html; --json prints; a mistake is one line and exit code 2."""
    ledger = new_ledger(tmp_path / "verb", trials=1, epochs=9)
    run(ledger, 0, last=9, decision="complete")

    def research(*given):
        monkeypatch.setattr(sys, "argv", ["research", "report", *map(str, given)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr()

    code, printed = research(ledger.directory)
    assert (0, f"{ledger.directory}/report.html\n") == (code, printed.out)
    assert (ledger.directory / "report.html").stat().st_size > 1_000_000
    code, printed = research(
        ledger.directory, "--json", "--csv", tmp_path / "trials.csv", "--parquet", tmp_path / "all"
    )
    assert json.loads(printed.out)["states"]["COMPLETE"] == 1
    assert {"trials.parquet", "rows.parquet"} == {path.name for path in (tmp_path / "all").iterdir()}
    assert (tmp_path / "trials.csv").is_file()
    code, printed = research(tmp_path)
    assert (code, len(printed.err.splitlines())) == (2, 1)


def test_a_killed_writer_leaves_no_half_page(tmp_path):
    """A page is written whole: what can't be placed leaves nothing behind."""
    (tmp_path / "page.html").mkdir()
    with pytest.raises(UserError, match="can't be written"):
        export.write_text("x", tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_reopened_ledger_gives_the_same(ledger):
    """The report depends on the ledger's files alone."""
    assert to_json(facts(Ledger.open(ledger.directory))) == to_json(facts(ledger))
