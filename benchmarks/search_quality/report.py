"""Tables of what replay.py measured.

    python benchmarks/search_quality/report.py [METHOD ...] [--against ours] [--file runs/search-quality.jsonl]

A search that did not get there within the budget counts as the whole budget, and is counted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from curves import DIGITS, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from curves import Table

TARGETS = (1.0, 0.5, 0.25)  # nats below the table's best
BUDGETS = (270, 540, 1350)  # epochs: 10, 20 and 50 trials of full length
RESAMPLES = 10_000

Array = np.ndarray[Any, Any]


def epochs_until(record: dict[str, Any], bound: float, budget: int) -> int:
    """Epochs spent when a trial first showed ``bound``; ``budget`` where none did."""
    return next((epochs for epochs, value in record["improvements"] if value >= bound), budget)


def reached(record: dict[str, Any], bound: float) -> bool:
    """Whether any trial showed ``bound``."""
    return bool(record["improvements"][-1][1] >= bound)


def best_after(record: dict[str, Any], epochs: int) -> float:
    """The best value that any trial had shown after so many epochs."""
    return float(max(value for at, value in record["improvements"] if at <= epochs))


def interval(values: Array, statistic: Callable[[Array, int], Array]) -> tuple[float, float, float]:
    """The statistic and its 95 % bootstrap interval, seeds resampled with replacement."""
    generator = np.random.default_rng(0)
    samples = values[generator.integers(0, len(values), (RESAMPLES, len(values)))]
    low, high = np.quantile(statistic(samples, 1), [0.025, 0.975])
    return float(statistic(values[None], 1)[0]), float(low), float(high)


def median(values: Array, axis: int) -> Array:
    """The median along ``axis``."""
    return np.asarray(np.median(values, axis))


def mean(values: Array, axis: int) -> Array:
    """The mean along ``axis``."""
    return np.asarray(np.mean(values, axis))


def geometric_mean(values: Array, axis: int) -> Array:
    """The geometric mean along ``axis``."""
    return np.asarray(np.exp(np.mean(np.log(values), axis)))


def spread(triple: tuple[float, float, float], digits: int = 0) -> str:
    """A value with its interval."""
    value, low, high = triple
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def by_method(path: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """The records of a file, by method and seed."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        found.setdefault(record["method"], {})[record["seed"]] = record
    return found


def print_target(
    nats: float,
    methods: list[str],
    against: str,
    *,
    records: dict[str, dict[int, dict[str, Any]]],
    table: Table,
    budget: int,
) -> None:
    """One table: epochs until a value within ``nats`` of the best."""
    bound = table.best - nats
    own = records[against]
    print(f"Within {nats:g} nats ({len(table.near(nats))} of {len(table.curves)} cells):\n")
    print(f"| method | median | mean | not reached | {against} / method | seeds |")
    print("|---|---|---|---|---|---|")
    for method in methods:
        seeds = sorted(records[method].keys() & own.keys())
        epochs = np.array([epochs_until(records[method][seed], bound, budget) for seed in seeds], dtype=float)
        ours = np.array([epochs_until(own[seed], bound, budget) for seed in seeds], dtype=float)
        missed = sum(not reached(records[method][seed], bound) for seed in seeds)
        ratio = "" if method == against else spread(interval(ours / epochs, geometric_mean), 2)
        middle, average = spread(interval(epochs, median)), spread(interval(epochs, mean))
        print(f"| {method} | {middle} | {average} | {missed} | {ratio} | {len(seeds)} |")
    print()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("methods", nargs="*", help="default: all in the file")
    parser.add_argument("--against", default="ours")
    parser.add_argument("--file", type=Path, default=Path("runs/search-quality.jsonl"))
    parser.add_argument("--only", help="as for replay.py")
    parser.add_argument("--table", type=Path, default=DIGITS)
    parser.add_argument("--budget", type=int, help="epochs; default: 200 trials of full length")
    options = parser.parse_args()
    table = load(options.table)
    if options.only:
        name, value = options.only.split("=")
        table = table.only(name, float(value))
    records = by_method(options.file)
    methods = [method for method in options.methods or records if method in records]
    budget = options.budget or 200 * table.epochs
    for nats in TARGETS:
        print_target(nats, methods, options.against, records=records, table=table, budget=budget)
    print(f"Below the best ({table.best:.2f}) after so many epochs, median of seeds, nats; epochs a trial got:\n")
    print("| method | " + " | ".join(map(str, BUDGETS)) + " | epochs a trial | new cells |")
    print("|---" * (len(BUDGETS) + 3) + "|")
    for method in methods:
        runs = list(records[method].values())
        below = [float(np.median([table.best - best_after(run, epochs) for run in runs])) for epochs in BUDGETS]
        length = sum(run["epochs"] for run in runs) / sum(run["trials"] for run in runs)
        different = sum(run["cells"] for run in runs) / sum(run["trials"] for run in runs)
        print(f"| {method} | " + " | ".join(f"{value:.2f}" for value in below) + f" | {length:.1f} | {different:.2f} |")


if __name__ == "__main__":
    main()
