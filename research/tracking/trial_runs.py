"""The W&B runs of a sweep's trials, brought up to date with the ledger; and what of them was uploaded.

Every run is written into one directory and, when it is finished, named by a mark
(``DIR/wandb/finished/trial-0007.json``). A run without a mark is logged anew, whole, under the same id. One whose
rows the service has already gets a second directory, without rows: W&B appends what it is sent, and no step may be
there twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from research.errors import CorruptFile
from research.ledger.events import REPLICATES
from research.patience import patient
from research.store.folders import inside, read_folder
from research.store.in_place import make_below
from research.store.layout import NAMES, WEIGHTS, SweepFolder, trial_name
from research.tracking.trial_names import CAPTIONS, family
from vae.durable import read_file, replace

if TYPE_CHECKING:
    from collections.abc import Callable

    import wandb
    from pydantic import JsonValue

    from research.ledger.events import RowReported
    from research.ledger.log import Ledger
    from research.ledger.trial_view import TrialView
    from research.planning.tracking_mode import Mode

_LONGEST_NAME = 48  # of a sweep, in an id: W&B takes 64 characters
_LONGEST_TAG = 64
_DIRECTORY = re.compile(r"(?:offline-)?run-\d+_\d+-(.+)")  # of a run, in wandb's way of naming it


def run_id(name: str, identity: str, what: str) -> str:
    """Return the id of a run. It is the same in every session, and differs between sweeps of the same name.

    ``what``: the four digits of a trial.
    """
    return f"{name[:_LONGEST_NAME]}-{identity[:8]}-{what}"


def init(ledger: Ledger, mode: Mode, identity: str, **arguments: Any) -> wandb.Run:  # noqa: ANN401 - of wandb.init
    """A run under an id of our own that collects nothing but what it is given."""
    import wandb  # noqa: PLC0415 - seconds, and never in the driver

    return wandb.init(
        mode=cast("Literal['online', 'offline']", mode),
        project=ledger.settings.wandb_project,
        dir=ledger.directory,
        id=identity,
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        group=ledger.settings.name,
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            init_timeout=patient(8.0),
            finish_timeout=patient(20.0),
            finish_timeout_raises=True,
            symlink=False,
            use_dot_wandb=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
        **arguments,
    )


def tags(*names: str) -> list[str]:
    """Return tags that W&B accepts: none is empty, repeated or too long."""
    return list(dict.fromkeys(name[-_LONGEST_TAG:] for name in names if name))


class Marks:
    """The finished runs and their directories: small files in ``DIR/wandb/finished``."""

    def __init__(self, sweep: SweepFolder) -> None:
        """The folder of the marks is made where it is missing."""
        self.sweep = sweep
        self.folder = sweep.wandb
        make_below(sweep.path, str(NAMES.wandb_finished))

    def read(self, name: str) -> dict[str, Any] | None:
        """The facts under ``name``; None where there is no mark, or none that can be read."""
        try:
            facts = json.loads(read_file(self.sweep.wandb_mark(name)))
        except (OSError, ValueError, RecursionError):
            return None
        return facts if isinstance(facts, dict) else None

    def write(self, name: str, **facts: JsonValue) -> None:
        """Mark ``name`` as finished, whole or not at all."""
        replace(self.sweep.wandb_mark(name), json.dumps(facts).encode())

    def remove(self, name: str) -> None:
        """Let what ``name`` stands for be logged anew."""
        self.sweep.wandb_mark(name).unlink(missing_ok=True)

    def directories(self, identity: str) -> list[Path]:
        """The directories of the run ``identity``, finished or torn, in order of their start."""
        return sorted(self.folder.glob(f"*run-*-{identity}"))

    def begun(self) -> set[str]:
        """The identities of all runs that have a directory. One look at the folder, where `directories` takes one each."""
        return {match[1] for path in self.folder.iterdir() if (match := _DIRECTORY.fullmatch(path.name)) is not None}

    def uploaded(self, identity: str) -> bool:
        """Return True if the service may have rows of this run, because it was online or was uploaded."""
        return any(
            not directory.name.startswith("offline-") or is_uploaded(directory)
            for directory in self.directories(identity)
        )

    def forget(self, identity: str) -> None:
        """Remove what was written of a run and not uploaded."""
        for directory in self.directories(identity):
            if not is_uploaded(directory):
                shutil.rmtree(directory)


def upload_mark(directory: Path) -> Path:
    """Return the file that marks ``directory``, a run's in a sweep's ``wandb``, as uploaded."""
    return SweepFolder(directory.parent.parent).wandb_uploaded / f"{directory.name}.json"


def is_uploaded(directory: Path) -> bool:
    """Return True if ``research sync``, or a ``wandb sync`` by hand, has sent this directory."""
    return upload_mark(directory).exists() or any(directory.glob("*.wandb.synced"))


class TrialRuns:
    """One W&B run for each trial."""

    def __init__(self, ledger: Ledger, mode: Mode, say: Callable[[str], None]) -> None:
        """``say`` tells the driver, in one line."""
        self.ledger, self.mode, self.say = ledger, mode, say
        self.marks = Marks(ledger.folder)
        self.live: dict[int, wandb.Run] = {}
        self.logged: dict[int, int] = {}  # the last epoch
        self.begun = self.marks.begun()
        self.done = {number for number in ledger.trials if self.marks.read(trial_name(number)) is not None}

    def catch_up(self) -> None:
        """Start, feed and finish runs until they say what the ledger says."""
        for number, trial in self.ledger.trials.items():
            if number in self.done:
                continue
            if trial.status == "SKIPPED" and number not in self.live:
                continue  # a draw that was never trained is no run
            if number not in self.live:
                if self.run_id(number) in self.begun:
                    self.marks.forget(self.run_id(number))  # torn
                self.live[number] = self._start(trial)
                self.logged[number] = -1
            for epoch in sorted(epoch for epoch in trial.rows if epoch > self.logged[number]):
                self._log(self.live[number], trial.rows[epoch])
                self.logged[number] = epoch
            if trial.terminal:
                self._finish(self.live.pop(number), trial, model=None)
                self.done.add(number)

    def close(self) -> None:
        """Finish the runs of trials that have not ended, without a mark: the next session logs them anew."""
        for number, run in self.live.items():
            _tell(run, {"status": self.ledger.trials[number].status})
            run.finish(exit_code=1)
        self.live.clear()

    def log_models(self) -> None:
        """Make the runs of kept models, and of no others, hold their model as an artifact.

        A run that was not uploaded yet is written anew, rows and all; one that was gets a directory with the
        artifact alone.
        """
        ranks = {trial.number: rank for rank, trial in enumerate(self.ledger.ranked(), start=1)}
        for number, trial in self.ledger.trials.items():
            mark = self.marks.read(trial_name(number))
            folder = self.ledger.folder.model(number)
            files: dict[str, bytes] = {}
            if number in ranks and trial.terminal and (folder.is_symlink() or folder.is_dir()):
                try:
                    files = read_folder(folder)
                except CorruptFile as error:
                    self.say(f"{error}: not logged")
            model = _model_facts(self.ledger, folder, files, ranks[number]) if WEIGHTS in files else None
            if mark is None or mark.get("model") == model:
                continue
            rows = not self.marks.uploaded(self.run_id(number))
            if model is None and not rows:  # what was uploaded stays there
                continue
            if rows:
                self.marks.remove(trial_name(number))
                self.marks.forget(self.run_id(number))
            run = self._start(trial)
            for epoch in sorted(trial.rows) if rows else []:
                self._log(run, trial.rows[epoch])
            if not rows and trial.rows:
                run.summary.update(_scalars(trial.rows[max(trial.rows)]))
            if model is not None:
                self._log_model(run, trial, files, model)
            self._finish(run, trial, model=model)

    def run_id(self, number: int) -> str:
        """Return the id of a trial's run."""
        return run_id(self.ledger.settings.name, self.ledger.identity, f"{number:04d}")

    def _start(self, trial: TrialView) -> wandb.Run:
        number, settings = trial.number, self.ledger.settings
        params = trial.created.params
        made = trial.created.config
        config: dict[str, Any] = {
            # Flat, for the panels that choose among top-level keys; what the config itself has by that name stays.
            **params,
            **made,
            "trial": number,
            "seed": trial.created.seed,
            "config_hash": trial.created.config_hash,
            "measure": settings.measure,
            "family": family(made),
            "sweep": settings.name,
        }
        config |= {f"params/{name}": value for name, value in params.items()}
        if settings.parent is not None:
            parent = settings.parent
            config |= {"parent_sweep": parent.name, "parent_trial": trial.created.parent_trial}
            if trial.created.parent_trial is not None:
                config["parent_run"] = run_id(parent.name, parent.identity, f"{trial.created.parent_trial:04d}")
        run = init(
            self.ledger,
            self.mode,
            self.run_id(number),
            name=f"{settings.name}/trial-{number}",
            job_type="trial" if settings.parent is None else "finalist",
            tags=tags(
                settings.space.name,
                family(made),
                _data_kind(made),
                settings.sampler.kind,
                settings.scheduler.kind,
                "" if settings.parent is None else "finalist",
            ),
            config=config,
        )
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        for metric in {metric.name: metric for metric in (settings.metric, *settings.objectives)}.values():
            best = "max" if metric.direction == "maximize" else "min"
            run.define_metric(metric.name, step_metric="epoch", summary=f"{best},last")
        return run

    def _log(self, run: wandb.Run, row: RowReported) -> None:
        import wandb  # noqa: PLC0415 - seconds, and never in the driver

        values: dict[str, Any] = {"epoch": row.epoch, **_scalars(row)}
        for name, value in row.metrics.items():
            if name.endswith(REPLICATES):
                continue  # a few seeds' values are no distribution; their mean and its error are scalars
            if isinstance(value, list) and value and all(isinstance(v, int | float) for v in value):
                values[name] = wandb.Histogram(cast("list[float]", value), num_bins=32)
        for name, relative in row.pictures.items():
            try:
                picture = inside(self.ledger.directory, relative)
            except CorruptFile as error:
                self.say(f"{error}: not logged")
                continue
            if picture.is_file():
                values[name] = wandb.Image(picture, caption=f"epoch {row.epoch}: {CAPTIONS.get(name, name)}")
            else:
                self.say(f"{picture} is missing: not logged")
        run.log(values, step=row.epoch, commit=True)

    def _log_model(self, run: wandb.Run, trial: TrialView, files: dict[str, bytes], model: dict[str, Any]) -> None:
        import wandb  # noqa: PLC0415 - seconds, and never in the driver

        best = trial.best(self.ledger.settings.metric)
        artifact = wandb.Artifact(
            model["name"],
            type="model",
            description=f"the weights of trial {trial.number} at its best epoch",
            metadata={
                "sweep": self.ledger.settings.name,
                "trial": trial.number,
                "config_hash": trial.created.config_hash,
                "measure": self.ledger.settings.measure,
                "weights_sha256": model["sha256"],
                **({} if best is None else {"epoch": best.epoch, **_scalars(best)}),
            },
        )
        # W&B copies each file: the folder may be gone by the time of the upload. What it copies is what was compared.
        with tempfile.TemporaryDirectory() as copies:
            for name, content in sorted(files.items()):
                copy = Path(copies) / name
                copy.write_bytes(content)
                artifact.add_file(str(copy), name=name)
        run.log_artifact(artifact, aliases=model["aliases"])

    def _finish(self, run: wandb.Run, trial: TrialView, *, model: dict[str, JsonValue] | None) -> None:
        best = trial.best(self.ledger.settings.metric)
        ended = None if trial.final is None else trial.final.epoch
        # For filters and for colours; a diverged trial is a FAIL of that kind.
        run.tags = tuple(tags(*(run.tags or ()), trial.status.lower(), trial.fail_kind or ""))
        _tell(run, {"status": trial.status, "fail_kind": trial.fail_kind, "ended_epoch": ended})
        run.summary.update(
            {
                "reason": trial.reason,
                "best_epoch": None if best is None else best.epoch,
                **({} if best is None else {f"best/{name}": value for name, value in _scalars(best).items()}),
            }
        )
        run.finish(exit_code=1 if trial.status == "FAIL" else 0)
        identity = self.run_id(trial.number)
        self.marks.write(
            trial_name(trial.number),
            id=identity,
            mode=self.mode,
            rows=len(trial.rows),
            directory=Path(run.dir).parent.name,
            model=model,
        )


def _tell(run: wandb.Run, facts: dict[str, Any]) -> None:
    """Into summary and config: W&B filters by either, but not every panel by both."""
    run.summary.update(facts)
    run.config.update(facts, allow_val_change=True)  # type: ignore[no-untyped-call]


def _model_facts(ledger: Ledger, folder: Path, files: dict[str, bytes], rank: int) -> dict[str, JsonValue]:
    """Return the facts of a kept model's artifact, including its path, because W&B's record names the absolute path."""
    settings = ledger.settings
    aliases = [f"rank-{rank}", *(["best"] if rank == 1 else []), *([] if settings.parent is None else ["finalist"])]
    return {
        "name": f"{settings.name}-{folder.name}",
        "sha256": hashlib.sha256(files[WEIGHTS]).hexdigest(),
        "aliases": cast("list[JsonValue]", aliases),
        "sweep_dir": str(ledger.directory),
    }


def _data_kind(config: dict[str, JsonValue]) -> str:
    data = config.get("data")
    return str(data.get("kind", "")) if isinstance(data, dict) else ""


def _scalars(row: RowReported) -> dict[str, JsonValue]:
    return {name: value for name, value in row.metrics.items() if isinstance(value, int | float)}
