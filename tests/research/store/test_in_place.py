"""A sweep that was moved, removed or replaced while it runs is noticed at every write, and does not come back half."""

from __future__ import annotations

import shutil

import pytest

from research.driver.best_models import keep_best
from research.ledger.log import Ledger
from research.store.in_place import SweepGoneError, make_below, refuse_gone, remove_empty
from tests.support.places import FIXTURES


@pytest.fixture
def sweep(tmp_path):
    """A copy of an earlier sweep, opened for writing."""
    shutil.copytree(FIXTURES / "small-digits", tmp_path / "sweep")
    return Ledger.open(tmp_path / "sweep")


def test_refuse_gone_of_a_sweep_that_is_there_is_silent(sweep):
    """With and without the identity of its first event."""
    refuse_gone(sweep.directory)
    refuse_gone(sweep.directory, sweep.identity)
    sweep.check_in_place()


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "other folders"])
def test_refuse_gone_of_a_sweep_that_was_removed_names_its_first_event(sweep, left):
    """Also where somebody has made its folders again."""
    shutil.rmtree(sweep.directory)
    if left != "nothing":
        sweep.directory.mkdir()
    if left == "other folders":
        (sweep.directory / "ledger").mkdir()
    with pytest.raises(SweepGoneError, match=r"00000000\.json can't be read any more .*moved or removed while it ran"):
        sweep.check_in_place()


def test_refuse_gone_of_another_sweep_at_its_place_says_so(sweep, tmp_path):
    """A sweep of the same name that was begun meanwhile gets none of this one's events."""
    first = sweep.directory / "ledger" / "00000000.json"
    content = first.read_text()
    seal = content[-67:-3]
    first.write_text(content.replace(seal, "0" * 64))
    with pytest.raises(SweepGoneError, match="of another sweep by now"):
        sweep.check_in_place()


def test_make_below_a_folder_that_is_gone_does_not_make_it(tmp_path):
    """Folders below are made, the sweep's own never is."""
    (tmp_path / "sweep").mkdir()
    assert make_below(tmp_path / "sweep", "trials/trial-0001") == tmp_path / "sweep/trials/trial-0001"
    make_below(tmp_path / "sweep", "trials/trial-0001")
    assert (tmp_path / "sweep/trials/trial-0001").is_dir()
    shutil.rmtree(tmp_path / "sweep")
    with pytest.raises(FileNotFoundError):
        make_below(tmp_path / "sweep", "trials/trial-0001")
    assert not (tmp_path / "sweep").exists()


def test_keep_best_of_a_sweep_that_is_gone_makes_no_folder(sweep):
    """Its models can't be kept, and nothing comes back at the old place."""
    shutil.rmtree(sweep.directory)
    keep_best(sweep, sweep.directory)
    assert not sweep.directory.exists()


def test_remove_empty_leaves_files_and_sweeps_alone(sweep, tmp_path):
    """Only empty folders of a sweep that is gone are removed."""
    (sweep.directory / "trials" / "empty").mkdir(parents=True)
    remove_empty(sweep.directory)
    assert (sweep.directory / "trials" / "empty").is_dir()
    gone = tmp_path / "gone"
    (gone / "trials" / "trial-0000").mkdir(parents=True)
    (gone / "wandb").mkdir()
    (gone / "wandb" / "note.txt").write_text("a person's")
    remove_empty(gone)
    assert [str(path.relative_to(gone)) for path in sorted(gone.rglob("*"))] == ["wandb", "wandb/note.txt"]
