"""The W&B run of a sweep as a whole: its tables, and Optuna's figures of it. Made at the end of each session."""

from __future__ import annotations

import time
import traceback
import warnings
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from research.errors import UserError
from research.ledger.log import Ledger
from research.text import json_text, shell
from research.tracking.trial_runs import Marks, init, run_id, tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import optuna
    import wandb
    from pydantic import JsonValue

    from research.ledger.trial_view import TrialView
    from research.planning.tracking_mode import Mode
    from research.store.layout import SweepFolder

ENOUGH = 4  # complete trials, for importances and figures
MOST = 1000  # trials of a study that is drawn and fitted: the first so many
_OBJECTIVES_DRAWN = (2, 3)  # fronts of other sizes are no picture

Rows = list[list[Any]]
T = TypeVar("T")


def has_figures(sweep: SweepFolder) -> bool:
    """Return False if the run of a sweep was logged without its figures, which take longer than everything else."""
    return not (mark := Marks(sweep).read("sweep")) or mark.get("figures") is True


def log_sweep(
    ledger: Ledger, mode: Mode, say: Callable[[str], None], *, until: float, figures_later: bool = False
) -> None:
    """Log the sweep's run, unless it holds what the ledger says already: its tables, then the whole with its figures.

    One row for each, at twice the number of the ledger's events and at one more: a later row never meets the step of an
    earlier one. Figures that have not begun at ``until`` (``time.monotonic``) are left out. ``figures_later``: they are
    all left to ``research sync``.
    """
    marks = Marks(ledger.folder)
    finalists = _finalists(ledger)
    facts = {"events": len(ledger), "finalist_events": 0 if finalists is None else len(finalists)}
    mark = marks.read("sweep") or {}
    logged = all(mark.get(name) == value for name, value in facts.items())
    if not ledger.trials or (logged and mark.get("figures")):
        return
    drawable = sum(trial.status == "COMPLETE" for trial in ledger.trials.values()) >= ENOUGH
    step = 2 * sum(facts.values())
    if not logged:
        _write(ledger, mode, marks, _tables(ledger, finalists), step=step)
        marks.write("sweep", **_where(ledger, mode, marks), **facts, figures=not drawable)
    if not drawable or figures_later:
        return
    figures, whole = _figures(ledger, until)
    if figures:
        _write(ledger, mode, marks, {**_tables(ledger, finalists), **figures}, step=step + 1)
    marks.write("sweep", **_where(ledger, mode, marks), **facts, figures=whole)
    if not whole:
        say(
            f"figures of the sweep were left out to be done in time: {shell('research', 'log', ledger.directory)} adds them"
        )


def _write(ledger: Ledger, mode: Mode, marks: Marks, values: dict[str, Any], *, step: int) -> None:
    settings = ledger.settings
    identity = _identity(ledger)
    marks.forget(identity)
    run = init(
        ledger,
        mode,
        identity,
        name=settings.name,
        job_type="sweep",
        tags=tags(settings.space.name, settings.sampler.kind, settings.scheduler.kind),
        config=_config(ledger),
    )
    run.log({**values, "events": len(ledger)}, step=step, commit=True)
    run.summary.update(_summary(ledger))
    run.finish(exit_code=0)


def _identity(ledger: Ledger) -> str:
    return run_id(ledger.settings.name, ledger.identity, "sweep")


def _where(ledger: Ledger, mode: Mode, marks: Marks) -> dict[str, JsonValue]:
    identity = _identity(ledger)
    return {"id": identity, "mode": mode, "directory": marks.directories(identity)[-1].name}


def _finalists(ledger: Ledger) -> Ledger | None:
    try:
        return Ledger.open(ledger.folder.finalists.path)
    except UserError:
        return None


def _config(ledger: Ledger) -> dict[str, Any]:
    settings = ledger.settings
    return {
        "sweep": settings.name,
        "space": settings.space.name,
        "space_sha256": settings.space.sha256,
        "metric": settings.metric.name,
        "direction": settings.metric.direction,
        "objectives": [f"{metric.name} ({metric.direction})" for metric in settings.objectives],
        "constraints": [str(constraint) for constraint in settings.constraints],
        "sampler": settings.sampler.kind,
        "scheduler": settings.scheduler.kind,
        "trials": settings.trials,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "replicates": settings.replicates,
        "measure": settings.measure,
        "data_hash": settings.data_hash,
        "split_hash": settings.split_hash,
        "code": ledger.created.code.get("source_sha256"),
        "command": " ".join(ledger.created.command),
        "parent_sweep": None if settings.parent is None else settings.parent.name,
    }


def _summary(ledger: Ledger) -> dict[str, Any]:
    ranked = ledger.ranked()
    counts = Counter(trial.status for trial in ledger.trials.values())
    best = ranked[0].best(ledger.settings.metric) if ranked else None
    return {
        **{f"trials/{status.lower()}": count for status, count in counts.items()},
        "trials/all": len(ledger.trials),
        "best_trial": ranked[0].number if ranked else None,
        "best_value": None if best is None else best.metrics.get(ledger.settings.metric.name),
    }


def _tables(ledger: Ledger, finalists: Ledger | None) -> dict[str, wandb.Table]:
    """All trials; the front of a sweep of several objectives; the finalists where there are any."""
    tables = {"trials": _table(*trials_table(ledger, list(ledger.trials.values())))}
    if ledger.settings.objectives:
        tables["pareto_front"] = _table(*trials_table(ledger, ledger.front()))
    if finalists is not None and finalists.trials:
        tables["finalists"] = _table(*trials_table(finalists, list(finalists.trials.values())))
    return tables


