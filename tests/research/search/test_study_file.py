"""``study.journal`` is a view: whatever happens to the file, the study is the ledger's, and nothing waits for it."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from research.search.study import StudyView
from tests.support.synthetic import new_ledger, row, trial

DISTRIBUTIONS = {"lr": distribution_to_json(FloatDistribution(1e-5, 1e-1, log=True))}


def run_trial(study: StudyView, number: int) -> None:
    """A trial from its draw to its end, as a driver tells the study."""
    ledger = study.ledger
    ledger.append(trial(number, params={"lr": 1e-3 / (number + 1)}, distributions=DISTRIBUTIONS))
    study.add(ledger.trials[number], ended=False)
    ledger.append(row(number, 1, -100.0 - number, "complete"))
    study.tell(ledger.trials[number])


def begun(tmp_path, trials: int = 2) -> StudyView:
    """A study of so many trials, in a sweep's directory."""
    ledger = new_ledger(tmp_path / "quick")
    study = StudyView(ledger, ledger.directory / "study.journal")
    for number in range(trials):
        run_trial(study, number)
    return study


def shown(study: StudyView) -> list[float]:
    """The values that Optuna, and so optuna-dashboard, reads from the file."""
    storage = JournalStorage(JournalFileBackend(str(study.journal.path)))
    loaded = optuna.load_study(study_name="quick", storage=storage)
    return [one.value for one in loaded.trials]


def test_the_file_is_what_optuna_writes(tmp_path):
    """Optuna's own back end reads it, trial by trial as they end."""
    study = begun(tmp_path, 1)
    assert shown(study) == [-100.0]
    run_trial(study, 1)
    assert shown(study) == [-100.0, -101.0]
    assert study.journal.problem is None
    assert [path.name for path in study.journal.path.parent.glob("study*")] == ["study.journal"]


@pytest.mark.fault("14 study.journal damaged")
@pytest.mark.parametrize("fault", ["deleted", "empty", "cut", "replaced", "a folder"])
def test_a_damaged_file_is_written_again(tmp_path, tally, fault):
    """At the next trial, whole; a folder in its place is a line at the end, and the study goes on without a file."""
    study = begun(tmp_path)
    path = study.journal.path
    whole = path.read_bytes()
    if fault in {"deleted", "a folder"}:
        path.unlink()
    if fault == "a folder":
        path.mkdir()
    if fault in {"empty", "cut"}:
        path.write_bytes(b"" if fault == "empty" else whole[:-7])
    if fault == "replaced":
        other = path.with_name("other")
        other.write_bytes(b"something else that is longer than the journal" * 1000)
        other.replace(path)
    assert not path.is_file() or path.read_bytes() != whole
    tally.happened()
    run_trial(study, 2)
    assert [one.value for one in study.study.trials] == [-100.0, -101.0, -102.0]
    if fault == "a folder":
        assert study.journal.problem is not None
        assert str(path) in study.journal.problem
        path.rmdir()
        run_trial(study, 3)
    assert shown(study)[:3] == [-100.0, -101.0, -102.0]
    assert study.journal.problem is None


@pytest.mark.fault("14 study.journal locked")
def test_a_stale_lock_is_not_waited_for(tmp_path, tally, monkeypatch):
    """Optuna's own back end would sleep until the lock is 30 s old: here nothing ever sleeps."""
    study = begun(tmp_path)
    lock = study.journal.path.with_name("study.journal.lock")
    lock.symlink_to(study.journal.path)
    tally.happened()

    def never(seconds):
        raise AssertionError(f"waited {seconds} s")

    monkeypatch.setattr("time.sleep", never)
    run_trial(study, 2)
    assert shown(study) == [-100.0, -101.0, -102.0]
    assert lock.is_symlink()


@pytest.mark.fault("14 study.journal written by others")
def test_what_others_write_into_the_file_changes_nothing(tmp_path, tally):
    """Another program's trials and notes: the driver's study does not have them, the next session's file neither."""
    study = begun(tmp_path)
    storage = JournalStorage(JournalFileBackend(str(study.journal.path)))
    other = optuna.load_study(study_name="quick", storage=storage)
    other.set_user_attr("note", "by the dashboard")
    other.add_trial(
        optuna.create_trial(
            value=0.0, params={"lr": 0.1}, distributions={"lr": FloatDistribution(1e-5, 1e-1, log=True)}
        )
    )
    assert len(shown(study)) == 3
    tally.happened()
    run_trial(study, 2)
    assert [one.value for one in study.study.trials] == [-100.0, -101.0, -102.0]
    assert study.study.user_attrs == {}
    assert 0.0 in shown(study)
    again = StudyView(study.ledger, study.journal.path)
    for view in study.ledger.trials.values():
        again.add(view, ended=True)
    assert shown(again) == [-100.0, -101.0, -102.0]


@pytest.mark.fault("14 other study settings")
def test_a_resumed_study_is_the_ledgers_whatever_the_file_says(tmp_path, tally):
    """A file of the other direction, with other trials, is replaced: direction and trials come from the ledger."""
    study = begun(tmp_path)
    path = study.journal.path
    path.unlink()
    wrong = optuna.create_study(
        study_name="quick", storage=JournalStorage(JournalFileBackend(str(path))), direction="minimize"
    )
    wrong.add_trial(optuna.create_trial(value=5.0))
    assert shown(study) == [5.0]
    tally.happened()
    again = StudyView(study.ledger, path)
    for view in study.ledger.trials.values():
        again.add(view, ended=True)
    assert again.study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert shown(again) == [-100.0, -101.0]
