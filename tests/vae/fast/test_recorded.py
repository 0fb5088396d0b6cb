"""A step that is captured and replayed computes what the plain step computes, and holds no number from its capture."""

from __future__ import annotations

import random
from contextlib import nullcontext
from typing import ClassVar

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from tests.support.parts import OUTSIDE
from tests.support.small import few_digits, run, small_config, stacked
from vae.conditioning import OnLabel, OnQuadrants
from vae.corruption import GaussianCorruption, Masking, SaltAndPepper
from vae.data import Digits
from vae.external import External
from vae.fast.recorded import why_not_recorded
from vae.fast.stacked_optimizers import OneAdam
from vae.likelihoods import Bernoulli, Categorical, Gaussian, Laplace
from vae.networks import Conv, Mlp, ResNet
from vae.objectives import (
    BetaTcvae,
    Capacity,
    CosineWarmup,
    Cyclical,
    DipVae,
    Elbo,
    FactorVae,
    InfoVae,
    Iwae,
    LinearWarmup,
    Reconstruction,
    WaeMmd,
)
from vae.optimizers import SGD, Adam, AdamW, Cosine, Milestones
from vae.posteriors import Deterministic, FullCovariance
from vae.priors import LabelConditional, Mixture, Vamp
from vae.run import begin

BINARY = {"data": Digits(binarisation="dynamic"), "likelihood": Bernoulli()}
# Every objective that can be captured, every kind of part, and everything that changes from step to step.
VARIANTS = {
    "warm-up": {"objective": Elbo(beta=4.0, beta_schedule=LinearWarmup(epochs=2.5))},
    "cosine warm-up": {"objective": Elbo(beta=4.0, beta_schedule=CosineWarmup(epochs=2.5))},
    "cycles": {"objective": Elbo(beta=2.0, beta_schedule=Cyclical(cycles=2), free_bits=0.2)},
    "capacity": {"objective": Capacity(gamma=5.0, capacity=4.0, epochs=2.5)},
    "iwae": {"objective": Iwae(k=3), **BINARY},
    "doubly reparameterised": {"objective": Iwae(k=3, doubly_reparameterised=True)},
    "tcvae": {"objective": BetaTcvae(estimator="stratified")},
    "tcvae weighted": {"objective": BetaTcvae()},
    "info": {"objective": InfoVae()},
    "wae": {"objective": WaeMmd(), "posterior": Deterministic()},
    "dip": {"objective": DipVae(version="II")},
    "autoencoder": {"objective": Reconstruction(), "posterior": Deterministic(), "corruption": Masking()},
    "rate": {"schedule": Cosine(warmup_epochs=1.5, final=0.1), "optimizer": AdamW(lr=0.02)},
    "milestones": {"schedule": Milestones(epochs=(1, 2)), "optimizer": Adam(lr=0.02, amsgrad=True, weight_decay=0.1)},
    "average": {"ema_decay": 0.9, "optimizer": Adam(lr=0.02)},
    "clip": {"gradient_clip": 1.0},
    "conv": {"network": Conv(channels=(3, 4), dense=6, dropout=0.2), "corruption": SaltAndPepper()},
    "resnet": {"network": ResNet(channels=(3, 4)), "likelihood": Gaussian(learned="shared")},
    # The bias before a batch norm has no gradient but rounding, of which an Adam with a small eps makes whole steps.
    "batch norm": {"network": Mlp(hidden=(8,), normalisation="batch"), "optimizer": Adam(eps=0.1)},
    "label": {"conditioning": OnLabel(at="every_layer"), "prior": LabelConditional()},
    "quadrants": {"conditioning": OnQuadrants(), "likelihood": Laplace(learned="shared")},
    "mixture": {"prior": Mixture(components=3), "posterior": FullCovariance()},
    "vamp": {"prior": Vamp(components=3), **BINARY},
    "dequantised": {"data": Digits(dequantise=True), "likelihood": Gaussian(), "corruption": GaussianCorruption()},
    "categorical": {"likelihood": Categorical()},
    "bfloat16": {"precision": "bfloat16"},
}


class Traced:
    """Replaces :class:`vae.fast.recorded.Recorded` on a CPU: torch's tracer captures what a CUDA graph would.

    Like a graph it keeps the addresses of tensors and the values of numbers, and refuses to read a value back.
    """

    made: ClassVar[list[Traced]] = []

    def __init__(self, step, device, generators=()):
        """Take the arguments of the real class."""
        del generators
        assert device.type == "cpu"
        self.step = step
        self.shapes = self.recording = None
        self.taken = self.repeated = 0
        self.made.append(self)

    def stream(self):
        """A CPU has one stream."""
        return nullcontext()

    def settings(self, schedule):
        """Return the rows of ``schedule`` as tensors, like the real class."""
        return torch.tensor(schedule).unbind()

    def take(self, *inputs):
        """Capture the second call, and replay it for later calls of the same shapes."""
        shapes = [each.shape for each in inputs]
        if shapes == self.shapes:
            self.repeated += 1
            with torch.no_grad():  # the backward pass is in it
                return dict(zip(self.names, self.recording(*inputs).unbind(), strict=True))
        self.taken += 1
        if self.taken != 2:
            return self.step(*inputs)
        self.shapes = shapes
        self.recording = make_fx(self._stacked)(*inputs)
        return self.found

    def _stacked(self, *inputs):
        found = self.step(*inputs)
        self.names = tuple(found)
        self.found = {name: value.clone() for name, value in found.items()}
        return torch.stack(tuple(found.values()))


