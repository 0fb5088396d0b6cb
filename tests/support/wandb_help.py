"""What the tests of the W&B sink share."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json

from research.store.folders import write_folder
from tests.support.synthetic import row, trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from research.ledger.log import Ledger
    from research.tracking.sink import Sink


DISTRIBUTIONS = {
    "lr": distribution_to_json(FloatDistribution(1e-6, 1.0)),
    "latent_size": distribution_to_json(IntDistribution(1, 1000)),
}


def append_trial(ledger: Ledger, number: int, epochs: int, decision: str = "complete", **changes: Any) -> None:
    """A trial with ``epochs`` rows that ends in ``decision``; one that goes on where it is ``continue``."""
    ledger.append(trial(number))
    for epoch in range(epochs):
        last = epoch == epochs - 1
        ledger.append(row(number, epoch, -10.0 / (3 + epoch), decision if last else "continue", **changes))


def append_drawn(ledger: Ledger, number: int, elbo: float, decision: str = "complete") -> None:
    """A trial of two epochs whose parameters have distributions."""
    ledger.append(trial(number, distributions=DISTRIBUTIONS))
    ledger.append(row(number, 1, elbo - 1.0))
    ledger.append(row(number, 2, elbo, decision))


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Until ``condition`` holds; the test fails when it does not come to that."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(parent: int) -> list[int]:
    """The process ids of its children."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def child_of(sink: Sink) -> int:
    """The sink's process id."""
    assert sink._process is not None
    return sink._process.pid


def cores_of(sink: Sink) -> list[int]:
    """The process ids of W&B's servers that the sink has running."""
    found = []
    for pid in children_of(child_of(sink)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "wandb-core" in Path(f"/proc/{pid}/cmdline").read_text() and alive(pid):
                found.append(pid)
    return found


def keep_model(ledger: Ledger, number: int) -> Path:
    """A model folder as ``keep_best`` leaves it, as far as W&B looks at it."""
    folder = ledger.directory / "models" / f"trial-{number:04d}"
    write_folder(folder, {"config.json": b"{}\n", "model.safetensors": b"weights of %d" % number})
    return folder
