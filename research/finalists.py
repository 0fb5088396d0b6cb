"""The best configurations trained again with fresh seeds: how sure is a sweep's answer?

The finalists of the sweep in DIR are a sweep of their own, in DIR/finalists: configurations × seeds, drawn by nobody,
none stopped early, through the same engine, so that they are resumed, logged and kept as any trial is. A configuration
is chosen by its mean validation score; the weights that stand for it are those of the median seed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from typing import TYPE_CHECKING, Any

from research.checkpoints import trial_name
from research.errors import UserError
from research.ledger import Ledger, TrialCreated
from research.replicates import median_index
from research.settings import Budget, NoScheduler, Parent, RandomSearch, SweepSettings
from research.show import number_text
from vae.seeds import derive
from vae.serialization import config_hash, from_dict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from research.ledger import TrialView

FOLDER = "finalists"
LEVEL = 0.95
_TEST = "test.json"


def prepare(sweep_dir: Path, *, top: int, seeds: int, resources: Any, command: list[str]) -> Path:  # noqa: ANN401 - Resources
    """Make DIR/finalists a sweep of the ``top`` best configurations × ``seeds`` fresh seeds, or add what it lacks.

    Raises:
        UserError: the sweep has nothing to train again.

    """
    from research.sweep import create  # noqa: PLC0415 - Ray takes seconds to import

    ledger = Ledger.open(sweep_dir)
    settings = ledger.settings
    if settings.parent is not None:
        raise UserError(f"{str(sweep_dir)!r} holds finalists already; give the directory of the sweep that they are of")
    best = ledger.ranked()[:top]
    if not best:
        raise UserError(f"sweep {str(sweep_dir)!r} has no trial with a result yet: nothing to train again")
    if running := [view.number for view in ledger.trials.values() if not view.terminal]:
        raise UserError(
            f"sweep {str(sweep_dir)!r} is not at its end (trial {running[0]} has not ended): research resume {sweep_dir} first"
        )
    target = sweep_dir / FOLDER
    if (target / "ledger").is_dir():
        finalists = Ledger.open(target)
        if finalists.settings.parent != Parent(name=settings.name, identity=ledger.identity):
            raise UserError(f"{target} holds finalists of another sweep: move it away")
    else:
        finalists = create(target, _settings(ledger, len(best) * seeds, resources), command)
    there = {(view.created.parent_trial, view.created.seed) for view in finalists.trials.values()}
    wanted = [(view, seed) for seed in fresh_seeds(settings.seed, seeds) for view in best]
    missing = [(view, seed) for view, seed in wanted if (view.number, seed) not in there]
    _grow(finalists, len(finalists.trials) + len(missing))
    for view, seed in missing:
        finalists.append(_created(len(finalists.trials), view, seed))
    return target


def fresh_seeds(seed: int, count: int) -> list[int]:
    """Seeds that no trial of the sweep had: the same for each configuration."""
    return [derive(seed, "finalist", index) % 2**31 for index in range(count)]


def _settings(ledger: Ledger, trials: int, resources: Any) -> SweepSettings:  # noqa: ANN401 - Resources
    settings = ledger.settings
    return dataclasses.replace(
        settings,
        name=f"{settings.name[:90]}-{FOLDER}",  # at most 100 characters
        trials=trials,
        keep=10_000,  # every seed's model: which one is the median is known at the end
        sampler=RandomSearch(),
        scheduler=NoScheduler(),
        budget=Budget(),
        start_from=(),
        replicates=1,
        resources=resources or settings.resources,
        parent=Parent(name=settings.name, identity=ledger.identity),
    )


def _grow(ledger: Ledger, trials: int) -> None:
    from research.events import SweepExtended  # noqa: PLC0415 - only when it grows

    if trials > ledger.settings.trials:
        ledger.append(SweepExtended(trials=trials, budget=Budget()))


def _created(number: int, view: TrialView, seed: int) -> TrialCreated:
    config = {**view.created.config, "seed": seed}
    return TrialCreated(
        trial=number,
        params=view.created.params,
        distributions=view.created.distributions,
        config=config,
        config_hash=config_hash(from_dict(config)),
        seed=seed,
        sampler_seed=0,
        source=f"trial {view.number}",
        parent_trial=view.number,
    )


def results(sweep_dir: Path) -> dict[str, Any] | None:
    """What the finalists of the sweep in ``sweep_dir`` say, as plain values; None where there are none.

    ``configurations``, best mean first: ``search`` is the score in the sweep, ``scores`` those of the fresh seeds,
    ``gap`` how much better the search's was than their mean (the winner's curse, where above 0), all in the metric's
    units. ``difference``: the first's mean minus the second's in the direction of better, with Welch's interval at
    ``level``. ``test``: of the chosen configuration, after :func:`look_at_test`.
    """
    if not (sweep_dir / FOLDER / "ledger").is_dir():
        return None
    parent, ledger = Ledger.open(sweep_dir), Ledger.open(sweep_dir / FOLDER)
    metric = ledger.settings.metric
    sign = 1.0 if metric.direction == "maximize" else -1.0
    by_origin: dict[int, list[TrialView]] = {}
    for _, view in sorted(ledger.trials.items()):
        if view.created.parent_trial is not None:
            by_origin.setdefault(view.created.parent_trial, []).append(view)
    rows = [_configuration(parent, ledger, origin, views) for origin, views in by_origin.items()]
    rows.sort(key=lambda row: (row["mean"] is None, -sign * (row["mean"] or 0.0), row["parent_trial"]))
    for rank, row in enumerate(rows, start=1):
        row["rank"] = rank
    order = [view.number for view in parent.ranked()]
    first_found = min(rows, key=lambda row: order.index(row["parent_trial"]), default=None)
    stored = sweep_dir / FOLDER / _TEST
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
            "standard_error": first_found["standard_error"],
            "of": f"trial {first_found['parent_trial']}, the best of the search",
        },
        "test": json.loads(stored.read_bytes()) if stored.is_file() else None,
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
    return {
        "rank": 0,
        "parent_trial": origin,
        "params": dict(source.created.params),
        "search": search,
        "scores": scores,
        "seeds": [view.created.seed for view, _ in ended],
        "mean": mean,
        "standard_error": statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None,
        "gap": None if mean is None or search is None else sign * (search - mean),
        "failed": [
            f"seed {view.created.seed}: {view.fail_kind}: {view.reason}" for view in views if view.status == "FAIL"
        ],
        "kept_trial": None if kept is None else kept.number,
        "model": None if kept is None else str(ledger.directory / "models" / trial_name(kept.number)),
    }


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


def welch_interval(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """The interval for the difference of two means whose variances need not be equal (Welch 1947)."""
    import numpy as np  # noqa: PLC0415 - scipy takes its time
    from scipy import stats  # noqa: PLC0415

    if np.ptp(first) == 0 and np.ptp(second) == 0:
        difference = statistics.fmean(first) - statistics.fmean(second)
        return difference, difference
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(level)
    return float(interval.low), float(interval.high)


def look_at_test(sweep_dir: Path, *, nll_k: int, images: int, data_dir: Path | None, device: str) -> dict[str, Any]:
    """Evaluate the chosen configuration's models on test, one look for each seed, and write the result down.

    Nothing is chosen by what is seen. What was looked at before is read, not computed again.
    """
    from research.evaluation import evaluate_model  # noqa: PLC0415 - torch

    found = results(sweep_dir)
    assert found is not None, "called after the finalists were trained"
    chosen = found["configurations"][0]
    ledger = Ledger.open(sweep_dir / FOLDER)
    folders = [
        ledger.directory / "models" / trial_name(view.number)
        for _, view in sorted(ledger.trials.items())
        if view.created.parent_trial == chosen["parent_trial"] and view.created.seed in chosen["seeds"]
    ]
    config = from_dict(ledger.trials[chosen["kept_trial"]].created.config)
    if not config.posterior.has_density or config.data.binarisation == "expected":
        nll_k = 0  # there is no log p(x) to estimate
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
                "standard_error": statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
                "values": values,
            }
            for name, values in numbers.items()
        },
    }
    (sweep_dir / FOLDER / _TEST).write_text(json.dumps(test, indent=1) + "\n", encoding="utf-8")
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
            "  ".join(f"{name}={number_text(value)}" for name, value in row["params"].items()),
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
