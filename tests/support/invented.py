"""Sweeps that never ran, for the report: trials whose parameters Optuna can read, of every fate."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json

from research.ledger.settings import Metric
from tests.support.synthetic import failed, new_ledger, row, trial

if TYPE_CHECKING:
    from pathlib import Path

    from research.ledger.log import Ledger

DISTRIBUTIONS = {
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "latent_size": IntDistribution(2, 32, log=True),
    "activation": CategoricalDistribution(["relu", "tanh"]),
    "beta": FloatDistribution(0.1, 10.0),
}
TWO = (Metric(name="val/reconstruction", direction="minimize"), Metric(name="val/kl", direction="minimize"))


def drawn(number: int, *, epochs: int = 9, conditional: bool = False) -> Any:
    """A trial as sampled; with ``conditional`` every second one has a ``beta``, which the others have not."""
    params: dict[str, Any] = {
        "lr": 1e-3 * (1 + number % 5) / 3,
        "latent_size": 2 + (number * 7) % 30,
        "activation": ["relu", "tanh"][number % 2],
    }
    if conditional and number % 2:
        params["beta"] = 0.3 + number / 7
    told = {name: distribution_to_json(DISTRIBUTIONS[name]) for name in params}
    plain = trial(number)
    return trial(number, params=params, distributions=told, config=plain.config | {"epochs": epochs})


def values(number: int, epoch: int, **more: Any) -> dict[str, Any]:
    """A row's metrics with no round figure among them."""
    kl = 5.0 + (number * 2.7) % 11 + epoch / 9
    reconstruction = 95.0 + 140.0 / (epoch + 0.3) + (number * 13.1) % 7 - 1.4 * kl
    return {
        "epoch": epoch,
        "val/elbo": -(reconstruction + kl),
        "val/reconstruction": reconstruction,
        "val/kl": kl,
        "val/active_units": 3 + number % 4,
        "val/kl_per_dimension": [kl / 3, kl * 2 / 3],
        "val/collapsed": False,
        "time/train_seconds": 1.1 + number / 7,
        "time/evaluation_seconds": 1 / 3,
        "measure": "counts-16|8x8|data=feed|split=beef",
    } | more


def run(
    ledger: Ledger, number: int, *, last: int, decision: str = "continue", without: tuple[str, ...] = (), **draw: Any
) -> None:
    """Draw a trial and give it rows up to ``last``; metrics whose names begin with ``without`` are left out."""
    ledger.append(drawn(number, **draw))
    for epoch in range(1, last + 1):
        metrics = {
            name: value for name, value in values(number, epoch).items() if not name.startswith(without or ("?",))
        }
        reason = f"not in the best 1/3 of 5 at epoch {epoch}" if decision == "pruned" and epoch == last else None
        ledger.append(
            row(number, epoch, None, decision if epoch == last else "continue", metrics=metrics, reason=reason)
        )


def last_row(number: int, metrics: dict[str, Any]) -> Any:
    """The row that completes a trial, with these metrics."""
    return row(number, metrics["epoch"], None, "complete", metrics=metrics)


def whole(directory: Path, *, conditional: bool = False, **changes: Any) -> Ledger:
    """A sweep of every fate: complete, stopped early, failed in two ways, skipped, still running."""
    ledger = new_ledger(directory, trials=16, epochs=9, **changes)
    for number in range(7):
        run(ledger, number, last=9, decision="complete", conditional=conditional)
    for number in range(7, 11):
        run(ledger, number, last=1 if number % 2 else 3, decision="pruned", conditional=conditional)
    run(ledger, 11, last=2, decision="fail", conditional=conditional)
    ledger.append(drawn(12, conditional=conditional))
    ledger.append(failed(12, "out_of_memory", "OutOfMemoryError: <8 GiB> & no more"))
    ledger.append(drawn(13, conditional=conditional))
    ledger.append(failed(13, "impossible", "depth 3 needs width above 16"))
    run(ledger, 14, last=2, conditional=conditional)
    return ledger


def hostile(directory: Path, text: str, *, trials: int = 6) -> Ledger:
    """A sweep whose parameter's name, choices, reasons and measure hold ``text``: what a stranger may have written."""
    choices = CategoricalDistribution([text, "plain"])
    ledger = new_ledger(directory, trials=trials + 1, epochs=3, measure=f"counts {text}")
    for number in range(trials):
        drew = drawn(number, epochs=3)
        ledger.append(
            dataclasses.replace(
                drew,
                params={**drew.params, text: choices.choices[number % 2]},
                distributions={**drew.distributions, text: distribution_to_json(choices)},
            )
        )
        for epoch in (1, 2, 3):
            metrics = {**values(number, epoch), "measure": f"counts {text}"}
            ledger.append(row(number, epoch, None, "complete" if epoch == 3 else "continue", metrics=metrics))
    ledger.append(drawn(trials, epochs=3))
    ledger.append(failed(trials, "bug", f"ValueError: {text}"))
    return ledger


def models(ledger: Ledger, *names: str) -> None:
    """Folders with pictures for the best trials, as if their models had been kept."""
    for view in ledger.ranked()[: ledger.settings.keep]:
        folder = ledger.directory / "models" / f"trial-{view.number:04d}"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(PNG)


def _png() -> bytes:
    """A grey pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


PNG = _png()
