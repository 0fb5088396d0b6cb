"""Killed after any epoch and resumed from disk, a run equals the uninterrupted one, bit for bit."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
import torch

from tests.support.small import few_digits, run, small_config, without_times
from vae.conditioning import OnLabel
from vae.corruption import GaussianCorruption
from vae.data import Digits
from vae.fast.stacked import train_stacked
from vae.likelihoods import Bernoulli, Gaussian
from vae.networks import Conv, Mlp
from vae.objectives import Cyclical, Elbo, FactorVae, LinearWarmup
from vae.optimizers import SGD, Adam, Adamax, AdamW, Cosine, Exponential, Milestones, RMSprop
from vae.pause import Paused
from vae.priors import LabelConditional
from vae.serialization import config_hash
from vae.state import INFO_FILE, STATE_FILE, StateError, TrainState
from vae.train import train
from vae.train_config import Evaluation, Initialisation

EPOCHS = 4
VARIANTS = {
    "adam": {},
    "amsgrad": {"optimizer": Adam(amsgrad=True, weight_decay=0.01)},
    "adamw": {"optimizer": AdamW()},
    "adamax": {"optimizer": Adamax()},
    "rmsprop": {"optimizer": RMSprop(momentum=0.5, centered=True)},
    "sgd": {"optimizer": SGD(lr=1e-5)},
    "sgd-momentum": {"optimizer": SGD(lr=1e-5, momentum=0.9, nesterov=True)},
    "ema": {"ema_decay": 0.9},
    "dropout": {"network": Mlp(hidden=(8, 8), dropout=0.3)},
    "dynamic": {"data": Digits(binarisation="dynamic"), "likelihood": Bernoulli()},
    "static": {"data": Digits(binarisation="static"), "likelihood": Bernoulli()},
    "dequantise": {"data": Digits(dequantise=True), "likelihood": Gaussian(learned="shared")},
    "cosine-warmup": {"schedule": Cosine(warmup_epochs=1.5, final=0.1)},
    "milestones": {"schedule": Milestones(epochs=(1, 3))},
    "exponential": {"schedule": Exponential(factor=0.5)},
    "cyclical-beta": {"objective": Elbo(beta=2.0, beta_schedule=Cyclical(cycles=3), free_bits=0.1)},
    "warmup-beta": {"objective": Elbo(beta_schedule=LinearWarmup(epochs=2.5))},
    "clip": {"gradient_clip": 1.0},
    "cvae": {"conditioning": OnLabel(at="every_layer"), "prior": LabelConditional()},
    "conv": {"network": Conv(channels=(3, 4), dense=6, dropout=0.2)},
    "bfloat16": {"precision": "bfloat16"},
    "batch-norm": {"network": Mlp(hidden=(8,), normalisation="batch")},
    "corruption": {"corruption": GaussianCorruption()},
    "adversary": {"objective": FactorVae()},
    "everything": {
        "optimizer": RMSprop(momentum=0.9),
        "ema_decay": 0.8,
        "network": Mlp(hidden=(8,), dropout=0.2),
        "data": Digits(binarisation="dynamic"),
        "likelihood": Bernoulli(),
        "schedule": Cosine(warmup_epochs=1),
        "objective": Elbo(beta_schedule=Cyclical(cycles=2)),
        "gradient_clip": 5.0,
        "conditioning": OnLabel(),
        "prior": LabelConditional(),
        "initialisation": Initialisation(weights="xavier_normal", output_bias="data_mean"),
        "eval": Evaluation(samples=2, nll_k=4, nll_images=10),
        "batch_size": 40,  # the last batch of an epoch is smaller
    },
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_resumed_from_any_epoch_equals_uninterrupted(changes, tmp_path):
    """Rows, weights, moments and averages after a resume have the very bits that they would have had."""
    config = small_config(epochs=EPOCHS, **changes)
    data = few_digits()
    rows = []
    for result in train(config, data):
        result.state.save(tmp_path / str(result.row["epoch"]))
        rows.append(without_times(result.row))
    end = TrainState.load(tmp_path / str(EPOCHS))
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    for epoch in range(1, EPOCHS):
        torch.manual_seed(epoch)  # a new process has another generator, and other draws behind it
        again, tensors = run(config, data, TrainState.load(tmp_path / str(epoch)))
        assert again == rows[epoch:]
        assert tensors.keys() == end.tensors.keys()
        assert all(torch.equal(end.tensors[name], tensor) for name, tensor in tensors.items())


def left_after(config, data, step, resume=None):
    """The rows of the epochs before ``step``, and the state of the pause after it. An epoch has three steps."""
    asked_after = (taken for taken in itertools.count(1 if resume is None else resume.step + 1) if taken % 3)
    rows = []
    results = train(config, data, resume, pause=lambda: next(asked_after) == step)
    with pytest.raises(Paused, match=f"paused after step {step}, ") as paused:
        rows.extend(without_times(result.row) for result in results)
    return rows, paused.value.state


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_left_in_the_middle_of_an_epoch_equals_uninterrupted(changes, tmp_path):
    """After any step, and twice in one epoch: the rows, with the figures of the steps before, and all tensors have the same bits."""
    config = small_config(epochs=EPOCHS, **changes)
    data = few_digits()
    rows, end = run(config, data)
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    for steps in ([1], [2], [1, 2], [5, 7], [10], [11]):
        again, state = [], None
        for step in steps:
            more, state = left_after(config, data, step, state)
            again += more
            state.save(tmp_path / "paused")
            state = TrainState.load(tmp_path / "paused")
            assert (state.epoch, state.step) == (step // 3, step)
            torch.manual_seed(step)  # a new process has another generator, and other draws behind it
        more, tensors = run(config, data, state)
        assert again + more == rows
        assert tensors.keys() == end.keys()
        assert all(torch.equal(end[name], tensor) for name, tensor in tensors.items())


def test_a_pause_keeps_the_time_that_its_steps_took():
    """An epoch's training time is that of all its steps."""
    config, data = small_config(epochs=1), few_digits()
    _, state = left_after(config, data, 1)
    tensors = state.tensors | {"epoch_seconds": torch.tensor(1000.0, dtype=torch.float64)}
    (result,) = train(config, data, dataclasses.replace(state, tensors=tensors))
    assert 1000 < result.row["time/train_seconds"] < 1100


