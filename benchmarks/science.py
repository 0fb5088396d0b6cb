"""The figures to check against: trains each protocol of ``docs/protocols`` by seeds, looks at test, prints a table.

    python benchmarks/science.py --data-dir DATA

It runs the commands that ``docs/science.md`` names, one at a time on one thread: about a CPU minute for each
of 15 trainings and half as much for their evaluations. What lies in ``--out`` already is not run again. Exit
code 1 where a mean over seeds lies outside its band.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROTOCOLS = ROOT / "docs" / "protocols"

BOUND = ()
NLL = ("--nll", "500", "--images", "1000")

VAE, VAE_50000 = "vae-784-400-20-dynamic", "vae-784-400-20-dynamic-50000"
GREY, GREY_50000 = "vae-784-400-20-expected", "vae-784-400-20-expected-50000"
CVAE = "cvae-784-400-20-dynamic"

QUESTIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    GREY: (BOUND,),
    VAE: (NLL,),
    CVAE: (NLL,),
    GREY_50000: (BOUND,),
    VAE_50000: (BOUND,),
}


@dataclass(frozen=True)
class Figure:
    """One line of the table: a sum of ``terms``, each (protocol, question, metric, sign), in nats per example."""

    name: str
    terms: tuple[tuple[str, tuple[str, ...], str, int], ...]
    expected: float
    band: float


_VAE_NLL = (VAE, NLL, "test/nll_iwae", 1)
_GIVEN = (CVAE, NLL, "test/nll_iwae")
_SUMMED = (CVAE, NLL, "test/nll_iwae_marginal")

FIGURES = (
    Figure("expected, 60,000: −ELBO", ((GREY, BOUND, "test/elbo", -1),), 105.5, 0.5),
    Figure("expected, 50,000: −ELBO", ((GREY_50000, BOUND, "test/elbo", -1),), 106.3, 0.5),
    Figure("dynamic, 60,000: −ELBO", ((VAE, NLL, "test/elbo", -1),), 102.2, 0.5),
    Figure("dynamic, 50,000: −ELBO", ((VAE_50000, BOUND, "test/elbo", -1),), 102.95, 0.5),
    Figure("dynamic, 60,000: NLL500, 1,000 images", ((VAE, NLL, "test/nll_iwae", 1),), 96.2, 0.6),
    # Expected from one seed on 200 other test images: ± twice its standard error over images.
    Figure("CVAE gain, NLL500, 1,000 images", (_VAE_NLL, (*_GIVEN, -1)), 3.04, 0.52),
    Figure("  of it the label", ((*_SUMMED, 1), (*_GIVEN, -1)), 1.99, 0.52),
    Figure("  of it the model", (_VAE_NLL, (*_SUMMED, -1)), 1.05, 0.52),
)


def research(*arguments: str) -> str:
    """What ``research`` prints; its own words when it refuses."""
    command = [sys.executable, "-m", "research.cli", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def measure(protocol: str, seed: int, out: Path, data_dir: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """The test rows of one training run, by question."""
    model = out / f"{protocol}-seed{seed}"
    if not model.exists():
        where = ("--data-dir", data_dir, "--out", str(model), "--seed", str(seed))
        print(
            f"{model.name}: {research('train', str(PROTOCOLS / f'{protocol}.json'), *where).splitlines()[-1]}",
            flush=True,
        )
    rows = {}
    for question in QUESTIONS[protocol]:
        asked = ("--split", "test", "--data-dir", data_dir, *question, "--why", "docs/science.md", "--json")
        rows[question] = json.loads(research("evaluate", str(model), *asked))
        print(f"{model.name}: {figures(rows[question])}", flush=True)
    return rows


def figures(row: dict[str, Any]) -> str:
    """The numbers of a row that the table is made of."""
    names = [name for name in row if name.endswith(("/elbo", "/nll_iwae", "/nll_iwae_marginal"))]
    return "  ".join(f"{name} {row[name]:.3f}" for name in names)


def main() -> int:
    """Run what is missing, print the table, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", required=True, help="where MNIST lies, in torchvision's layout")
    parser.add_argument("--out", type=Path, default=Path("runs/science"), help="where the models go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    rows = {
        (protocol, seed): measure(protocol, seed, options.out, options.data_dir)
        for protocol in QUESTIONS
        for seed in options.seeds
    }
    print(f"\n{'figure (test, nats per example)':40} {'expected':>14}   measured over {len(options.seeds)} seeds")
    outside = 0
    for figure in FIGURES:
        values = [
            sum(sign * rows[protocol, seed][question][metric] for protocol, question, metric, sign in figure.terms)
            for seed in options.seeds
        ]
        mean = statistics.fmean(values)
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        held = abs(mean - figure.expected) <= figure.band
        outside += not held
        by_seed = " ".join(f"{value:.2f}" for value in values)
        expected = f"{figure.expected:g} ± {figure.band:g}"
        print(f"{figure.name:40} {expected:>14}   {mean:.2f} ± {spread:.2f} ({by_seed}){'' if held else '  OUTSIDE'}")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
