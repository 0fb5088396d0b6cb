"""The best K models of a sweep, derived from the ledger.

A trial's checkpoints stay under ``DIR/trials`` until it has ended. If the trial is then among the best K, the weights of
its best row become a model folder, and its checkpoints are deleted. The process may be killed at any moment, and all of
this can be run again.
"""

from __future__ import annotations

import json
from itertools import count, islice
from typing import TYPE_CHECKING

from research.errors import CorruptFile, StorageError, UserError
from research.ledger import tail
from research.ledger.records import TrialRecord, pretty, row_json
from research.models.model_card import model_card
from research.store.folders import clear_leftovers, inside, remove_folder, verify_folder, write_folder
from research.store.in_place import make_below
from research.store.layout import (
    CARD,
    CONFIG,
    METRICS,
    NAMES,
    RECORD,
    WEIGHTS,
    SweepFolder,
    epoch_folder,
    replicate_folder,
    trial_number,
)
from research.store.mirror import (
    fetch_folder,
    fetch_pictures,
    push_folder,
    remove_folder_there,
    store_of,
    whole_folders,
)
from research.worker.replicates import KEPT, row_of_kept, seeds_of
from vae.durable import hash_file
from vae.portable import weights_file
from vae.state import STATE_FILE, StateError, TrainState

if TYPE_CHECKING:
    from pathlib import Path

    from research.ledger.events import RowReported
    from research.ledger.log import Ledger
    from research.ledger.trial_view import TrialView
    from research.store.object_store import ObjectStore


def keep_best(ledger: Ledger, sweep_dir: Path) -> list[str]:
    """Make ``DIR/models`` hold the models of the best K ended trials, and remove what is no longer needed.

    New models are complete before anything is removed. Returns one line for each problem (a missing or corrupt
    checkpoint, a full disk) and raises for none, so that the sweep goes on. If a model cannot be kept, the next best
    one that is still in ``models`` stays, and so do the checkpoints of its trial. Only the holder of the sweep's
    lock may call this.

    For a sweep in an object store, checkpoints come from there and models go there. The mirror holds the same models.
    """
    folder, problems = SweepFolder(sweep_dir), list[str]()
    models = folder.models
    store = store_of(sweep_dir)
    try:
        there = set() if store is None else whole_folders(store, models.name)
        checkpoints_there = set() if store is None else _trials_there(store)
    except StorageError as error:
        return [f"the best models could not be kept: {error}"]
    clear_leftovers(models)
    clear_leftovers(folder.trials)
    others = ledger.in_order()
    desired = list(islice(others, ledger.settings.keep))
    missing = set[int]()
    for trial in desired:
        target = folder.model(trial.number)
        try:
            if (damage := _damage(target, ledger)) is not None:
                if store is not None:
                    _fetch_what_it_is_made_of(ledger, store, trial)
                files = _model_files(ledger, sweep_dir, trial)
                if tail.whose(target, ledger) == "foreign":
                    problems += _aside(target)
                make_below(sweep_dir, models.name)
                write_folder(target, files)
                there.discard(target.name)
            if store is not None and target.name not in there:
                push_folder(store, sweep_dir, f"{models.name}/{target.name}")
        except (OSError, StateError, UserError) as error:
            missing.add(trial.number)
            problems.append(_not_kept(trial.number, damage if target.exists() else None, error))
    wanted = {trial.number for trial in desired}
    for number, path in tail.trial_folders(models).items():
        if number not in wanted and tail.whose(path, ledger) != "ours":
            problems += _aside(path)
    present = tail.trial_folders(models)
    stand_ins = [trial.number for trial in others if trial.number in present] if missing else []
    kept = wanted | set(stand_ins[: len(missing)])
    unneeded = [path for number, path in present.items() if number not in kept]
    unneeded += [
        path for number, path in tail.trial_folders(folder.trials).items() if _needless(ledger, number, missing)
    ]
    for path in unneeded:
        try:
            remove_folder(path)
        except OSError as error:
            problems.append(f"{path} could not be removed ({error.strerror})")
    if store is not None:
        ended = {number for number, view in ledger.trials.items() if view.terminal}
        strange = [name for name in sorted(there) if (n := trial_number(name)) is not None and n not in ended]
        problems += [
            f"{store.url}/{models.name}/{name} is of no trial that the ledger has ended: it is left there"
            for name in strange
        ]
        gone = [f"{models.name}/{name}" for name in there if (n := trial_number(name)) in ended and n not in kept]
        gone += [
            f"{folder.trials.name}/{name}"
            for name in checkpoints_there
            if _needless(ledger, trial_number(name), missing)
        ]
        try:
            for relative in sorted(gone):
                remove_folder_there(store, relative)
        except StorageError as error:
            problems.append(f"what is not needed any more could not be removed: {error}")
    return problems


