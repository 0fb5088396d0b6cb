"""The replay counts what a real sweep would have trained, and draws what it would have drawn."""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path

import pytest
from curves import GRID, Table, cells_of, load, training_order, values_of
from ours import LedgerEngine
from replay import memory
from report import best_after, epochs_until
from simulator import replay
from stock_ray import StockRayEngine

from research.ledger.settings import Asha, NoScheduler, RandomSearch, Tpe

EPOCHS = 9
BUDGET = 30 * EPOCHS


def invented(seed: int = 0) -> Table:
    """Noisy curves that rise, on a grid of 4 × 5."""
    generator = random.Random(seed)
    grid = {"a": [1, 2, 3, 4], "b": [10, 20, 30, 40, 50]}
    curves = []
    for a, b in itertools.product(range(4), range(5)):
        final = -((a - 2) ** 2) - (b - 3) ** 2 + generator.random()
        curves.append([final - 8 / epoch + generator.random() for epoch in range(1, EPOCHS + 1)])
    return Table(grid=grid, epochs=EPOCHS, curves=curves, seconds=[[1.0] * EPOCHS for _ in curves])


TABLE = invented()


@pytest.fixture
def folder():
    """A folder in memory: a thousand synced files are slow on a disk."""
    with tempfile.TemporaryDirectory(dir=memory()) as name:
        yield Path(name)


class Scripted:
    """Cells from a list, each trained to its end or to where the list says."""

    def __init__(self, cells: list[dict[str, int]], lengths: list[int] | None = None) -> None:
        self.cells = cells
        self.lengths = lengths or [EPOCHS] * len(cells)
        self.told: list[tuple[int, int]] = []

    def ask(self, key):
        """The key-th of the list."""
        return self.cells[key]

    def tell(self, key, epoch, value):
        """Go on up to the length."""
        del value
        self.told.append((key, epoch))
        return epoch < self.lengths[key]


def ledger_engine(folder, *, seed=0, slots=1, sampler=None, scheduler=None, table=TABLE):
    """The project's own engine in ``folder``."""
    chosen = {"sampler": sampler or RandomSearch(), "scheduler": scheduler or NoScheduler()}
    return LedgerEngine(table, seed=seed, slots=slots, folder=folder, **chosen)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_slot_and_random_search_cost_what_counting_by_hand_gives(folder, seed):
    """Trial after trial, epoch after epoch, until the value is there."""
    engine = ledger_engine(folder, seed=seed)
    outcome = replay(engine, TABLE, slots=1, budget=BUDGET, enough=TABLE.best - 0.5)

    by_hand = 0
    found = False
    for view in engine.ledger.trials.values():
        if view.status == "SKIPPED":  # a cell that was drawn before
            continue
        for value in TABLE.curves[view.created.params["a"] * 5 + view.created.params["b"]]:
            by_hand += not found
            found = found or value >= TABLE.best - 0.5
    assert found
    assert outcome.epochs == by_hand
    assert outcome.improvements[-1][0] == by_hand


def test_slots_report_in_turn():
    """Two slots: an epoch of each, then the next; a slot that a trial left takes the next trial at once."""
    engine = Scripted([{"a": 0, "b": 0}] * 6, lengths=[1, 3, 2, 9, 9, 9])
    outcome = replay(engine, TABLE, slots=2, budget=7)

    assert engine.told == [(0, 1), (1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (3, 1)]
    assert (outcome.epochs, outcome.trials, outcome.ended) == (7, 5, [1, 2, 3])
    assert outcome.cells == {0}, "a cell drawn again is paid again"


def test_epochs_of_stopped_trials_are_counted(folder):
    """Every row in the ledger is an epoch spent, of pruned trials too, and nothing else is; all cells are tried once."""
    engine = ledger_engine(folder, slots=3, scheduler=Asha(min_population=2))
    outcome = replay(engine, TABLE, slots=3, budget=BUDGET)

    views = [view for view in engine.ledger.trials.values() if view.status != "SKIPPED"]
    assert sum(len(view.rows) for view in views) == outcome.epochs
    assert sorted(len(view.rows) for view in views) == sorted(outcome.ended)
    assert {view.status for view in views} == {"PRUNED", "COMPLETE"}
    assert len(views) == len(outcome.cells) == outcome.trials
    assert len(outcome.cells) >= 19  # of 20: the space is taken to be exhausted after fifty repeats in a row


def test_the_same_seed_gives_the_same_replay(folder):
    """For every engine that runs here; another seed gives another."""

    def outcome(name: str, seed: int):
        if name == "ray":
            return replay(StockRayEngine(TABLE, seed=seed), TABLE, slots=3, budget=60)
        own = folder / f"{len(list(folder.iterdir()))}"
        engine = ledger_engine(own, seed=seed, slots=3, sampler=Tpe(startup_trials=4), scheduler=Asha())
        return replay(engine, TABLE, slots=3, budget=60)

    for name in ("ours", "ray"):
        assert outcome(name, 0) == outcome(name, 0)
        assert outcome(name, 0) != outcome(name, 1)


def test_stock_ray_is_told_an_early_value_as_final(folder):
    """What the comparison is about: a trial stopped at a rung is COMPLETE in its study."""
    engine = StockRayEngine(TABLE, seed=0)
    outcome = replay(engine, TABLE, slots=2, budget=60)
    trials = engine.searcher._ot_study.trials

    assert min(outcome.ended) < EPOCHS
    assert {trial.state.name for trial in trials} == {"COMPLETE", "RUNNING"}


def test_a_cell_has_one_number():
    """Indices to number and number to values are each other's inverse, the last parameter fastest."""
    table = Table(grid=GRID, epochs=1, curves=[], seconds=[])
    ranges = [range(size) for size in table.sizes.values()]
    for number, indices in enumerate(itertools.product(*ranges)):
        assert table.cell(dict(zip(GRID, indices, strict=True))) == number
        assert list(values_of(GRID, number).values()) == [GRID[name][i] for name, i in zip(GRID, indices, strict=True)]


def test_every_cell_is_trained_once():
    """Some order of all cells."""
    assert sorted(training_order()) == list(range(cells_of(GRID)))


def test_a_part_of_the_table_has_its_own_cells():
    """With b at 20: one cell for each a, its curve the whole table's."""
    part = TABLE.only("b", 20)

    assert part.sizes == {"a": 4, "b": 1}
    assert part.curves[part.cell({"a": 2, "b": 0})] == TABLE.curves[TABLE.cell({"a": 2, "b": 1})]


def test_the_table_that_is_shipped_is_whole():
    """All cells with all epochs, of the grid that table.py would train."""
    table = load()

    assert table.grid == GRID
    assert {len(curve) for curve in table.curves} == {table.epochs}
    assert len(table.near(0.5)) < len(table.curves) / 10, "a search that finds one of many at once shows nothing"


def test_epochs_until_a_value():
    """The first time it was shown, or the whole budget."""
    record = {"improvements": [(1, -9.0), (5, -4.0), (40, -3.0)]}

    assert [epochs_until(record, bound, 100) for bound in (-10.0, -4.0, -3.5, -1.0)] == [1, 5, 40, 100]
    assert [best_after(record, epochs) for epochs in (1, 39, 40)] == [-9.0, -4.0, -3.0]
