"""The sections on the run of the sweep: its settings, rungs, failures, hours and trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from research.views.report import charts
from research.views.report.elements import (
    Block,
    Details,
    Heading,
    Line,
    Note,
    Paragraph,
    Source,
    by_parameter,
    command,
    counted,
    duration,
    facts_list,
    figure,
    line,
    share,
    table,
)
from research.views.report.section import Section
from research.views.show import continued_by
from vae.data.labels import listed

if TYPE_CHECKING:
    from research.views.report.section import Context

_COMMIT = 12  # digits of a hash that are enough to tell commits and data sets apart


def header(context: Context) -> Section:
    """Return the section on the sweep's settings: everything that its figures depend on."""
    facts = context.facts
    states = facts["states"]
    named = ", ".join(f"{number} {name}" for name, number in states.items() if number) or "none"
    parts: list[Block] = []
    if states["RUNNING"] or sum(states.values()) - states["SKIPPED"] < facts["budget"]["trials"]:
        parts.append(
            Note(
                f"Not finished: at the ledger's latest event, {facts['updated']}, {counted(states['RUNNING'], 'trial')} had not ended, and "
                f"{facts['budget']['trials']} were requested. The figures below will change. Run the same command again to update this page."
            )
        )
    if facts["interrupted"]:
        parts.append(
            Note(
                f"Stopped: {facts['interrupted']}. research {continued_by(context.ledger)} {context.place} continues it."
            )
        )
    if facts["code_changed"]:
        parts.append(
            Note(
                "The code changed between sessions (--allow-changed-code): trials may come from different versions of the program."
            )
        )
    if facts["best"] and (found := facts["best"][0]["doubts"]):
        trial = facts["best"][0]["trial"]
        parts += [Note(f"Warning: the best model, of trial {trial}, is {doubt}.") for doubt in found]
    parts += [
        facts_list(_header(facts, named)),
        command(f"research show {context.place}", f"research report {context.place} --json"),
    ]
    return Section("sweep", "The sweep", parts)


def _header(facts: dict[str, Any], named: str) -> list[tuple[str, str | Line]]:
    code, examples, budget = facts["code"], facts["data"], facts["budget"]
    commit = str(code.get("commit") or "unknown")[:_COMMIT]
    dirty = ", with uncommitted changes (code-0.diff)" if code.get("dirty") else ""
    looks = facts["looks_at_test"]
    limits = ", ".join(
        f"{name.replace('_', ' ')} {budget[name]:g}"
        for name in ("hours", "trial_hours", "total_epochs", "patience")
        if budget.get(name)
    )
    pairs: list[tuple[str, str | Line]] = [
        ("space", f"{facts['space']} (sha256 {facts['space_sha256'][:_COMMIT]})"),
        (
            "data",
            f"{examples['kind'] or 'unknown'} (hash {examples['data_hash'][:_COMMIT]}, split {examples['split_hash'][:_COMMIT]})",
        ),
        *([("labels", listed(examples["label_names"]))] if examples["label_names"] else []),
        ("measure", facts["measure"]),
        ("metric", f"{facts['metric']['name']} ({facts['metric']['direction']})"),
    ]
    if facts["objectives"]:
        pairs.append(("objectives", ", ".join(f"{o['name']} ({o['direction']})" for o in facts["objectives"])))
    if facts["constraints"]:
        pairs.append(("subject to", " and ".join(facts["constraints"])))
    pairs += [
        ("trials", f"{named}; {budget['trials']} requested"),
        (
            "budget",
            f"{budget['epochs'] or 'each configuration’s own number of'} epochs" + (f"; {limits}" if limits else ""),
        ),
        ("sampler", _told(facts["sampler"])),
        ("early stopping", _told(facts["scheduler"])),
        ("seed", f"{facts['seed']}" + (", deterministic" if facts["deterministic"] else "")),
    ]
    if facts["replicates"] > 1:
        pairs.append(("replicates", f"{facts['replicates']} seeds of each configuration; a row is their mean"))
    if facts["parent"] is not None:
        pairs.append(("finalists of", facts["parent"]["name"]))
    if facts["learned_from"]:
        pairs.append(("sampler learned from", ", ".join(facts["learned_from"])))
    pairs += [
        ("looks at test", f"{looks}" + (" (nothing here was selected on test)" if looks == 0 else "")),
        ("code", f"commit {commit}{dirty}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
    ]
    if facts["hardware"]:
        units = {"cpu": "", "usable_cores": " usable cores", "memory_gib": " GiB memory"}
        told = [f"{facts['hardware'][name]}{unit}" for name, unit in units.items() if facts["hardware"].get(name)]
        pairs.append(("driver's hardware", ", ".join(told) or "–"))
    pairs.append(("latest event", f"{facts['updated']}, of {counted(facts['sessions'], 'session')}"))
    return pairs


def _told(part: dict[str, Any]) -> str:
    rest = ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in part.items()
        if name != "kind" and value not in ({}, None)
    )
    return f"{part['kind']} ({rest})" if rest else str(part["kind"])


