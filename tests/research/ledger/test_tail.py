"""A ledger that has lost its last events is noticed, and no model is deleted for it."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from research.driver.best_models import keep_best
from research.driver.growth import extend
from research.driver.lifecycle import reopen
from research.errors import CorruptFile
from research.experiments import finalists
from research.ledger.budget import More
from research.ledger.log import Ledger
from research.ledger.records import TrialRecord
from research.ledger.tail import lost_tail, refuse_lost_tail
from research.store.folders import write_folder
from tests.support.places import FIXTURES
from tests.support.synthetic import new_ledger, row, trial
from tests.support.verbs import research

if TYPE_CHECKING:
    from pathlib import Path

MARK = "latest-event.json"


def swept(directory: Path, trials: int = 3) -> Ledger:
    """A sweep whose trials have ended, each with a model folder that has its record."""
    ledger = new_ledger(directory, keep=trials)
    for number in range(trials):
        ledger.append(trial(number))
        ledger.append(row(number, 1, -30.0 + number, "complete"))
        keep(ledger, number)
    return ledger


def keep(ledger: Ledger, number: int) -> Path:
    """Write a model folder for a trial, as the driver does when it has ended."""
    folder = ledger.directory / "models" / f"trial-{number:04d}"
    record = TrialRecord.of(ledger, number).to_json().encode()
    write_folder(folder, {"record.json": record, "model.safetensors": b"the only copy"})
    return folder


def cut(directory: Path, events: int) -> None:
    """Remove the last events of the ledger in ``directory``."""
    for path in sorted((directory / "ledger").iterdir())[-events:]:
        path.unlink()


def test_lost_tail_of_a_whole_sweep_is_none(tmp_path):
    """No alarm for a sweep that is as it was, whole or moved, nor for one of an earlier version, which has no mark."""
    assert lost_tail(swept(tmp_path / "s")) is None
    shutil.copytree(tmp_path / "s", tmp_path / "copy")
    (tmp_path / "s").rename(tmp_path / "moved")
    assert lost_tail(Ledger.open(tmp_path / "moved")) is None
    assert lost_tail(Ledger.open(tmp_path / "copy")) is None
    assert lost_tail(Ledger.open(FIXTURES / "small-digits")) is None


@pytest.mark.parametrize("events", [1, 2, 5])
def test_lost_tail_is_seen_by_the_mark(tmp_path, events):
    """Each number of lost events is told, with how many there were, also where no model or checkpoint is evidence."""
    ledger = swept(tmp_path)
    shutil.rmtree(tmp_path / "models")
    cut(tmp_path, events)
    with pytest.raises(
        CorruptFile, match=f"has lost its last events: it has {len(ledger) - events}, and .* {len(ledger)}"
    ):
        refuse_lost_tail(Ledger.open(tmp_path))
    (tmp_path / MARK).unlink()  # what the message says
    assert lost_tail(Ledger.open(tmp_path)) is None


def test_lost_tail_is_seen_where_other_events_took_its_place(tmp_path):
    """Another program has gone on from an older copy: as many events, and not those that were there."""
    ledger = swept(tmp_path)
    mark = (tmp_path / MARK).read_bytes()
    cut(tmp_path, 2)
    shorter = Ledger.open(tmp_path)
    shorter.append(trial(2, seed=99))
    shorter.append(row(2, 1, -1.0, "complete"))
    (tmp_path / MARK).write_bytes(mark)
    assert len(shorter) == len(ledger)
    assert "another event" in str(lost_tail(Ledger.open(tmp_path)))


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b'{"events": 99}', None])
def test_lost_tail_by_a_damaged_mark_is_none(tmp_path, damage):
    """The mark is a view: one that was torn says nothing, and is written again with the next event."""
    ledger = swept(tmp_path)
    whole = (tmp_path / MARK).read_bytes()
    (tmp_path / MARK).write_bytes(whole.replace(b'"events": ', b'"events": 9') if damage is None else damage)
    assert lost_tail(Ledger.open(tmp_path)) is None
    ledger.append(trial(3))
    assert json.loads((tmp_path / MARK).read_bytes())["events"] == len(ledger)


def test_lost_tail_is_seen_by_models_and_checkpoints_without_a_mark(tmp_path):
    """A model of an unknown trial, of one that has not ended, and the checkpoints of an unknown one are evidence."""
    swept(tmp_path)
    (tmp_path / MARK).unlink()
    cut(tmp_path, 1)  # trial 2's end
    assert "trial-0002" in str(lost_tail(Ledger.open(tmp_path)))
    cut(tmp_path, 1)  # and its beginning
    assert "trial-0002" in str(lost_tail(Ledger.open(tmp_path)))
    shutil.rmtree(tmp_path / "models" / "trial-0002")
    assert lost_tail(Ledger.open(tmp_path)) is None
    (tmp_path / "trials" / "trial-0002" / "epoch-0001-0").mkdir(parents=True)
    assert "trials/trial-0002" in str(lost_tail(Ledger.open(tmp_path)))


def test_sweep_with_a_lost_tail_is_not_written_to_and_keeps_its_models(tmp_path):
    """Resume, extend and finalists refuse in one line before anything is changed; show and report warn."""
    swept(tmp_path)
    cut(tmp_path, 2)
    before = sorted(path for path in tmp_path.rglob("*"))
    for verb in (
        lambda: reopen(tmp_path, allow_changed_code=True),
        lambda: extend(Ledger.open(tmp_path), trials="+1", space=None, more=More()),
        lambda: finalists.prepare(Ledger.open(tmp_path), top=1, seeds=2, resources=None, command=[]),
    ):
        with pytest.raises(CorruptFile, match="has lost its last events"):
            verb()
    assert sorted(path for path in tmp_path.rglob("*")) == before
    shown = research("show", tmp_path)
    assert shown.code == 0
    assert "warning: " in shown.output
    assert "has lost its last events" in shown.output


def test_keep_best_moves_models_aside_that_the_ledger_does_not_tell_of(tmp_path):
    """Of an unknown trial, of another sweep, without a record, of another config: none is deleted, each is named."""
    ledger = swept(tmp_path / "s")
    models = tmp_path / "s" / "models"
    other = swept(tmp_path / "other", trials=8)
    shutil.copytree(other.directory / "models" / "trial-0007", models / "trial-0007")  # the ledger has no trial 7
    (models / "trial-0042").mkdir()
    (models / "trial-0042" / "notes.txt").write_text("mine")
    (models / "my-best").mkdir()
    ledger.append(trial(3, config_hash="another"))
    ledger.append(row(3, 1, -99.0, "complete"))
    shutil.copytree(other.directory / "models" / "trial-0003", models / "trial-0003")  # not this trial 3's
    problems = keep_best(ledger, tmp_path / "s")

    aside = tmp_path / "s" / "aside"
    assert sorted(path.name for path in aside.iterdir()) == ["trial-0003", "trial-0007", "trial-0042"]
    assert (aside / "trial-0007" / "model.safetensors").read_bytes() == b"the only copy"
    assert (aside / "trial-0042" / "notes.txt").read_text() == "mine"
    assert len(problems) == 3
    assert all("was moved to" in problem for problem in problems)
    assert sorted(path.name for path in models.iterdir()) == ["my-best", "trial-0000", "trial-0001", "trial-0002"]
    shutil.copytree(aside / "trial-0007", models / "trial-0007")
    keep_best(ledger, tmp_path / "s")
    assert (aside / "trial-0007-1").is_dir()


def test_keep_best_removes_what_a_better_model_replaces(tmp_path):
    """A model of this sweep that is not among the best any more is derived, and goes as before."""
    ledger = swept(tmp_path, trials=2)
    ledger.append(trial(2))
    ledger.append(row(2, 1, -1.0, "complete"))
    keep(ledger, 2)
    assert keep_best(ledger, tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["trial-0001", "trial-0002"]
    assert not (tmp_path / "aside").exists()


def test_keep_best_names_the_damaged_file_of_a_kept_model(tmp_path):
    """A README that was changed is what is told of, not the checkpoint that is long gone."""
    sweep = shutil.copytree(FIXTURES / "small-digits", tmp_path / "s")
    (sweep / "models" / "trial-0001" / "README.md").write_text("mine")
    (problem,) = keep_best(Ledger.open(sweep), sweep)
    assert "trial-0001/README.md is damaged" in problem
    assert (sweep / "models" / "trial-0001" / "README.md").read_text() == "mine"


def _append_for_ever(directory: Path) -> None:
    ledger = Ledger.open(directory)
    while True:
        number = len(ledger.trials)
        ledger.append(trial(number))
        ledger.append(row(number, 1, -1.0, "complete"))
        keep(ledger, number)


def test_killed_writer_leaves_no_false_alarm(tmp_path):
    """Whenever the writer is killed, the mark and the models are behind the ledger or level with it."""
    new_ledger(tmp_path)
    draw = random.Random(0)
    for _ in range(25):
        writer = multiprocessing.get_context("fork").Process(target=_append_for_ever, args=(tmp_path,))
        writer.start()
        time.sleep(draw.uniform(0.0, 0.1))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        assert lost_tail(Ledger.open(tmp_path)) is None
    assert len(Ledger.open(tmp_path)) > 50


def test_reader_beside_a_writer_sees_no_false_alarm(tmp_path):
    """The evidence is read before the events that it tells of."""
    new_ledger(tmp_path)
    writer = multiprocessing.get_context("fork").Process(target=_append_for_ever, args=(tmp_path,))
    writer.start()
    try:
        ledger = Ledger.open(tmp_path)
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            assert lost_tail(ledger) is None
    finally:
        writer.kill()
        writer.join()
