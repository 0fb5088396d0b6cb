"""Recorded steps on a GPU equal the plain loop, random draws included, and no step waits for the device.

These tests are skipped without a GPU, as in CI. docs/performance.md names the card on which they passed.
"""

from __future__ import annotations

import dataclasses
import gc
from collections import Counter

import pytest
import torch

from tests.support.small import few_digits, run, small_config, stacked
from tests.vae.fast.test_recorded import BINARY, VARIANTS, same
from vae.fast.recorded import Recorded
from vae.fast.stacked import train_stacked
from vae.networks import Mlp
from vae.objectives import Elbo, LinearWarmup
from vae.optimizers import Adam, Cosine
from vae.pause import Paused
from vae.state import TrainState
from vae.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
COMPILED = {"compile": True, "objective": Elbo(beta=4.0, beta_schedule=LinearWarmup(epochs=2.5)), **BINARY}


class Counts(Counter):
    """The numbers of captures and of replays after the first."""

    strict = True  # a step after the capture may not wait for the device


@pytest.fixture
def counted(monkeypatch):
    """See :class:`Counts`."""
    counts = Counts()
    capture, take = Recorded._capture, Recorded.take

    def counting(self, inputs):
        counts["recorded"] += 1
        capture(self, inputs)

    def strict(self, *inputs):
        if self.recorded is None:
            return take(self, *inputs)
        counts["repeated"] += tuple(each.shape for each in inputs) == self.recorded
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error" if counts.strict else before)
        try:
            return take(self, *inputs)
        finally:
            torch.cuda.set_sync_debug_mode(before)

    monkeypatch.setattr(Recorded, "_capture", counting)
    monkeypatch.setattr(Recorded, "take", strict)
    return counts


def unrecorded(monkeypatch):
    """Launch all later steps kernel by kernel."""
    monkeypatch.setattr("vae.fast.training.why_not_recorded", lambda *_: "to compare")


@pytest.mark.parametrize("name", [*VARIANTS, "compiled"])
def test_recorded_step_on_a_gpu_equals_the_plain_step(name, counted, monkeypatch):
    """After four epochs of 6 batches of 16 and one of 4, rows and state equal those of the plain loop to rounding."""
    config = small_config(batch_size=16, epochs=4, seed=3, **(VARIANTS | {"compiled": COMPILED})[name])
    data = few_digits(train=100)
    counted.strict = name != "compiled"  # an epoch's last batch, of another size, is compiled after the recording
    found = run(config, data, device="cuda")
    assert counted == {"recorded": 1, "repeated": 4 * 6 - 4}
    unrecorded(monkeypatch)
    same(found, run(dataclasses.replace(config, compile=False), data, device="cuda"), rel=1e-4)
    assert counted["recorded"] == 1


def members(count):
    """Return configs of one shape that differ in everything that may differ."""
    return [
        small_config(
            **BINARY,
            batch_size=16,
            epochs=4,
            seed=seed,
            objective=Elbo(beta=1.0 + seed, beta_schedule=LinearWarmup(epochs=2)),
            optimizer=Adam(lr=1e-3 * (1 + seed)),
            schedule=Cosine(warmup_epochs=1),
            gradient_clip=None if seed % 2 else 5.0,
            ema_decay=0.9 if seed % 2 else None,
        )
        for seed in range(count)
    ]


@pytest.mark.parametrize("compiled", [False, True])
def test_recorded_stack_on_a_gpu_equals_each_run_alone(compiled, counted, monkeypatch):
    """Each member has the draws, rate, β, gradient bound and average that it has alone."""
    data = few_digits(train=100)
    configs = [dataclasses.replace(config, compile=compiled) for config in members(3)]
    counted.strict = not compiled
    rows, tensors = stacked(configs, data, device="cuda")
    assert counted == {"recorded": 1, "repeated": 4 * 6 - 4}
    unrecorded(monkeypatch)
    for config, *member in zip(configs, rows, tensors, strict=True):
        same(member, run(dataclasses.replace(config, compile=False), data, device="cuda"), rel=1e-4)


def test_recorded_stack_after_a_member_left_continues_unchanged(counted):
    """The other members are captured again and continue as before."""
    configs, data = members(3), few_digits(train=100)
    longer = [dataclasses.replace(config, epochs=2 if k == 1 else 4) for k, config in enumerate(configs)]
    rows, tensors = stacked(longer, data, device="cuda")
    assert [len(each) for each in rows] == [4, 2, 4]
    assert counted["recorded"] == 2
    same((rows[2], tensors[2]), run(longer[2], data, device="cuda"), rel=1e-4)


def test_recorded_run_paused_in_mid_epoch_resumes_equal(counted, tmp_path):
    """The generator's state counts the draws of replayed steps too."""
    config = small_config(batch_size=16, epochs=4, seed=3, **VARIANTS["conv"])
    data = few_digits(train=100)
    expected, tensors = run(config, data, device="cuda")
    asked = iter([False] * 10 + [True])
    with pytest.raises(Paused) as paused:
        list(train(config, data, device="cuda", pause=lambda: next(asked, False)))
    paused.value.state.save(tmp_path / "paused")
    more = run(config, data, TrainState.load(tmp_path / "paused"), device="cuda")
    assert counted["recorded"] == 3
    same(more, (expected[-len(more[0]) :], tensors), rel=1e-4)


@pytest.mark.parametrize("several", [False, True])
def test_recorded_run_after_its_end_frees_its_memory(several):
    """The memory is freed at once, without Python's cycle collector, because a worker trains many runs in turn."""
    config, data = small_config(network=Mlp(hidden=(500,)), batch_size=16), few_digits(train=100)
    gc.collect()
    gc.disable()
    try:
        held = []
        for seed in range(4):
            configs = [dataclasses.replace(config, seed=seed + k) for k in range(3)]
            list(train_stacked(configs, data, device="cuda") if several else train(configs[0], data, device="cuda"))
            torch.cuda.empty_cache()
            held.append(torch.cuda.memory_reserved())
    finally:
        gc.enable()
    assert held[3] == held[2] == held[1]
