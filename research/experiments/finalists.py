"""The best configurations trained again with fresh seeds: how sure is a sweep's answer?

The finalists of the sweep in DIR are a sweep of their own, in DIR/finalists: configurations × seeds, drawn by nobody,
none stopped early, through the same engine, so that they are resumed, logged and kept as any trial is. A configuration
is chosen by its mean validation score; the weights that stand for it are those of the median seed.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.driver.lifecycle import create
from research.errors import CorruptFile, UserError, storing
from research.intervals import LEVEL, median_index, standard_error, welch_interval
from research.ledger.events import SweepExtended, TrialCreated
from research.ledger.log import Ledger
from research.ledger.records import verify_model
from research.ledger.settings import Budget, NoScheduler, Parent, RandomSearch, SweepSettings
from research.ledger.tail import refuse_lost_tail
from research.store.folders import read_sealed, write_sealed
from research.store.layout import SweepFolder
from research.store.mirror import relative, store_of
from research.text import number_text, shell, visible
from vae.durable import LARGE_TEXT, read_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from research.ledger.settings import Resources
    from research.ledger.trial_view import TrialView

MOST_STACKED = 16  # nothing more was measured


def prepare(parent: Ledger, *, top: int, seeds: int, resources: Resources | None, command: list[str]) -> Path:
    """Make DIR/finalists a sweep of the ``top`` best configurations × ``seeds`` fresh seeds, or add what it lacks.

    ``resources`` None: those of the sweep.

    Raises:
        UserError: the sweep has nothing to train again.

    """
    refuse_lost_tail(parent)
    settings, place = parent.settings, parent.directory
    if settings.parent is not None:
        raise UserError(f"{str(place)!r} holds finalists already; give the directory of the sweep that they are of")
    best = parent.ranked()[:top]
    if not best:
        raise UserError(f"sweep {str(place)!r} has no trial with a result yet: nothing to train again")
    if running := [view.number for view in parent.trials.values() if not view.terminal]:
        raise UserError(
            f"sweep {str(place)!r} is not at its end (trial {running[0]} has not ended): {shell('research', 'resume', relative(place))} first"
        )
    target = SweepFolder(place).finalists.path
    if SweepFolder(target).is_sweep:
        ledger = Ledger.open(target)
        refuse_lost_tail(ledger)
        if ledger.settings.parent != Parent(name=settings.name, identity=parent.identity):
            raise UserError(f"{target} holds finalists of another sweep: move it away")
    else:
        ledger = create(target, _settings(parent, best, seeds, resources), command)
    there = {(view.created.parent_trial, view.created.seed) for view in ledger.trials.values()}
    wanted = [(view, seed) for seed in fresh_seeds(settings.seed, seeds) for view in best]
    missing = [(view, seed) for view, seed in wanted if (view.number, seed) not in there]
    total = len(ledger.trials) + len(missing)
    if total > ledger.settings.trials:
        ledger.append(SweepExtended(trials=total, budget=Budget()))
    for view, seed in missing:
        ledger.append(_created(len(ledger.trials), view, seed))
    return target


def fresh_seeds(seed: int, count: int) -> list[int]:
    """Seeds that no trial of the sweep had: the same for each configuration."""
    from vae.seeds import derive  # noqa: PLC0415 - torch: the results are read without it

    return [derive(seed, "finalist", index) % 2**31 for index in range(count)]


def _settings(parent: Ledger, best: Sequence[TrialView], seeds: int, resources: Resources | None) -> SweepSettings:
    settings = parent.settings
    resources = resources or settings.resources
    trials = len(best) * seeds
    return dataclasses.replace(
        settings,
        name=f"{settings.name[:90]}-finalists",  # at most 100 characters
        trials=trials,
        keep=10_000,  # every seed's model: which one is the median is known at the end
        sampler=RandomSearch(),
        scheduler=NoScheduler(),
        budget=Budget(),
        start_from=(),
        replicates=1,
        stack=_stack(parent, best, trials, resources),
        resources=resources,
        comparison=parent.comparison,
        parent=Parent(name=settings.name, identity=parent.identity),
    )


def _stack(parent: Ledger, best: Sequence[TrialView], trials: int, resources: Resources) -> int:
    """Return the number of finalists in a stack: the sweep's own ``stack``, else a slot's share if stacks are faster."""
    from research.worker.gpu_memory import device_of  # noqa: PLC0415 - torch
    from vae.data import load_training  # noqa: PLC0415 - as above
    from vae.fast.stackable import pays  # noqa: PLC0415 - as above
    from vae.serialization import from_record  # noqa: PLC0415 - as above

    settings = parent.settings
    if settings.stack > 1:
        return settings.stack
    configs = [from_record(view.created.config) for view in best]
    data = load_training(configs[0].data, None if settings.data_dir is None else Path(settings.data_dir))
    if not all(pays(config, data, device_of(resources)) for config in configs):
        return 1
    return min(MOST_STACKED, math.ceil(trials / resources.concurrent))


def _created(number: int, view: TrialView, seed: int) -> TrialCreated:
    from vae.serialization import config_hash, from_record  # noqa: PLC0415 - as in fresh_seeds

    config = {**view.created.config, "seed": seed}
    return TrialCreated(
        trial=number,
        params=view.created.params,
        distributions=view.created.distributions,
        config=config,
        config_hash=config_hash(from_record(config)),
        seed=seed,
        sampler_seed=0,
        source=f"trial {view.number}",
        parent_trial=view.number,
    )


def results(parent: Ledger) -> dict[str, Any] | None:
    """Return the results of the finalists of the sweep ``parent`` as plain values; None if there are none.

    ``configurations``, best mean first: ``search`` is the score in the sweep, ``scores`` those of the fresh seeds,
    ``gap`` how much better the search's was than the fresh seeds' by the same definition (the winner's curse, where
    above 0; see :func:`fresh_scores`), with ``gap_standard_error``, all in the metric's units. ``difference``: the first's mean minus the second's in the direction of better, with Welch's interval at
    ``level``. ``test``: of the chosen configuration, after :func:`look_at_test`.
    """
    if not parent.folder.finalists.is_sweep:
        return None
    ledger = Ledger.open(parent.folder.finalists.path)
    metric = ledger.settings.metric
    sign = 1.0 if metric.direction == "maximize" else -1.0
    by_origin: dict[int, list[TrialView]] = {}
    for _, view in sorted(ledger.trials.items()):
        if view.created.parent_trial is not None:
            by_origin.setdefault(view.created.parent_trial, []).append(view)
    if unknown := sorted(by_origin.keys() - parent.trials.keys()):
        raise CorruptFile(
            f"{ledger.directory} trained trial {unknown[0]} again, and {parent.folder.ledger} does not know it: the ledger has "
            "lost its last events; restore it from a copy"
        )
    rows = [_configuration(parent, ledger, origin, views) for origin, views in by_origin.items()]
    rows.sort(key=lambda row: (row["mean"] is None, -sign * (row["mean"] or 0.0), row["parent_trial"]))
    for rank, row in enumerate(rows, start=1):
        row["rank"] = rank
    order = [view.number for view in parent.ranked()]
    first_found = min(rows, key=lambda row: order.index(row["parent_trial"]), default=None)
    stored = read_sealed(ledger.folder.test_summary) if ledger.folder.test_summary.is_file() else None
    return {
        "directory": str(ledger.directory),
        "seeds": max((len(row["seeds"]) for row in rows), default=0),
        "metric": metric.name,
        "direction": metric.direction,
        "complete": all(view.terminal for view in ledger.trials.values()),
        "configurations": rows,
        "difference": _difference(rows, sign),
        "winners_curse": None
        if first_found is None or first_found["gap"] is None
        else {
            "gap": first_found["gap"],
            "standard_error": first_found["gap_standard_error"],
            "of": f"trial {first_found['parent_trial']}, the best of the search",
        },
        # More seeds may have chosen another configuration since: what was seen of the first is not this one's.
        "test": stored if stored is not None and rows and stored["parent_trial"] == rows[0]["parent_trial"] else None,
    }


def _configuration(parent: Ledger, ledger: Ledger, origin: int, views: Sequence[TrialView]) -> dict[str, Any]:
    metric = ledger.settings.metric
    sign = 1.0 if metric.direction == "maximize" else -1.0
    source = parent.trials[origin]
    search_best = source.best(metric)
    search = None if search_best is None else source.curve(metric.name)[search_best.epoch]
    ended = [(view, best) for view in views if view.status == "COMPLETE" and (best := view.best(metric)) is not None]
    scores = [view.curve(metric.name)[best.epoch] for view, best in ended]
    mean = math.fsum(scores) / len(scores) if scores else None
    kept = ended[median_index(scores)][0] if scores else None
    reached = max(source.rows, default=0)  # a trial that was stopped early had fewer epochs to be best at
    curves = [
        {epoch: value for epoch, value in view.curve(metric.name).items() if epoch <= reached} for view, _ in ended
    ]
    alike = fresh_scores(curves, parent.settings.replicates, sign)
    return {
        "rank": 0,
        "parent_trial": origin,
        "params": dict(source.created.params),
        "search": search,
        "scores": scores,
        "seeds": [view.created.seed for view, _ in ended],
        "mean": mean,
        "standard_error": standard_error(scores),
        "gap": None if not alike or search is None else sign * (search - math.fsum(alike) / len(alike)),
        "gap_standard_error": standard_error(alike),
        "failed": [
            f"seed {view.created.seed}: {view.fail_kind}: {view.reason}" for view in views if view.status == "FAIL"
        ],
        "kept_trial": None if kept is None else kept.number,
        "model": None if kept is None else str(ledger.folder.model(kept.number)),
    }


def fresh_scores(curves: Sequence[dict[int, float]], replicates: int, sign: float) -> list[float]:
    """Return what each fresh seed contributes to the mean score that is defined as the search's scores are.

    A trial's score in the search is the best epoch of the mean curve of its ``replicates``. The mean over each seed's own
    best epoch is better than that even without any curse. So the fresh seeds form groups of as many as the replicates
    (seeds i, i + 1, ... in a circle, so that each is in equally many), and each group has its best epoch. A seed's
    contribution is the mean of its own values at the best epochs of its groups. The mean of the contributions is
    the mean of the groups' scores. One replicate: each seed's own best epoch. Fewer seeds than replicates: one group.

    ``curves``: of each seed, the metric by epoch. ``sign``: 1 where more is better, else -1. Empty where no epoch has the
    values of a whole group.
    """
    count = len(curves)
    size = min(replicates, count)
    values: list[list[float]] = [[] for _ in curves]
    for start in range(count):
        group = [(start + step) % count for step in range(size)]
        epochs = sorted(set.intersection(*(set(curves[member]) for member in group)))
        if not epochs:
            return []
        means = {epoch: math.fsum(curves[member][epoch] for member in group) / size for epoch in epochs}
        best = max(epochs, key=lambda epoch: sign * means[epoch])
        for member in group:
            values[member].append(curves[member][best])
    return [math.fsum(each) / len(each) for each in values]


def _difference(rows: Sequence[dict[str, Any]], sign: float) -> dict[str, Any] | None:
    """Between the first and the second configuration, positive where the first is better, by Welch's t."""
    two = [row for row in rows if len(row["scores"]) > 1][:2]
    if len(two) < 2 or two != list(rows[:2]):  # noqa: PLR2004 - a difference has two
        return None
    first, second = ([sign * score for score in row["scores"]] for row in two)
    low, high = welch_interval(first, second)
    return {
        "first": two[0]["parent_trial"],
        "second": two[1]["parent_trial"],
        "mean": statistics.fmean(first) - statistics.fmean(second),
        "low": low,
        "high": high,
        "level": LEVEL,
    }


