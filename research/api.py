"""The Python API. Its functions are exported by ``research``, which imports this module at their first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from research.driver.audience import Silent
from research.driver.lifecycle import reopen
from research.driver.session import run
from research.errors import UserError
from research.experiments import reproduce as again
from research.experiments.sweeps import begin, opening_lines
from research.ledger.consistency import check_record
from research.ledger.records import load_record
from research.ledger.trust import foreign
from research.models.apply import model_folder, open_alone
from research.models.evaluation import evaluate_model
from research.store.data_copy import chosen_directory, data_directory
from research.store.mirror import local, relative
from research.terminal import console
from research.text import shell
from research.views import results
from research.views.live import LiveView

if TYPE_CHECKING:
    from pathlib import Path

    from research.experiments.reproduce import Reproduction
    from research.planning.request import SweepRequest
    from research.views.results import Sweep
    from vae.model import VAE
    from vae.train_config import TrainConfig


def run_sweep(request: SweepRequest, *, quiet: bool = False) -> Sweep:
    """Run a sweep to its end, and return it as tables.

    The sweep can be followed, stopped and resumed as one that was begun on the command line. ``quiet``: print nothing.

    Raises:
        UserError: the request is refused, or the sweep cannot go on; the message is one line with the remedy.
        KeyboardInterrupt: Ctrl-C, or another signal, stopped the sweep. The message has the command that resumes it.

    """
    prepared, engine = begin(request, ["research.run_sweep"])
    screen = console(quiet=quiet)
    for line in opening_lines(prepared):
        screen.print(line, highlight=False, soft_wrap=True)
    ledger, space = reopen(prepared.directory, allow_changed_code=False)
    outcome = run(ledger, space, Silent() if quiet else LiveView(screen, ledger), engine)
    for problem in outcome.problems:
        screen.print(f"problem: {problem}", highlight=False, soft_wrap=True)
    go_on = f"continue with: {shell('research', 'resume', relative(ledger.directory))}"
    if outcome.signal is not None:
        raise KeyboardInterrupt(f"stopped; {go_on}")
    if outcome.lost is not None:
        raise UserError(f"{outcome.lost}; {go_on}")
    if outcome.failing is not None:
        raise UserError(f"{outcome.failing}: nothing more was started; {go_on}")
    return results.open_sweep(ledger.directory)


def load_model(model: str | Path, *, rank: int = 1, device: str = "cpu") -> tuple[TrainConfig, VAE]:
    """Return the config and the model at ``model``: a sweep (its best by ``rank``), ``DIR:7``, a model folder, or a record.

    Raises:
        UserError: there is no such model.
        CorruptFile: a file is not what its manifest says.

    """
    opened = open_alone(model, rank=rank, device=device)
    return opened.config, opened.model


def evaluate(
    model: str | Path,
    *,
    rank: int = 1,
    split: str = "validation",
    nll: int = 0,
    images: int = 1000,
    data: str | None = None,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    why: str = "research evaluate",
) -> dict[str, Any]:
    """Return a kept model's figures on a split, in nats per example; each look at test is written down, with ``why``.

    ``nll``: importance samples for −log p(x); 0 gives the bound only. ``images``: the number of examples for ``nll``.

    Raises:
        UserError: the model, the data and the question do not fit each other.

    """
    answer = evaluate_model(
        model_folder(model, rank),
        split=split,
        nll_k=nll,
        images=images,
        data=data,
        data_dir=chosen_directory(data_dir),
        device=device,
        why=why,
    )
    return answer.row


def reproduce(
    record: str | Path,
    *,
    rank: int = 1,
    data_dir: str | Path | None = None,
    device: str | None = None,
    stacked: bool = False,
    trust: bool = False,
) -> Reproduction:
    """Train a recorded config again with the record's seed and threads, and compare the rows.

    ``record``: a sweep (its best by ``rank``), a trial of it (``DIR:7``), a record, or a model folder. ``trust``: also run external parts that a
    record from elsewhere names, and contact the bucket that it names.

    Raises:
        UserError: the record is not one, does not fit itself, or is from elsewhere and not trusted.

    """
    path = local(record)
    kept = load_record(path, rank)
    named = chosen_directory(data_dir)
    found = None if trust else foreign(path, stacked=stacked)
    if found is not None and (would := found.would(contact=named is None)):
        raise UserError(
            f"{str(record)!r} is from no sweep or run of yours; training it would {' and '.join(would)}: pass trust=True if "
            "you trust it"
        )
    check_record(kept)
    torch.set_num_threads(kept.threads or 1)
    return again.reproduce(
        kept,
        data_dir=named or data_directory(kept.data_dir),
        device=device or kept.device or "cpu",
        stacked=stacked,
        on_row=lambda _: None,
    )
