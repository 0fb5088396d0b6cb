"""How many epochs a search needs to find a good model: samplers and schedulers replayed on the table.

    python benchmarks/search_quality/replay.py [METHOD ...] [--seeds 30] [--out runs/search-quality.jsonl]

Without a method: those of docs/search-quality.md. A replay that is in ``--out`` already is not run again.
``report.py`` makes tables of the file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curves import DIGITS, load
from ours import EarlyAsFinal, LedgerEngine
from simulator import replay
from stock_ray import StockRayEngine

from research.ledger.settings import Asha, NoScheduler, RandomSearch, Tpe
from research.search.study import StudyView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curves import Table

    from research.ledger.settings import Sampler, Scheduler

HERE = Path(__file__).parent
PEERS = HERE / ".peers-venv/bin/python"
SLOTS = 4  # unless --slots says otherwise
TRIALS = 200  # at full length: the budget
WITHIN = 0.25  # nats of the table's best; a replay ends when it is there

OURS: dict[str, tuple[Sampler, Scheduler]] = {
    "ours": (Tpe(), Asha()),
    "tpe": (Tpe(), NoScheduler()),
    "random-asha": (RandomSearch(), Asha()),
    "random": (RandomSearch(), NoScheduler()),
}
VARIANTS: dict[str, tuple[Sampler, Scheduler]] = {
    "startup-5": (Tpe(startup_trials=5), Asha()),
    "startup-20": (Tpe(startup_trials=20), Asha()),
    "population-2": (Tpe(), Asha(min_population=2)),
    "population-5": (Tpe(), Asha(min_population=5)),
    "population-10": (Tpe(), Asha(min_population=10)),
    "grace-3": (Tpe(), Asha(grace=3)),
    "reduction-2": (Tpe(), Asha(reduction=2)),
    "reduction-4": (Tpe(), Asha(reduction=4)),
}
EARLY_AS_FINAL: dict[str, tuple[Sampler, Scheduler]] = {
    "early-as-final": (Tpe(), Asha()),
    "early-as-final-population-2": (Tpe(), Asha(min_population=2)),
}
RAY = {"ray": 3, "ray-reduction-4": 4}  # ASHAScheduler's reduction_factor; 4 is its default
SYNE = ("syne-asha", "syne-bohb", "syne-bohb-categorical")
SHOWN = (*OURS, *RAY, *SYNE)


def replays(method: str, seeds: list[int], table: Table, path: Path, slots: int = SLOTS) -> Iterator[dict[str, Any]]:
    """One record for each seed."""
    limits: dict[str, Any] = {"slots": slots, "budget": TRIALS * table.epochs}
    if method in SYNE:
        arguments = [f"--{name}={value}" for name, value in limits.items()]
        command = [str(PEERS), str(HERE / "syne.py"), method, *arguments, f"--within={WITHIN}", f"--table={path}"]
        command += ["--seeds", *map(str, seeds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            yield from (json.loads(line) for line in process.stdout)
        if process.returncode:
            raise SystemExit(f"{method} failed with exit code {process.returncode}")
        return
    limits["enough"] = table.best - WITHIN
    for seed in seeds:
        if method in RAY:
            yield replay(StockRayEngine(table, seed=seed, reduction=RAY[method]), table, **limits).record(method, seed)
            continue
        sampler, scheduler = (OURS | VARIANTS | EARLY_AS_FINAL)[method]
        study = EarlyAsFinal if method in EARLY_AS_FINAL else StudyView
        with tempfile.TemporaryDirectory(dir=memory()) as folder:
            engine = LedgerEngine(
                table, sampler=sampler, scheduler=scheduler, seed=seed, slots=slots, folder=Path(folder), study=study
            )
            yield replay(engine, table, **limits).record(method, seed)


def part(table: Table, only: str | None) -> Table:
    """The table, or the part of it that ``--only NAME=VALUE`` asks for."""
    if not only:
        return table
    name, value = only.split("=")
    return table.only(name, float(value))


def memory() -> str | None:
    """A folder in memory, where there is one: each event is synced, which a disk makes slow."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - the files in it are of a TemporaryDirectory


def main() -> None:
    """Run what the file lacks."""
    known = (*SHOWN, *VARIANTS, *EARLY_AS_FINAL)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("methods", nargs="*", help=f"of {' '.join(known)}")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--slots", type=int, default=SLOTS, help="with another number, give another --out")
    parser.add_argument("--only", help="NAME=VALUE: the part of the table with this value (not for Syne Tune)")
    parser.add_argument("--table", type=Path, default=DIGITS)
    parser.add_argument("--out", type=Path, default=Path("runs/search-quality.jsonl"))
    options = parser.parse_args()
    methods = options.methods or list(SHOWN)
    for method in methods:
        if method not in known:
            raise SystemExit(f"unknown method {method!r}: choose of {' '.join(known)}")
    table = part(load(options.table), options.only)
    if options.only and set(methods) & set(SYNE):
        raise SystemExit(f"--only is not for {' '.join(SYNE)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.touch()
    lines = [json.loads(line) for line in options.out.read_text(encoding="utf-8").splitlines()]
    for method in methods:
        done = {line["seed"] for line in lines if line["method"] == method}
        seeds = [seed for seed in range(options.seeds) if seed not in done]
        started = time.perf_counter()
        with options.out.open("a", encoding="utf-8") as out:
            for record in replays(method, seeds, table, options.table, options.slots):
                out.write(json.dumps(record) + "\n")
                out.flush()
                print(
                    f"{method} seed {record['seed']}: {record['epochs']} epochs, {record['trials']} trials, "
                    f"{record['cells']} cells, {time.perf_counter() - started:.0f} s",
                    file=sys.stderr,
                )


if __name__ == "__main__":
    main()
