"""The grid of configurations and the table of their learning curves. Plain Python: every environment reads it.

A table is a file of JSON lines. The first describes it: grid, epochs, metric, data and what made it. Each other
line is one cell: ``{"cell": 17, "seed": ..., "elbo": [...], "seconds": [...]}``, a value for every epoch.
A cell's curve is shorter where its run diverged.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

DIGITS = Path(__file__).with_name("digits.jsonl")

# The order is that of the cells' numbers: the last parameter changes fastest.
GRID: dict[str, list[Any]] = {
    "lr": [1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 6e-3, 8e-3, 1.2e-2, 2e-2, 6e-2],
    "latent_size": [2, 6, 12, 16, 24],
    "width": [16, 64, 256],
    "depth": [1, 2],
    "batch_size": [32, 128],
}
# Put in after a first look, next to the best: so that a search may come close to the best without hitting one cell.
ADDED: dict[str, list[Any]] = {"lr": [6e-3, 1.2e-2], "latent_size": [16]}
EPOCHS = 27


@dataclass(frozen=True)
class Table:
    """Learning curves of a whole grid."""

    grid: dict[str, list[Any]]
    epochs: int
    curves: list[list[float]]  # val/elbo by cell and epoch, larger is better
    seconds: list[list[float]]
    measure: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        """The number of choices of each parameter."""
        return {name: len(values) for name, values in self.grid.items()}

    @property
    def best(self) -> float:
        """The best value of any cell at any epoch."""
        return max(value for curve in self.curves for value in curve)

    def cell(self, indices: dict[str, int]) -> int:
        """The number of the cell at these indices of each parameter."""
        number = 0
        for name, size in self.sizes.items():
            if not 0 <= indices[name] < size:
                raise ValueError(f"{name} has the choices 0..{size - 1}, got {indices[name]}")
            number = number * size + indices[name]
        return number

    def near(self, nats: float) -> list[int]:
        """The cells that show a value within ``nats`` of the best."""
        bound = self.best - nats
        return [number for number, curve in enumerate(self.curves) if max(curve, default=bound - 1) >= bound]

    def only(self, name: str, value: float) -> Table:
        """The part of the table in which a parameter has this value."""
        kept = [cell for cell in range(len(self.curves)) if values_of(self.grid, cell)[name] == value]
        return replace(
            self,
            grid=self.grid | {name: [value]},
            curves=[self.curves[cell] for cell in kept],
            seconds=[self.seconds[cell] for cell in kept],
        )


def values_of(grid: dict[str, list[Any]], cell: int) -> dict[str, Any]:
    """The values of a cell's parameters."""
    values = {}
    for name in reversed(grid):
        cell, index = divmod(cell, len(grid[name]))
        values[name] = grid[name][index]
    return {name: values[name] for name in grid}


def training_order() -> list[int]:
    """The cells of the grid, those with an added value last. A cell's place here decides the seed of its run."""
    added = {cell: any(values_of(GRID, cell)[name] in ADDED[name] for name in ADDED) for cell in range(cells_of(GRID))}
    return sorted(added, key=lambda cell: (added[cell], cell))


def cells_of(grid: dict[str, list[Any]]) -> int:
    """The number of its cells."""
    return math.prod(len(values) for values in grid.values())


def load(path: Path = DIGITS) -> Table:
    """Read a table. Raises ``ValueError`` where cells are missing."""
    header, *lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    runs = {line["cell"]: line for line in lines}
    cells = cells_of(header["grid"])
    missing = [number for number in range(cells) if number not in runs]
    if missing:
        raise ValueError(f"{path} has no cell {missing[0]} ({len(missing)} of {cells} are missing): run table.py")
    return Table(
        grid=header["grid"],
        epochs=header["epochs"],
        curves=[runs[number]["elbo"] for number in range(cells)],
        seconds=[runs[number]["seconds"] for number in range(cells)],
        measure=header["measure"],
    )