def test_a_stack_takes_up_no_run_in_the_middle_of_an_epoch():
    """It would begin the epoch again on weights that have seen half of it."""
    config, data = small_config(), few_digits()
    _, state = left_after(config, data, 4)
    with pytest.raises(StateError, match="middle"):
        next(train_stacked([config, config], data, [state, None]))


def test_what_the_variants_vary_is_trained():
    """Each variant's run differs from every other's: none of the tests above is another in disguise."""
    configs = [small_config(epochs=EPOCHS, **changes) for changes in VARIANTS.values()]
    ends = [json.dumps(run(config, few_digits())[0][-1]) for config in configs]
    assert len(set(ends)) == len(ends)


def test_a_finished_run_has_nothing_left():
    """Resumed from its last epoch, a run yields nothing and does not fail."""
    config = small_config()
    *_, last = train(config, few_digits())
    assert list(train(config, few_digits(), last.state)) == []


def test_a_state_may_be_resumed_twice(tmp_path):
    """Resuming leaves the state as it was: the second run from it equals the first."""
    config = small_config(ema_decay=0.9)
    next(train(config, few_digits())).state.save(tmp_path / "state")
    state = TrainState.load(tmp_path / "state")
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    first = run(config, few_digits(), state)[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in state.tensors.items())
    assert run(config, few_digits(), state)[0] == first


def test_a_resume_after_a_resume(tmp_path):
    """A run killed after every epoch, each time resumed from disk, ends like the uninterrupted one."""
    config = small_config(epochs=EPOCHS, optimizer=SGD(lr=1e-5, momentum=0.9), ema_decay=0.9)
    rows, tensors = run(config, few_digits())
    state, seen = None, []
    for _ in range(EPOCHS):
        result = next(train(config, few_digits(), state))
        seen.append(without_times(result.row))
        result.state.save(tmp_path / "state")  # the same folder: the one before is replaced
        state = TrainState.load(tmp_path / "state")
    assert seen == rows
    assert all(torch.equal(state.tensors[name], tensor) for name, tensor in tensors.items())


def test_a_state_of_another_config_is_refused():
    """Any other config is another run, and the refusal names both by hash."""
    config = small_config()
    state = next(train(config, few_digits())).state
    other = dataclasses.replace(config, objective=Elbo(beta=2.0))
    with pytest.raises(StateError) as refusal:
        next(train(other, few_digits(), state))
    assert config_hash(config)[:12] in str(refusal.value)
    assert config_hash(other)[:12] in str(refusal.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small saved state: its folder and the state."""
    folder = tmp_path_factory.mktemp("saved") / "state"
    result = next(train(small_config(network=Mlp(hidden=(2,)), ema_decay=0.9), few_digits()))
    state = dataclasses.replace(
        result.state, tensors={name: tensor.clone() for name, tensor in result.state.tensors.items()}
    )
    state.save(folder)
    return folder, state


def copy_of(folder, tmp_path):
    """A copy to damage."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_save_and_load(saved):
    """Everything comes back as it was, and only two files were written."""
    folder, state = saved
    again = TrainState.load(folder)
    assert dataclasses.replace(again, tensors={}) == dataclasses.replace(state, tensors={})
    assert again.tensors.keys() == state.tensors.keys()
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in state.tensors.items())
    assert again.sizes == {"channels": 1, "height": 8, "width": 8, "levels": 16, "num_classes": 10}
    assert sorted(file.name for file in folder.iterdir()) == [INFO_FILE, STATE_FILE]
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


