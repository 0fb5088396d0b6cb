"""Optimizers and learning-rate schedules against torch's own."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from tests.support.places import ROOT
from tests.support.small import few_digits, run, small_config
from vae.optimizers import (
    SGD,
    Adam,
    Adamax,
    AdamW,
    ConstantRate,
    Cosine,
    Exponential,
    Milestones,
    RMSprop,
    build_optimizer,
    rate_factor,
)

TORCH = {
    Adam: torch.optim.Adam,
    AdamW: torch.optim.AdamW,
    Adamax: torch.optim.Adamax,
    RMSprop: torch.optim.RMSprop,
    SGD: torch.optim.SGD,
}
WITHOUT_COMPILER = """
import sys
from tests.support.small import few_digits, small_config
from vae.conditioning import OnLabel
from vae.optimizers import SGD, Adam, Adamax, AdamW, RMSprop
from vae.train import train
from vae.train_config import Evaluation

resumed = 0
for optimizer in (Adam(), AdamW(), Adamax(), RMSprop(), SGD(lr=1e-4)):
    config = small_config(
        optimizer=optimizer,
        gradient_clip=1.0,
        ema_decay=0.9,
        conditioning=OnLabel(),
        eval=Evaluation(classified_samples=40),
    )
    state = next(train(config, few_digits())).state
    resumed += len(list(train(config, few_digits(), state)))
print(resumed, "resumed compiler:", "torch._dynamo" in sys.modules)
"""
SETTINGS = [
    (Adam, {}),
    (Adam, {"betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 0.1, "amsgrad": True}),
    (AdamW, {}),
    (AdamW, {"betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 0.3, "amsgrad": True}),
    (Adamax, {}),
    (Adamax, {"betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
    (RMSprop, {}),
    (RMSprop, {"alpha": 0.9, "eps": 1e-4, "momentum": 0.8, "centered": True, "weight_decay": 0.1}),
    (SGD, {}),
    (SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (SGD, {"momentum": 0.9, "nesterov": True}),
]
NAMES = [f"{kind.__name__}-{'changed' if changes else 'default'}" for kind, changes in SETTINGS]


def path(optimizer, parameter):
    """Where 25 steps on a curved surface with a changing gradient lead."""
    places = []
    for step in range(25):
        optimizer.zero_grad()
        scale = torch.tensor([1.0, 10.0, 0.1]) * (10 if step % 5 == 0 else 1)
        (scale * parameter.square()).sum().backward()
        optimizer.step()
        places.append(parameter.detach().clone())
    return torch.stack(places)


@pytest.mark.parametrize(("kind", "changes"), SETTINGS, ids=NAMES)
def test_steps_of_each_optimizer_equal_torchs(kind, changes):
    """The same path as torch's optimizer with its own defaults and the same learning rate."""
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    config = kind(lr=0.01, **changes)
    expected = path(TORCH[kind]([theirs], lr=0.01, **changes), theirs)
    seen = path(build_optimizer(config, [ours]), ours)
    assert torch.allclose(expected, seen, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(seen[0], torch.tensor([1.0, -2.0, 3.0]))


@pytest.mark.parametrize(("kind", "changes"), SETTINGS, ids=NAMES)
def test_state_of_each_optimizer_is_interchangeable_with_torchs(kind, changes):
    """Each optimizer continues from the other's state as the other does."""
    first, second = (torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    ours, theirs = build_optimizer(kind(lr=0.01, **changes), [first]), TORCH[kind]([second], lr=0.01, **changes)
    path(ours, first)
    path(theirs, second)
    between = ours.state_dict()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(between)
    assert torch.allclose(path(ours, first), path(theirs, second), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("kind", [Adam, AdamW], ids=lambda kind: kind.__name__)
def test_lean_optimizer_equals_torchs_bit_for_bit(kind, amsgrad):
    """This holds for a changing rate, and for weights that have no gradient at first or never."""
    draws = torch.Generator().manual_seed(torch.seed())
    shapes = [(7, 5), (5,), (1,), (3, 2, 2), (4,)]
    start = [torch.randn(shape, generator=draws) for shape in shapes]
    mine, theirs = ([torch.nn.Parameter(weights.clone()) for weights in start] for _ in range(2))
    settings = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1, "amsgrad": amsgrad}
    ours, torchs = build_optimizer(kind(**settings), mine), TORCH[kind](theirs, fused=True, **settings)
    for step in range(6):
        for number, shape in enumerate(shapes):
            if number == 4 or (number == 2 and step < 3):
                continue
            gradient = torch.randn(shape, generator=draws)
            mine[number].grad, theirs[number].grad = gradient.clone(), gradient.clone()
        for optimizer in (ours, torchs):
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
            optimizer.step()
        assert all(map(torch.equal, mine, theirs))
        ours.zero_grad()
        assert all(weights.grad is None for weights in mine)
    assert not torch.equal(mine[0], start[0])
    assert torch.equal(mine[4], start[4])
    for number in range(4):
        kept, expected = ours.state[mine[number]], torchs.state[theirs[number]]
        assert kept.keys() == expected.keys()
        assert all(torch.equal(kept[name], expected[name]) for name in kept)


def test_training_process_does_not_import_the_compiler():
    """This holds for training, resuming and the classifier. The import takes two seconds of each worker's start."""
    program = [sys.executable, "-c", WITHOUT_COMPILER]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["5", "resumed", "compiler:", "False"]


@pytest.mark.parametrize("kind", TORCH, ids=lambda kind: kind.__name__)
def test_each_setting_of_an_optimizer_changes_its_path(kind):
    """No setting of an optimizer is ignored."""
    others = {
        "lr": 0.05,
        "betas": (0.5, 0.6),
        "eps": 0.1,
        "weight_decay": 0.2,
        "amsgrad": True,
        "alpha": 0.5,
        "momentum": 0.5,
        "centered": True,
        "dampening": 0.5,
        "nesterov": True,
    }
    names = set(kind.__dataclass_fields__) - {"kind"}
    # Nesterov needs a momentum, and AMSGrad differs from Adam only where the second moment falls soon.
    base = {"momentum": 0.9} if kind is SGD else {"betas": (0.9, 0.9)} if "betas" in names else {}
    first = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    plain = path(build_optimizer(kind(**base), [first]), first)
    for name in names:
        parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        changed = path(build_optimizer(kind(**(base | {name: others[name]})), [parameter]), parameter)
        assert not torch.equal(plain, changed), name


def rates(schedule, *, steps_per_epoch, epochs):
    """The rate's factor at every step of a run."""
    total = steps_per_epoch * epochs
    return [
        rate_factor(schedule, step=step, steps_per_epoch=steps_per_epoch, total_steps=total) for step in range(total)
    ]


def torch_rates(scheduler_of, *, steps, every=1):
    """The rate that a torch scheduler gives for each step, stepped after each ``every`` of them."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_of(optimizer)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer step was made: it is the rate alone that is asked for
        for step in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            if (step + 1) % every == 0:
                scheduler.step()
    return seen


def test_constant_schedule_keeps_the_rate():
    """The optimizer's own rate throughout."""
    assert rates(ConstantRate(), steps_per_epoch=3, epochs=2) == [1.0] * 6


@pytest.mark.parametrize("final", [0.0, 0.05])
def test_cosine_schedule_without_warmup_equals_torchs(final):
    """Without a warm-up, torch's CosineAnnealingLR by steps."""
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=30, eta_min=final), steps=30)
    assert rates(Cosine(final=final), steps_per_epoch=5, epochs=6) == pytest.approx(expected, abs=1e-9)


