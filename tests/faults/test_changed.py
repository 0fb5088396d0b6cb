"""A sweep resumed with other code, data or space than it was begun with, and one whose budget is to shrink."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from research.ledger.log import Ledger
from tests.support.drivers import Driver, await_that, rows, start
from tests.support.places import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
FAULT = "16 resumed with changes"
ARRAYS = '''
from vae.data import Arrays
from vae.likelihoods import Bernoulli
from vae.networks import Mlp
from vae.train_config import TrainConfig


def space(trial):
    """Of a file of one's own."""
    return TrainConfig(
        data=Arrays(path={path!r}, binarisation="static"),
        likelihood=Bernoulli(),
        network=Mlp(hidden=(8,)),
        latent_size=trial.suggest_int("latent_size", 2, 8),
        epochs=400,
    )
'''


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A sweep of code and data that may be changed, its driver killed; the folder that holds all of it."""
    import numpy as np

    place = tmp_path_factory.mktemp("changed")
    for package in ("research", "search_spaces", "vae"):
        shutil.copytree(ROOT / package, place / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    np.savez(place / "images.npz", x=np.random.default_rng(0).integers(0, 2, (60, 4, 4)).astype(bool))
    (place / "a_space.py").write_text(ARRAYS.format(path=str(place / "images.npz")))
    driver = run(
        place, "sweep", place / "a_space.py", "--trials", "4", "--name", "s", "--storage", place, "--wandb", "disabled",
        "--scheduler", "none", "--concurrent", "1", "--total-epochs", "1200",
    )  # fmt: skip
    await_that(driver, place / "s", lambda ledger: rows(ledger) >= 2)
    driver.kill()
    assert driver.left_behind() == {}
    return place


def run(place: Path, *arguments: str | Path) -> Driver:
    """``research`` with the packages in ``place``."""
    return start(place, *arguments, cwd=place / "code", PYTHONPATH=str(place / "code"))


def refused(place: Path, *arguments: str | Path) -> str:
    """The one line that it is refused with; the sweep is as it was."""
    before = len(Ledger.open(place / "s"))
    driver = run(place, *arguments)
    assert driver.wait() == 2, driver.output
    assert len(Ledger.open(place / "s")) == before
    (line,) = driver.output.strip().splitlines()
    return line


@pytest.mark.fault(FAULT)
def test_changed_code_is_refused_and_allowed_when_asked(killed, tally):
    """One byte of a source: refused with both hashes; with ``--allow-changed-code`` it goes on, and that is on record."""
    source = killed / "code" / "vae" / "seeds.py"
    before = source.read_text()
    source.write_text(before + "#\n")
    tally.happened()
    try:
        line = refused(killed, "resume", killed / "s")
        assert "the code has changed" in line
        assert "--allow-changed-code" in line
        driver = run(killed, "resume", killed / "s", "--allow-changed-code")
        sessions = len(Ledger.open(killed / "s").sessions)
        ledger = await_that(driver, killed / "s", lambda ledger: len(ledger.sessions) > sessions)
        driver.kill()
        assert driver.left_behind() == {}
        assert ledger.sessions[-1].code["source_sha256"] != ledger.created.code["source_sha256"]
    finally:
        source.write_text(before)


@pytest.mark.fault(FAULT)
def test_changed_data_are_refused(killed, tally):
    """One pixel of the images: refused, whatever is allowed of the code."""
    import numpy as np

    path = killed / "images.npz"
    before = path.read_bytes()
    images = np.load(path)["x"]
    images[0, 0, 0] = not images[0, 0, 0]
    np.savez(path, x=images)
    tally.happened()
    try:
        for more in ([], ["--allow-changed-code"]):
            assert "the data have changed" in refused(killed, "resume", killed / "s", *more)
    finally:
        path.write_bytes(before)


@pytest.mark.fault(FAULT)
def test_a_changed_space_changes_nothing(killed, tally):
    """The space's file edited or gone: the sweep goes on with the one that it was begun with."""
    path = killed / "a_space.py"
    before = path.read_text()
    path.write_text(before.replace("2, 8", "20, 80"))
    tally.happened()
    sessions = len(Ledger.open(killed / "s").sessions)
    seen = rows(Ledger.open(killed / "s"))
    driver = run(killed, "resume", killed / "s")
    ledger = await_that(driver, killed / "s", lambda ledger: len(ledger.sessions) > sessions and rows(ledger) > seen)
    driver.kill()
    assert driver.left_behind() == {}
    path.write_text(before)
    assert json.loads((killed / "s" / "ledger" / "00000000.json").read_text())["event"]["settings"]["trials"] == 4
    assert all(view.created.params["latent_size"] <= 8 for view in ledger.trials.values())


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize(
    ("option", "less"), [("--trials", "2"), ("--trials", "+0"), ("--total-epochs", "100"), ("--trials", "-1")]
)
def test_a_budget_only_grows(killed, tally, option, less):
    """Fewer trials or epochs than now: one line that names the present number."""
    line = refused(killed, "extend", killed / "s", f"{option}={less}")
    tally.happened()
    assert option in line
    assert less in line