def look_at_test(
    found: dict[str, Any], *, nll_k: int, images: int, data_dir: Path | None, device: str
) -> dict[str, Any]:
    """Evaluate the models of the configuration that ``found`` chose on test, one look for each seed; write it down.

    Nothing is chosen by what is seen. What was looked at before is read, not computed again.
    """
    from research.models.evaluation import evaluate_model  # noqa: PLC0415 - torch
    from vae.serialization import from_record  # noqa: PLC0415 - as above

    chosen = found["configurations"][0]
    ledger = Ledger.open(found["directory"])
    folders = [
        ledger.folder.model(view.number)
        for _, view in sorted(ledger.trials.items())
        if view.created.parent_trial == chosen["parent_trial"] and view.created.seed in chosen["seeds"]
    ]
    config = from_record(ledger.trials[chosen["kept_trial"]].created.config)
    if not config.posterior.has_density or config.data.binarisation == "expected":
        nll_k = 0  # there is no log p(x) to estimate
    for folder in folders:  # all before the first look
        verify_model(folder)
    rows = []
    for folder in folders:
        ask: dict[str, Any] = {"data": None, "data_dir": data_dir, "device": device, "why": "research finalists"}
        rows.append(evaluate_model(folder, split="test", nll_k=nll_k, images=images, **ask).row)
    numbers = {
        name: [row[name] for row in rows]
        for name, value in rows[0].items()
        if isinstance(value, float) and name.startswith("test/")
    }
    test = {
        "parent_trial": chosen["parent_trial"],
        "nll_k": nll_k,
        "images": images,
        "looks": len(rows),
        "metrics": {
            name: {
                "mean": statistics.fmean(values),
                "standard_error": standard_error(values),
                "values": values,
            }
            for name, values in numbers.items()
        },
    }
    summary = ledger.folder.test_summary
    with storing(summary):
        write_sealed(summary, test)
    if (store := store_of(ledger.directory)) is not None:
        store.write(summary.name, read_file(summary, LARGE_TEXT))
    return test


