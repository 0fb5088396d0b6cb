"""A run that leaves the finite numbers ends as diverged, with the step at which it did."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from tests.support.small import few_digits, small_config
from vae.objectives import Elbo
from vae.optimizers import SGD, Adam, RMSprop
from vae.train import train


class Poison(torch.autograd.Function):
    """The identity, with a gradient that is not a number."""

    @staticmethod
    def forward(ctx, value):
        del ctx
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        del ctx
        return gradient * math.nan


def poison_at(monkeypatch, step, *, gradient):
    """Make the loss, or only its gradient, NaN at ``step``, counted from 1."""
    calls = []

    right = Elbo.loss

    def poisoned(self, batch):
        calls.append(None)
        loss = right(self, batch)
        if len(calls) != step:
            return loss
        total = Poison.apply(loss.total) if gradient else loss.total * math.nan
        return dataclasses.replace(loss, total=total)

    monkeypatch.setattr(Elbo, "loss", poisoned)


@pytest.mark.parametrize("optimizer", [Adam(lr=1e9), SGD(lr=1e9), RMSprop(lr=1e9)], ids=lambda o: o.kind)
def test_a_learning_rate_of_a_billion_diverges(optimizer):
    """The run ends at the first epoch with the name of what was not finite and its step; nothing is scored."""
    results = list(train(small_config(optimizer=optimizer, epochs=5), few_digits()))
    assert len(results) == 1
    reason = results[0].diverged
    assert reason is not None
    assert reason.partition(" is ")[0] in {"reconstruction", "kl", "loss", "gradient_norm"}
    assert reason.endswith(" at step 2")  # the first step's numbers were those of the starting weights
    row = results[0].row
    assert row["epoch"] == 1
    assert "val/elbo" not in row
    assert not math.isfinite(row["train/loss"])


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_a_loss_that_is_no_number_is_found_at_its_step(monkeypatch, step):
    """NaN in the loss of any step, in any epoch, is named with that step, counted from 1 over the whole run."""
    poison_at(monkeypatch, step, gradient=False)
    *before, last = train(small_config(epochs=3), few_digits())  # three steps an epoch
    assert last.diverged == f"loss is nan at step {step}"
    assert last.row["epoch"] == math.ceil(step / 3)
    assert all(result.diverged is None for result in before)
    assert len(before) == last.row["epoch"] - 1


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_gradient_that_is_no_number_is_found_at_its_step_where_gradients_are_clipped(monkeypatch, step):
    """With clipping the norm shows it at once."""
    poison_at(monkeypatch, step, gradient=True)
    *_, last = train(small_config(epochs=3, gradient_clip=1.0), few_digits())
    assert last.diverged == f"gradient_norm is nan at step {step}"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (1, "reconstruction is nan at step 2"),
        (3, "a weight is not finite after step 3"),
        (5, "reconstruction is nan at step 6"),
        (6, "a weight is not finite after step 6"),
    ],
)
def test_a_gradient_that_is_no_number_is_found_by_what_it_does(monkeypatch, step, reason):
    """Without clipping it shows one step later, or after an epoch's last step in the weights."""
    poison_at(monkeypatch, step, gradient=True)
    *_, last = train(small_config(epochs=3), few_digits())
    assert last.diverged == reason
    assert "val/elbo" not in last.row


def test_finite_weights_too_large_to_be_evaluated_have_diverged():
    """One step an epoch: the loss was finite, the weights are, and the held-out ELBO is not."""
    results = list(train(small_config(optimizer=Adam(lr=1e9), batch_size=96, epochs=5), few_digits()))
    assert len(results) == 1
    assert math.isfinite(results[0].row["train/loss"])
    assert results[0].diverged is not None
    assert results[0].diverged.startswith("the held-out ELBO is ")
    assert results[0].diverged.endswith(" after step 1")


def test_weights_that_overflow_have_diverged():
    """A finite gradient times a huge rate: the weights after the step are named."""
    *_, last = train(small_config(optimizer=SGD(lr=3e38), batch_size=96, epochs=2), few_digits())
    assert last.diverged == "a weight is not finite after step 1"


def test_a_run_that_converges_has_not_diverged():
    """Ordinary epochs have no reason to end."""
    results = list(train(small_config(epochs=3), few_digits()))
    assert [result.diverged for result in results] == [None] * 3
    assert all(math.isfinite(result.row["val/elbo"]) for result in results)