def trials_table(ledger: Ledger, trials: list[TrialView]) -> tuple[list[str], Rows]:
    """Column names, and a row for each of ``trials``: how it ended, how good it is, its parameters."""
    settings = ledger.settings
    ranks = {trial.number: rank for rank, trial in enumerate(ledger.ranked(), start=1)}
    fronts = ledger.pareto_ranks()
    metrics = list(dict.fromkeys(metric.name for metric in (settings.metric, *settings.objectives)))
    metrics += [c.metric for c in settings.constraints if c.metric not in metrics]
    names = sorted({name for trial in ledger.trials.values() for name in trial.created.params})
    columns = ["trial", "rank", "pareto_rank", "status", "best_epoch", "epochs", *metrics, *names]
    columns += ["fail_kind", "reason", "parent_trial", "config_hash", "run"]
    rows: Rows = []
    for trial in trials:
        best = trial.best(settings.metric)
        reached: dict[str, Any] = {} if best is None else dict(best.metrics)
        rows.append(
            [
                trial.number,
                ranks.get(trial.number),
                fronts.get(trial.number),
                trial.status,
                None if best is None else best.epoch,
                max(trial.rows, default=None),
                *(reached.get(name) for name in metrics),
                *(_cell(trial.created.params.get(name)) for name in names),
                trial.fail_kind,
                trial.reason,
                trial.created.parent_trial,
                trial.created.config_hash,
                run_id(settings.name, ledger.identity, f"{trial.number:04d}"),
            ]
        )
    return columns, rows


def importances(ledger: Ledger) -> tuple[list[str], Rows]:
    """fANOVA of each objective on the complete trials, as :mod:`research.search.plotted_study` has it. Empty for too few."""
    from research.search import plotted_study  # noqa: PLC0415 - seconds, and never in the driver

    found, _ = plotted_study.importances(ledger, most=MOST)
    rows = [[name, objective, value] for objective, of in found.items() for name, value in of.items()]
    return ["parameter", "objective", "importance"], rows


def _study(ledger: Ledger) -> optuna.Study | None:
    """The trials that Optuna draws; None where too few are complete. Its figures of a front know no pruned ones."""
    from research.search import plotted_study  # noqa: PLC0415 - as above

    study = plotted_study.study_of(ledger, only_complete=len(ledger.settings.targets) > 1, most=MOST)
    complete = sum(trial.state.name == "COMPLETE" for trial in study.trials)
    varied = {name: {repr(trial.params.get(name)) for trial in study.trials} for t in study.trials for name in t.params}
    return study if complete >= ENOUGH and any(len(values) > 1 for values in varied.values()) else None


def _figures(ledger: Ledger, until: float) -> tuple[dict[str, Any], bool]:
    """Optuna's figures and the table of importances, by name; and whether there was time for all."""
    study = _attempt(lambda: _study(ledger))
    made: dict[str, Any] = {}
    if study is None:
        return made, True
    for name, drawing in _drawings(ledger, study):
        if time.monotonic() > until:
            return made, False
        figure = _attempt(drawing)
        if figure is not None:
            made[name] = figure
    return made, True


def _drawings(ledger: Ledger, study: optuna.Study) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each made when it is called; the forests of fANOVA, which take longest, at last."""
    import optuna.visualization as draw  # noqa: PLC0415 - seconds, and never in the driver
    import wandb  # noqa: PLC0415 - as above

    from research.search import plotted_study  # noqa: PLC0415 - as above

    targets = ledger.settings.targets
    several = len(targets) > 1
    if len(targets) in _OBJECTIVES_DRAWN:
        names = [metric.name for metric in targets]
        yield "optuna/pareto_front", lambda: wandb.Plotly(draw.plot_pareto_front(study, target_names=names))
    for index, metric in enumerate(targets):
        told: dict[str, Any] = {"target": plotted_study.target_of(ledger, index)[1]} if several else {}
        told["target_name"] = metric.name
        for name, plot in (
            ("optimisation_history", draw.plot_optimization_history),
            ("parallel_coordinate", draw.plot_parallel_coordinate),
            ("slice", draw.plot_slice),
        ):
            drawing = partial(plot, study, **told)
            yield f"optuna/{name}{f'/{metric.name}' if several else ''}", partial(_drawn, drawing)
    found: tuple[list[str], Rows] = ([], [])

    def fitted() -> object:
        nonlocal found
        found = importances(ledger)
        return _table(*found) if found[1] else None

    yield "importances", fitted
    yield "optuna/importances", lambda: _drawn(partial(_bars, found[1])) if found[1] else None


def _drawn(drawing: Callable[[], Any]) -> object:
    import wandb  # noqa: PLC0415 - seconds, and never in the driver

    return wandb.Plotly(drawing())


def _bars(rows: Rows) -> object:
    """The table of importances as bars, a colour for each objective."""
    import plotly.graph_objects as go  # noqa: PLC0415 - as above

    figure = go.Figure(layout={"title": "fANOVA importances", "barmode": "group"})
    for objective in dict.fromkeys(row[1] for row in rows):
        of = [row for row in rows if row[1] == objective][::-1]
        figure.add_bar(x=[row[2] for row in of], y=[row[0] for row in of], name=objective, orientation="h")
    return figure


def _attempt(made: Callable[[], T]) -> T | None:
    """Return the result of ``made``; None if a library fails, because one figure must not end the process."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return made()
    except Exception:  # noqa: BLE001 - of Optuna, scikit-learn and plotly, whatever they raise
        traceback.print_exc()  # into the sink's log
        return None


def _table(columns: list[str], rows: Rows) -> wandb.Table:
    import wandb  # noqa: PLC0415 - seconds, and never in the driver

    return wandb.Table(columns=list[str | int](columns), data=rows, allow_mixed_types=True)


def _cell(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return value if value is None or isinstance(value, str | int | float) else json_text(value, indent=None)