def test_cosine_schedule_with_warmup_rises_linearly_first():
    """It rises from one step's share to the whole rate, and then follows a half cosine over the remaining steps."""
    values = rates(Cosine(warmup_epochs=2, final=0.1), steps_per_epoch=4, epochs=10)
    assert values[:8] == pytest.approx([(step + 1) / 8 for step in range(8)])
    tail = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=32, eta_min=0.1), steps=32)
    assert values[8:] == pytest.approx(tail, abs=1e-9)


@pytest.mark.parametrize("warmup", [0.1, 0.25, 10, 20])
def test_cosine_schedule_with_an_odd_warmup_stays_within_0_and_1(warmup):
    """A warm-up of less than a step, or longer than the run, gives factors in (0, 1]."""
    assert all(0 < v <= 1 for v in rates(Cosine(warmup_epochs=warmup), steps_per_epoch=4, epochs=10))


def test_milestones_schedule_equals_torchs():
    """torch's MultiStepLR by epochs."""
    expected = torch_rates(lambda o: lr_scheduler.MultiStepLR(o, milestones=[2, 3, 5], gamma=0.5), steps=28, every=4)
    schedule = Milestones(epochs=(2, 3, 5), factor=0.5)
    assert rates(schedule, steps_per_epoch=4, epochs=7) == pytest.approx(expected)


def test_exponential_schedule_equals_torchs():
    """torch's ExponentialLR by epochs."""
    expected = torch_rates(lambda o: lr_scheduler.ExponentialLR(o, gamma=0.8), steps=20, every=4)
    assert rates(Exponential(factor=0.8), steps_per_epoch=4, epochs=5) == pytest.approx(expected)


@pytest.mark.parametrize(
    "schedule",
    [ConstantRate(), Cosine(warmup_epochs=1), Milestones(epochs=(2,)), Exponential(factor=0.5)],
    ids=lambda schedule: schedule.kind,
)
def test_row_with_any_schedule_has_the_rate_of_the_last_step(schedule):
    """train/learning_rate is the rate of the epoch's last step."""
    config = small_config(optimizer=SGD(lr=1e-4), schedule=schedule, batch_size=96, epochs=3, gradient_clip=1.0)
    rows, _ = run(config, few_digits())
    expected = [1e-4 * f for f in rates(schedule, steps_per_epoch=1, epochs=3)]
    assert [row["train/learning_rate"] for row in rows] == pytest.approx(expected)


def test_scheduled_rate_with_a_clipped_gradient_is_the_length_of_the_step():
    """With a clipped gradient of norm 1, plain SGD moves the weights by exactly the scheduled rate."""
    config = small_config(
        optimizer=SGD(lr=0.01),
        schedule=Milestones(epochs=(1,), factor=0.1),
        batch_size=96,
        gradient_clip=1.0,
    )
    moved = []
    before = run(small_config(optimizer=SGD(lr=1e-30), batch_size=96, epochs=1), few_digits())[1]
    for epochs in (1, 2):
        after = run(small_config(**{**vars_of(config), "epochs": epochs}), few_digits())[1]
        squared = sum((after[n] - before[n]).double().square().sum() for n in after if n.startswith("model/"))
        moved.append(squared.sqrt().item())
        before = after
    assert moved == pytest.approx([0.01, 0.001], rel=1e-3)


def vars_of(config):
    """The fields of ``config`` by name."""
    return {name: getattr(config, name) for name in type(config).__dataclass_fields__}
