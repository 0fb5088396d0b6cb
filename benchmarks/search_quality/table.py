"""Train the table once: a small VAE for every cell of the grid, its whole learning curve kept.

    python benchmarks/search_quality/table.py [--out FILE]

The bundled digits, one thread, one seed for each cell, derived from its place in the order of training. What is in the file already is
not trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from curves import DIGITS, EPOCHS, GRID, training_order, values_of

from vae.data import Digits, load_training
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam, Cosine
from vae.seeds import derive
from vae.train import train
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    from vae.data import TrainingData


def config_of(cell: int, place: int) -> TrainConfig:
    """The configuration of a cell: like the quickstart's space, with values of the grid and a seed of its own."""
    values = values_of(GRID, cell)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(values["width"],) * values["depth"]),
        latent_size=values["latent_size"],
        optimizer=Adam(lr=values["lr"]),
        schedule=Cosine(),
        initialisation=Initialisation(output_bias="data_mean"),
        batch_size=values["batch_size"],
        epochs=EPOCHS,
        eval=Evaluation(samples=8),
        seed=derive(0, "search quality", place) % 2**31,
    )


def run(cell: int, place: int, data: TrainingData) -> dict[str, Any]:
    """One cell's line: val/elbo and seconds for every epoch, up to the one in which it diverged."""
    config = config_of(cell, place)
    rows = [result.row for result in train(config, data) if result.diverged is None]
    return {
        "cell": cell,
        "seed": config.seed,
        "elbo": [round(row["val/elbo"], 2) for row in rows],
        "seconds": [round(row["time/train_seconds"] + row["time/evaluation_seconds"], 3) for row in rows],
    }


def header(data: TrainingData) -> dict[str, Any]:
    """The first line: what the numbers are numbers of."""
    assert data.validation is not None
    row = next(iter(train(config_of(0, 0), data))).row
    return {
        "grid": GRID,
        "epochs": EPOCHS,
        "metric": "val/elbo",
        "measure": row["measure"],
        "data_hash": data.data_hash,
        "split_hash": data.split_hash,
        "data": "the handwritten digits that scikit-learn ships (Alpaydin & Kaynak 1998, optdigits), 8x8, counts 0..16",
        "source": "benchmarks/search_quality/table.py",
        "torch": torch.__version__,
    }


def main() -> None:
    """Train what the file lacks, cell by cell, each line written when its run has ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=DIGITS, help="the table's file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_training(Digits(), None)
    first = json.dumps(header(data))
    if not options.out.exists():
        options.out.write_text(first + "\n", encoding="utf-8")
    head, *lines = options.out.read_text(encoding="utf-8").splitlines()
    if {**json.loads(head), "torch": ""} != {**json.loads(first), "torch": ""}:
        raise SystemExit(f"{options.out} is the table of another grid or of other data: remove it, or choose --out")
    done = {json.loads(line)["cell"] for line in lines}
    started = time.process_time()
    order = training_order()
    with options.out.open("a", encoding="utf-8") as out:
        for place, cell in enumerate(order):
            if cell not in done:
                out.write(json.dumps(run(cell, place, data), separators=(",", ":")) + "\n")
                out.flush()
                print(f"run {place + 1} of {len(order)}, {time.process_time() - started:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
