"""What the driver costs as a sweep grows: thousands of simulated trials through the real driver.

    python benchmarks/scale.py [--trials 10000] [--slots 500] ...

Real: the driver that ``research sweep`` makes (ledger, Optuna, early stopping, kept models, printed lines), its
W&B process, its files. Simulated: the workers: an epoch
takes an invented time, its figures are invented, its checkpoint is a small file. docs/scale.md says what that leaves out.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import itertools
import json
import math
import platform
import random
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from research import provenance
from research.driver.driver import Completed, Driver
from research.driver.lifecycle import create
from research.driver.stopping import Stop
from research.ledger import settings
from research.ledger.events import SessionStarted
from research.ledger.log import Ledger
from research.planning import preflight
from research.planning.metrics import parse_metric
from research.planning.options import sampler_of, scheduler_of
from research.search.spaces import load_space
from research.store.layout import trial_name
from research.tracking.sink import Sink
from research.views.live import LiveView
from research.worker.messages import Report, ReportedRow
from vae.state import INFO_FILE, STATE_FILE, TrainState

if TYPE_CHECKING:
    from collections.abc import Callable

    from research.ledger.trial_view import TrialView

BINS = 10  # rows of the table
OBJECTIVES = ("val/reconstruction:min", "val/kl:min")


@dataclass
class Cost:
    """Of one kind of call: how often, seconds of wall clock and of the driver's own CPU."""

    calls: int = 0
    wall: float = 0.0
    cpu: float = 0.0

    def of(self, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the call gives
        """``call()``, timed."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        self.calls += 1
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        return result


@dataclass
class Bin:
    """A tenth of the trials, by the order of their ends."""

    ask: Cost = field(default_factory=Cost)
    row: Cost = field(default_factory=Cost)
    end: Cost = field(default_factory=Cost)
    trials: int = 0  # ended by then
    memory_mb: float = 0.0

    @property
    def cpu(self) -> float:
        return self.ask.cpu + self.row.cpu + self.end.cpu

    @property
    def wall(self) -> float:
        return self.ask.wall + self.row.wall + self.end.wall


class Worker:
    """What a trial would report, a function of its parameters; and its small checkpoint."""

    def __init__(self, sweep_dir: Path) -> None:
        """The checkpoint is the same for all: what is in it does not matter here."""
        self.sweep_dir = sweep_dir
        state = TrainState(config_hash="", epoch=0, step=0, sizes={}, tensors={"model/weight": torch.zeros(64, 64)})
        with tempfile.TemporaryDirectory() as folder:
            self.sha256 = state.save(Path(folder) / "state")
            self.files = {name: (Path(folder) / "state" / name).read_bytes() for name in (STATE_FILE, INFO_FILE)}

    def report(self, view: TrialView, epoch: int) -> Report:
        """The row of ``epoch`` as ``research.worker.trial`` sends it, with as many figures."""
        params = view.created.params
        key = json.dumps([sorted(params.items()), epoch])
        luck = random.Random(hashlib.sha256(key.encode()).digest())
        merit = -30.0 - 5.0 * abs(math.log10(params["lr"]) + 2.7) - 40.0 / params["width"] - 4.0 / params["latent_size"]
        elbo = merit - 30.0 / epoch + luck.gauss(0.0, 0.3)
        kl = 3.0 + params["latent_size"] * 0.2 + luck.random()
        folder = self.sweep_dir / "trials" / trial_name(view.number)
        place = folder / f"epoch-{epoch:04d}-0"
        place.mkdir(parents=True)
        for name, content in self.files.items():
            (place / name).write_bytes(content)
        names = ("loss", "reconstruction", "kl", "learning_rate", "beta", "gradient_norm")
        held_out = ("nll_iwae", "active_units", "bits_per_dimension", "mse", "mutual_information")
        metrics = {
            "epoch": epoch,
            "step": 12 * epoch,
            "model/parameters": 12345,
            **{f"train/{name}": luck.random() for name in names},
            "val/elbo": elbo,
            "val/kl": kl,
            "val/reconstruction": -elbo - kl,
            "val/kl_by_dimension": [luck.random() for _ in range(params["latent_size"])],
            **{f"val/{name}": luck.random() for name in held_out},
            "time/train_seconds": luck.random(),
            "time/evaluation_seconds": 0.1,
            "time/examples_per_second": 1e4,
        }
        checkpoint = str(place.relative_to(self.sweep_dir))
        return Report(
            trial=view.number,
            epochs=view.created.config["epochs"],
            attempt=0,
            rows=[ReportedRow(metrics=metrics, checkpoint=checkpoint, checkpoint_sha256=self.sha256)],
            worker={"pid": 1, "host": "simulated", "threads": 1, "device": "cpu", "hardware": provenance.hardware()},
        )


def make(folder: Path, options: argparse.Namespace) -> Ledger:
    """A new sweep of the quickstart space."""
    space = load_space("quickstart")
    objectives = tuple(parse_metric(text) for text in OBJECTIVES) if options.objectives else ()
    found = preflight.check_space(space, metric=None, epochs=options.epochs, seed=0, data_dir=None)
    stopping = scheduler_of(options.scheduler, reduction=3, min_population=None)
    chosen = settings.SweepSettings(
        name="scale",
        space=space.source,
        metric=found.metric,
        objectives=objectives,
        trials=options.trials,
        epochs=options.epochs,
        sampler=sampler_of(options.sampler, []),
        scheduler=preflight.resolve_scheduler(stopping, found.survey.configs, grace=None),
        budget=settings.Budget(patience=options.trials, trial_hours=1e9),
        deterministic=options.deterministic,
        resources=settings.Resources(concurrent=options.slots),
        measure=found.measure,
        data_hash=found.data.data_hash,
        split_hash=found.data.split_hash,
        wandb=options.wandb,
    )
    return create(folder / "scale", chosen, sys.argv)


@dataclass
class Running:
    """A trial at work: how long an epoch takes it, and the epoch that it reports next."""

    trial: int
    pace: float
    epoch: int = 1


def simulate(driver: Driver, options: argparse.Namespace, frame: Cost) -> None:
    """Run trials on a simulated clock: reports come in order of their times, and a free slot asks at once."""
    ledger = driver.ledger
    worker = Worker(ledger.directory)
    speed = random.Random(0)
    order = itertools.count()
    running: list[tuple[float, int, Running]] = []
    bins = [Bin()]
    idle = options.slots
    ended, size = 0, math.ceil(options.trials / BINS)
    now = 0.0
    while True:
        while idle:
            tasks = bins[-1].ask.of(driver.next)
            if not isinstance(tasks, list):
                break
            idle -= 1
            one = Running(tasks[0].trial, pace=speed.lognormvariate(0.0, 0.5))
            heapq.heappush(running, (now + one.pace, next(order), one))
        if not running:
            break
        now, _, one = heapq.heappop(running)
        view = ledger.trials[one.trial]
        report = worker.report(view, one.epoch)
        if bins[-1].row.of(lambda report=report: driver.report(report)) == "continue":
            best = view.best(ledger.settings.metric)
            _forget(ledger.directory, view.number, {one.epoch, best.epoch if best else one.epoch})
            one.epoch += 1
            heapq.heappush(running, (now + one.pace, next(order), one))
            continue
        bins[-1].end.of(lambda one=one: driver.left([one.trial], Completed()))
        idle += 1
        ended += 1
        if ended == len(bins) * size or ended == options.trials:
            bins[-1].trials, bins[-1].memory_mb = ended, _memory_mb()
            print(_line(bins[-1], bins[-2].trials if len(bins) > 1 else 0), flush=True)
            bins.append(Bin())
            # As it is drawn on a terminal, at most twice a second, whatever happens between.
            screen = Console(file=StringIO(), force_terminal=True, width=120, height=50)
            frame.of(lambda screen=screen: screen.print(LiveView(screen, ledger).frame()))


def _forget(sweep_dir: Path, number: int, needed: set[int]) -> None:
    names = {f"epoch-{epoch:04d}-0" for epoch in needed}
    for old in (sweep_dir / "trials" / trial_name(number)).iterdir():
        if old.name not in names:
            shutil.rmtree(old)


def _memory_mb() -> float:
    text = Path("/proc/self/statm")
    if not text.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(text.read_text().split()[1]) * resource.getpagesize() / 2**20


HEAD = (
    "| trials ended | ask, ms | row and decision, ms | end, ms | driver's CPU for a trial, ms | wall, ms | memory, MB |\n"
    "|---|---|---|---|---|---|---|"
)


def _line(one: Bin, before: int) -> str:
    each = [f"{1000 * cost.cpu / max(1, cost.calls):.2f}" for cost in (one.ask, one.row, one.end)]
    count = one.trials - before
    totals = [f"{1000 * total / count:.1f}" for total in (one.cpu, one.wall)]
    return f"| {before}–{one.trials} | {' | '.join([*each, *totals])} | {one.memory_mb:.0f} |"


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--scheduler", default="asha")
    parser.add_argument("--objectives", action="store_true", help="a front of two")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--wandb", choices=["offline", "disabled"], default="disabled")
    parser.add_argument(
        "--storage", type=Path, help="where the sweep is written and left. Default: written and removed"
    )
    options = parser.parse_args()
    machine = provenance.hardware()
    versions = provenance.versions()
    told = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "ray", "optuna", "wandb"))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine['cpu']}, {machine['usable_cores']} cores, {platform.system()}; {told}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        ledger = make(options.storage or Path(temporary), options)
        with (ledger.directory / "driver.log").open("w", encoding="utf-8") as log:
            live = LiveView(Console(file=log, width=1000), ledger)
            ledger.append(
                SessionStarted(
                    generation=0,
                    pid=0,
                    host="",
                    code=provenance.code(),
                    versions=versions,
                    hardware=machine,
                )
            )
            driver = Driver(ledger, load_space("quickstart"), live, Stop(ledger))
            sink = Sink.start(ledger.directory, ledger.settings.wandb)
            print(HEAD)
            frame = Cost()
            simulate(driver, options, frame)
            finish = Cost()
            finish.of(lambda: (driver.close(), sink.close(), live.close()))
        reading = Cost()
        reading.of(lambda: Ledger.open(ledger.directory))
        print(
            f"\n{len(ledger)} events; a frame of the live table, mean of ten, {1000 * frame.cpu / BINS:.0f} ms of CPU; the session's end "
            f"{finish.wall:.1f} s; the ledger read again and verified in {reading.cpu:.1f} s of CPU"
        )


if __name__ == "__main__":
    main()
