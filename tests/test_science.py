"""The published protocols of ``docs/protocols``: they load, they run, one gives the figure that is stated."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
import torch

from tests.support.places import ROOT
from vae.data import Digits, TrainingData, load_test, load_training
from vae.data.dataset import make_split
from vae.data.pixels import pixels_of
from vae.evaluate import evaluate
from vae.measure import measure_of
from vae.objectives import Iwae
from vae.optimizers import rate_factor
from vae.serialization import from_json, to_dict, to_json
from vae.train import train

FOLDER = ROOT / "docs" / "protocols"
PROTOCOLS = sorted(FOLDER.glob("*.json"))
PRESETS = FOLDER.parent / "presets.md"


def config_of(path):
    """The config that a protocol's file says."""
    return from_json(path.read_text(encoding="utf-8"))


def small_data(config):
    """Sixty examples of the shape and the values of the protocol's set; a third held out where it holds out."""
    size, levels = (8, 16) if isinstance(config.data, Digits) else (28, 255)
    images = torch.randint(0, levels + 1, (60, 1, size, size), dtype=torch.uint8)
    labels = torch.arange(60) % 10
    held_out = config.data.validation != 0
    return TrainingData(
        train=make_split("train", images[:40], labels[:40]),
        validation=make_split("validation", images[40:], labels[40:]) if held_out else None,
        levels=levels,
        num_classes=10,
        data_hash="",
        split_hash="",
    )


def stated(values, config):
    """``config`` cut down to the keys that ``values`` has."""
    return {k: stated(v, config[k]) if isinstance(v, dict) else config[k] for k, v in values.items()}


def test_the_protocols_are_there():
    """A protocol that is moved or renamed is noticed: documents and drivers name these files."""
    assert {path.stem for path in PROTOCOLS} == {
        "burda-2016-iwae-5",
        "burda-2016-iwae-50",
        "burda-2016-vae",
        "cvae-784-400-20-dynamic",
        "cvae-every-layer-784-400-400-5",
        "dae-784-400-64-salt-and-pepper",
        "iwae-5-10-epochs",
        "linear-gaussian-digits",
        "pythae-vae",
        "squared-error-ae-784-128-64-10",
        "squared-error-cvae-784-128-64-10",
        "squared-error-vae-784-128-64-10",
        "tutorial-784-256-2-tanh",
        "vae-10-epochs",
        "vae-784-200-200-50-tanh-dynamic",
        "vae-784-400-20-dynamic",
        "vae-784-400-20-dynamic-50000",
        "vae-784-400-20-expected",
        "vae-784-400-20-expected-50000",
    }


def test_the_table_of_presets_names_every_protocol():
    """``docs/presets.md`` links to each protocol once or more, and to none that is not there."""
    linked = set(re.findall(r"\(protocols/([^)]+)\.json\)", PRESETS.read_text(encoding="utf-8")))
    assert {path.stem for path in PROTOCOLS} == linked


def test_burdas_schedule_is_the_published_one():
    """Eight stages of 3^i epochs at 1e-3 × 10^(−i/7), 3,280 epochs in all (Burda et al. 2016, section 5.1)."""
    config = config_of(FOLDER / "burda-2016-vae.json")
    assert config.epochs == 3280
    published = [1e-3 * 10 ** (-stage / 7) for stage in range(8) for _ in range(3**stage)]
    steps = {"steps_per_epoch": 2980, "total_steps": 3280 * 2980}  # 59,600 images in batches of 20
    rates = [
        config.optimizer.lr * rate_factor(config.schedule, step=epoch * 2980, **steps) for epoch in range(config.epochs)
    ]
    assert rates == pytest.approx(published, rel=1e-9)
    for k in (5, 50):
        other = config_of(FOLDER / f"burda-2016-iwae-{k}.json")
        assert other == dataclasses.replace(config, objective=Iwae(k=k))


def test_a_squared_error_protocol_minimises_the_squared_error():
    """A Gaussian of variance ½ is Σ (x − m)² per image but for 784 · ½ log π nats, whatever m is."""
    likelihood = config_of(FOLDER / "squared-error-vae-784-128-64-10.json").likelihood.build(levels=255)
    x, m = torch.rand(3, 784, dtype=torch.float64), torch.rand(3, 784, dtype=torch.float64)
    expected = (x - m).square().sum(1) + 392 * math.log(math.pi)
    assert likelihood.double().nll(m, x).sum(1).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "other", "what"),
    [
        ("vae-10-epochs", "iwae-5-10-epochs", "objective"),
        ("squared-error-vae-784-128-64-10", "squared-error-cvae-784-128-64-10", "conditioning"),
    ],
)
def test_a_comparison_changes_one_thing(name, other, what):
    """Two protocols that are compared differ in the part that the comparison is about, and in nothing else."""
    one, two = config_of(FOLDER / f"{name}.json"), config_of(FOLDER / f"{other}.json")
    assert getattr(one, what) != getattr(two, what)
    assert dataclasses.replace(one, **{what: getattr(two, what)}) == two


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_a_protocol_says_what_it_trains(path):
    """What the file states is, value for value, what the config is; and the config survives its own JSON."""
    values = json.loads(path.read_text(encoding="utf-8"))
    config = config_of(path)
    assert stated(values, to_dict(config)) == values
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_a_protocol_trains_an_epoch(path):
    """Each protocol's parts fit together, its first epoch is finite, and its rows have what its kind of model has."""
    config = config_of(path)
    # The classifier is trained on real images; on noise it would only take time.
    config = dataclasses.replace(config, epochs=1, eval=dataclasses.replace(config.eval, classified_samples=0))
    (result,) = train(config, small_data(config))
    assert result.diverged is None
    assert torch.tensor(result.row["train/loss"]).isfinite()
    held_out = config.data.validation != 0
    assert ("val/elbo" in result.row) == (held_out and config.posterior.has_density)
    assert ("val/reconstruction" in result.row) == held_out
    assert ("val/denoise_error" in result.row) == (held_out and config.corruption.kind != "none")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_stated_figure_comes_out(mnist_dir):
    """Dynamic binarisation on all 60,000 images: test −ELBO 102.2 ± 0.5 nats after 10 epochs."""
    config = config_of(next(path for path in PROTOCOLS if path.stem == "vae-784-400-20-dynamic"))
    data = load_training(config.data, mnist_dir)
    assert len(data.train.images) == 60_000
    *_, last = train(config, data)
    test = load_test(config.data, mnist_dir)
    pixels = pixels_of(test, config, data.levels, torch.device("cpu"), held_out=True)
    row = evaluate(last.model, pixels, config.eval, measure_of(config, test, levels=data.levels))
    assert -row["elbo"] == pytest.approx(102.2, abs=0.5)
