"""The charts that Optuna does not have: curves by state, rate and distortion, rungs, several sweeps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.io.json import to_json_plotly

from research.text import visible
from research.views.report.elements import Plot

if TYPE_CHECKING:
    from research.ledger.log import Ledger
    from research.ledger.settings import Metric

# Colour, dash and the mark at the end differ, so that paper and colour-blind eyes can tell the states apart.
COLOURS = {"COMPLETE": "#1f5fa8", "PRUNED": "#d98a1f", "FAIL": "#c0392b", "RUNNING": "#2e8b57", "SKIPPED": "#888888"}
_DASHES = {"COMPLETE": "solid", "PRUNED": "dot", "FAIL": "dash", "RUNNING": "dashdot"}
_MARKS = {"COMPLETE": "circle", "PRUNED": "circle-open", "FAIL": "x", "RUNNING": "triangle-right"}
SWEEPS = ("#1f5fa8", "#d98a1f", "#2e8b57", "#8e44ad", "#c0392b", "#16808a")
_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
}
# The legend stands above the plot, because a phone has no room beside it.
LEGEND_ABOVE = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
_GUIDES = "equal"  # the legend's group of lines that are not data
_FEWEST = 3  # complete trials that are needed to choose the first view by them
_MANY = 40  # from this number of lines on they are drawn transparent
_LINES = 4  # the least number of lines of equal ELBO
_CROWDED = 0.1  # the share of a curve's first, worst values that the first view may leave out
_SPREAD = 2.0  # ... if they would take more than this many times the room of the rest


_MARKUP = re.compile(r"<(?!(br|/?extra)>)|&(?=#?\w+;)")  # markup for plotly, except the tags that this module writes


def _as_text(value: Any) -> Any:  # noqa: ANN401 - any part of a figure
    """Return a part of a figure with its texts escaped for plotly: a name may hold ``<b>`` or ``<a href=...>``."""
    if isinstance(value, str):
        return visible(_MARKUP.sub(lambda found: "&lt;" if found[0] == "<" else "&amp;", value), lines=True)
    if isinstance(value, dict):
        return {name: _as_text(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(one) for one in value]
    if getattr(value, "dtype", None) == object:  # noqa: E721 - a dtype is compared
        return [_as_text(one) for one in value.tolist()]
    return value


@dataclass(frozen=True)
class Chart:
    """A figure, its height, and its least width, in pixels. A narrower screen scrolls the chart in its box."""

    figure: go.Figure
    height: int = 420
    width: int = 320

    def plot(self, name: str) -> Plot:
        """Return the chart as a block of the page, in an element with the ``id`` ``name``."""
        figure = self.figure
        figure.update_layout(
            template="plotly_white",
            title=None,
            autosize=True,
            width=None,
            height=self.height,
            font={"family": "system-ui, sans-serif", "size": 12},
            margin={"l": 64, "r": 16, "t": 24, "b": 48},
        )
        figure.update_xaxes(automargin=True)
        figure.update_yaxes(automargin=True)
        drawn = go.Figure(_as_text(figure.to_dict())).to_dict()
        # plotly writes every "<" as \u003c, so that no text of the figure ends the script.
        data, layout, config = map(to_json_plotly, (drawn["data"], drawn["layout"], _CONFIG))
        return Plot(name, self.height, self.width, data, layout, config)


def curves(ledger: Ledger) -> Chart:
    """Return the metric by epoch: one line for each trial, grouped by state. A click on a state hides its lines."""
    metric = ledger.settings.metric
    ranked = ledger.ranked()
    figure = go.Figure()
    for status, dash in _DASHES.items():
        views = [view for view in ledger.trials.values() if view.status == status and view.curve(metric.name)]
        if not views:
            continue
        x: list[Any] = []
        y: list[Any] = []
        text: list[str] = []
        marks: list[int] = []
        for view in views:
            curve = view.curve(metric.name)
            x += [*curve, None]
            y += [*curve.values(), None]
            text += [f"trial {view.number}"] * (len(curve) + 1)
            marks += [*[0] * (len(curve) - 1), 7, 0]
        figure.add_scatter(
            x=x,
            y=y,
            text=text,
            name=f"{status} ({len(views)})",
            mode="lines+markers",
            opacity=1.0 if len(views) < _MANY else 0.4,
            line={"color": COLOURS[status], "dash": dash, "width": 1.3},
            marker={"symbol": _MARKS[status], "size": marks, "color": COLOURS[status]},
            hovertemplate=f"%{{text}}, epoch %{{x}}<br>{metric.name} %{{y}}<extra>{status}</extra>",
        )
    if ranked:
        best = ranked[0].curve(metric.name)
        figure.add_scatter(
            x=list(best),
            y=list(best.values()),
            name=f"rank 1: trial {ranked[0].number}",
            mode="lines",
            line={"color": "#111111", "width": 2.5},
            hovertemplate=f"trial {ranked[0].number}, epoch %{{x}}<br>{metric.name} %{{y}}<extra>rank 1</extra>",
        )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title=metric.name, range=_first_view(ledger, metric))
    return Chart(_legend_above(figure), height=460)


def _first_view(ledger: Ledger, metric: Metric) -> list[float] | None:
    """Return the range without the worst first values, if they would flatten the rest; None shows everything."""
    values = sorted(
        (value for view in ledger.trials.values() for value in view.curve(metric.name).values()),
        reverse=metric.direction == "minimize",
    )
    if not values:
        return None
    worst, cut, best = values[0], values[int(_CROWDED * len(values))], values[-1]
    if abs(best - worst) <= _SPREAD * abs(best - cut) or best == cut:
        return None
    room = 0.05 * abs(best - cut)
    low, high = min(cut, best), max(cut, best)
    return [low - room, high + room]


def leaves_out(chart: Chart) -> bool:
    """Return True if the chart's first view does not show all of its points."""
    axes = ((chart.figure.layout.xaxis.range, "x"), (chart.figure.layout.yaxis.range, "y"))
    return any(
        value is not None and not seen[0] <= value <= seen[1]
        for seen, name in axes
        if seen is not None
        for trace in chart.figure.data
        if trace.legendgroup != _GUIDES
        for value in trace[name]
    )


