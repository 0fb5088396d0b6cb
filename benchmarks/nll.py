"""The importance-weighted -log p(x) at k = 5000 beside pythae's ``get_nll``: CPU seconds an image, one thread.

Both get the same weights and the same binary images, each in a process of its own (benchmarks/loops/), one
block in turn. The two estimates have to agree: they are of the same number. The decoder's matrix products alone tell
how far this machine lets anybody go who leaves none of them out. Models as they start and as they are after some epochs: ours
leaves out what a trained one's units don't ask for (vae/fast/many_samples.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import torch
from training_loop import BUSY, MODELS, PEERS_PYTHON, Loop, Worker, load_images, machine, ratio

OURS = Loop("ours", "nll_ours.py", "importance_weighted_nll")
PYTHAE = Loop("pythae", "nll_pythae.py", "VAE.get_nll", PEERS_PYTHON)
PRODUCTS = Loop("products", "nll_products.py", "the decoder's matrix products alone")
LOOPS = (PYTHAE, OURS, PRODUCTS)

import handwritten  # noqa: E402 - in the loops' own folder, which training_loop has put on the path

# Nats that the estimates may differ by, many standard errors: of models as they start, and of trained ones, whose estimates from
# 20 images have a standard deviation of 0.2 over seeds.
AGREE, TRAINED_AGREE = 0.2, 1.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=["M1", "M2"], default=["M1", "M2"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 3], help="of MNIST, before the estimate")
    parser.add_argument("--data-dir", type=Path, help="where MNIST is; default $RESEARCH_DATA_DIR")
    parser.add_argument("--quick", action="store_true", help="does it work? The figures mean nothing")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.images, arguments.epochs = 1, 2, [0]
    if not PEERS_PYTHON.exists():
        sys.exit(f"{PEERS_PYTHON} is missing: `make bench` makes the peers' environment and runs this")
    images, which = load_images(arguments.data_dir)
    torch.set_num_threads(1)
    binary = np.where(images > 127, 255, 0).astype(np.uint8)
    print(f"# -log p(x), k = 5000, {arguments.images} images a round, 1 thread\n\n{machine()}\nData: {which}\n")
    print(
        "| model | epochs | pythae, CPU s an image | ours | pythae / ours | pythae / the decoder's products alone | estimates |"
    )
    print("|---|---|---|---|---|---|---|")
    others = []
    with tempfile.TemporaryDirectory() as folder:
        path, weights = Path(folder) / "images.npy", Path(folder) / "weights.pt"
        np.save(path, binary[: arguments.images])
        for name, epochs in product(arguments.models, arguments.epochs):
            torch.manual_seed(0)
            network, epoch = handwritten.training(MODELS[name], torch.from_numpy(binary))
            for _ in range(epochs):
                epoch()
            torch.save(network.state_dict(), weights)
            setup: dict[str, object] = {"model": name, "images": str(path), "threads": 1, "weights": str(weights)}
            workers = [Worker(loop, setup) for loop in LOOPS]
            try:
                for worker in workers:
                    worker.answer()
                    worker.block()
                cpu: dict[str, list[float]] = {loop.title: [] for loop in LOOPS}
                nll = {}
                for number in range(arguments.rounds):
                    for worker in workers if number % 2 else workers[::-1]:
                        result = worker.block()
                        cpu[worker.loop.title].append(result["cpu"] / arguments.images)
                        nll[worker.loop.title] = result.get("nll")
                        others.append(result["others"])
            finally:
                for worker in workers:
                    worker.close()
            if abs(nll[PYTHAE.title] - nll[OURS.title]) > (TRAINED_AGREE if epochs else AGREE):
                sys.exit(f"{name}: the estimates differ: {nll}: not the same work")
            theirs = cpu[PYTHAE.title]
            print(
                f"| {name} | {epochs} | {median(theirs):.3f} | {median(cpu[OURS.title]):.4f} | "
                f"{ratio(theirs, cpu[OURS.title])} | {ratio(theirs, cpu[PRODUCTS.title])} | {nll[PYTHAE.title]:.2f}, {nll[OURS.title]:.2f} |",
                flush=True,
            )
    busy = max(0.0, median(others))
    print(f"\nOther processes used {busy:.2f} cores: {'quiet enough' if busy <= BUSY else 'a busy machine'}.")


if __name__ == "__main__":
    main()
