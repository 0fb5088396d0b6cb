"""The published protocols of ``docs/protocols``: they load, they run, one gives the figure that is stated."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from vae.data import Digits, TrainingData, load_test, load_training
from vae.data.dataset import make_split
from vae.data.pixels import pixels_of
from vae.evaluate import evaluate
from vae.measure import measure_of
from vae.serialization import from_json, to_dict, to_json
from vae.train import train

PROTOCOLS = sorted((Path(__file__).parents[1] / "docs" / "protocols").glob("*.json"))


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
        "cvae-784-400-20-dynamic",
        "linear-gaussian-digits",
        "vae-784-200-200-50-tanh-dynamic",
        "vae-784-400-20-dynamic",
        "vae-784-400-20-dynamic-50000",
        "vae-784-400-20-expected",
        "vae-784-400-20-expected-50000",
    }


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_a_protocol_says_what_it_trains(path):
    """What the file states is, value for value, what the config is; and the config survives its own JSON."""
    values = json.loads(path.read_text(encoding="utf-8"))
    config = config_of(path)
    assert stated(values, to_dict(config)) == values
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_a_protocol_trains_an_epoch(path):
    """Each protocol's parts fit together and its first epoch is finite."""
    config = dataclasses.replace(config_of(path), epochs=1)
    (result,) = train(config, small_data(config))
    assert result.diverged is None
    assert torch.tensor(result.row["train/loss"]).isfinite()
    assert ("val/elbo" in result.row) == (config.data.validation != 0)


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
