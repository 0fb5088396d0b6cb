"""Everything that can be found wrong with a sweep before it holds a worker: one line each, nothing left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import math
import os
import re
import secrets
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from research.errors import StorageError, UserError
from research.ledger.comparison import why_not
from research.ledger.settings import NAME_PATTERN, Asha, Hyperband, MedianRule, rungs
from research.patience import patient
from research.planning.metrics import check_constraints, check_metric, check_objectives, default_metric
from research.planning.rehearsal import rehearse_training
from research.redaction import has_user_info
from research.search.spaces import SpaceError, Survey, survey
from research.store.data_copy import data_directory
from research.store.layout import NAMES, SweepFolder
from research.store.mirror import relative, store_of
from research.text import shell
from research.worker.comparison import facts_on_data
from vae.config import ConfigError
from vae.data import DataError, load_test, load_training
from vae.data.support import check_test_support
from vae.measure import measure_of
from vae.model import VAE
from vae.serialization import to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from research.ledger.events import Facts
    from research.ledger.settings import Constraint, Metric, Scheduler, SweepSettings
    from research.search.spaces import Space
    from vae.data import Split, TrainingData
    from vae.train_config import TrainConfig

IN_PROCESS = "none"  # as --address: trials train in the process of the driver, without Ray


@dataclass(frozen=True)
class Findings:
    """The configs that a space produces, their data, and the measure that all rows will share."""

    survey: Survey
    metric: Metric
    data: TrainingData
    measure: str
    comparison: Facts  # that all rows will share (research.ledger.comparison)


def check_name(name: str) -> None:
    """Refuse a sweep's name that is no plain name.

    Raises:
        UserError: with the rule.

    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(
            f"name {name!r} must be 1 to 100 letters, digits, '.', '_' or '-', not starting with '.'; choose another --name"
        )


def check_place(storage: Path, name: str) -> Path:
    """``storage/name``, not there yet, in a directory that can be written.

    Raises:
        UserError: the name is no plain name, is taken, or the storage can't be written.

    """
    check_name(name)
    sweep_dir = storage / name
    if store_of(storage) is not None:
        _check_store(storage, sweep_dir)
        return sweep_dir
    if sweep_dir.exists():
        raise UserError(
            f"sweep {relative(sweep_dir)!r} exists already: continue it with {shell('research', 'resume', relative(sweep_dir))}, or "
            "choose another --name"
        )
    nearest_parent = next(folder for folder in (storage, *storage.absolute().parents) if folder.exists())
    if not nearest_parent.is_dir():
        raise UserError(f"storage {str(storage)!r} is a file, not a directory; choose another --storage")
    try:
        with tempfile.NamedTemporaryFile(dir=nearest_parent) as file:
            file.write(b"x")
            _refuse_without_links_and_locks(storage, Path(file.name))
    except OSError as error:
        raise UserError(
            f"storage {str(storage)!r} can't be written ({error.strerror}); choose another --storage"
        ) from None
    return sweep_dir


def _refuse_without_links_and_locks(storage: Path, file: Path) -> None:
    """The ledger's events are linked into place, and a driver holds a lock: both before the first event needs them."""
    linked = file.with_name(f"{file.name}.link")
    what = "hard links"
    try:
        os.link(file, linked)
        what = "locks (flock)"
        with linked.open() as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(
            f"storage {str(storage)!r} has no {what} ({error.strerror}), which the ledger needs: of a mounted object store "
            "give the store's own address (s3://..., gs://...), else choose another --storage"
        ) from None
    finally:
        linked.unlink(missing_ok=True)


def _check_store(storage: Path, sweep_dir: Path) -> None:
    """An object store that can be written, refuses to write twice, and has no such sweep; a mirror that is free."""
    there, sweep = store_of(storage), store_of(sweep_dir)
    assert there is not None, "asked by the caller"
    assert sweep is not None, "it lies below"
    probe = f".probe-{secrets.token_hex(8)}"
    try:
        excluded = there.create(probe, b"1") and not there.create(probe, b"2")
    finally:
        with contextlib.suppress(StorageError):
            there.remove([probe])
    if not excluded:
        raise UserError(
            f"storage {there.url!r} writes an object a second time although it was asked not to (If-None-Match): two drivers "
            "could overwrite each other's events; use a store that has conditional writes"
        )
    if sweep.names(str(NAMES.ledger)):
        raise UserError(
            f"sweep {sweep.url!r} exists already: continue it with {shell('research', 'resume', sweep.url)}, or choose "
            "another --name"
        )
    if SweepFolder(sweep_dir).events():
        raise UserError(
            f"{sweep_dir} mirrors a sweep that is no more at {sweep.url}: move it away, or choose another --name"
        )
    shutil.rmtree(sweep_dir, ignore_errors=True)  # of a sweep that was refused before its first event


