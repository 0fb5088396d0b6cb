"""TrialRecord: built from the ledger alone, read back equal, found wherever a person points."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from research.errors import CorruptFile, UserError
from research.ledger.records import TrialRecord, load_record
from research.store.folders import write_folder
from tests.support.synthetic import failed, new_ledger, row, session, trial

if TYPE_CHECKING:
    from pathlib import Path

    from research.ledger.log import Ledger


def swept(directory: Path) -> Ledger:
    """Three complete trials and a failed one."""
    ledger = new_ledger(directory)
    for number, elbos in enumerate([[-30.0, -20.0], [-25.0, -10.0], [-12.0]]):
        ledger.append(trial(number))
        for epoch, elbo in enumerate(elbos):
            last = epoch == len(elbos) - 1
            ledger.append(row(number, epoch, elbo, "complete" if last else "continue"))
    ledger.append(trial(3))
    ledger.append(failed(3))
    return ledger


def test_a_record_holds_what_the_ledger_says(tmp_path: Path) -> None:
    """Config, seed, rows by epoch, best epoch, provenance and the worker's machine come from the events."""
    ledger = swept(tmp_path)
    record = TrialRecord.of(ledger, 1)
    view = ledger.trials[1]
    assert (record.config, record.seed, record.params) == (
        view.created.config,
        view.created.seed,
        view.created.params,
    )
    assert [r["val/elbo"] for r in record.rows] == [-25.0, -10.0]
    assert [r["epoch"] for r in record.rows] == [0, 1]
    assert (record.best_epoch, record.status) == (1, "COMPLETE")
    assert (record.threads, record.device, record.hardware) == (1, "cpu", {"cpu": "worker's"})
    assert record.code["source_sha256"] == "5eed"
    assert (record.space, record.data_hash, record.split_hash) == ("quickstart", "feed", "beef")


def test_a_trial_without_rows_has_a_record_too(tmp_path: Path) -> None:
    """What failed before its first row is kept with its reason and the driver's machine."""
    record = TrialRecord.of(swept(tmp_path), 3)
    assert (record.status, record.rows, record.best_epoch) == ("FAIL", [], None)
    assert record.reason == "IndexError: list index out of range"
    assert (record.hardware, record.threads) == ({"cpu": "made up"}, None)


def test_the_code_is_that_of_the_session_that_finished_the_trial(tmp_path: Path) -> None:
    """After a resume with other code, earlier trials keep their code and later ones name theirs."""
    ledger = swept(tmp_path)
    ledger.append(session(1, code={"source_sha256": "0ther"}))
    ledger.append(trial(4))
    ledger.append(row(4, 0, -1.0, "complete"))
    assert TrialRecord.of(ledger, 0).code["source_sha256"] == "5eed"
    assert TrialRecord.of(ledger, 4).code == {"source_sha256": "0ther"}


def test_records_round_trip_through_json(tmp_path: Path) -> None:
    """Every float of every row survives to the last digit."""
    ledger = swept(tmp_path)
    for number in ledger.trials:
        record = TrialRecord.of(ledger, number)
        assert TrialRecord.from_json(record.to_json(), "record.json") == record


def test_is_found_by_file_by_model_folder_and_by_rank(tmp_path: Path) -> None:
    """The same record from record.json, from a model folder, and from the sweep's ranking."""
    ledger = swept(tmp_path)
    first, second = TrialRecord.of(ledger, 1), TrialRecord.of(ledger, 2)
    folder = tmp_path / "models" / "trial-0001"
    write_folder(folder, {"record.json": first.to_json().encode(), "config.json": b"{}\n"})
    assert load_record(folder) == load_record(folder / "record.json") == load_record(tmp_path) == first
    assert load_record(tmp_path, rank=2) == second
    alone = tmp_path / "elsewhere.json"
    alone.write_text(first.to_json())
    assert load_record(alone) == first


@pytest.mark.parametrize("rank", [0, 4, -1])
def test_a_rank_that_is_not_there_is_refused(tmp_path: Path, rank: int) -> None:
    """The refusal says how many trials are ranked."""
    swept(tmp_path)
    with pytest.raises(UserError, match=r"--rank must be 1 to 3, the trials of .* that have a result, got"):
        load_record(tmp_path, rank=rank)


def test_what_is_no_record_is_named(tmp_path: Path) -> None:
    """A missing path, an empty folder, another JSON, an unknown format, a damaged model: one line each."""
    text = TrialRecord.of(swept(tmp_path / "sweep"), 1).to_json()
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(UserError, match=r"give a sweep.s directory, a trial of it"):
            load_record(path)
    other = tmp_path / "other.json"
    for content in ("{", "[]", json.dumps(json.loads(text) | {"format": 2}), text[:100]):
        other.write_text(content)
        with pytest.raises(UserError, match=r"other\.json is not a record of format 1"):
            load_record(other)
    folder = tmp_path / "model"
    write_folder(folder, {"record.json": text.encode()})
    (folder / "record.json").write_text(text.replace("-10.0", "-11.0"))
    with pytest.raises(CorruptFile, match=r"record\.json is damaged"):
        load_record(folder)
    with pytest.raises(UserError, match=r"only a sweep.s directory has ranks"):
        load_record(other, rank=2)
