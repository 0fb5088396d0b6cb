"""A record that lies alone is compared with itself: config and hash, seed, rows, best epoch, measure, replicates."""

from __future__ import annotations

import copy
import json

import pytest

from research.errors import UserError
from research.ledger.consistency import check_record, config_of, expected_rows, names_external, rows_in_words
from research.ledger.records import TrialRecord, load_record
from tests.support.places import FIXTURES
from tests.support.verbs import research

RECORD = json.loads((FIXTURES / "small-digits" / "models" / "trial-0001" / "record.json").read_bytes())


def record(change=None):
    """The record of the earlier sweep's best trial, after ``change`` of its JSON."""
    values = copy.deepcopy(RECORD)
    if change is not None:
        change(values)
    return TrialRecord.from_json(json.dumps(values), "record.json")


def put(**values):
    """A change of fields at the top."""
    return lambda record: record.update(values)


def in_rows(**values):
    """A change of each row."""
    return lambda record: [row.update(values) for row in record["rows"]]


def test_consistent_record_is_accepted():
    """Of the earlier version, and with the count of rows that later ones have."""
    for whole in (record(), record(put(epochs_trained=12))):
        assert config_of(whole).seed == whole.seed
        assert expected_rows(whole) == 12
        assert rows_in_words(whole) == "12 epochs"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put(config_hash="0" * 64), "its config has the hash be5766fbc975, and its config_hash is '000000000000'"),
        (put(seed=8), "its seed is 8, and its config's is 1181883507"),
        (lambda r: (r.update(seed=8), r["config"].update(seed=8)), "its config has the hash"),
        (lambda r: r["config"]["optimizer"].update(lr=0.5), "its config has the hash"),
        (put(measure="nonsense"), "its measure is 'nonsense', and a row has 'p"),
        (lambda r: r["rows"][4].update(measure="nonsense"), "and a row has 'nonsense'"),
        (lambda r: r["rows"].pop(), "it has 11 rows, and its COMPLETE trial had 12"),
        (lambda r: r["rows"].clear(), "it has 0 rows, and its COMPLETE trial had 12"),
        (lambda r: r["rows"].pop(3), "its rows must be of epochs 1, 2, ..."),
        (lambda r: r["rows"].reverse(), "its rows must be of epochs 1, 2, ..."),
        (lambda r: r["rows"].append(r["rows"][0]), "its rows must be of epochs 1, 2, ..."),
        (lambda r: (r["rows"].pop(), r.update(status="PRUNED", epochs_trained=12)), "and its PRUNED trial had 12"),
        (lambda r: r["config"].update(epochs=5), "COMPLETE trial had 5"),
        (put(best_epoch=3), "its best epoch is 3, and by val/nll_iwae epoch 12 is"),
        (put(best_epoch=13), "its best epoch is 13"),
        (put(best_epoch=None), "its best epoch is None"),
        (put(metric={"name": "val/elbo", "direction": "minimize"}), "its best epoch is 12, and by val/elbo epoch 1 is"),
        (
            put(metric={"name": "val/nothing", "direction": "minimize"}),
            "its metric 'val/nothing' is in none of its rows",
        ),
        (put(replicates=3), "it has 3 replicates, and the row of epoch 1"),
        (put(threads=10**9), "its threads must be 1 to 1024"),
        (put(stacked={"position": 0, "configs": [{}], "epochs": [12]}), "its stack has another config"),
        (put(stacked={"position": 4, "configs": [{}], "epochs": [12]}), "its own at 4"),
    ],
)
def test_record_that_contradicts_itself_is_refused(change, problem):
    """Both values are named."""
    with pytest.raises(UserError, match="contradicts itself") as refused:
        config_of(record(change))
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: (r["rows"].pop(), r.update(status="PRUNED", best_epoch=11)),
        lambda r: (r["rows"].pop(), r.update(status="RUNNING", best_epoch=11)),
        lambda r: (r["rows"].clear(), r.update(status="FAIL", best_epoch=None)),
        lambda r: (in_rows(measure="")(r), r.update(measure="")),
        lambda r: r.update(sweep="", status="FAIL", best_epoch=11),  # a single run keeps no diverged row
    ],
)
def test_record_of_a_trial_that_ended_early_is_accepted(change):
    """What an earlier version's record can't say is not held against it."""
    check_record(record(change))


def test_rows_that_the_record_should_have_are_said():
    """Of a trial that ended early a new record says how many; an earlier one can't."""

    def pruned(values):
        values["rows"] = values["rows"][:8]
        values.update(status="PRUNED", best_epoch=8)

    assert "8 of 12 epochs, PRUNED; the record does not say" in rows_in_words(record(pruned))
    assert rows_in_words(record(lambda r: (pruned(r), r.update(epochs_trained=8)))) == "8 of 12 epochs, PRUNED"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1" + "0" * 400, "1e999"])
def test_record_with_a_number_that_is_none_is_refused(tmp_path, value):
    """Nothing is computed with it."""
    path = tmp_path / "record.json"
    path.write_text(json.dumps(RECORD).replace("-157.05018449151558", value))
    assert value in path.read_text()
    with pytest.raises(UserError, match="record of format 1"):
        load_record(path)


def test_external_parts_are_seen_without_importing_them():
    """Anywhere in a config."""
    assert names_external({"network": {"kind": "mlp", "of": [{"kind": "external", "path": "x:Y"}]}})
    assert not names_external(RECORD["config"])


def test_reproduce_of_a_changed_record_trains_nothing(tmp_path):
    """One line and exit code 2, before anything is trained."""
    path = tmp_path / "record.json"
    path.write_text(json.dumps(RECORD | {"seed": 8}))
    ran = research("reproduce", path)
    assert ran.code == 2, ran.output
    assert "contradicts itself: its seed is 8" in ran.output
    assert "epoch " not in ran.output
