"""Metrics of a user's own, for tests."""

from __future__ import annotations

import random

import numpy as np
import torch


def sharpness(model, examples, *, scale=1.0):
    """Mean absolute gradient of the reconstructions, a number of no other use."""
    total = 0.0
    for x, labels in examples.batches(100):
        condition = model.condition(x, labels)
        rebuilt = model.reconstruct(model.encode(x, condition).mean, condition)
        total += float((rebuilt[:, 1:] - rebuilt[:, :-1]).abs().mean(1).sum())
    return scale * total / len(examples.labels)


def careless(model, examples):
    """Draws from torch's generator, and says what it saw."""
    torch.rand(7)
    return examples.images.shape[0] + float(model.training)


def nothing(model, examples):
    """No number."""
    del model, examples
    return [1.0, 2.0]


def not_finite(model, examples):
    """A NaN."""
    del model, examples
    return torch.tensor(float("nan"))


def raises(model, examples):
    """An exception."""
    del model, examples
    raise KeyError("no such layer")


def spoils(model, examples):
    """Writes into everything that it is given, and draws from every generator."""
    del model
    for x, labels in examples.batches(100):
        x.zero_()
        labels.zero_()
    examples.labels.zero_()
    examples.x.zero_()
    return random.random() + np.random.rand()  # noqa: NPY002 - that is the point
