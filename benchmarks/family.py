"""What the members of the family do on real data: trains, evaluates, prints one Markdown table a question.

    python benchmarks/family.py QUESTION --data-dir DATA [--out runs/family]

Questions: ``beta`` (β against rate and distortion), ``iwae`` (IWAE-5 beside the VAE, at equal epochs and at equal
seconds), ``cvae`` (what the label gives, p(x) with it summed out), ``tradeoff`` (CVAE: samples as asked against the
bound), ``denoise`` (denoising autoencoder, autoencoder, median filter), ``anomaly`` (tabular sets), ``labels`` (few
labels: probes on codes, pixels and PCA). One thread each. Models go to ``--out``; what lies there is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from research.experiments.single import train_once
from vae.classifier import accuracy, classifier_of, grey, samples_as_asked
from vae.conditioning import OnLabel
from vae.corruption import SaltAndPepper
from vae.data import Mnist, load_test, load_training
from vae.data.pixels import pixels_of
from vae.evaluate import ImportanceWeighted, denoise_error, importance_weighted_nll
from vae.likelihoods import Bernoulli, Gaussian
from vae.networks import Mlp
from vae.objectives import Elbo, Iwae, Reconstruction
from vae.optimizers import Adam
from vae.portable import load_model
from vae.posteriors import Deterministic
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vae.model import VAE

SEEDS = (0, 1, 2)
DYNAMIC = Mnist(binarisation="dynamic")
FIRST = Evaluation(subset="first")  # the figures of docs/family.md are of the first 1,000 images; MNIST is in no order
WIDE = TrainConfig(
    data=DYNAMIC,
    likelihood=Bernoulli(),
    network=Mlp(hidden=(400,)),
    latent_size=20,
    optimizer=Adam(lr=1e-3),
    eval=FIRST,
)
TANH = TrainConfig(
    data=DYNAMIC,
    likelihood=Bernoulli(),
    network=Mlp(hidden=(200, 200), activation="tanh"),
    latent_size=50,
    optimizer=Adam(lr=1e-3, eps=1e-4),
    initialisation=Initialisation(weights="xavier_uniform", output_bias="data_mean"),
    batch_size=100,
    eval=FIRST,
)


class Bench:
    """Where data and models are, and how one is trained or found."""

    def __init__(self, data_dir: Path, out: Path) -> None:
        self.data_dir = data_dir
        self.out = out

    def model(self, name: str, config: TrainConfig) -> tuple[VAE, list[dict[str, Any]]]:
        """The kept model of ``config`` and its rows."""
        folder = self.out / name
        if not folder.exists():
            options = {"data_dir": self.data_dir, "threads": 1, "device": "cpu"}
            train_once(config, source="benchmarks/family.py", out=folder, on_row=lambda _: None, **options)
            print(f"trained {name}", file=sys.stderr, flush=True)
        kept, model = load_model(folder)
        if dataclasses.replace(kept) != config:
            raise SystemExit(f"{folder} holds another config: remove it, or choose another --out")
        return model, json.loads((folder / "record.json").read_text(encoding="utf-8"))["rows"]

    def best(self, name: str, config: TrainConfig, metric: str = "val/elbo") -> dict[str, Any]:
        """The row of the kept weights."""
        _, rows = self.model(name, config)
        return max(rows, key=lambda row: row[metric] if metric == "val/elbo" else -row[metric])


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
    print(flush=True)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation."""
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def beta(bench: Bench) -> None:
    """KL falls and reconstruction rises with β; the best ELBO at β = 1 is near β = 1."""
    rows = []
    for value in (0.25, 0.5, 1.0, 2.0, 4.0):
        found = [
            bench.best(
                f"beta-{value}-seed{seed}", dataclasses.replace(WIDE, objective=Elbo(beta=value), epochs=10, seed=seed)
            )
            for seed in SEEDS
        ]
        rows.append(
            [f"{value:g}"]
            + [spread([row[f"val/{name}"] for row in found]) for name in ("kl", "reconstruction", "elbo")]
            + [spread([float(row["val/active_units"]) for row in found], 1)]
        )
    table(["β", "val/kl", "val/reconstruction", "val/elbo", "active units"], rows)


def _nll(bench: Bench, name: str, config: TrainConfig, k: int = 500, images: int = 1000) -> ImportanceWeighted:
    model, _ = bench.model(name, config)
    data = load_training(config.data, bench.data_dir)
    assert data.validation is not None
    pixels = pixels_of(data.validation, config, data.levels, torch.device("cpu"), held_out=True)
    return importance_weighted_nll(model, pixels, k=k, images=images, seed=0, split="validation")