def table(found: dict[str, Any]) -> RenderableType:
    """The finalists for a terminal: means, how sure, what the search's scores were worth, test."""
    from rich.console import Group  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rank", "trial", f"{found['metric']}, mean ± s.e.", "seeds", "in the search", "gap"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("parameters", overflow="fold")
    for row in found["configurations"]:
        shown.add_row(
            str(row["rank"]),
            str(row["parent_trial"]),
            _plus_minus(row["mean"], row["standard_error"]),
            str(len(row["scores"])),
            number_text(row["search"]),
            number_text(row["gap"]),
            "  ".join(f"{visible(name)}={number_text(value)}" for name, value in row["params"].items()),
        )
    lines = [f"  trial {row['parent_trial']}: {told}" for row in found["configurations"] for told in row["failed"]]
    if (difference := found["difference"]) is not None:
        sure = "they differ" if difference["low"] > 0 else "the seeds do not tell them apart"
        lines.append(
            f"first minus second (trials {difference['first']} and {difference['second']}): {difference['mean']:.3f}, "
            f"{100 * difference['level']:.0f} % interval {difference['low']:.3f} to {difference['high']:.3f}: {sure}"
        )
    if (curse := found["winners_curse"]) is not None:
        lines.append(
            f"winner's curse: {curse['of']}, scored {_plus_minus(curse['gap'], curse['standard_error'])} better there than "
            "with fresh seeds"
        )
    if found["configurations"] and (model := found["configurations"][0]["model"]) is not None:
        lines.append(
            f"chosen: trial {found['configurations'][0]['parent_trial']}, by its mean; weights of the median seed in {model}"
        )
    if (test := found["test"]) is not None:
        lines.append(f"test, looked at {test['looks']} times (once a seed), nothing chosen by it")
        lines += [
            f"  {name:30} {_plus_minus(value['mean'], value['standard_error'])}"
            for name, value in test["metrics"].items()
        ]
    return Group(shown, *[Text(line) for line in lines])


def _plus_minus(mean: float | None, error: float | None) -> str:
    return "-" if mean is None else f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"
