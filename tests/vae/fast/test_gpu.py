"""What only a GPU can show: recorded steps there are the loop's, draws included, and nothing waits within an epoch.

Skipped where there is none, as in CI; docs/performance.md says on which card they were seen to pass.
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
    """How often was recorded and repeated, the first time apart."""

    strict = True  # a wait for the device in a step after the recording is an error


@pytest.fixture
def counted(monkeypatch):
    """See :class:`Counts`."""
    counts = Counts()
    record, call = Recorded._record, Recorded.__call__

    def counting(self, inputs):
        counts["recorded"] += 1
        record(self, inputs)

    def strict(self, *inputs):
        if self.recorded is None:
            return call(self, *inputs)
        counts["repeated"] += tuple(each.shape for each in inputs) == self.recorded
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error" if counts.strict else before)
        try:
            return call(self, *inputs)
        finally:
            torch.cuda.set_sync_debug_mode(before)

    monkeypatch.setattr(Recorded, "_record", counting)
    monkeypatch.setattr(Recorded, "__call__", strict)
    return counts


def unrecorded(monkeypatch):
    """From now on steps are launched kernel by kernel."""
    for module in ("vae.train", "vae.fast.stacked"):
        monkeypatch.setattr(f"{module}.why_not_recorded", lambda *_: "to compare")


@pytest.mark.parametrize("name", [*VARIANTS, "compiled"])
def test_a_recorded_step_is_the_loops(name, counted, monkeypatch):
    """Four epochs of 6 steps of 16 and one of 4: the rows and the state at the end are those of the plain loop."""
    config = small_config(batch_size=16, epochs=4, seed=3, **(VARIANTS | {"compiled": COMPILED})[name])
    data = few_digits(train=100)
    counted.strict = name != "compiled"  # an epoch's last batch, of another size, is compiled after the recording
    found = run(config, data, device="cuda")
    assert counted == {"recorded": 1, "repeated": 4 * 6 - 4}
    unrecorded(monkeypatch)
    same(found, run(dataclasses.replace(config, compile=False), data, device="cuda"), rel=1e-4)
    assert counted["recorded"] == 1


def members(count):
    """Configs of one shape that differ in all that may differ."""
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
def test_a_member_of_a_recorded_stack_is_the_run_alone(compiled, counted, monkeypatch):
    """Each with its own draws, rate, β, bound and average."""
    data = few_digits(train=100)
    configs = [dataclasses.replace(config, compile=compiled) for config in members(3)]
    counted.strict = not compiled
    rows, tensors = stacked(configs, data, device="cuda")
    assert counted == {"recorded": 1, "repeated": 4 * 6 - 4}
    unrecorded(monkeypatch)
    for config, *member in zip(configs, rows, tensors, strict=True):
        same(member, run(dataclasses.replace(config, compile=False), data, device="cuda"), rel=1e-4)


def test_a_member_that_leaves_is_not_noticed(counted):
    """What is left is recorded anew, and goes on as it was."""
    configs, data = members(3), few_digits(train=100)
    longer = [dataclasses.replace(config, epochs=2 if k == 1 else 4) for k, config in enumerate(configs)]
    rows, tensors = stacked(longer, data, device="cuda")
    assert [len(each) for each in rows] == [4, 2, 4]
    assert counted["recorded"] == 2
    same((rows[2], tensors[2]), run(longer[2], data, device="cuda"), rel=1e-4)


def test_left_in_mid_epoch_and_gone_on_with_it_is_the_same(counted, tmp_path):
    """The generator's place among the draws is that of the steps taken, also of those that were repeated."""
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
def test_an_ended_run_gives_its_memory_back(several):
    """At once, without Python's collector of cycles, which does not see a GPU's memory: a worker trains many in turn."""
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