def test_equal_states_have_equal_hashes(saved, tmp_path):
    """Saving twice gives the same sha256: it may be compared between runs."""
    _, state = saved
    assert len({state.save(tmp_path / str(number)) for number in range(5)}) == 1


def test_weights_are_those_that_were_evaluated(saved):
    """``weights`` are the average where one is kept, by the model's own names."""
    _, state = saved
    assert all(torch.equal(state.tensors[f"ema/{name}"], tensor) for name, tensor in state.weights().items())
    without = dataclasses.replace(
        state, tensors={name: tensor for name, tensor in state.tensors.items() if not name.startswith("ema/")}
    )
    assert all(torch.equal(state.tensors[f"model/{name}"], tensor) for name, tensor in without.weights().items())
    assert without.weights().keys() == state.weights().keys()


@pytest.mark.parametrize("name", [STATE_FILE, INFO_FILE])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_torn_file_is_refused_by_name(saved, tmp_path, name, share):
    """Truncated to nothing, to half, or by its end: refused, naming the file."""
    copy = copy_of(saved[0], tmp_path)
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(StateError) as refusal:
        TrainState.load(copy)
    assert str(copy / name) in str(refusal.value)


@pytest.mark.parametrize("name", [STATE_FILE, INFO_FILE])
def test_a_missing_file_is_refused_by_name(saved, tmp_path, name):
    """One of the two files gone, or both: refused, naming one that is missing."""
    copy = copy_of(saved[0], tmp_path)
    (copy / name).unlink()
    with pytest.raises(StateError, match=name):
        TrainState.load(copy)
    with pytest.raises(StateError, match="nowhere"):
        TrainState.load(tmp_path / "nowhere")


def test_every_flipped_bit_of_the_small_file_is_refused(saved, tmp_path):
    """No bit of state.json can change without being noticed."""
    copy = copy_of(saved[0], tmp_path)
    content = (copy / INFO_FILE).read_bytes()
    for position in range(8 * len(content)):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        (copy / INFO_FILE).write_bytes(changed)
        with pytest.raises(StateError) as refusal:
            TrainState.load(copy)
        assert str(copy) in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_flipped_bits_of_the_tensors_are_refused(saved, tmp_path):
    """A bit anywhere in the tensors, their names, or the epoch that they are of."""
    copy = copy_of(saved[0], tmp_path)
    content = (copy / STATE_FILE).read_bytes()
    for position in range(0, 8 * len(content), 997):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        (copy / STATE_FILE).write_bytes(changed)
        with pytest.raises(StateError, match=STATE_FILE):
            TrainState.load(copy)


@pytest.mark.parametrize(
    "text",
    ["[]", "3", "null", "{}", '{"format": 1}', '{"format": 2, "sha256": ""}', '"' + "x" * 100, "[" * 100_000, "\xff"],
    ids=lambda text: text[:12],
)
def test_a_lying_state_is_refused(saved, tmp_path, text):
    """JSON of the wrong shape, another format, or none that can be read."""
    copy = copy_of(saved[0], tmp_path)
    (copy / INFO_FILE).write_text(text, encoding="latin-1")
    with pytest.raises(StateError, match=INFO_FILE):
        TrainState.load(copy)


def test_a_save_that_dies_leaves_the_folder_as_it_was(saved, tmp_path, monkeypatch):
    """When writing fails there is no folder, or the whole one that was there before."""
    _, state = saved
    folder = tmp_path / "state"

    def no_space(path, content):
        if path.name == INFO_FILE:
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr("vae.state.write_file", no_space)
    with pytest.raises(OSError, match="No space"):
        state.save(folder)
    assert not folder.exists()
    monkeypatch.undo()
    state.save(folder)
    monkeypatch.setattr("vae.state.write_file", no_space)
    with pytest.raises(OSError, match="No space"):
        dataclasses.replace(state, epoch=99).save(folder)
    assert TrainState.load(folder).epoch == state.epoch
