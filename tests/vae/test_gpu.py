"""What only a GPU can show: recorded steps there are the loop's, draws included, and nothing waits within an epoch.

Skipped where there is none, as in CI; docs/performance.md says on which card they were seen to pass.
"""

from __future__ import annotations

import dataclasses
import gc
from collections import Counter

import pytest
import torch
from small import few_digits, small_config, without_times
from test_recorded import BINARY, VARIANTS, close, last

from vae.networks import Mlp
from vae.objectives import Elbo, LinearWarmup
from vae.optimizers import Adam, Cosine
from vae.pause import Paused
from vae.recorded import Recorded
from vae.stacked import train_stacked
from vae.state import TrainState
from vae.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
GPU = torch.device("cuda")
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
    for module in ("vae.train", "vae.stacked"):
        monkeypatch.setattr(f"{module}.why_not_recorded", lambda *_: "to compare")


def on_gpu(config, data, resume=None, pause=None):
    """The rows, and a copy of the state after each epoch."""
    rows, states = [], []
    for result in train(config, data, resume, GPU, pause):
        rows.append(without_times(result.row))
        states.append({name: tensor.clone() for name, tensor in result.state.tensors.items()})
    return rows, states


@pytest.mark.parametrize("name", [*VARIANTS, "compiled"])
def test_a_recorded_step_is_the_loops(name, counted, monkeypatch):
    """Four epochs of 6 steps of 16 and one of 4: the rows and the state at the end are those of the plain loop."""
    config = small_config(batch_size=16, epochs=4, seed=3, **(VARIANTS | {"compiled": COMPILED})[name])
    data = few_digits(train=100)
    counted.strict = name != "compiled"  # an epoch's last batch, of another size, is compiled after the recording
    rows, states = on_gpu(config, data)
    assert counted == {"recorded": 1, "repeated": 4 * 6 - 4}
    unrecorded(monkeypatch)
    expected, its_states = on_gpu(dataclasses.replace(config, compile=False), data)
    assert counted["recorded"] == 1
    for row, its in zip(rows, expected, strict=True):
        close(row, its, rel=1e-4)
    for key, tensor in its_states[-1].items():
        torch.testing.assert_close(states[-1][key], tensor, rtol=1e-3, atol=1e-4, msg=key)


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
    found = last(train_stacked(configs, data, device=GPU))
    assert counted == {"recorded": 1, "repeated": 4 * 6 - 4}
    unrecorded(monkeypatch)
    for config, (row, tensors) in zip(configs, found, strict=True):
        expected, states = on_gpu(dataclasses.replace(config, compile=False), data)
        close(row, expected[-1], rel=1e-4)
        for key, tensor in states[-1].items():
            torch.testing.assert_close(tensors[key], tensor, rtol=1e-3, atol=1e-4, msg=key)


def test_a_member_that_leaves_is_not_noticed(counted):
    """What is left is recorded anew, and goes on as it was."""
    configs, data = members(3), few_digits(train=100)
    longer = [dataclasses.replace(config, epochs=2 if k == 1 else 4) for k, config in enumerate(configs)]
    epochs = [
        {k: without_times(r.row) for k, r in results.items()} for results in train_stacked(longer, data, device=GPU)
    ]
    assert [sorted(rows) for rows in epochs] == [[0, 1, 2]] * 2 + [[0, 2]] * 2
    assert counted["recorded"] == 2
    alone, _ = on_gpu(longer[2], data)
    close(epochs[-1][2], alone[-1], rel=1e-4)


def test_left_in_mid_epoch_and_gone_on_with_it_is_the_same(counted, tmp_path):
    """The generator's place among the draws is that of the steps taken, also of those that were repeated."""
    config = small_config(batch_size=16, epochs=4, seed=3, **VARIANTS["conv"])
    data = few_digits(train=100)
    expected, states = on_gpu(config, data)
    asked = iter([False] * 10 + [True])
    rows = []
    with pytest.raises(Paused) as paused:
        rows += [without_times(result.row) for result in train(config, data, None, GPU, lambda: next(asked, False))]
    paused.value.state.save(tmp_path / "paused")
    more, its = on_gpu(config, data, TrainState.load(tmp_path / "paused"))
    assert counted["recorded"] == 3
    for row, other in zip(more, expected[-len(more) :], strict=True):
        close(row, other, rel=1e-4)
    for key, tensor in states[-1].items():
        torch.testing.assert_close(its[-1][key], tensor, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("stacked", [False, True])
def test_an_ended_run_gives_its_memory_back(stacked):
    """At once, without Python's collector of cycles, which does not see a GPU's memory: a worker trains many in turn."""
    config, data = small_config(network=Mlp(hidden=(500,)), batch_size=16), few_digits(train=100)
    gc.collect()
    gc.disable()
    try:
        held = []
        for seed in range(4):
            configs = [dataclasses.replace(config, seed=seed + k) for k in range(3)]
            list(train_stacked(configs, data, device=GPU) if stacked else train(configs[0], data, device=GPU))
            torch.cuda.empty_cache()
            held.append(torch.cuda.memory_reserved())
    finally:
        gc.enable()
    assert held[3] == held[2] == held[1]
