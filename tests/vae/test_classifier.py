"""The independent classifier: it learns the labels, disturbs nothing, and tells samples that were asked for."""

from __future__ import annotations

import torch

from tests.support.small import digits, few_digits, run, small_config
from vae.classifier import accuracy, classifier_of, grey, samples_as_asked
from vae.conditioning import OnLabel
from vae.data import Digits
from vae.train import build
from vae.train_config import Evaluation

CPU = torch.device("cpu")


def test_it_learns_the_digits():
    """More than 95 % of the held-out digits, of which it saw none; the same network each time it is asked for."""
    first = classifier_of(digits(), Digits(), 0, CPU)
    assert accuracy(first, grey(digits(), Digits(), "validation", 0)) > 0.95
    assert classifier_of(digits(), Digits(), 0, CPU) is first


def test_other_examples_have_another():
    """Part of a set, whose set and split are the same, is not judged by the whole set's."""
    part = classifier_of(few_digits(), Digits(), 0, CPU)
    whole = classifier_of(digits(), Digits(), 0, CPU)
    assert part is not whole
    assert classifier_of(few_digits(), Digits(), 0, CPU) is part


def test_it_leaves_the_generator_as_it_was():
    """A trial that asks for it trains as one that doesn't."""
    asked = small_config(conditioning=OnLabel(), eval=Evaluation(classified_samples=40))
    plain = small_config(conditioning=OnLabel())
    with_it, _ = run(asked, few_digits())
    without, _ = run(plain, few_digits())
    for one, other in zip(with_it, without, strict=True):
        assert one["train/loss"] == other["train/loss"]
        assert one["val/elbo"] == other["val/elbo"]
        assert 0 <= one["val/samples_as_asked"] <= 1
        assert "val/samples_as_asked" not in other


class Oracle(torch.nn.Module):
    """Says 3 to everything."""

    def forward(self, x):
        return torch.nn.functional.one_hot(torch.full((len(x),), 3), 10).float()


def test_the_share_is_of_the_labels_asked_for():
    """Of labels in turn, a classifier that only says 3 finds a tenth as asked."""
    model = build(small_config(conditioning=OnLabel()), few_digits())
    assert samples_as_asked(model, Oracle(), count=200, seed=0) == 0.1
