"""Optuna's own plots of a sweep, adapted to the page. The captions name what a plot cannot show."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna import visualization

from research.search.plotted_study import evaluator, study_of, target_of
from research.views.report.charts import LEGEND_ABOVE, Chart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import plotly.graph_objects as go

    from research.ledger.log import Ledger

MOST_PARAMETERS = 4  # in one matrix of contours; more can't be read


class OptunaCharts:
    """The study of one ledger, and Optuna's plots of it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.study = study_of(ledger)
        self.complete = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))

    @property
    def parameters(self) -> list[str]:
        """Return the parameters with more than one value among the COMPLETE trials; some trials may lack one."""
        names = dict.fromkeys(name for trial in self.complete for name in trial.params)
        return [
            name
            for name in names
            if len({repr(trial.params[name]) for trial in self.complete if name in trial.params}) > 1
        ]

    def history(self) -> Iterator[tuple[str, Chart]]:
        """Yield, for each objective, the value of each trial in order and the best so far."""
        for name, plot in self._by_objective(visualization.plot_optimization_history):
            yield name, Chart(_above(plot()))

    def parallel(self) -> Iterator[tuple[str, Chart]]:
        """Yield parallel coordinates of the parameters that every COMPLETE trial has."""
        names = [name for name in self.parameters if all(name in trial.params for trial in self.complete)]
        for objective, plot in self._by_objective(visualization.plot_parallel_coordinate):
            figure = plot(params=names)
            figure.update_layout(margin={"l": 90, "r": 40, "t": 60, "b": 40})
            yield objective, Chart(figure, height=440, width=125 * (len(names) + 1))

    def slices(self) -> Iterator[tuple[str, Chart]]:
        """Yield the value against each parameter by itself."""
        names = self.parameters
        for objective, plot in self._by_objective(visualization.plot_slice):
            yield objective, Chart(plot(params=names), height=340, width=145 * len(names) + 90)

    def contours(self, most_important: Sequence[str]) -> Iterator[tuple[str, Chart]]:
        """Yield the value over each pair of the most important parameters."""
        names = sorted(
            self.parameters,
            key=lambda name: most_important.index(name) if name in most_important else len(most_important),
        )[:MOST_PARAMETERS]
        for objective, plot in self._by_objective(visualization.plot_contour):
            size = 440 if len(names) == 2 else 200 * len(names) + 60  # noqa: PLR2004 - one panel, or a matrix
            yield objective, Chart(plot(params=names), height=size, width=min(size + 60, 900))

    def importances(self) -> Chart:
        """Return the importances as bars (research.search.plotted_study computes them)."""
        study = study_of(self.ledger, only_complete=True)
        figure = _quiet(visualization.plot_param_importances, study, evaluator=evaluator())()
        highest = max(max(bar.x) for bar in figure.data)
        figure.update_xaxes(title="share of the variance", range=[0, 1.18 * highest])  # room for the labels
        figure.update_yaxes(title=None)
        bars = len(figure.data) * max(len(bar.y) for bar in figure.data)
        return Chart(_above(figure), height=120 + 26 * bars)

    def front(self) -> Chart:
        """Return all COMPLETE trials, with the front among them."""
        names = [objective.name for objective in self.ledger.settings.objectives]
        figure = _quiet(visualization.plot_pareto_front, self.study, target_names=names)()
        # Optuna's colour scale begins with white. Without an edge the first trial of the front would be invisible.
        figure.update_traces(
            {"marker.line": {"width": 1.5, "color": "#7a0c0c"}, "marker.size": 9}, {"name": "Best Trial"}
        )
        return Chart(_above(figure), height=480, width=520)

    def hypervolume(self, reference: Sequence[float]) -> Chart:
        """Return the front's hypervolume after each trial."""
        return Chart(_above(_quiet(visualization.plot_hypervolume_history, self.study, reference)()), height=340)

    def timeline(self) -> Chart:
        """Return the time at which each trial ran."""
        figure = _quiet(visualization.plot_timeline, self.study)()
        figure.update_xaxes(title="time")
        return Chart(_above(figure), height=max(260, min(900, 120 + 14 * len(self.ledger.trials))))

    def _by_objective(self, plot: Callable[..., go.Figure]) -> Iterator[tuple[str, Callable[..., go.Figure]]]:
        several = len(self.ledger.settings.targets) > 1
        for index in range(len(self.ledger.settings.targets)):
            metric, target = target_of(self.ledger, index)
            # Without a target Optuna knows which direction is better, and draws the best so far.
            yield metric.name, _quiet(plot, self.study, target=target if several else None, target_name=metric.name)


def comparison(ledgers: Sequence[Ledger], names: Sequence[str]) -> Iterator[Chart]:
    """Yield the best so far, and the distribution of values (Optuna's EDF), of sweeps with one measure and metric."""
    metric = ledgers[0].settings.metric
    studies = [study_of(ledger, name=name) for ledger, name in zip(ledgers, names, strict=True)]
    yield Chart(_above(_quiet(visualization.plot_optimization_history, studies, target_name=metric.name)()), height=460)
    yield Chart(_above(_quiet(visualization.plot_edf, studies, target_name=metric.name)()))


def _quiet(plot: Callable[..., go.Figure], *given: Any, **options: Any) -> Callable[..., go.Figure]:  # noqa: ANN401 - Optuna's
    def draw(**more: Any) -> go.Figure:  # noqa: ANN401 - as above
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return plot(*given, **options, **more)

    return draw


def _above(figure: go.Figure) -> go.Figure:
    figure.update_layout(legend=LEGEND_ABOVE)
    return figure
