"""Detection of a ledger that has lost its last events. The chain of hashes proves only the events that are present.

After each event the driver writes ``DIR/latest-event.json``: the number of events and the SHA-256 of the last one. Kept
models and checkpoints are evidence, too, because they exist only for trials in the ledger. All evidence is written
after its events, so that a process that is killed at any moment never leaves false evidence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research.errors import CorruptFile
from research.store.folders import read_sealed, sealed
from research.store.layout import RECORD, SweepFolder, trial_name, trial_number
from vae.durable import LARGE_TEXT, read_file, replace

if TYPE_CHECKING:
    from pathlib import Path

    from research.ledger.log import Ledger

_NAMED = 3  # pieces of evidence that a message lists


def mark(sweep_dir: Path, identity: str, events: int, last: str) -> None:
    """Write the present length of the ledger. A failed write is ignored: the mark may be behind, but never ahead."""
    content = sealed({"sweep": identity, "events": events, "last": last})
    with contextlib.suppress(OSError):
        replace(SweepFolder(sweep_dir).latest_event, content, sync=False)


def refuse_lost_tail(ledger: Ledger) -> None:
    """Refuse to write to a ledger whose last events are lost.

    Raises:
        CorruptFile: events are lost; the message has the evidence and the remedy.

    """
    if (lost := lost_tail(ledger)) is not None:
        raise CorruptFile(lost)


def lost_tail(ledger: Ledger) -> str | None:
    """Return in one line why the last events of ``ledger`` must be lost; None without evidence.

    The ledger is refreshed: another process may be writing to it.
    """
    folder = ledger.folder
    marked = _marked(folder)
    models = {path: _model(path) for path in trial_folders(folder.models).values()}
    begun = trial_folders(folder.trials)
    ledger.refresh()  # the events that are read now are newer than the evidence
    remedy = f"restore {folder.ledger} from a copy that has them, or, to go on without them,"
    if marked is not None and marked.sweep == ledger.identity:
        where = folder.latest_event
        if marked.events > len(ledger):
            return (
                f"{folder.ledger} has lost its last events: it has {len(ledger)}, and {where} says that there were "
                f"{marked.events}; {remedy} remove {where}"
            )
        if _seal_of(folder, marked.events - 1) != marked.last:
            return (
                f"{folder.ledger} has another event {marked.events - 1} than {where} says, so the events that were "
                f"there are lost; {remedy} remove {where}"
            )
    found = [path for path, facts in models.items() if facts and facts.of(ledger) and not facts.known(ledger)]
    found += [path for number, path in begun.items() if number not in ledger.trials]
    if not found:
        return None
    named = ", ".join(str(path) for path in found[:_NAMED])
    more = f" and {len(found) - _NAMED} others" if len(found) > _NAMED else ""
    return (
        f"{folder.ledger} has lost its last events: it does not know all of what {named}{more} tell of; {remedy} "
        "move these folders out of the sweep"
    )


def whose(folder: Path, ledger: Ledger) -> Literal["ours", "foreign", "unreadable"]:
    """Return True if the model in ``folder`` belongs to the ended trial of this number in this ledger."""
    facts = _model(folder)
    if facts is None:
        return "unreadable"
    return "ours" if facts.of(ledger) and facts.known(ledger) else "foreign"


def trial_folders(directory: Path) -> dict[int, Path]:
    """Return the folders in ``directory`` that are named after a trial, by the trial's number, in order."""
    if not directory.is_dir():
        return {}
    numbered = ((trial_number(path.name), path) for path in directory.iterdir())
    return dict(sorted((number, path) for number, path in numbered if number is not None))


@dataclass(frozen=True)
class _Mark:
    sweep: str
    events: int
    last: str


@dataclass(frozen=True)
class _Model:
    """The trial that the record of a kept model names."""

    sweep: str
    trial: int
    config_hash: str
    rows: int

    def of(self, ledger: Ledger) -> bool:
        """Return True if nothing in the ledger contradicts that the model belongs to this sweep."""
        view = ledger.trials.get(self.trial)
        return self.sweep == ledger.settings.name and (view is None or view.created.config_hash == self.config_hash)

    def known(self, ledger: Ledger) -> bool:
        """Return True if the ledger has the trial, its end, and the same number of rows."""
        view = ledger.trials.get(self.trial)
        return view is not None and view.terminal and len(view.rows) >= self.rows


def _marked(folder: SweepFolder) -> _Mark | None:
    """Return the content of the mark; None if it is damaged or missing. The next event writes it again."""
    try:
        values = read_sealed(folder.latest_event)
    except CorruptFile:
        return None
    sweep, events, last = values.get("sweep"), values.get("events"), values.get("last")
    if isinstance(sweep, str) and isinstance(events, int) and events > 0 and isinstance(last, str):
        return _Mark(sweep, events, last)
    return None


def _model(folder: Path) -> _Model | None:
    """Return the trial of the record in ``folder``; None if it cannot be read or names another trial."""
    try:
        record: Any = json.loads(read_file(folder / RECORD, LARGE_TEXT))
        found = _Model(str(record["sweep"]), record["trial"], str(record["config_hash"]), len(record["rows"]))
        return found if folder.name == trial_name(found.trial) else dataclasses.replace(found, sweep="")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _seal_of(folder: SweepFolder, sequence: int) -> str:
    """Return the SHA-256 at the end of a verified event."""
    raw = read_file(folder.event(sequence), LARGE_TEXT)
    return raw[-67:-3].decode()
