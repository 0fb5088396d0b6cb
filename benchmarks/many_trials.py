"""A real sweep of a thousand trials that take no time: what Ray, Tune, the driver and W&B cost for each.

    python benchmarks/many_trials.py DIR [--trials 1000] [--minutes 3]

With ``--minutes`` the sweep stops after so many and the next call goes on with it: a machine that is shared need not
be held for the whole. The table is made when all trials have ended. The driver is looked at once a second from outside.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from research import provenance
from research.ledger.log import Ledger

SPACE = Path(__file__).with_name("tiny_space.py")
BINS = 10
TICKS = os.sysconf("SC_CLK_TCK")


def go_on(sweep_dir: Path, trials: int, minutes: float | None, samples: Path) -> None:
    """One session, and what its driver used by the second."""
    hours = [] if minutes is None else ["--hours", f"{minutes / 60:.4f}"]
    command = [sys.executable, "-m", "research.cli"]
    if sweep_dir.exists():
        more = [] if minutes is None else ["--hours", f"+{minutes / 60:.4f}"]
        command += ["extend", str(sweep_dir), *more] if more else ["resume", str(sweep_dir)]
    else:
        command += ["sweep", str(SPACE), "--trials", str(trials), "--scheduler", "none", "--wandb", "offline", *hours]
        command += ["--name", sweep_dir.name, "--storage", str(sweep_dir.parent)]
    with samples.open("a", encoding="utf-8") as out, sweep_dir.with_suffix(".log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                text = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                break
            used = {"cpu": (int(text[11]) + int(text[12])) / TICKS, "memory_mb": int(text[21]) * 4096 / 2**20}
            out.write(json.dumps({"time": datetime.now(UTC).isoformat(), "pid": process.pid, **used}) + "\n")
            time.sleep(1.0)
        process.wait()


def table(ledger: Ledger, samples: list[dict[str, Any]]) -> list[str]:
    """Lines, one for each tenth of the trials by the order of their ends."""
    ends = sorted(view.updated for view in ledger.trials.values() if view.terminal)
    size = max(1, len(ends) // BINS)
    lines = [
        "| trials ended | wall for a trial, s | training and evaluation for a trial, s | driver's CPU for a trial, ms | memory, MB |",
        "|---|---|---|---|---|",
    ]
    trained = sorted((view.updated, view.seconds or 0.0) for view in ledger.trials.values() if view.terminal)
    for first in range(0, len(ends) - size + 1, size):
        start, end = ends[max(0, first - 1)], ends[first + size - 1]
        inside = [sample for sample in samples if start <= sample["time"] <= end]
        # Pauses between sessions, and their starts, are no cost of a trial: only steps inside one process count.
        steps = [(a, b) for a, b in itertools.pairwise(inside) if a["pid"] == b["pid"]]
        cpu = sum(b["cpu"] - a["cpu"] for a, b in steps)
        wall = sum((_at(b) - _at(a)).total_seconds() for a, b in steps)
        seconds = sum(value for _, value in trained[first : first + size]) / size
        memory = max((sample["memory_mb"] for sample in inside), default=float("nan"))
        lines.append(
            f"| {first}–{first + size} | {wall / size:.2f} | {seconds:.3f} | {1000 * cpu / size:.0f} | {memory:.0f} |"
        )
    return lines


def _at(sample: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(sample["time"])


def main() -> None:
    """A session, and the table when it was the last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--minutes", type=float)
    options = parser.parse_args()
    samples = options.directory.with_suffix(".jsonl")
    options.directory.parent.mkdir(parents=True, exist_ok=True)
    go_on(options.directory, options.trials, options.minutes, samples)
    ledger = Ledger.open(options.directory)
    ended = len(ledger.standing.places)
    if ended < options.trials:
        print(f"{ended} of {options.trials} trials have ended: the same command goes on")
        return
    machine, versions = provenance.hardware(), ledger.created.versions
    told = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "ray", "optuna", "wandb"))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine['cpu']}, {machine['usable_cores']} cores; {told}; load {os.getloadavg()}"
    )
    print("\n".join(table(ledger, [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()])))
    print(f"\n{len(ledger.sessions)} sessions, {len(ledger)} events, {ledger.standing.states}")


if __name__ == "__main__":
    main()
