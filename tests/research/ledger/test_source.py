"""Every verb means the same by the same place: a sweep, a trial of it, a record, a model folder."""

from __future__ import annotations

import shutil
import sys

import pytest

from research.cli import app as cli
from research.errors import UserError
from research.ledger.log import Ledger
from research.ledger.records import load_record
from research.ledger.source import Folder, JsonFile, SweepTrial, source_at
from research.models.apply import model_folder
from tests.support.places import FIXTURES


@pytest.fixture
def sweep(tmp_path):
    """A copy of a small sweep: trial 0 or 1 is its kept model, trial 2 was interrupted."""
    shutil.copytree(FIXTURES / "small-digits", tmp_path / "sweep")
    return tmp_path / "sweep"


@pytest.fixture
def kept(sweep):
    """The number of the sweep's kept model."""
    (folder,) = (sweep / "models").iterdir()
    return int(folder.name.removeprefix("trial-"))


def test_source_of_each_form_is_what_it_says(sweep, kept):
    """By rank, by number, as a folder and as a file; relative names as well."""
    best = source_at(sweep)
    assert isinstance(best, SweepTrial)
    assert best.number == Ledger.open(sweep).ranked()[0].number
    assert source_at(sweep, 2).number == Ledger.open(sweep).ranked()[1].number
    assert source_at(f"{sweep}:2").number == 2
    folder = sweep / "models" / f"trial-{kept:04d}"
    assert source_at(folder) == Folder(folder)
    assert source_at(folder / "record.json") == JsonFile(folder / "record.json")


@pytest.mark.parametrize(
    ("suffix", "rank", "told"),
    [
        (":7", 1, "has no trial 7: its trials are 0 to 2"),
        (":0", 2, "--rank 2: .* is one model; only a sweep's directory has ranks"),
        ("", 3, "--rank must be 1 to 2, the trials of .* that have a result, got 3"),
        ("", 0, "--rank must be 1 to 2"),
        ("x", 1, "is not there: give a sweep's directory, a trial of it"),
        (":x", 1, "is not there"),
        (":12345678901234567890", 1, "is not there"),
    ],
)
def test_source_that_is_not_there_is_refused_in_one_line(sweep, suffix, rank, told):
    """With the value and what could be given."""
    with pytest.raises(UserError, match=told) as refused:
        source_at(f"{sweep}{suffix}", rank)
    assert "\n" not in str(refused.value)


def test_folder_whose_own_name_ends_like_a_trial_comes_first(sweep, kept, tmp_path):
    """``sweep:0`` may be somebody's copy of a model."""
    shutil.copytree(sweep / "models" / f"trial-{kept:04d}", tmp_path / "sweep:0")
    assert source_at(tmp_path / "sweep:0") == Folder(tmp_path / "sweep:0")
    shutil.copytree(sweep, tmp_path / "sweep:1")
    assert source_at(tmp_path / "sweep:1").ledger.directory == tmp_path / "sweep:1"


def test_load_record_of_a_trial_that_was_not_kept_comes_from_the_ledger(sweep):
    """Also of one without a result."""
    assert load_record(f"{sweep}:2").trial == 2


def test_model_folder_of_a_trial_that_was_not_kept_says_how_to_have_it(sweep, kept):
    """A kept one is found by its number."""
    assert model_folder(f"{sweep}:{kept}") == sweep / "models" / f"trial-{kept:04d}"
    other = 1 - kept
    with pytest.raises(
        UserError, match=rf"trial {other} of .* was not kept: .* research train .*:{other} --out runs/again"
    ):
        model_folder(f"{sweep}:{other}")


@pytest.mark.parametrize(
    "form", ["sweep", "sweep:{kept}", "sweep/models/trial-{kept:04d}", "sweep/models/trial-{kept:04d}/record.json"]
)
@pytest.mark.parametrize(
    "verb",
    [
        ("evaluate",),
        ("sample", "--out", "a.png", "--count", "2"),
        ("score", "--json"),
        ("encode", "--out", "codes.parquet"),
        ("train", "--out", "again", "--set", "epochs=1"),
    ],
    ids=lambda verb: verb[0],
)
def test_verbs_take_every_form_of_a_model(sweep, kept, tmp_path, monkeypatch, capsys, verb, form):
    """The same model, however it is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("research.cli.models.set_threads", lambda _: None)
    monkeypatch.setattr("research.cli.runs.set_threads", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["research", verb[0], form.format(kept=kept), *verb[1:]])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0, capsys.readouterr().err