def iwae(bench: Bench) -> None:
    """NLL500 on the first 1,000 validation images, at equal epochs and at equal seconds of training."""
    rows = []
    for seed in (0, 1):
        configs = {
            "VAE, 10 epochs": (f"vae-tanh-seed{seed}", dataclasses.replace(TANH, epochs=10, seed=seed)),
            "IWAE-5, 10 epochs": (
                f"iwae5-tanh-seed{seed}",
                dataclasses.replace(TANH, objective=Iwae(k=5), epochs=10, seed=seed),
            ),
        }
        seconds = {}
        for label, (name, config) in configs.items():
            _, trained = bench.model(name, config)
            seconds[label] = sum(row["time/train_seconds"] for row in trained)
        ratio = seconds["IWAE-5, 10 epochs"] / seconds["VAE, 10 epochs"]
        epochs = max(10, round(10 * ratio))
        label = "VAE, as many seconds as IWAE-5"
        configs[label] = (f"vae-tanh-{epochs}-seed{seed}", dataclasses.replace(TANH, epochs=epochs, seed=seed))
        for name, (folder, config) in configs.items():
            _, trained = bench.model(folder, config)
            estimate = _nll(bench, folder, config)
            best = max(trained, key=lambda row: row["val/elbo"])
            rows.append(
                [
                    name,
                    seed,
                    config.epochs,
                    f"{sum(row['time/train_seconds'] for row in trained):.0f}",
                    -best["val/elbo"],
                    f"{estimate.nll:.2f} ± {estimate.standard_error:.2f}",
                ]
            )
    table(["model", "seed", "epochs", "training seconds", "−ELBO", "NLL500"], rows)


def cvae(bench: Bench) -> None:
    """The same network with and without the label: −ELBO, NLL500 of p(x|y), and of p(x) with the label summed out."""
    rows = []
    for seed in SEEDS:
        for label, config in (("VAE", WIDE), ("CVAE", dataclasses.replace(WIDE, conditioning=OnLabel()))):
            chosen = dataclasses.replace(config, epochs=10, seed=seed)
            name = f"{label.lower()}-wide-seed{seed}"
            best = bench.best(name, chosen)
            model, _ = bench.model(name, chosen)
            data = load_training(chosen.data, bench.data_dir)
            assert data.validation is not None
            pixels = pixels_of(data.validation, chosen, data.levels, torch.device("cpu"), held_out=True)
            asked: dict[str, Any] = {"k": 500, "images": 1000, "seed": 0, "split": "validation"}
            given = importance_weighted_nll(model, pixels, **asked).nll
            summed = importance_weighted_nll(model, pixels, **asked, marginal=True).nll if model.labelled else given
            rows.append([label, seed, -best["val/elbo"], given if model.labelled else "", summed])
    table(["model", "seed", "−ELBO", "NLL500 of p(x given y)", "NLL500 of p(x)"], rows)


def tradeoff(bench: Bench) -> None:
    """CVAE, label at every layer, two hidden layers: latent size and β against samples as asked and the bound."""
    from sklearn.linear_model import LogisticRegression

    data = load_training(DYNAMIC, bench.data_dir)
    classifier = classifier_of(data, DYNAMIC, 0, torch.device("cpu"))
    right = accuracy(classifier, grey(data, DYNAMIC, "validation", 0))
    print(f"classifier: {100 * right:.2f} % of the validation images\n")
    rows = []
    for latent_size, weight in (
        (2, 1.0),
        (4, 1.0),
        (5, 1.0),
        (8, 1.0),
        (20, 1.0),
        (5, 0.5),
        (5, 2.0),
        (8, 2.0),
        (20, 4.0),
    ):
        config = dataclasses.replace(
            WIDE,
            network=Mlp(hidden=(400, 400)),
            latent_size=latent_size,
            conditioning=OnLabel(at="every_layer"),
            objective=Elbo(beta=weight),
            initialisation=Initialisation(output_bias="data_mean"),
            epochs=10,
        )
        name = f"tradeoff-{latent_size}-{weight:g}"
        best = bench.best(name, config)
        model, _ = bench.model(name, config)
        asked = samples_as_asked(model, classifier, count=10_000, seed=0)
        codes, labels, swapped = _codes_and_swaps(model, classifier, config, bench.data_dir)
        half = len(codes) // 2
        probe = LogisticRegression(max_iter=2000).fit(codes[:half], labels[:half])
        rows.append(
            [
                latent_size,
                f"{weight:g}",
                -best["val/elbo"],
                best["val/kl"],
                f"{100 * asked:.1f} %",
                f"{100 * swapped:.1f} %",
                f"{100 * probe.score(codes[half:], labels[half:]):.1f} %",
            ]
        )
    header = ["latents", "β", "−ELBO", "KL", "samples as asked", "label swap as asked", "linear probe of y from z"]
    table(header, rows)