@pytest.fixture
def traced(monkeypatch):
    """Capture steps on the CPU too; return the list of the launchers that were made."""
    monkeypatch.setattr(Traced, "made", [])
    monkeypatch.setattr("vae.fast.training.Recorded", Traced)
    monkeypatch.setattr("vae.fast.training.why_not_recorded", lambda *_: None)
    return Traced.made


@pytest.mark.parametrize("name", VARIANTS)
def test_recorded_step_of_each_part_equals_the_plain_step(name, traced, monkeypatch):
    """After four epochs of 6 batches of 16 and one of 4, rows and state equal those of the plain loop to rounding."""
    config = small_config(batch_size=16, epochs=4, seed=3, **VARIANTS[name])
    data = few_digits(train=100)
    found = run(config, data)
    (made,) = traced
    assert (made.taken, made.repeated) == (2 + 4, 4 * 6 - 2)
    monkeypatch.undo()
    same(found, run(config, data))


@pytest.mark.parametrize("seed", range(4))
def test_recorded_step_of_a_stack_equals_the_plain_step(seed, traced, monkeypatch):
    """The same holds for a stack with one update of all members, each with its own rate, β, gradient bound and average."""
    monkeypatch.setattr("vae.fast.stacked.updates", OneAdam)
    draw = random.Random(seed)
    configs = [
        small_config(
            **BINARY,
            batch_size=16,
            epochs=4,
            seed=draw.randrange(2**31),
            objective=Elbo(
                beta=draw.uniform(0.1, 4), beta_schedule=draw.choice([LinearWarmup(epochs=2), Elbo().beta_schedule])
            ),
            optimizer=draw.choice([Adam, AdamW])(lr=draw.uniform(1e-3, 1e-2), weight_decay=draw.choice([0.0, 0.1])),
            schedule=draw.choice([Cosine(warmup_epochs=1), small_config().schedule]),
            gradient_clip=draw.choice([None, 2.0]),
            ema_decay=draw.choice([None, 0.9]),
        )
        for _ in range(3)
    ]
    data = few_digits(train=100)
    rows, tensors = stacked(configs, data)
    (made,) = traced
    assert (made.taken, made.repeated) == (2 + 4, 4 * 6 - 2)
    monkeypatch.setattr("vae.fast.training.why_not_recorded", lambda *_: "to compare")
    for mine, its in zip(zip(rows, tensors, strict=True), zip(*stacked(configs, data), strict=True), strict=True):
        same(mine, its)


def same(found, expected, rel=1e-5):
    """Assert that rows, and tensors at the end, agree to rounding."""
    for row, its in zip(found[0], expected[0], strict=True):
        close(row, its, rel)
    for key, tensor in expected[1].items():
        torch.testing.assert_close(found[1][key], tensor, rtol=10 * rel, atol=rel, msg=key)


def close(row, expected, rel):
    """Assert that the numbers of two rows agree to rounding."""
    assert row.keys() == expected.keys()
    for key, value in expected.items():
        near = isinstance(value, float | list)
        assert row[key] == (pytest.approx(value, rel=rel, abs=1e-6) if near else value), key


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objective": FactorVae()}, "objective 'factor_vae' trains two networks"),
        ({"optimizer": SGD()}, "not 'sgd'"),
        ({"objective": External(path=f"{OUTSIDE}:Tempered")}, "at a step is not known"),
    ],
)
def test_why_not_recorded_with_an_unsupported_part_names_the_part(changes, reason):
    """On a GPU the reason names the part that prevents a capture. A plain config has no reason."""
    gpu = torch.device("cuda")
    data = few_digits()
    assert reason in why_not_recorded(begin(small_config(**changes), data, None, torch.device("cpu")), gpu)
    plain = begin(small_config(), data, None, torch.device("cpu"))
    assert why_not_recorded(plain, gpu) is None
    assert why_not_recorded(plain, torch.device("cpu")) == "on a cpu there is nothing to gain"


def test_why_not_recorded_with_data_in_a_file_names_the_data():
    """An external data set in memory can be captured. Batches that are read from a file at every step can't."""
    outside = External(path=f"{OUTSIDE}:Stripes")
    plain = begin(small_config(data=outside), few_digits(), None, torch.device("cpu"))
    assert why_not_recorded(plain, torch.device("cuda")) is None
    plain.examples.training.rows = None
    assert why_not_recorded(plain, torch.device("cuda")) == "the data is read from a file, batch by batch"
