"""The beginning of a sweep's directory, and the checks before a sweep is continued."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from research import provenance
from research.errors import UserError, storing
from research.ledger import budget
from research.ledger.events import SweepCreated
from research.ledger.log import Ledger
from research.ledger.tail import refuse_lost_tail
from research.search.spaces import Space, load_recorded, of_sweep
from research.store.data_copy import data_directory
from research.store.mirror import address as address_of
from research.store.mirror import store_of
from research.text import shell
from vae.data import load_training
from vae.durable import sync_directory
from vae.external import source_of
from vae.serialization import from_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from research.ledger.events import TrialsLearned
    from research.ledger.settings import SweepSettings


def create(
    sweep_dir: Path, settings: SweepSettings, command: list[str], learned: Sequence[TrialsLearned] = ()
) -> Ledger:
    """Create a sweep's directory with the first event, the source of the space and what the sampler learns from.

    On a disk the directory exists completely or not at all, even if this process is killed. If two processes create it at
    the same time, one is refused.

    Raises:
        UserError: there is such a sweep.

    """
    place = sweep_dir
    if store_of(sweep_dir) is None:
        place = sweep_dir.with_name(f".{sweep_dir.name}.{os.getpid()}.tmp")
        shutil.rmtree(place, ignore_errors=True)
    with storing(sweep_dir):
        place.mkdir(parents=True)
    try:
        ledger = Ledger.create(
            place,
            SweepCreated(settings=settings, code=provenance.code(), versions=provenance.versions(), command=command),
        )
        for event in learned:
            ledger.append(event)
        with storing(ledger.folder.space):
            ledger.folder.space.write_text(settings.space.source, encoding="utf-8")
        if place == sweep_dir:
            return ledger
        if sweep_dir.exists():
            raise UserError(f"sweep {str(sweep_dir)!r} exists already: begun a moment ago; choose another --name")
        with storing(sweep_dir):
            place.rename(sweep_dir)
            sync_directory(sweep_dir.parent)
    finally:
        if place != sweep_dir:
            shutil.rmtree(place, ignore_errors=True)
    return Ledger.open(sweep_dir)


def reopen(sweep_dir: Path, *, allow_changed_code: bool) -> tuple[Ledger, Space]:
    """Return the ledger and the space of a sweep that is to be continued.

    Raises:
        UserError: nothing is left to do, or the code or the data have changed since the sweep began.

    """
    ledger = Ledger.open(sweep_dir)
    refuse_lost_tail(ledger)
    settings, place = ledger.settings, address_of(sweep_dir)
    open_trials = [view for view in ledger.trials.values() if not view.terminal]
    # A driver that was killed at its last act has left views behind that are not the ledger's: those are still to do.
    cut_short = ledger.folder.ray.exists()
    if ledger.trained >= settings.trials and not open_trials and not cut_short:
        raise UserError(
            f"sweep {place!r} has ended all its {settings.trials} trials: nothing to resume; "
            f"{shell('research', 'extend', place)} --trials +N adds some"
        )
    reached = [limit for limit in budget.limits(ledger) if limit.reached]
    if reached and (not open_trials or reached[0].option == "--hours") and not cut_short:
        raise UserError(
            f"sweep {place!r} has spent its budget ({reached[0].option}: {reached[0]}): "
            f"{shell('research', 'extend', place)} {reached[0].option} adds to it"
        )
    check_code(ledger, allow_changed_code=allow_changed_code)
    space = of_sweep(load_recorded(settings.space, ledger.folder.space), ledger)
    if ledger.trials:
        config = from_record(next(view.created.config for view in ledger.trials.values() if view.created.config))
        data = load_training(config.data, data_directory(settings.data_dir))
        if (data.data_hash, data.split_hash) != (settings.data_hash, settings.split_hash):
            raise UserError(
                f"the data have changed since sweep {settings.name!r} began ({settings.data_hash[:12]} -> "
                f"{data.data_hash[:12]}): its trials would not compare; put the old files back, or start a new sweep"
            )
    return ledger, space


def check_code(ledger: Ledger, *, allow_changed_code: bool) -> None:
    """Refuse to go on with other code than the sweep was begun with, including external parts. None of that code runs.

    Raises:
        UserError: with both hashes, or the part that has changed.

    """
    began = ledger.created.code.get("source_sha256")
    now = provenance.code().get("source_sha256")
    if began != now and not allow_changed_code:
        raise UserError(
            f"the code has changed since sweep {ledger.settings.name!r} began ({str(began)[:12]} -> {str(now)[:12]}): its "
            "trials would not compare; go back to that code, or add --allow-changed-code"
        )
    if not allow_changed_code:
        _refuse_changed_externals(ledger)


def _refuse_changed_externals(ledger: Ledger) -> None:
    """Refuse external parts whose hashes differ from those in the rows. None of them is imported here."""
    for view in ledger.trials.values():
        for row in view.rows.values():
            ran = row.worker.get("external")
            for path, digest in ran.items() if isinstance(ran, dict) else ():
                if source_of(path) != digest:
                    raise UserError(
                        f"external part {path!r} has changed since trial {view.number} ran: trials would not compare; "
                        "go back to that code, or add --allow-changed-code"
                    )
            break