def check_draws(
    space: Space,
    *,
    metric: Metric | None,
    epochs: int | None,
    seed: int,
    data: str | None = None,
    constraints: Sequence[Constraint] = (),
    objectives: Sequence[Metric] = (),
) -> tuple[Survey, Metric]:
    """Draw from the space and refuse what could not be ranked, as far as that is seen without its data.

    Raises:
        UserError: (SpaceError) what is wrong and what to do.

    """
    found = survey(space, epochs=epochs, seed=seed, data=data)
    configs = found.configs
    _refuse_varied(configs)
    metric = default_metric(configs) if metric is None else metric
    check_metric(metric, configs)
    if objectives:
        check_objectives(objectives, configs)
    check_constraints(constraints, configs)
    return found, metric


def check_space(
    space: Space,
    *,
    metric: Metric | None,
    epochs: int | None,
    seed: int,
    data_dir: Path | None,
    data: str | None = None,
    constraints: Sequence[Constraint] = (),
    objectives: Sequence[Metric] = (),
) -> Findings:
    """Draw from the space, load its data, and refuse what could not be ranked or run.

    ``metric`` None: the one that suits what the space produces. ``objectives``: two or more, for a front.

    Raises:
        UserError: (SpaceError, or with DataError's line) what is wrong and what to do.

    """
    found, metric = check_draws(
        space, metric=metric, epochs=epochs, seed=seed, data=data, constraints=constraints, objectives=objectives
    )
    configs = found.configs
    data_set = load_training(configs[0].data, data_dir)
    held_out = held_out_split(data_set, configs[0], metric)
    compared_by = [metric.name, *(o.name for o in objectives), *(c.metric for c in constraints)]
    comparison = facts_on_data(configs[0], data_set)
    for config in configs[1:]:
        own = load_training(config.data, data_dir)
        if (own.data_hash, own.split_hash) != (data_set.data_hash, data_set.split_hash):
            raise _varied_data(configs[0], config)
        if (reason := why_not(compared_by, facts_on_data(config, own), comparison)) is not None:
            raise UserError(
                f"space {space.source.name!r} gives rows that can't be ranked together: of one draw {reason}; "
                "fix what differs, or make two sweeps"
            )
    for config in configs:
        check_scorable(config, data_set, data_dir)
    models = _models(space, configs, data_set)
    rehearse_training(space, configs, models, data_set)
    measure = str(measure_of(configs[0], held_out, levels=data_set.levels))
    return Findings(survey=found, metric=metric, data=data_set, measure=measure, comparison=comparison)


def comparability(settings: SweepSettings) -> Callable[[TrainConfig], str | None]:
    """Return a function that says why the rows of a config could not be ranked with the sweep's; None where they could.

    The same check as of every row, before the config is trained. Data sets are kept in memory by ``load_training``.
    """

    def why(config: TrainConfig) -> str | None:
        try:
            data = load_training(config.data, data_directory(settings.data_dir))
        except DataError as error:
            return f"its data can't be used: {error}"
        if (data.data_hash, data.split_hash) != (settings.data_hash, settings.split_hash):
            return (
                f"its data are not the sweep's (hash {data.data_hash[:12]}, split {data.split_hash[:12]}; the sweep's "
                f"{settings.data_hash[:12]}, {settings.split_hash[:12]}): what changes them belongs to the sweep"
            )
        return why_not(settings.compared_by, facts_on_data(config, data), settings.shared)

    return why


def _varied_data(one: TrainConfig, other: TrainConfig) -> UserError:
    """Return the refusal of a space whose trials would have different data, naming the settings that differ."""
    a, b = to_dict(one)["data"], to_dict(other)["data"]
    names = ["kind"] if a["kind"] != b["kind"] else [name for name in sorted(a) if a[name] != b[name]]
    varied = ", ".join(f"data.{name} ({a[name]!r}, {b[name]!r})" for name in names)
    return UserError(f"the space varies {varied}, which belongs to the sweep: give it one value")


def held_out_split(data: TrainingData, config: TrainConfig, metric: Metric) -> Split:
    """The validation split, which a set of few examples may not have although the config does not forbid one.

    Raises:
        UserError: there is none, and how to hold out examples.

    """
    if data.validation is not None:
        return data.validation
    count = len(data.train)
    raise UserError(
        f"metric {metric.name!r} needs a validation split, but data {config.data.kind!r} with {count} examples holds out none: "
        f"set data.validation to a number of examples, e.g. {max(1, count // 5)}, or give more data"
        if count > 1
        else f"metric {metric.name!r} needs a validation split, and data {config.data.kind!r} has one example: give more data"
    )


