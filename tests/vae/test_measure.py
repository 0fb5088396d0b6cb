"""The measure: two rows may be ranked together exactly when their measures are equal."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from tests.support.small import few_digits, noise_images, run, small_config
from vae.conditioning import OnLabel
from vae.data import Digits, Mnist
from vae.data.dataset import make_split
from vae.likelihoods import Bernoulli, Gaussian
from vae.measure import measure_of
from vae.networks import Conv, Mlp
from vae.objectives import Elbo
from vae.optimizers import Adam
from vae.priors import LabelConditional
from vae.train_config import Evaluation

BINARY = {"data": Digits(binarisation="static"), "likelihood": Bernoulli()}


def text(*, marginal=False, split=None, levels=16, **changes):
    """The measure that a row of this config would carry."""
    config = small_config(**changes)
    return str(measure_of(config, split or few_digits().validation, levels=levels, marginal=marginal))


SAME = [
    ({}, {"network": Mlp(hidden=(99,)), "optimizer": Adam(lr=0.5), "latent_size": 7}, "how it was trained"),
    ({}, {"objective": Elbo(beta=4.0), "seed": 3, "batch_size": 7, "ema_decay": 0.9}, "β, seed, averaging"),
    ({}, {"eval": Evaluation(samples=9, nll_k=5)}, "how closely it was estimated"),
    (BINARY, {**BINARY, "data": Digits(binarisation="dynamic")}, "static and dynamic: the held-out draw is one"),
    (BINARY, {**BINARY, "network": Conv(channels=(2,))}, "the network"),
    ({"conditioning": OnLabel()}, {"conditioning": OnLabel(at="every_layer"), "prior": LabelConditional()}, "prior"),
    ({"likelihood": Gaussian()}, {"likelihood": Gaussian(variance=0.1, learned="shared")}, "a learned variance"),
]
DIFFERENT = {
    "counts": {},
    "binary": BINARY,
    "binary of another draw": {**BINARY, "eval": Evaluation(seed=1)},
    "expected binary": {**BINARY, "data": Digits(binarisation="expected")},
    "real": {"likelihood": Gaussian()},
    "dequantised": {"likelihood": Gaussian(), "data": Digits(dequantise=True)},
    "dequantised by another draw": {
        "likelihood": Gaussian(),
        "data": Digits(dequantise=True),
        "eval": Evaluation(seed=1),
    },
    "given the label": {"conditioning": OnLabel()},
    "binary given the label": {**BINARY, "conditioning": OnLabel()},
    "another set": {"data": Mnist(binarisation="none")},
}


@pytest.mark.parametrize(("one", "other", "why"), SAME, ids=[why for _, _, why in SAME])
def test_these_rank_together(one, other, why):
    """What does not change the quantity that is scored does not change the measure."""
    del why
    assert text(**one) == text(**other)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(DIFFERENT, 2)))
def test_these_do_not(one, other):
    """Other event spaces, draws, conditioning or sets are other quantities."""
    assert text(**DIFFERENT[one]) != text(**DIFFERENT[other])


def test_with_the_label_summed_out_a_cvae_ranks_with_a_vae():
    """log p(x) of a labelled model has the measure of an unlabelled one's."""
    assert text(conditioning=OnLabel(), marginal=True) == text()
    assert text(conditioning=OnLabel(), marginal=True) != text(conditioning=OnLabel())


def test_other_examples_other_measure():
    """Another split, one example less, or one pixel changed: not comparable."""
    data = few_digits()
    changed = data.validation.images.clone()
    changed[0, 0, 0, 0] += 1
    splits = [
        data.validation,
        dataclasses.replace(data.validation, name="test"),
        make_split("validation", data.validation.images[1:], data.validation.labels[1:]),
        make_split("validation", changed, data.validation.labels),
        make_split("validation", data.validation.images, data.validation.labels.flip(0)),
    ]
    assert len({text(split=split) for split in splits}) == len(splits)


def test_other_levels_other_measure():
    """Counts to 16 and counts to 255 are other event spaces."""
    assert text(levels=16) != text(levels=255)


def test_what_it_says():
    """One line of quantity, event space, scored dimensions, set, split and examples."""
    digest = few_digits().validation.digest[:12]
    assert text() == f"p(x) counts(0..16) 64d digits/validation@{digest}"
    assert text(conditioning=OnLabel(), **BINARY) == f"p(x|label) binary(seed=0) 64d digits/validation@{digest}"


def test_dimensions_are_those_of_the_image():
    """Channels × height × width."""
    data = noise_images((3, 4, 5))
    assert measure_of(small_config(), data.validation, levels=255).dimensions == 60


def test_normalised():
    """log p(x) means something everywhere but on grey pixels scored by cross-entropy."""
    split = few_digits().validation
    for name, changes in DIFFERENT.items():
        measure = measure_of(small_config(**changes), split, levels=16)
        assert measure.normalised is (name != "expected binary")


def test_static_and_dynamic_score_the_same_pixels():
    """Their measures are equal because their held-out pixels are: the same model scores the same."""
    rows = [
        run(small_config(data=Digits(binarisation=how), likelihood=Bernoulli(), epochs=1), few_digits())[0][0]
        for how in ("static", "dynamic")
    ]
    assert rows[0]["measure"] == rows[1]["measure"]
    assert rows[0]["train/loss"] != rows[1]["train/loss"]