def last_whole(sweep_dir: Path, trial: TrialView, replicates: int) -> tuple[RowReported | None, list[str]]:
    """Return the latest row of a running trial whose checkpoint is whole, and a line for each later one that is not.

    Training continues from that row, or from the start if it is None. An epoch that is trained again changes nothing
    in the ledger. Only the best of the earlier checkpoints is kept, so a missing one is no problem. Raises
    ``StorageError`` if a store cannot be read.
    """
    problems, store = list[str](), store_of(sweep_dir)
    with_checkpoint = [row for _, row in sorted(trial.rows.items(), reverse=True) if row.checkpoint]
    for row in with_checkpoint:
        assert row.checkpoint is not None, "chosen above"
        try:
            kept = inside(sweep_dir, row.checkpoint)
            if store is not None:
                fetch_folder(store, epoch_folder(row.checkpoint, replicates), sweep_dir)
            if row is not with_checkpoint[0] and not kept.exists():
                continue
            _check_sha256(kept, row)
            for index in range(replicates):
                TrainState.load(
                    sweep_dir / replicate_folder(epoch_folder(row.checkpoint, replicates), index, replicates)
                )
        except StorageError:
            raise
        except (OSError, StateError, UserError) as error:
            problems.append(f"the checkpoint of epoch {row.epoch} can't be used: {error}")
        else:
            return row, problems
    return None, problems


def _damage(target: Path, ledger: Ledger) -> str | None:
    """Return why ``target`` is not the whole model of this ledger's trial; None if it is."""
    try:
        verify_folder(target)
    except CorruptFile as error:
        return str(error)
    return f"{target} holds another trial's model" if tail.whose(target, ledger) == "foreign" else None


def _not_kept(trial: int, damage: str | None, error: Exception) -> str:
    """Return the line for a model that can't be written; of one that was there, the damage comes first."""
    if damage is None:
        return f"the model of trial {trial} could not be kept: {error}"
    return f"the model of trial {trial} could not be kept: {damage}; it can't be made again, as {error}"


def _aside(folder: Path) -> list[str]:
    """Move what the ledger does not tell of out of ``models/``, where its weights may be the only ones; say so."""
    place = SweepFolder(folder.parent.parent).aside
    names = (folder.name if copy == 0 else f"{folder.name}-{copy}" for copy in count())
    try:
        place.mkdir(exist_ok=True)
        target = next(place / name for name in names if not (place / name).exists())
        folder.rename(target)
    except OSError as error:
        return [f"{folder} is no model of this sweep, and can't be moved out of it ({error.strerror})"]
    return [f"{folder} is no model that this sweep's ledger tells of: it was moved to {target}"]


def _needless(ledger: Ledger, number: int | None, missing: set[int]) -> bool:
    """Return True if a trial's checkpoints are no longer needed."""
    view = None if number is None else ledger.trials.get(number)
    return view is not None and view.terminal and view.number not in missing


def _model_files(ledger: Ledger, sweep_dir: Path, trial: TrialView) -> dict[str, bytes | Path]:
    """Return the files of a trial's model folder; raises what ``keep_best`` reports."""
    row = trial.best(ledger.settings.metric)
    if row is None or row.checkpoint is None:
        raise UserError("its best row has no checkpoint")
    checkpoint = inside(sweep_dir, row.checkpoint)
    _check_sha256(checkpoint, row)
    # Of several replicates one is kept: the config and the figures beside the weights are that one's.
    kept = row.metrics.get(KEPT)
    seed = seeds_of(trial.created.seed, ledger.settings.replicates)[kept if isinstance(kept, int) else 0]
    metrics = row_of_kept(row.metrics)
    files: dict[str, bytes | Path] = {
        CONFIG: pretty({**trial.created.config, "seed": seed}).encode(),
        WEIGHTS: weights_file(TrainState.load(checkpoint)),
        METRICS: pretty(row_json(row.epoch, metrics)).encode(),
        RECORD: TrialRecord.of(ledger, trial.number).to_json().encode(),
    }
    for name, relative in _latest_pictures(trial).items():
        picture = inside(sweep_dir, relative)
        if picture.is_file():  # a model without its picture is still a model
            files[f"{name}{picture.suffix}"] = picture
    record = json.loads(TrialRecord.of(ledger, trial.number).to_json())
    pictures = sorted(name for name in files if name.endswith(".png"))
    config = {**record["config"], "seed": seed}
    files[CARD] = model_card(config, row_json(row.epoch, metrics), record, pictures).encode()
    return files


def _fetch_what_it_is_made_of(ledger: Ledger, store: ObjectStore, trial: TrialView) -> None:
    """Bring the best row's checkpoint and the trial's latest pictures into the mirror."""
    best = trial.best(ledger.settings.metric)
    if best is not None and best.checkpoint is not None:
        fetch_folder(store, best.checkpoint, ledger.directory)
    fetch_pictures(ledger.directory, _latest_pictures(trial).values())


def _latest_pictures(trial: TrialView) -> dict[str, str]:
    """Return the paths of the latest pictures by name, relative to the sweep's directory."""
    pictured = (trial.rows[epoch].pictures for epoch in sorted(trial.rows, reverse=True))
    return next((pictures for pictures in pictured if pictures), {})


def _trials_there(store: ObjectStore) -> set[str]:
    return {name.split("/")[1] for name in store.names(str(NAMES.trials))}


def _check_sha256(checkpoint: Path, row: RowReported) -> None:
    state = checkpoint / STATE_FILE
    try:
        digest = hash_file(state)
    except OSError as error:
        raise CorruptFile(f"{state} can't be read ({error.strerror})") from None
    if digest != row.checkpoint_sha256:
        raise CorruptFile(f"{state} is damaged (its sha256 is not the ledger's)")