def resolve_scheduler(scheduler: Scheduler, configs: list[TrainConfig], *, grace: int | None) -> Scheduler:
    """The scheduler with a grace period that the space's annealing allows.

    ``grace`` None: the longest warm-up seen, and at least a 27th of the budget. Raises UserError for a given one
    that would stop trials for being slow to start, or that falls inside a β cycle.
    """
    if not isinstance(scheduler, Asha | Hyperband | MedianRule):
        return scheduler
    epochs = max(config.epochs for config in configs)
    longest = max(config.objective.annealing_epochs(config.epochs) for config in configs)
    if grace is None:
        # The median rule judges every grace epochs: a tenth of the budget.
        grace = max(1, longest, epochs // (10 if isinstance(scheduler, MedianRule) else 27))
    elif grace < longest:
        raise UserError(
            f"--grace must be at least {longest}, the longest warm-up that the space produces in epochs, got {grace}: "
            "trials would be stopped for being slow to start"
        )
    chosen = dataclasses.replace(scheduler, grace=grace)
    for config in configs:
        cycle = config.objective.cycle_epochs(config.epochs)
        if cycle is not None:
            bad = [rung for rung in rungs(chosen, config.epochs) if not math.isclose(rung % cycle, 0, abs_tol=1e-9)]
            if bad:
                raise UserError(
                    f"cyclical β compares at cycle ends only, every {cycle:g} epochs, but the scheduler would judge at "
                    f"epoch {bad[0]}; choose --grace and cycles to match, or --scheduler none"
                )
    return chosen


def _refuse_varied(configs: list[TrainConfig]) -> None:
    """Refuse a space that varies a setting of the sweep, because scores would then differ by luck and not by merit."""
    settings: dict[str, set[Any]] = {
        "data.split_seed": {config.data.split_seed for config in configs},
        "data.validation": {config.data.validation for config in configs},
    }
    for name in dataclasses.asdict(configs[0].eval):
        settings[f"eval.{name}"] = {getattr(config.eval, name) for config in configs}
    settings["metrics"] = {tuple(metric.name for metric in config.metrics) for config in configs}
    for path, values in settings.items():
        if len(values) > 1:
            one, other = sorted(values, key=repr)[:2]
            raise UserError(
                f"the space varies {path} ({one!r}, {other!r}), which belongs to the sweep: give it one value"
            )


def _models(space: Space, configs: list[TrainConfig], data: TrainingData) -> list[VAE]:
    """Each config's model without memory. A network that doesn't fit the images is found now, not on a worker."""
    try:
        return [without_memory(config, data) for config in configs]
    except ConfigError as error:
        raise SpaceError(f"space {space.source.name!r}: {error}") from None


def check_scorable(config: TrainConfig, data: TrainingData, data_dir: Path | None) -> None:
    """Refuse a test part that the config's likelihood could not score, before anything trains. It is no look at test.

    Raises:
        DataError: a value of the test part is outside the likelihood's support.

    """
    check_test_support(config, data.levels, lambda: load_test(config.data, data_dir))


def without_memory(config: TrainConfig, data: TrainingData) -> VAE:
    """The config's model on torch's meta device: its shapes, and nothing in them.

    Raises:
        ConfigError: the network doesn't fit the data.

    """
    try:
        with torch.device("meta"):
            return VAE(config, shape=data.shape, levels=data.levels, num_classes=data.num_classes)
    except (RuntimeError, OverflowError, TypeError) as error:  # sizes beyond what a tensor can have
        raise ConfigError(f"the model can't be built: {' '.join(str(error).split())[:120]}") from None


def check_address(address: str) -> None:
    """Return True if anything answers there: Ray itself would wait for minutes, and then not say what for.

    Raises:
        UserError: nothing does, or the address holds a password, which Ray would pass on to other processes.

    """
    if address == IN_PROCESS:
        return
    if has_user_info(address):
        raise UserError(
            "--address must be HOST:PORT without a user name or password; a cluster's token is in RAY_AUTH_TOKEN_PATH"
        )
    place = address
    if address == "auto":
        known = Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster"
        place = os.environ.get("RAY_ADDRESS") or (known.read_text().strip() if known.is_file() else "")
    host, _, port = place.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=patient(10.0)):
            return
    except (OSError, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no such place"
        raise UserError(
            f"no Ray cluster answers at --address {address!r} ({reason}); start one (ray start --head), give its HOST:PORT, "
            "or leave --address out"
        ) from None


def available_cpus() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
