"""The names and paths in a sweep's directory.

The command line needs these names before anything else, so this module imports the standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

LOCK = "lock"  # in a directory, the file that its driver locks; in an object store, the lease
LOOKS = "looks"  # evaluations on the test split: in a sweep, and in a model folder that is in no sweep

# The files of a model folder. The first three have the same names in vae.
MANIFEST = "manifest.json"  # of any folder that is written whole: the sha256 of its files
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
METRICS = "metrics.json"  # the row that the weights are of
RECORD = "record.json"  # all that is needed to train the model again
CARD = "README.md"

_EVENT = re.compile(r"ledger/\d{8}\.json")
_KEPT = re.compile(r"models/[^/]+/.+|looks/[^/]+\.json|code-\d+\.diff|test\.json")
_TRIAL = re.compile(r"trial-(\d{4,15})")


@dataclass(frozen=True)
class SweepFolder:
    """Every path in a sweep's directory. Nothing is read or written here.

    The paths of ``NAMES`` are relative to the directory. These are the names that a ledger and an object store use.
    """

    path: Path

    @property
    def is_sweep(self) -> bool:
        """True if there is a ledger."""
        return self.ledger.is_dir()

    @property
    def ledger(self) -> Path:
        """The folder of events."""
        return self.path / "ledger"

    def event(self, sequence: int) -> Path:
        """Return the file of an event. Event 0 is what makes a directory a sweep's."""
        return self.ledger / f"{sequence:08d}.json"

    def events(self) -> list[Path]:
        """Return the files of all events that are there, in order."""
        return sorted(self.ledger.glob("????????.json"))

    @property
    def latest_event(self) -> Path:
        """The mark that tells how long the ledger is; see ``research.ledger.tail``."""
        return self.path / "latest-event.json"

    @property
    def lock(self) -> Path:
        """The file that the sweep's driver locks."""
        return self.path / LOCK

    @property
    def space(self) -> Path:
        """The sweep's copy of its space's source."""
        return self.path / "space.py"

    def code_diff(self, session: int) -> Path:
        """Return the file of the changes that were not committed when a session began."""
        return self.path / f"code-{session}.diff"

    @property
    def study(self) -> Path:
        """The Optuna study as a file."""
        return self.path / "study.journal"

    @property
    def report(self) -> Path:
        """The HTML report, where no other file is named."""
        return self.path / "report.html"

    @property
    def ray(self) -> Path:
        """The scratch folder of a session. It is never read. It is there during a session, or after a killed one."""
        return self.path / "ray"

    def stop_request(self, session: int) -> Path:
        """Return the file that asks a session's workers to pause."""
        return self.ray / f"stop-{session}"

    @property
    def trials(self) -> Path:
        """The folder of the checkpoints of trials that have not ended."""
        return self.path / "trials"

    def trial(self, number: int) -> Path:
        """Return the folder of a trial's checkpoints."""
        return self.trials / trial_name(number)

    def checkpoint(self, number: int, epoch: int, attempt: int) -> Path:
        """Return the folder of a trial's state after an epoch, as an attempt at the trial has saved it."""
        return self.trial(number) / f"epoch-{epoch:04d}-{attempt}"

    def paused(self, number: int) -> Path:
        """Return the folder of the state of a trial that has paused between two steps."""
        return self.trial(number) / "paused"

    @property
    def models(self) -> Path:
        """The folder of the kept models."""
        return self.path / "models"

    def model(self, number: int) -> Path:
        """Return the folder of a trial's kept model."""
        return self.models / trial_name(number)

    @property
    def aside(self) -> Path:
        """The folder of models that were found in ``models`` and are of no trial in the ledger."""
        return self.path / "aside"

    @property
    def pictures(self) -> Path:
        """The folder of the pictures that workers draw."""
        return self.path / "pictures"

    def picture(self, number: int, epoch: int, name: str) -> Path:
        """Return the file of a picture that was drawn of a trial after an epoch."""
        return self.pictures / f"{trial_name(number)}-epoch-{epoch:04d}-{name}.png"

    @property
    def looks(self) -> Path:
        """The folder of evaluations on the test split, one file each."""
        return self.path / LOOKS

    @property
    def test_summary(self) -> Path:
        """The finalists' figures on the test split."""
        return self.path / "test.json"

    @property
    def finalists(self) -> SweepFolder:
        """The sweep of this sweep's best configurations with fresh seeds."""
        return SweepFolder(self.path / "finalists")

    @property
    def wandb(self) -> Path:
        """The folder of W&B's files."""
        return self.path / "wandb"

    @property
    def wandb_log(self) -> Path:
        """The log of the process that feeds W&B."""
        return self.wandb / "sink.log"

    @property
    def wandb_finished(self) -> Path:
        """The folder of marks, one for each run that was logged whole."""
        return self.wandb / "finished"

    def wandb_mark(self, name: str) -> Path:
        """Return the mark of a run, which has a trial's name."""
        return self.wandb_finished / f"{name}.json"

    @property
    def wandb_uploaded(self) -> Path:
        """The folder of marks, one for each directory of a run that was uploaded."""
        return self.wandb / "uploaded"


NAMES = SweepFolder(Path())  # relative to a sweep's directory


def sweep_around(model: Path) -> SweepFolder | None:
    """Return the sweep whose kept model the folder ``model`` is by its place; None if it is in no sweep's ``models``."""
    sweep = SweepFolder(model.parent.parent)
    return sweep if model.parent == sweep.models and sweep.is_sweep else None


def is_event(name: str) -> bool:
    """Return True if ``name``, relative to a sweep's directory, is an event's."""
    return _EVENT.fullmatch(name) is not None


def is_kept(name: str) -> bool:
    """Return True for a file that a mirror has beside the events: of a model, a look, a diff, the finalists' summary."""
    return _KEPT.fullmatch(name) is not None


def trial_name(number: int) -> str:
    """Return the name of a trial's folders and files."""
    return f"trial-{number:04d}"


def trial_number(name: str) -> int | None:
    """Return the trial's number from the name of its folder; None if it is no such name."""
    match = _TRIAL.fullmatch(name)
    return None if match is None else int(match[1])


def epoch_folder(checkpoint: str, replicates: int) -> str:
    """Return the folder with everything that an epoch left, from the checkpoint that its row names."""
    return checkpoint if replicates == 1 else str(PurePosixPath(checkpoint).parent)


def replicate_folder(folder: str, index: int, replicates: int) -> str:
    """Return the folder of one replicate's state inside an epoch's folder; for a single run, the epoch's folder itself."""
    return folder if replicates == 1 else f"{folder}/replicate-{index}"
