"""The W&B run of a sweep as a whole: its tables, and Optuna's figures of it. Made at the end of each session."""

from __future__ import annotations

import json
import time
import traceback
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

from research.errors import UserError
from research.ledger import Ledger
from research.tracking_runs import Marks, init, label, run_id, tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import optuna
    import wandb

    from research.ledger import TrialView
    from research.settings import Metric
    from research.tracking_runs import Mode

ENOUGH = 4  # complete trials, for importances and figures
MOST = 500  # trials of a study that is drawn and fitted: the first so many that are complete
_OBJECTIVES_DRAWN = (2, 3)  # fronts of other sizes are no picture

Rows = list[list[Any]]
T = TypeVar("T")


def log_sweep(ledger: Ledger, mode: Mode, say: Callable[[str], None], *, until: float) -> None:
    """Log the sweep's run, unless it holds what the ledger says already.

    One row at each session's end, at the number of the ledger's events: a later one never meets the step of an
    earlier one. Figures that have not begun at ``until`` (``time.monotonic``) are left out.
    """
    marks = Marks(ledger.directory / "wandb")
    settings = ledger.settings
    identity = run_id(label(settings), ledger.identity, "sweep")
    finalists = _finalists(ledger)
    facts = {"events": len(ledger), "finalist_events": 0 if finalists is None else len(finalists)}
    mark = marks.read("sweep")
    if not ledger.trials or (mark is not None and {name: mark.get(name) for name in facts} == facts):
        return
    marks.forget(identity)
    run = init(
        ledger,
        mode,
        identity,
        name=label(settings),
        job_type="sweep",
        tags=tags(settings.space.name, settings.sampler.kind, settings.scheduler.kind),
        config=_config(ledger),
    )
    run.log(_tables(ledger, finalists), step=sum(facts.values()), commit=False)
    study = _study(ledger)
    left_out = False
    if study is not None:
        for name, figure in _figures(study, settings.targets):
            if time.monotonic() > until:
                left_out = True
                break
            made = _attempt(figure)
            if made is not None:
                run.log({name: made}, step=sum(facts.values()), commit=False)
    run.log({"events": len(ledger)}, step=sum(facts.values()), commit=True)
    run.summary.update(_summary(ledger))
    run.finish(exit_code=0)
    marks.write("sweep", id=identity, mode=mode, directory=marks.directories(identity)[-1].name, **facts)
    if left_out:
        say("figures of the sweep were left out to be done in time; its tables are there")


def _finalists(ledger: Ledger) -> Ledger | None:
    try:
        return Ledger.open(ledger.directory / "finalists")
    except UserError:
        return None


def _config(ledger: Ledger) -> dict[str, Any]:
    settings = ledger.settings
    return {
        "sweep": label(settings),
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
    """All trials; the front of a sweep of several objectives; importances; the finalists where there are any."""
    tables = {"trials": _table(*trials_table(ledger, list(ledger.trials.values())))}
    if ledger.settings.objectives:
        tables["pareto_front"] = _table(*trials_table(ledger, ledger.front()))
    if (found := _attempt(lambda: importances(ledger))) and found[1]:
        tables["importances"] = _table(*found)
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
                run_id(label(settings), ledger.identity, f"{trial.number:04d}"),
            ]
        )
    return columns, rows


def importances(ledger: Ledger) -> tuple[list[str], Rows]:
    """fANOVA (Hutter et al. 2014) of each objective on the complete trials, by Optuna. Empty for too few of them."""
    rows: Rows = []
    study = _study(ledger, complete_only=True)
    if study is None:
        return ["parameter", "objective", "importance"], rows
    import optuna  # noqa: PLC0415 - seconds, and never in the driver

    targets = ledger.settings.targets
    for index, metric in enumerate(targets):
        found = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
            target=_value_of(index),
        )
        rows += [[name, metric.name, value] for name, value in found.items()]
    return ["parameter", "objective", "importance"], rows


def _value_of(index: int) -> Callable[[optuna.trial.FrozenTrial], float]:
    return lambda trial: float(trial.values[index])


def _study(ledger: Ledger, *, complete_only: bool = False) -> optuna.Study | None:
    """The ledger's trials as a study in memory; None where too few are complete, or vary in nothing."""
    import optuna  # noqa: PLC0415 - seconds, and never in the driver

    settings = ledger.settings
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=[metric.direction for metric in settings.targets])
    complete = 0
    for trial in ledger.trials.values():
        created = trial.created
        curve = trial.curve(settings.metric.name)
        point = ledger.point(trial)
        done = trial.status == "COMPLETE" and point is not None and complete < MOST
        # Optuna's figures of several objectives know no pruned trials.
        if not done and (trial.status != "PRUNED" or not curve or complete_only or settings.objectives):
            continue
        complete += done
        try:
            distributions = {
                name: optuna.distributions.json_to_distribution(text) for name, text in created.distributions.items()
            }
            study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.COMPLETE if done else optuna.trial.TrialState.PRUNED,
                    values=list(point) if done and point is not None else None,
                    params={name: created.params[name] for name in distributions},
                    distributions=distributions,
                    intermediate_values={} if settings.objectives else curve,
                )
            )
        except (KeyError, TypeError, ValueError):  # a source that is no draw of the space's
            complete -= done
    varied = any(len({repr(t.params.get(name)) for t in study.trials}) > 1 for t in study.trials for name in t.params)
    return study if complete >= ENOUGH and varied else None


def _figures(
    study: optuna.Study, targets: tuple[Metric, ...]
) -> Iterator[tuple[str, Callable[[], wandb.Plotly | None]]]:
    """Optuna's figures by name, each drawn when it is called."""
    import optuna.visualization as draw  # noqa: PLC0415 - seconds, and never in the driver
    import wandb  # noqa: PLC0415 - as above

    several = len(targets) > 1
    if len(targets) in _OBJECTIVES_DRAWN:
        names = [metric.name for metric in targets]
        yield "optuna/pareto_front", lambda: wandb.Plotly(draw.plot_pareto_front(study, target_names=names))
    for index, metric in enumerate(targets):
        told: dict[str, Any] = {"target": _value_of(index)} if several else {}
        told["target_name"] = metric.name
        tail = f"/{metric.name}" if several else ""
        for name, plot in (
            ("optimisation_history", draw.plot_optimization_history),
            ("parallel_coordinate", draw.plot_parallel_coordinate),
            ("slice", draw.plot_slice),
        ):
            yield f"optuna/{name}{tail}", lambda plot=plot, told=told: wandb.Plotly(plot(study, **told))  # type: ignore[misc]
        yield f"optuna/importances{tail}", lambda told=told: _importance_figure(study, told)  # type: ignore[misc]


def _importance_figure(study: optuna.Study, told: dict[str, Any]) -> wandb.Plotly:
    import optuna  # noqa: PLC0415 - seconds, and never in the driver
    import wandb  # noqa: PLC0415 - as above

    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return wandb.Plotly(optuna.visualization.plot_param_importances(study, evaluator=evaluator, **told))


def _attempt(made: Callable[[], T]) -> T | None:
    """What ``made`` returns; None where a library can't: a view is not worth a sink."""
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
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)
