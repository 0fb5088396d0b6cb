"""A sweep in a notebook: trials, curves, front and importances as tables, and the kept models.

Everything is read from the ledger, at full precision. ``docs/report.md`` has examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from research.errors import UserError
from research.experiments import finalists
from research.ledger.log import Ledger
from research.store.mirror import follow, local
from research.text import json_text

if TYPE_CHECKING:
    from pathlib import Path

    import optuna

    from research.ledger.settings import Metric
    from vae.model import VAE
    from vae.train_config import TrainConfig


def open_sweep(directory: str | Path) -> Sweep:
    """Return the sweep in ``directory`` or at an address such as ``s3://bucket/sweeps/NAME``, running or ended.

    Raises ``UserError`` if there is no sweep, and ``CorruptFile``, which names the file that is damaged or missing.
    """
    return Sweep(Ledger.open(local(directory)))


class Sweep:
    """A sweep's ledger as tables. ``ledger`` is their source; ``refresh`` reads new events."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def __repr__(self) -> str:
        return f"<sweep {self.name}: {len(self.ledger.trials)} trials, {self.metric.name}, {self.measure}>"

    @property
    def name(self) -> str:
        return self.ledger.settings.name

    @property
    def metric(self) -> Metric:
        return self.ledger.settings.metric

    @property
    def measure(self) -> str:
        """The measure of the held-out figures. Only sweeps of equal measure compare."""
        return self.ledger.settings.measure

    def refresh(self) -> None:
        """Read the events that a running sweep has written since."""
        follow(self.ledger.directory)
        self.ledger.refresh()

    def trials(self) -> pd.DataFrame:
        """Return one row for each trial, whatever its state.

        The columns are ``number status reason fail_kind seed rank feasible best_epoch epochs seconds``, the sampled
        parameters as ``params/NAME``, the scalar metrics of the best row under their own names, and the whole config as
        dotted ``config/...`` (lists as JSON). A value that a trial does not have is missing.
        """
        ranks = {view.number: rank for rank, view in enumerate(self.ledger.ranked(), start=1)}
        pareto = self.ledger.pareto_ranks()
        several = bool(self.ledger.settings.objectives)
        rows = [
            {
                "number": view.number,
                "status": view.status,
                "reason": view.reason,
                "fail_kind": view.fail_kind,
                "seed": view.created.seed,
                "rank": ranks.get(view.number),
                **({"pareto_rank": pareto.get(view.number)} if several else {}),
                "feasible": self.ledger.feasible(view) if view.number in ranks else None,
                "best_epoch": None if (best := view.best(self.metric)) is None else best.epoch,
                "epochs": max(view.rows, default=0),
                "seconds": view.seconds,
                **{f"params/{name}": _cell(value) for name, value in view.created.params.items()},
                **({} if best is None else _scalars(best.metrics)),
                **_flat(view.created.config, "config/"),
            }
            for _, view in sorted(self.ledger.trials.items())
        ]
        fixed = [
            "number",
            "status",
            "reason",
            "fail_kind",
            "seed",
            "rank",
            "feasible",
            "best_epoch",
            "epochs",
            "seconds",
        ]
        return _frame(rows, fixed)

    def rows(self) -> pd.DataFrame:
        """Return one row for each epoch of each trial, with every scalar metric."""
        rows = [
            {"trial": view.number, "status": view.status, "epoch": epoch, **_scalars(view.rows[epoch].metrics)}
            for _, view in sorted(self.ledger.trials.items())
            for epoch in sorted(view.rows)
        ]
        return _frame(rows, ["trial", "status", "epoch"])

    def curves(self, metric: str | None = None) -> pd.DataFrame:
        """Return ``trial status epoch value`` for each finite value of ``metric``, by default the sweep's own."""
        name = metric or self.metric.name
        rows = [
            {"trial": view.number, "status": view.status, "epoch": epoch, "value": value}
            for _, view in sorted(self.ledger.trials.items())
            for epoch, value in view.curve(name).items()
        ]
        return _frame(rows, ["trial", "status", "epoch", "value"])

    def front(self) -> pd.DataFrame:
        """Return the Pareto front: ``trial``, its objectives and ``params/NAME``; empty for a sweep of one objective."""
        names = [objective.name for objective in self.ledger.settings.objectives]
        rows = [
            {
                "trial": view.number,
                **dict(zip(names, self.ledger.point(view) or (), strict=True)),
                **{f"params/{name}": _cell(value) for name, value in view.created.params.items()},
            }
            for view in self.ledger.front()
        ]
        return _frame(rows, ["trial", *names])

    def importances(self) -> pd.DataFrame:
        """Return fANOVA's importances: a row for each parameter, a column for each objective.

        They are computed over COMPLETE trials, which early stopping has selected. The table is empty, with the reason in
        ``.attrs["reason"]``, if too few trials ran to the full budget or no parameter was varied.
        """
        from research.search.plotted_study import importances  # noqa: PLC0415 - Optuna and scikit-learn are slow to import

        found, reason = importances(self.ledger)
        table = pd.DataFrame(found)
        table.index.name = "parameter"
        table.attrs["reason"] = reason
        return table

    def study(self) -> optuna.Study:
        """Return the trials as an Optuna study in memory, for ``optuna.visualization`` and other tools."""
        from research.search.plotted_study import study_of  # noqa: PLC0415 - as above

        return study_of(self.ledger)

    def rank(self, rank: int = 1) -> pd.Series:
        """Return the row of ``trials()`` that has this rank, without its missing values.

        Raises ``UserError`` if no trial has that rank.
        """
        table = self.trials()
        found = table[table["rank"] == rank]
        if found.empty:
            ranked = len(self.ledger.ranked())
            raise UserError(f"rank {rank} of {self.ledger.directory}: {ranked} trials have a finite {self.metric.name}")
        return found.iloc[0].dropna()

    def model(self, rank: int = 1) -> tuple[TrainConfig, VAE]:
        """Return the config and the network of the kept model of ``rank``. Its files are checked against their manifest.

        Raises ``UserError`` if that model was not kept, and ``CorruptFile`` if its files are damaged.
        """
        from research.models.apply import model_folder  # noqa: PLC0415 - torch: only where a model is wanted
        from vae.portable import load_model  # noqa: PLC0415

        return load_model(model_folder(self.ledger.directory, rank))

    def finalists(self) -> dict[str, Any] | None:
        """Return the finalists, the best configurations trained with fresh seeds, best first; None if there are none."""
        return finalists.results(self.ledger)


def _scalars(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return a row's numbers, flags and names. Lists, such as a figure for each dimension, stay in ``ledger`` only."""
    return {name: value for name, value in metrics.items() if not isinstance(value, list | dict) and name != "epoch"}


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = _cell(value)
    return flat


def _cell(value: object) -> object:
    """Return a list as JSON, so that the table can be compared and grouped by the cell."""
    return json_text(value, indent=None) if isinstance(value, list | dict) else value


def _frame(rows: list[dict[str, Any]], first: list[str]) -> pd.DataFrame:
    """Return the rows as a table. Each column has one type, so a missing cell turns no integer into a float."""
    names = dict.fromkeys([*first, *(name for row in rows for name in row)])
    return pd.DataFrame({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pd.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pd.Series(values, dtype="Int64" if None in values else "int64")
    if float in kinds and kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    return pd.Series(values, dtype="object")