def rungs(context: Context) -> Section:
    """Return the section on early stopping: where trials were stopped, and the epochs that it saved."""
    found = context.facts["rungs"]
    if found is None:
        full = Paragraph("Every trial was trained to its full budget (--scheduler none).")
        return Section("rungs", "Early stopping", [full])
    rows = [
        [rung["epoch"], rung["reached"], rung["stopped"], rung["reached"] - rung["stopped"]] for rung in found["rungs"]
    ]
    saved = 100 * found["epochs_saved"] / found["epochs_full"] if found["epochs_full"] else 0.0
    parts: list[Block] = [
        *([context.chart(charts.rungs(found))] if rows else []),
        table(["rung (epoch)", "reached it", "stopped there", "went on"], rows, name="rungs"),
        facts_list(
            [
                ("epochs trained", line(figure(found["epochs_trained"]))),
                ("the same trials in full", line(figure(found["epochs_full"]))),
                ("saved", line(figure(found["epochs_saved"]), f" epochs, {saved:.0f} %")),
            ]
        ),
        Paragraph(
            f"Counted over the {counted(found['trials'], 'trial')} that completed or were stopped early. The scheduler is "
            f"{_told(context.facts['scheduler'])}. Failed and running trials are not counted. Saved epochs are not saved hours: "
            "see Time below."
        ),
        command(f"research report {context.place} --json    # rungs"),
    ]
    return Section("rungs", "Early stopping", parts)


def failures(context: Context) -> Section:
    """Return the section on failures by kind, each with an example."""
    failed, skipped = context.facts["failures"], context.facts["skipped"]
    parts: list[Block] = []
    if not failed and not skipped:
        parts.append(Paragraph("None."))
    for found, title in ((failed, "Failed"), (skipped, "Drawn but not trained")):
        if not found:
            continue
        rows = [[one["kind"], one["count"], one["example"]["trial"], one["example"]["reason"]] for one in found]
        name = title.split()[0].lower()
        parts += [Heading(title), table(["kind", "trials", "e.g. trial", "its reason"], rows, name=name)]
        for one in found:
            if one["example"]["detail"]:
                inside = Source(one["example"]["detail"])
                parts.append(Details(f"Traceback of trial {one['example']['trial']} ({one['kind']})", inside))
    if failed:
        parts.append(
            Paragraph(
                "Failed trials count towards the number of trials requested. They are never ranked, and the sampler does not learn from them."
            )
        )
    if skipped:
        parts.append(
            Paragraph("Draws that the space itself refused, and draws that had been trained already, do not count.")
        )
    if failed or skipped:
        parts.append(command(f"research show {context.place} --json    # trials[].reason, .fail_kind"))
    return Section("failures", "Failures", parts)


def time(context: Context) -> Section:
    """Return the section on time: how the hours were spent."""
    found = context.facts["time"]
    if not found["trials"]:
        return Section("time", "Time", [Paragraph("No epoch has ended yet.")])
    pairs: list[tuple[str, str | Line]] = [
        ("training and evaluating, all trials", duration(found["trial_seconds"])),
        ("of this, training", duration(found["train_seconds"])),
        ("of this, evaluating", duration(found["evaluation_seconds"])),
        ("a trial, median", duration(found["median_trial_seconds"])),
        ("the longest", duration(found["longest_trial_seconds"])),
        ("wall clock, all sessions", duration(found["wall_seconds"])),
        ("slots", str(found["slots"])),
    ]
    if found["occupied"] is not None:
        pairs.append(("slots held by a trial", share(found["occupied"])))
    if found["utilisation"] is not None:
        pairs.append(("workers' utilisation", share(found["utilisation"])))
    replicates = context.facts["replicates"]
    parts: list[Block] = [
        *context.drawn(lambda: [("", context.optuna.timeline())]),
        Paragraph(
            "Each bar runs from a trial's draw to its end, in the time of the machine that drew this page. The bar of an interrupted "
            "trial covers the pause, too."
        ),
        facts_list(pairs),
        Paragraph(f"Slots held: {found['occupied_is']}. Utilisation: {found['utilisation_is']}."),
    ]
    if (found["utilisation"] or 0) > 1:
        parts.append(
            Note(
                "Above 100 %: the clocks of the rows and of the ledger disagree, or one row covers several training runs."
            )
        )
    if replicates > 1:
        parts.append(Note(f"Each row is the mean over {replicates} seeds, and its seconds are their sum."))
    parts.append(command(f"research report {context.place} --csv trials.csv    # seconds, of each trial"))
    return Section("time", "Time", parts)


def every_trial(context: Context) -> Section:
    """Return the section with the table of all trials, whatever their state."""
    ranks = {one["trial"]: one["rank"] for one in context.facts["best"]}
    sampled, cells = by_parameter([trial["params"] for trial in context.facts["trials"]])
    rows = [
        [
            trial["trial"],
            trial["status"],
            ranks.get(trial["trial"]),
            None if trial["metrics"] is None else trial["metrics"][context.metric],
            trial["best_epoch"],
            trial["epochs"],
            trial["seconds"],
            str(trial["seed"]),
            *own,
            trial["reason"] or "",
        ]
        for trial, own in zip(context.facts["trials"], cells, strict=True)
    ]
    columns = ["trial", "state", "rank", context.metric, "best epoch", "epochs", "seconds", "seed", *sampled, "reason"]
    parts: list[Block] = [
        Paragraph("Figures are rounded. Point at one to see all its digits; the files below have them, too."),
        Details(counted(len(rows), "trial"), table(columns, rows, name="trials")),
        command(
            f"research report {context.place} --csv FOLDER",
            f"research report {context.place} --parquet FOLDER",
            f"research show {context.place} --json",
        ),
    ]
    return Section("trials", "Every trial", parts)
