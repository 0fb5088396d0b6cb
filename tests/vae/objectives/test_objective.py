"""The loss, β over the steps, and the allowance for the KL."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.small import few_digits, run, small_config
from vae.model import Terms
from vae.objectives import ConstantBeta, CosineWarmup, Cyclical, Elbo, LinearWarmup
from vae.objectives.loss import Batch, Progress
from vae.optimizers import Adam

RECONSTRUCTION = torch.tensor([100.0, 110.0])
KL = torch.tensor([[0.02, 3.0, 0.5], [0.04, 5.0, 0.1]])  # means 0.03, 4.0, 0.3


def loss_of(config, kl):
    """The loss of RECONSTRUCTION and ``kl`` at the first step."""
    terms = Terms(RECONSTRUCTION[None], kl, z=None, posterior=None)
    return config.loss(Batch(None, terms, None, Progress(0, 1, 1), 2)).total


def fractions(schedule, *, steps_per_epoch, epochs):
    """The share of β at every step of a run."""
    total = steps_per_epoch * epochs
    return [schedule.fraction(Progress(step, steps_per_epoch, total)) for step in range(total)]


def test_the_loss_is_reconstruction_plus_beta_times_kl():
    """Mean over the batch, KL summed over dimensions."""
    for beta in (0.0, 1.0, 4.0):
        assert loss_of(Elbo(beta=beta), KL).item() == pytest.approx(105 + beta * 4.33)


def test_free_bits_are_granted_by_dimension():
    """A dimension whose KL, averaged over the batch, is below λ counts as λ; one above counts as it is."""
    assert loss_of(Elbo(free_bits=0.2), KL).item() == pytest.approx(105 + 0.2 + 4.0 + 0.3)
    assert loss_of(Elbo(free_bits=0.2, beta=2.0), KL).item() == pytest.approx(105 + 2 * 4.5)


def test_free_bits_pull_on_nothing_below_them():
    """The gradient of an allowed dimension is 0; the others' are those of the plain loss."""
    free, plain = KL.clone().requires_grad_(), KL.clone().requires_grad_()
    loss_of(Elbo(free_bits=0.2, beta=2.0), free).backward()
    loss_of(Elbo(beta=2.0), plain).backward()
    assert plain.grad.tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert free.grad.tolist() == [[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]


def test_constant_beta():
    """β is whole from the first step."""
    assert fractions(ConstantBeta(), steps_per_epoch=3, epochs=2) == [1.0] * 6


def test_linear_warmup():
    """From 0 at the first step, by equal steps, to 1 after the warm-up; parts of an epoch count."""
    expected = [0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1, 1, 1]
    assert fractions(LinearWarmup(epochs=2), steps_per_epoch=4, epochs=3) == pytest.approx(expected)
    assert fractions(LinearWarmup(epochs=0.5), steps_per_epoch=4, epochs=1) == pytest.approx([0, 0.5, 1, 1])


def test_cosine_warmup():
    """From 0 to 1 over the warm-up by half a cosine: as a line at its middle, slower at both ends."""
    expected = [0, (1 - math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(math.pi / 4)) / 2, 1, 1]
    assert fractions(CosineWarmup(epochs=2), steps_per_epoch=2, epochs=3) == pytest.approx(expected)


def test_cyclical():
    """Each cycle rises from 0 over its ramp and stays at 1; all cycles are alike."""
    cycle = [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    schedule = Cyclical(cycles=3, ramp=0.5)
    assert fractions(schedule, steps_per_epoch=4, epochs=6) == pytest.approx(cycle * 3)
    assert fractions(Cyclical(cycles=1, ramp=1.0), steps_per_epoch=4, epochs=1) == [0, 0.25, 0.5, 0.75]


def test_a_cycle_that_is_no_whole_number_of_steps_starts_at_zero():
    """With 6 cycles in 10 steps the fourth begins at step 5, exactly: β is 0 there, not 1 by rounding."""
    assert fractions(Cyclical(cycles=6), steps_per_epoch=1, epochs=10)[5] == 0


@given(
    cycles=st.integers(1, 20),
    ramp=st.floats(0.01, 1),
    steps_per_epoch=st.integers(1, 30),
    epochs=st.integers(1, 30),
)
def test_a_cycle_has_no_jump_but_at_its_start(cycles, ramp, steps_per_epoch, epochs):
    """β stays in [0, 1] and falls only where a cycle begins, once for each cycle but the first."""
    values = fractions(Cyclical(cycles=cycles, ramp=ramp), steps_per_epoch=steps_per_epoch, epochs=epochs)
    total = len(values)
    assert all(0 <= value <= 1 for value in values)
    assert values[0] == 0
    for step in range(1, total):
        new_cycle = step * cycles // total != (step - 1) * cycles // total
        assert new_cycle or values[step] >= values[step - 1]


@pytest.mark.parametrize(
    ("schedule", "epochs", "expected"),
    [
        (ConstantBeta(), 10, 0),
        (LinearWarmup(epochs=3), 10, 3),
        (LinearWarmup(epochs=2.25), 10, 3),
        (CosineWarmup(epochs=2.25), 10, 3),
        (Cyclical(cycles=4), 10, 3),
        (Cyclical(cycles=5), 10, 2),
    ],
    ids=str,
)
def test_annealing_epochs(schedule, epochs, expected):
    """A run may be judged after its warm-up, or after its first whole cycle, in whole epochs."""
    assert schedule.annealing_epochs(epochs) == expected


@given(epochs=st.floats(0.01, 30), steps_per_epoch=st.integers(1, 30))
def test_a_warmup_never_falls_and_ends_at_beta(epochs, steps_per_epoch):
    """Both start at 0, rise with every step, and are whole from the end of the warm-up to the end of the run."""
    for schedule in (LinearWarmup(epochs=epochs), CosineWarmup(epochs=epochs)):
        values = fractions(schedule, steps_per_epoch=steps_per_epoch, epochs=math.ceil(epochs) + 1)
        assert values[0] == 0
        assert values == sorted(values)
        assert set(values[math.ceil(epochs * steps_per_epoch) :]) == {1.0}
        assert all(value < 1 for value in values[: math.floor(epochs * steps_per_epoch * (1 - 1e-6))])


WARMUPS = [ConstantBeta(), LinearWarmup(epochs=1.5), CosineWarmup(epochs=1.5), Cyclical(cycles=2)]


@pytest.mark.parametrize("schedule", WARMUPS, ids=str)
def test_rows_say_the_beta_in_force(schedule):
    """train/beta is β at the epoch's last step, and the loss used it."""
    config = small_config(objective=Elbo(beta=3.0, beta_schedule=schedule), epochs=4, batch_size=96)
    rows, _ = run(config, few_digits())  # one step an epoch, so the loss of a row has one β
    for row in rows:
        expected = 3.0 * schedule.fraction(Progress(row["step"] - 1, 1, 4))
        assert row["train/beta"] == expected
        loss = row["train/reconstruction"] + expected * row["train/kl"]
        assert math.isclose(loss, row["train/loss"], rel_tol=1e-5)


def test_free_bits_keep_dimensions_alive():
    """With a large β the KL falls to what free bits allow, and not below."""
    changes = {"epochs": 40, "optimizer": Adam(lr=1e-2)}
    plain, _ = run(small_config(objective=Elbo(beta=50.0), **changes), few_digits())
    free, _ = run(small_config(objective=Elbo(beta=50.0, free_bits=0.5), **changes), few_digits())
    assert plain[-1]["train/kl"] < 0.1
    assert free[-1]["train/kl"] > 0.5