@torch.no_grad()
def _codes_and_swaps(
    model: VAE, classifier: torch.nn.Module, config: TrainConfig, data_dir: Path
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float]:
    """Codes and labels of the validation images; how often a code decoded with the next label is classified as that."""
    data = load_training(config.data, data_dir)
    assert data.validation is not None
    pixels = pixels_of(data.validation, config, data.levels, torch.device("cpu"), held_out=True)
    codes, right = [], 0
    for start in range(0, len(pixels), 1000):
        rows = slice(start, min(start + 1000, len(pixels)))
        x, labels = pixels.batch(rows), pixels.labels[rows]
        z = model.encode(x, model.condition(x, labels)).mean
        other = (labels + 1) % model.num_classes
        right += int((classifier(model.reconstruct(z, model.condition(x, other))).argmax(1) == other).sum())
        codes.append(z)
    return torch.cat(codes).numpy(), pixels.labels.numpy(), right / len(pixels)


def denoise(bench: Bench) -> None:
    """Squared error per image on 25 % salt-and-pepper, validation images: what each makes of the same noisy ones."""
    from scipy.ndimage import median_filter

    noise = SaltAndPepper(fraction=0.25)
    data = load_training(Mnist(binarisation="none"), bench.data_dir)
    assert data.validation is not None
    rows = []
    base = TrainConfig(
        data=Mnist(binarisation="expected"),
        likelihood=Bernoulli(),
        network=Mlp(hidden=(400,)),
        posterior=Deterministic(),
        objective=Reconstruction(),
        epochs=10,
    )
    pixels = pixels_of(data.validation, base, data.levels, torch.device("cpu"), held_out=True)
    for latent_size in (20, 64):
        for label, corruption in (("AE", base.corruption), ("DAE", noise)):
            config = dataclasses.replace(base, latent_size=latent_size, corruption=corruption)
            model, _ = bench.model(f"{label.lower()}-{latent_size}", config)
            error = denoise_error(model, pixels, Evaluation(), noise, split="validation")
            rows.append([f"{label}, {latent_size} latents, 10 epochs", error])
    from vae import seeds

    x = pixels.batch(slice(0, len(pixels)))
    generator = seeds.generator(0, "corruption", "validation")
    noisy = torch.cat([noise.apply(block, generator) for block in x.split(1000)])
    rows.append(["the noisy image itself", float((noisy - x).square().sum(1).mean())])
    filtered = median_filter(noisy.unflatten(1, (28, 28)).numpy(), size=(1, 3, 3))
    rows.append(["3×3 median filter", float(np.square(filtered.reshape(len(x), -1) - x.numpy()).sum(1).mean())])
    table(["", "squared error"], sorted(rows, key=lambda row: -float(row[1])))


SETS = (
    "18_Ionosphere",
    "23_mammography",
    "24_mnist",
    "31_satimage-2",
    "32_shuttle",
    "38_thyroid",
    "40_vowels",
    "6_cardio",
)
LARGEST = 20_000  # training examples; larger sets are cut, by the seed, and the table says so


