"""The importance-weighted -log p(x) at k = 5000 beside pythae's ``get_nll``: CPU seconds an image, one thread.

Both get the same weights and the same binary images, each in a process of its own (benchmarks/loops/), one
block in turn. The two estimates have to agree: they are of the same number. The decoder's matrix products alone tell
how far this machine lets anybody go.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from training_loop import BUSY, PEERS_PYTHON, Loop, Worker, load_images, machine, ratio

OURS = Loop("ours", "nll_ours.py", "importance_weighted_nll")
PYTHAE = Loop("pythae", "nll_pythae.py", "VAE.get_nll", PEERS_PYTHON)
PRODUCTS = Loop("products", "nll_products.py", "the decoder's matrix products alone")
LOOPS = (PYTHAE, OURS, PRODUCTS)
AGREE = 0.2  # nats: many standard errors of two estimates with k = 5000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=["M1", "M2"], default=["M1", "M2"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--data-dir", type=Path, help="where MNIST is; default $RESEARCH_DATA_DIR")
    parser.add_argument("--quick", action="store_true", help="does it work? The figures mean nothing")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.images = 1, 2
    if not PEERS_PYTHON.exists():
        sys.exit(f"{PEERS_PYTHON} is missing: `make bench` makes the peers' environment and runs this")
    images, which = load_images(arguments.data_dir)
    binary = np.where(images[: arguments.images] > 127, 255, 0).astype(np.uint8)
    print(f"# -log p(x), k = 5000, {len(binary)} images a round, 1 thread\n\n{machine()}\nData: {which}\n")
    print("| model | pythae, CPU s an image | ours | pythae / ours | pythae / the products alone | estimates |")
    print("|---|---|---|---|---|---|")
    others = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, binary)
        for name in arguments.models:
            workers = [Worker(loop, {"model": name, "images": str(path), "threads": 1}) for loop in LOOPS]
            try:
                for worker in workers:
                    worker.answer()
                    worker.block()
                cpu: dict[str, list[float]] = {loop.title: [] for loop in LOOPS}
                nll = {}
                for number in range(arguments.rounds):
                    for worker in workers if number % 2 else workers[::-1]:
                        result = worker.block()
                        cpu[worker.loop.title].append(result["cpu"] / len(binary))
                        nll[worker.loop.title] = result.get("nll")
                        others.append(result["others"])
            finally:
                for worker in workers:
                    worker.close()
            if abs(nll[PYTHAE.title] - nll[OURS.title]) > AGREE:
                sys.exit(f"{name}: the estimates differ: {nll}: not the same work")
            theirs = cpu[PYTHAE.title]
            print(
                f"| {name} | {median(theirs):.3f} | {median(cpu[OURS.title]):.4f} | "
                f"{ratio(theirs, cpu[OURS.title])} | {ratio(theirs, cpu[PRODUCTS.title])} | {nll[PYTHAE.title]:.2f}, {nll[OURS.title]:.2f} |",
                flush=True,
            )
    busy = max(0.0, median(others))
    print(f"\nOther processes used {busy:.2f} cores: {'quiet enough' if busy <= BUSY else 'a busy machine'}.")


if __name__ == "__main__":
    main()
