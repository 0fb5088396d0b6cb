"""Where the time of a trial goes: steps, held-out figures, checkpoints, pictures, the rest. One trial, as a worker runs it.

    RESEARCH_DATA_DIR=... python benchmarks/trial_parts.py [--space vae] [--epochs 10] [--draws 3]

Runs ``research.worker.trial.run_trials`` in this process, on one thread, with a driver that does nothing: what the
driver does with a row is in scale.py. "Beyond" is all that is neither a step nor one forward pass over the validation
images in an epoch.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import torch

import research.worker.trial
import vae.run
from research import provenance
from research.ledger.settings import Metric
from research.planning.request import SweepRequest
from research.search.spaces import load_space, random_draws
from research.store.layout import SweepFolder
from research.worker.messages import Assignment
from research.worker.trial import run_trials
from vae.data import load_training
from vae.data.pixels import pixels_of
from vae.serialization import to_dict
from vae.state import TrainState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from research.worker.messages import Report
    from vae.train_config import TrainConfig

Spent = dict[str, list[float]]  # by part: CPU, wall, in seconds


@contextmanager
def _timed(spent: Spent, part: str) -> Iterator[None]:
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    spent[part][0] += time.process_time() - cpu
    spent[part][1] += time.perf_counter() - wall


def _measured(call: Callable[..., Any], spent: Spent, part: str) -> Callable[..., Any]:
    @wraps(call)
    def measured(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - any function's
        with _timed(spent, part):
            return call(*arguments, **named)

    return measured


class Channel:
    """A driver that lets every trial go on, and counts the reports."""

    epochs = 0

    def report(self, reports: Sequence[Report]) -> dict[int, int]:
        """Count the epochs."""
        self.epochs += sum(len(report.rows) for report in reports)
        return {report.trial: report.epochs for report in reports}

    def pause_requested(self) -> bool:
        """Never pause."""
        return False


def run(config: TrainConfig, folder: Path) -> Spent:
    """One trial of ``config``; what each part of it took."""
    spent: Spent = defaultdict(lambda: [0.0, 0.0])
    data = load_training(config.data, None)  # once for each process: told apart
    assert data.validation is not None
    rungs = [epoch for epoch in (1, 3, 9) if epoch < config.epochs]
    assignment = Assignment(
        sweep_dir=str(folder),
        storage=None,
        trial=0,
        attempt=0,
        config=to_dict(config),
        replicates=1,
        metric=Metric(),
        objectives=[],
        threads=1,
        device="cpu",
        gpus=0.0,
        source_sha256=provenance.running_sha256(),
        data_dir=None,
        data_hash=data.data_hash,
        split_hash=data.split_hash,
        picture_epochs=[*rungs, config.epochs],
        resume_from=None,
        resume_sha256=None,
        again={},
        last_epoch=0,
        due=(rungs or [config.epochs])[0],
        report_seconds=SweepRequest.report_seconds,
        stop_file=None,
        best_checkpoint=None,
        best_value=None,
    )
    held = pixels_of(data.validation, config, data.levels, torch.device("cpu"), held_out=True)
    parts = {
        "held-out figures": (vae.run, "held_out_metrics"),
        "checkpoint": (TrainState, "save"),
        "pictures": (research.worker.trial, "draw_pictures"),
        "old checkpoints": (research.worker.trial, "_forget_all_but"),
        "state": (vae.run, "capture"),
        "checks": (vae.run, "_what_diverged"),
        "starting weights": (vae.run, "build"),
    }
    before = {part: getattr(where, name) for part, (where, name) in parts.items()}
    channel = Channel()
    SweepFolder(folder).ledger.mkdir()
    SweepFolder(folder).event(0).touch()  # a worker writes only where a sweep is

    def evaluated(model: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - the model's figures
        # What one pass costs, taken where the figures are: not counted as the trial's own.
        with _timed(spent, "(one forward pass)"), torch.no_grad():
            for rows in torch.arange(len(held)).split(1000):
                x = held.batch(rows)
                model.terms(
                    x, model.condition(x, held.labels[rows]), torch.randn(1, len(rows), config.latent_size), None
                )
        return before["held-out figures"](model, *arguments, **named)

    try:
        for part, (where, name) in parts.items():
            setattr(where, name, _measured(before[part], spent, part))
        vae.run.held_out_metrics = _measured(evaluated, spent, "held-out figures")  # type: ignore[assignment]
        with _timed(spent, "the whole trial"):
            run_trials([assignment], channel)
    finally:
        for part, (where, name) in parts.items():
            setattr(where, name, before[part])
    assert channel.epochs == config.epochs, "it diverged"
    pass_ = spent["(one forward pass)"]
    for part in ("held-out figures", "the whole trial"):
        spent[part] = [a - b for a, b in zip(spent[part], pass_, strict=True)]
    known = [spent[part][0] for part in parts]
    spent["steps"] = [
        spent["the whole trial"][0] - sum(known),
        spent["the whole trial"][1] - sum(spent[p][1] for p in parts),
    ]
    return spent


def main() -> None:
    """A table for each drawn config, in shares of the whole trial's CPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="vae" if os.environ.get("RESEARCH_DATA_DIR") else "quickstart")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="does it work? The figures mean nothing")
    options = parser.parse_args()
    if options.quick:
        options.epochs = options.draws = 1
    torch.set_num_threads(1)
    machine, versions = provenance.hardware(), provenance.versions()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine['cpu']}, one of {machine['usable_cores']} cores; Python "
        f"{versions['python']}, torch {versions['torch']}; load {os.getloadavg()[0]:.1f}"
    )
    draws = random_draws(load_space(options.space), epochs=options.epochs, seed=0, count=options.draws, data=None)
    for trial, config in draws:
        if isinstance(config, Exception):
            continue
        with tempfile.TemporaryDirectory() as folder:
            spent = run(config, Path(folder))  # type: ignore[arg-type]
        whole, one_pass = spent["the whole trial"], spent["(one forward pass)"]
        parts = [part for part in spent if part not in {"the whole trial", "(one forward pass)", "steps"}]
        beyond = [sum(spent[part][kind] for part in parts) - one_pass[kind] for kind in (0, 1)]
        print(f"\n{trial.params}\n\n| part | CPU, s | of the trial | wall, s |\n|---|---|---|---|")
        for part in ("the whole trial", "steps", "(one forward pass)", *parts):
            cpu, wall = spent[part]
            print(f"| {part} | {cpu:.3f} | {cpu / whole[0]:.2%} | {wall:.3f} |")
        print(f"| **beyond** | {beyond[0]:.3f} | **{beyond[0] / whole[0]:.2%}** | {beyond[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