def anomaly(bench: Bench) -> None:
    """AUROC on tabular sets, trained on normal examples alone: half of them; the rest and all anomalies are the test."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.metrics import roc_auc_score

    from vae.data import Arrays

    rows = []
    for name in SETS:
        scores: dict[str, list[float]] = {"VAE": [], "AE": [], "PCA": [], "IsolationForest": []}
        dimensions = 0
        for seed in range(5):
            data_config = Arrays(
                path=f"adbench/{name}.npz",
                values="X",
                labels="y",
                scaling="standardise",
                test_fraction=0.5,
                train_label=0,
                split_seed=seed,
            )
            training, test = load_training(data_config, bench.data_dir), load_test(data_config, bench.data_dir)
            train_rows = training.train.rows(torch.arange(len(training.train))).flatten(1).float().numpy()
            test_rows = test.rows(torch.arange(len(test))).flatten(1).float().numpy()
            train_rows = train_rows[:LARGEST]
            dimensions = train_rows.shape[1]
            y = test.labels.numpy() > 0
            latent = max(2, min(10, dimensions // 3))
            config = TrainConfig(
                data=data_config,
                likelihood=Gaussian(),
                network=Mlp(hidden=(64, 32)),
                latent_size=latent,
                epochs=max(20, math.ceil(40_000 / len(training.train))) if len(training.train) < LARGEST else 5,
                seed=seed,
            )
            point = dataclasses.replace(config, posterior=Deterministic(), objective=Reconstruction())
            for label, chosen in (("VAE", config), ("AE", point)):
                model, _ = bench.model(f"anomaly-{name}-{label}-{seed}", chosen)
                scores[label].append(100 * float(roc_auc_score(y, _anomaly_scores(model, test_rows))))
            pca = PCA(latent, random_state=seed).fit(train_rows)
            error = np.square(test_rows - pca.inverse_transform(pca.transform(test_rows))).sum(1)
            scores["PCA"].append(100 * float(roc_auc_score(y, error)))
            forest = IsolationForest(random_state=seed).fit(train_rows)
            scores["IsolationForest"].append(100 * float(roc_auc_score(y, -forest.score_samples(test_rows))))
        rows.append([name, dimensions, *(spread(values, 1) for values in scores.values())])
    table(["set", "dimensions", "VAE", "AE", "PCA", "IsolationForest"], rows)


@torch.no_grad()
def _anomaly_scores(model: VAE, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """−ELBO at the posterior mean for a VAE, −log p(x|z) for an AE; larger is stranger."""
    x = torch.from_numpy(rows)
    posterior = model.encode(x, None)
    score = model.nll(posterior.mean.unsqueeze(0), None, x)[0]
    if model.has_density:
        z = posterior.mean.unsqueeze(0)
        score = score + model.prior.kl(posterior, z, None, model.encode_alone).sum(1)
    return score.numpy()


def labels(bench: Bench) -> None:
    """Accuracy on 10,000 test images of probes that saw few labels: on the VAE's code, raw pixels, PCA; and in 2-D."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    data = load_training(DYNAMIC, bench.data_dir)
    assert data.validation is not None
    x = data.train.images[:20_000].flatten(1).float() / 255
    y = data.train.labels[:20_000].numpy()
    test_x = data.validation.images.flatten(1).float() / 255
    test_y = data.validation.labels.numpy()
    wide, _ = bench.model("vae-wide-seed0", dataclasses.replace(WIDE, epochs=10))
    plane, _ = bench.model("vae-plane", dataclasses.replace(WIDE, latent_size=2, epochs=10))

    @torch.no_grad()
    def code(model: VAE, images: torch.Tensor) -> np.ndarray[Any, Any]:
        return model.encode(images, None).mean.numpy()

    pca = PCA(20, random_state=0).fit(x.numpy())
    views = {
        "VAE code, 20 latents": (code(wide, x), code(wide, test_x)),
        "PCA, 20": (pca.transform(x.numpy()), pca.transform(test_x.numpy())),
        "raw pixels": (x.numpy(), test_x.numpy()),
    }
    rows = []
    for count in (10, 100, 1000):
        for name, (train, test) in views.items():
            linear, nearest = [], []
            for seed in range(5):
                chosen = _balanced(y, count, seed)
                linear.append(100 * LogisticRegression(max_iter=1000).fit(train[chosen], y[chosen]).score(test, test_y))
                neighbours = KNeighborsClassifier(1 if count == 10 else 5).fit(train[chosen], y[chosen])
                nearest.append(100 * neighbours.score(test, test_y))
            rows.append([count, name, spread(linear, 1), spread(nearest, 1)])
    table(["labels", "on", "linear probe, %", "k-NN, %"], rows)
    for name, (train, test) in {
        "VAE, 2 latents": (code(plane, x), code(plane, test_x)),
        "PCA, 2": (pca.transform(x.numpy())[:, :2], pca.transform(test_x.numpy())[:, :2]),
    }.items():
        score = KNeighborsClassifier(5).fit(train, y).score(test, test_y)
        print(f"5-NN in the plane, 20,000 labels, {name}: {100 * score:.1f} %")


def _balanced(y: np.ndarray[Any, Any], count: int, seed: int) -> np.ndarray[Any, Any]:
    """Indices of ``count`` examples, equally many of each label."""
    generator = np.random.default_rng(seed)
    classes = np.unique(y)
    each = count // len(classes)
    return np.concatenate([generator.choice(np.flatnonzero(y == c), each, replace=False) for c in classes])


QUESTIONS: dict[str, Callable[[Bench], None]] = {
    question.__name__: question for question in (beta, iwae, cvae, tradeoff, denoise, anomaly, labels)
}


def main() -> None:
    """Answer the questions asked, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("questions", nargs="*", choices=[*QUESTIONS, []], help="default: all")
    parser.add_argument("--data-dir", type=Path, required=True, help="where MNIST and adbench lie")
    parser.add_argument("--out", type=Path, default=Path("runs/family"), help="where the models go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for question in options.questions or QUESTIONS:
        print(f"## {question}\n\n{QUESTIONS[question].__doc__}\n")
        QUESTIONS[question](Bench(options.data_dir.resolve(), options.out))


if __name__ == "__main__":
    main()
