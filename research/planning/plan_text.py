"""A plan as text for people; ``research plan --json`` has all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from research.text import number_text, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

_BARS = " ▁▂▃▄▅▆▇█"
_MEMORY = {"weights": "weights", "gradients": "gradients", "optimizer": "optimizer's moments", "average": "EMA"}


def plan_text(plan: dict[str, Any]) -> RenderableType:
    """All that ``research plan`` prints."""
    head = Text.assemble(
        ("plan ", "bold"),
        f"{plan['space']} on {plan['data']}: {plan['draws']} draws at random, none trained; would rank by {plan['metric']}",
    )
    notes = [Text(f"note: {line}", style="yellow") for line in plan["notes"]]
    parts: list[RenderableType] = [head, *notes, Text(""), _parameters(plan), Text("")]
    parts += [Text(line) for line in (*_draws(plan), *_sizes(plan))]
    if plan["time"] is not None:
        parts += [Text(""), *_time(plan)]
    parts += [Text(""), *_budget(plan)]
    if plan["refused"]:
        parts += [Text(""), Text(f"research sweep refuses this space: {plan['refused']}", style="red")]
    return Group(*parts)


def bars(counts: list[int]) -> str:
    """A histogram of one line: the tallest bin is a full block, a bin with anything in it is not blank."""
    most = max(counts, default=0) or 1
    return "".join(_BARS[0 if count == 0 else max(1, round(count / most * (len(_BARS) - 1)))] for count in counts)


def _parameters(plan: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("parameter", "kind", "range or choices", "drawn", "histogram"):
        table.add_column(name, overflow="fold")
    for one in plan["parameters"]:
        if one["kind"] == "categorical":
            kind = "choice"
            span = "  ".join(
                f"{number_text(choice)} {count / one['drawn']:.0%}" for choice, count in one["choices"].items()
            )
            shape = bars(list(one["choices"].values()))
        else:
            kind = one["kind"] + (", log" if one["log"] else "")
            step = "" if one["step"] in {None, 1} else f" by {number_text(one['step'])}"
            span = f"{number_text(one['low'])} to {number_text(one['high'])}{step}"
            shape = bars(one["histogram"])
        often = "always" if one["drawn"] == one["of"] else f"{one['drawn'] / one['of']:.0%} of draws"
        table.add_row(one["name"], kind, span + (" (varies)" if one["varies"] else ""), often, f"|{shape}|")
    return table


def _draws(plan: dict[str, Any]) -> list[str]:
    bad, same = plan["impossible"], plan["duplicates"]
    lines = [f"impossible  {bad['count']} of {plan['draws']} draws"]
    if bad["count"]:
        lines[0] += f", {bad['skipped_by_the_space']} of them skipped by the space itself"
        chosen = "  ".join(f"{visible(name)}={number_text(value)}" for name, value in bad["example"]["params"].items())
        lines.append(f"            e.g. {bad['example']['reason']}" + (f" (drawn with {chosen})" if chosen else ""))
    lines.append(f"duplicates  {same} equal to an earlier draw but for the seed")
    return lines


def _sizes(plan: dict[str, Any]) -> list[str]:
    numbers, memory = plan["model_parameters"], plan["memory"]
    largest = [
        f"{told} {decimal(int(memory['largest'][name]))}" for name, told in _MEMORY.items() if memory["largest"][name]
    ]
    if "activations" in memory["largest"]:
        largest.append(f"saved activations of a batch {decimal(int(memory['largest']['activations']))}")
    estimated = "estimated from shapes; PyTorch itself, temporaries and the data come on top"
    return [
        f"parameters  {numbers['min']:,.0f} to {numbers['max']:,.0f}, median {numbers['median']:,.0f}",
        f"memory      {decimal(int(memory['min']))} to {decimal(int(memory['max']))}, median {decimal(int(memory['median']))}, {estimated}",
        f"            the largest: {', '.join(largest)}",
    ]


def _time(plan: dict[str, Any]) -> list[RenderableType]:
    found = plan["time"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "probe",
        "parameters",
        "GFLOP/epoch",
        "steps timed",
        "train s",
        "evaluate s",
        "save s",
        "epoch s",
        "fit s",
    ):
        table.add_column(name, justify="left" if name == "probe" else "right")
    for one in found["probes"]:
        seconds = ("train_seconds", "evaluation_seconds", "checkpoint_seconds", "seconds", "fitted_seconds")
        table.add_row(
            one["which"],
            f"{one['parameters']:,.0f}",
            number_text(one["train_flops"] / 1e9),
            str(one["steps"]),
            *[f"{one[name]:.3f}" for name in seconds],
        )
    every = found["epoch_seconds"]
    threads = plan["budget"]["threads"]
    return [
        table,
        Text(
            f"an epoch    {every['min']:.3f} to {every['max']:.3f} s, median {every['median']:.3f} s, on {found['device']} with "
            f"{threads} thread{'s' if threads > 1 else ''}, nothing beside it (fit off by at most {found['misfit'] - 1:.0%})"
        ),
    ]


def _budget(plan: dict[str, Any]) -> list[RenderableType]:
    budget = plan["budget"]
    lines = [
        f"budget      {budget['trials']} trials of {budget['epochs']} epochs, {budget['slots']} at a time"
        + ("" if plan["time"] else " (no time was measured)")
    ]
    stops = ", ".join(str(rung) for rung in budget["rungs"])
    named = {
        "without_early_stopping": "without early stopping",
        "with_early_stopping": f"with ASHA (1/{budget['reduction']} go on at {stops})" if stops else "with ASHA",
    }
    width = max(len(told) for told in named.values())
    for name, told in named.items():
        one = budget[name]
        if "refused" in one:
            lines.append(f"  {told:{width}}  refused: {one['refused']}")
            continue
        line = f"  {told:{width}}  {one['epochs']:>9,.0f} epochs"
        if "hours" in one:
            line += f"  {_hours(one['hours'])} ({_hours(one['hours_low'])} to {_hours(one['hours_high'])})"
        if "trials_in_hours" in one:
            line += (
                f"; {budget['hours']:g} h buy {one['trials_in_hours']:,} trials "
                f"({one['trials_in_hours_low']:,} to {one['trials_in_hours_high']:,})"
            )
        lines.append(line)
    if plan["time"]:
        lines += [
            "An estimate. The range: chance in what is drawn (95 %), and how far the fit is off. Not in it: slots that slow each",
            "other down, Ray's and W&B's own time, pictures, and a sampler that comes to prefer larger or smaller models.",
        ]
    return [Text(line) for line in lines]


def _hours(hours: float) -> str:
    seconds = hours * 3600
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