def rate_distortion(points: list[dict[str, Any]]) -> Chart:
    """Return val/kl against val/reconstruction, with lines of equal ELBO."""
    figure = go.Figure()
    shown = _shown_first(points)
    left, right = _room([point["distortion"] for point in shown])
    bottom, top = _room([point["rate"] for point in shown], least=0.0)
    height = bottom + 0.04 * (top - bottom)  # the labels' height
    for index, total in enumerate(_round_values(left + bottom, right + top)):
        figure.add_scatter(
            x=[total - top, total - height, total - bottom],
            y=[top, height, bottom],
            text=["", f"{-total:g}", ""],
            textposition="middle right",
            textfont={"size": 10, "color": "#777777"},
            mode="lines+text",
            line={"color": "#bbbbbb", "width": 1, "dash": "dot"},
            name="equal ELBO",
            legendgroup=_GUIDES,
            showlegend=index == 0,
            hovertemplate=f"ELBO {-total:g}<extra></extra>",
        )
    for status, symbol in _MARKS.items():
        chosen = [point for point in points if point["status"] == status]
        if chosen:
            figure.add_scatter(
                x=[point["distortion"] for point in chosen],
                y=[point["rate"] for point in chosen],
                text=[f"trial {point['trial']}, epoch {point['epoch']}<br>ELBO {point['elbo']}" for point in chosen],
                name=f"{status} ({len(chosen)})",
                mode="markers",
                marker={"symbol": symbol, "size": 9, "color": COLOURS[status]},
                hovertemplate="%{text}<br>val/reconstruction %{x}<br>val/kl %{y}<extra></extra>",
            )
    figure.update_xaxes(title="distortion: val/reconstruction (nats)", range=[left, right])
    figure.update_yaxes(title="rate: val/kl (nats)", range=[bottom, top])
    return Chart(_legend_above(figure))


def _shown_first(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the complete trials if the others would push them into a corner of the chart; else all points."""
    complete = [point for point in points if point["status"] == "COMPLETE"]
    if len(complete) < _FEWEST:
        return points
    wide, narrow = (_room([one["distortion"] for one in some]) for some in (points, complete))
    return complete if wide[1] - wide[0] > _SPREAD * (narrow[1] - narrow[0]) else points


def rungs(found: dict[str, Any]) -> Chart:
    """Return the numbers of trials that were stopped at each rung, and that went on or ended there."""
    names = [f"epoch {rung['epoch']}" for rung in found["rungs"]]
    stopped = [rung["stopped"] for rung in found["rungs"]]
    others = [rung["reached"] - rung["stopped"] for rung in found["rungs"]]
    figure = go.Figure()
    figure.add_bar(x=names, y=others, name="went on", marker={"color": COLOURS["COMPLETE"]})
    figure.add_bar(
        x=names, y=stopped, name="stopped here", marker={"color": COLOURS["PRUNED"], "pattern": {"shape": "/"}}
    )
    figure.update_layout(barmode="stack")
    figure.update_yaxes(title="trials that reached it")
    return Chart(_legend_above(figure), height=320)


def best_curves(ledgers: list[Ledger], names: list[str]) -> Chart:
    """Return the curve of each sweep's best trial. The sweeps must have one measure and one metric."""
    metric = ledgers[0].settings.metric
    figure = go.Figure()
    for index, (ledger, name) in enumerate(zip(ledgers, names, strict=True)):
        ranked = ledger.ranked()
        if ranked:
            curve = ranked[0].curve(metric.name)
            figure.add_scatter(
                x=list(curve),
                y=list(curve.values()),
                name=f"{name}: trial {ranked[0].number}",
                mode="lines+markers",
                line={"color": SWEEPS[index % len(SWEEPS)], "dash": list(_DASHES.values())[index % len(_DASHES)]},
                hovertemplate=f"epoch %{{x}}<br>{metric.name} %{{y}}<extra>{name}</extra>",
            )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title=metric.name)
    return Chart(_legend_above(figure))


def _room(values: list[float], *, least: float | None = None) -> tuple[float, float]:
    """Return the range of the values, with a margin of a twentieth."""
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or max(0.05 * abs(high), 0.5)
    return (low - margin if least is None else min(least, low), high + margin)


def _round_values(low: float, high: float) -> list[float]:
    """Return four to ten round numbers between two numbers."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(size for size in (step, step / 2, step / 5) if (high - low) / size >= _LINES)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _legend_above(figure: go.Figure) -> go.Figure:
    figure.update_layout(showlegend=True, legend=LEGEND_ABOVE)
    return figure
