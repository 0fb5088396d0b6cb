"""train(): what a row holds, what a run depends on, and what it does not."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys

import pytest
import torch

import vae.run
from tests.support.places import ROOT
from tests.support.small import few_digits, held_out, noise_images, raw_weights, run, small_config, without_times
from vae.conditioning import OnLabel
from vae.data import Digits
from vae.data.dataset import make_split
from vae.data.pixels import pixels_of
from vae.evaluate import held_out_metrics
from vae.likelihoods import Bernoulli, Gaussian
from vae.measure import measure_of
from vae.model import VAE
from vae.networks import Mlp
from vae.objectives import Elbo
from vae.optimizers import SGD, Adam
from vae.pictures import samples
from vae.priors import LabelConditional
from vae.serialization import config_hash, to_dict
from vae.train import build, train
from vae.train_config import Evaluation

OTHER_PROCESS = """
import json, random, sys
import torch
torch.set_num_threads(1)
torch.manual_seed(random.randrange(10**6))
from tests.support.small import few_digits, run
from vae.serialization import config_hash, from_dict
values = json.loads(sys.stdin.read())
config = from_dict(dict(reversed(values.items())))
rows, tensors = run(config, few_digits())
print(json.dumps([config_hash(config), rows, {name: t.double().sum().item() for name, t in tensors.items()}]))
"""


def in_another_process(config):
    """Hash, rows and sums of tensors of ``config``, its keys in another order, from a Python that knows nothing."""
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS],
        input=json.dumps(to_dict(config)),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": str(ROOT)},
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_train_in_another_process_gives_the_same_bits():
    """Hash, rows and final tensors of a config are the same in a process of its own, to the last bit."""
    config = small_config(
        network=Mlp(hidden=(8,), dropout=0.1),
        data=Digits(binarisation="dynamic"),
        likelihood=Bernoulli(),
        ema_decay=0.9,
        seed=5,
    )
    rows, tensors = run(config, few_digits())
    identity, other_rows, sums = in_another_process(config)
    assert config_hash(config) == identity
    assert json.loads(json.dumps(rows)) == other_rows
    assert {name: tensor.double().sum().item() for name, tensor in tensors.items()} == sums


def test_train_with_another_seed_gives_another_run():
    """Weights, order and noise all follow the seed."""
    first, second = (run(small_config(seed=seed), few_digits())[0] for seed in (0, 1))
    assert first[0]["train/loss"] != second[0]["train/loss"]
    assert first[0]["val/elbo"] != second[0]["val/elbo"]


def test_train_with_the_same_seed_gives_the_same_run():
    """Twice the same config is the same rows and the same tensors."""
    first, second = (run(small_config(), few_digits()) for _ in range(2))
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


def test_train_after_other_random_draws_gives_the_same_run():
    """Random draws before training, or between two epochs, change nothing."""
    config = small_config(
        data=Digits(binarisation="dynamic"), likelihood=Bernoulli(), network=Mlp(hidden=(8,), dropout=0.2), epochs=3
    )
    expected, _ = run(config, few_digits())
    torch.manual_seed(99)
    seen = []
    for result in train(config, few_digits()):
        seen.append(without_times(result.row))
        torch.rand(17)
        torch.manual_seed(len(seen))
    assert seen == expected


def test_train_with_evaluation_mode_between_epochs_keeps_dropout():
    """Evaluation mode between two epochs, as pictures set it, does not switch off dropout in the next epoch."""
    config = small_config(network=Mlp(hidden=(8,), dropout=0.5), epochs=3)
    seen = []
    for result in train(config, few_digits()):
        seen.append(without_times(result.row))
        samples(result.model, seed=0)
        assert not result.model.training
    assert seen == run(config, few_digits())[0]


def test_noise_of_every_step_of_every_epoch_is_new(monkeypatch):
    """No two steps of a run share their ε, which is standard normal, nor two epochs their binarisation."""
    noises, images = [], []
    terms = VAE.terms

    def spy(self, x, label, noise, seen=None, nll=None):
        if self.training:  # Evaluation calls it too.
            noises.append(noise.clone())
            images.append(x.clone())
        return terms(self, x, label, noise, seen, nll)

    monkeypatch.setattr(VAE, "terms", spy)
    data = few_digits()
    one_image = dataclasses.replace(
        data, train=make_split("train", data.train.images[:1].expand(96, -1, -1, -1), data.train.labels)
    )
    run(small_config(data=Digits(binarisation="dynamic"), likelihood=Bernoulli(), epochs=3), one_image)
    assert len(noises) == 9
    assert len({noise.numpy().tobytes() for noise in noises}) == 9
    assert len({x.numpy().tobytes() for x in images}) == 9
    every = torch.cat([noise[0] for noise in noises])
    assert every.shape == (3 * 96, 3)
    assert abs(every.mean().item()) < 5 / math.sqrt(every.numel())
    assert abs(every.var().item() - 1) < 5 * math.sqrt(2 / every.numel())


def test_two_runs_in_turns_equal_each_run_alone():
    """Two generators advanced in turns give what each gives alone."""
    configs = [small_config(seed=seed, network=Mlp(hidden=(8,), dropout=0.2), epochs=3) for seed in (0, 1)]
    alone = [run(config, few_digits())[0] for config in configs]
    together = [[], []]
    for results in zip(*(train(config, few_digits()) for config in configs), strict=True):
        for rows, result in zip(together, results, strict=True):
            rows.append(without_times(result.row))
    assert together == alone


def test_row_of_an_epoch_has_named_metrics_and_its_measure():
    """Names are split/name. Every row has its measure, the kind of its KL estimate, and the kind of weights."""
    (row, _), _ = run(small_config(gradient_clip=1.0, eval=Evaluation(nll_k=4)), few_digits())
    assert set(row) == {
        "epoch",
        "step",
        "model/parameters",
        "measure",
        "kl_estimate",
        "weights",
        "train/loss",
        "train/reconstruction",
        "train/kl",
        "train/gradient_norm",
        "train/learning_rate",
        "train/beta",
        "val/elbo",
        "val/reconstruction",
        "val/kl",
        "val/kl_per_dimension",
        "val/active_units",
        "val/collapsed",
        "val/bits_per_dimension",
        "val/nll_iwae",
        "val/nll_iwae_standard_error",
        "val/nll_iwae_change_from_half_k",
        "val/nll_iwae_k",
        "val/nll_iwae_images",
    }
    assert row["measure"] == f"p(x) counts(0..16) 64d digits/validation@{few_digits().validation.digest[:12]}"
    assert (row["kl_estimate"], row["weights"]) == ("closed_form", "raw")
    assert json.loads(json.dumps(row)) == row


def test_row_of_an_epoch_has_positive_times():
    """A row has the time of its epoch and its speed."""
    result = next(train(small_config(), few_digits()))
    for name in ("time/train_seconds", "time/evaluation_seconds", "time/examples_per_second"):
        assert result.row[name] > 0


def test_training_metrics_with_a_small_last_batch_are_means_over_examples():
    """A smaller last batch is weighted by its size. With a zero rate the metrics equal those of the whole split."""
    config = small_config(
        optimizer=SGD(lr=1e-30), batch_size=40, objective=Elbo(beta=1.0), network=Mlp(hidden=()), epochs=1
    )
    data = few_digits()
    row = run(config, data)[0][0]
    assert row["step"] == 3  # 40 + 40 + 16
    as_held_out = dataclasses.replace(data, validation=dataclasses.replace(data.train, name="validation"))
    scores = run(config, as_held_out)[0][0]
    # The KL is in closed form, so the same in training as in evaluation.
    assert row["train/kl"] == pytest.approx(scores["val/kl"], rel=1e-5)
    assert row["train/reconstruction"] == pytest.approx(scores["val/reconstruction"], rel=0.01)


def test_order_of_every_epoch_has_each_example_once(monkeypatch):
    """Each epoch draws all examples, in an order of its own."""
    seen = []
    batch = vae.data.pixels.Pixels.batch

    def spy(self, index):
        if isinstance(index, torch.Tensor):
            seen.append(index.tolist())
        return batch(self, index)

    monkeypatch.setattr(vae.data.pixels.Pixels, "batch", spy)
    run(small_config(), few_digits())
    orders = [[index for batch in batches for index in batch] for batches in (seen[:3], seen[3:])]
    assert [sorted(order) for order in orders] == [list(range(96))] * 2
    assert orders[0] != orders[1]
    assert orders[0] != list(range(96))


def test_train_without_validation_has_no_held_out_metrics():
    """With ``validation: 0`` rows have no val/ and no measure; what was trained on is there for pictures."""
    data = dataclasses.replace(few_digits(), validation=None)
    result = next(train(small_config(), data))
    assert not any(name.startswith("val/") for name in result.row)
    assert "measure" not in result.row
    assert len(result.examples) == 96
    assert result.diverged is None


def test_result_of_an_epoch_has_the_evaluated_model_and_examples():
    """The row's scores equal those of the model in the result on the examples in the result."""
    config = small_config(ema_decay=0.5, optimizer=Adam(lr=1e-2))
    data = few_digits()
    for result in train(config, data):
        scores = held_out_metrics(
            result.model, result.examples, config.eval, measure_of(config, data.validation, levels=data.levels)
        )
        assert {f"val/{name}": value for name, value in scores.items()}.items() <= result.row.items()
        kept = result.state.weights()
        assert all(torch.equal(kept[name], tensor) for name, tensor in raw_weights(result.model).items())


def test_train_on_digits_raises_the_held_out_elbo():
    """On the real digits the held-out ELBO rises, from all starting points of the optimizer's choice."""
    rows, _ = run(small_config(optimizer=Adam(lr=1e-2), epochs=10, network=Mlp(hidden=(32,))), few_digits())
    assert rows[-1]["val/elbo"] > rows[0]["val/elbo"] + 100
    assert rows[-1]["train/loss"] < rows[0]["train/loss"] - 100


def test_average_of_weights_is_what_is_evaluated(monkeypatch):
    """EMA by hand: from the starting weights, each step a share 1 − min(decay, (1 + t)/(10 + t)) of the new ones."""
    config = small_config(ema_decay=0.4, batch_size=96, epochs=6, optimizer=Adam(lr=1e-2))  # one step an epoch
    data = few_digits()
    scored = []
    real = vae.run.held_out_metrics

    def spy(model, *rest):
        scored.append(raw_weights(model))
        return real(model, *rest)

    monkeypatch.setattr(vae.run, "held_out_metrics", spy)
    average = {name: weight.double() for name, weight in raw_weights(build(config, data)).items()}
    for step, result in enumerate(train(config, data), start=1):
        decay = min(0.4, (1 + step) / (10 + step))
        assert (decay == 0.4) == (step >= 5)
        for name, mean in average.items():
            mean.lerp_(result.state.tensors[f"model/{name}"].double(), 1 - decay)
            assert torch.allclose(mean.float(), scored[-1][name], rtol=1e-5, atol=1e-7)
            assert torch.equal(scored[-1][name], result.state.tensors[f"ema/{name}"])
        assert result.row["weights"] == "ema"
    assert len(scored) == 6


def test_raw_weights_after_an_epoch_with_an_average_are_restored():
    """An average changes the scores but not the training: raw weights equal those of a run without it."""
    averaged, plain = (small_config(ema_decay=decay, epochs=3, optimizer=Adam(lr=1e-2)) for decay in (0.9, None))
    rows, tensors = run(averaged, few_digits())
    plain_rows, plain_tensors = run(plain, few_digits())
    model = {name: tensor for name, tensor in tensors.items() if not name.startswith("ema/")}
    assert all(torch.equal(plain_tensors[name], tensor) for name, tensor in model.items())
    for row, other in zip(rows, plain_rows, strict=True):
        assert row["train/loss"] == other["train/loss"]
        assert row["val/elbo"] != other["val/elbo"]
    model_left = None
    for result in train(averaged, few_digits()):
        model_left = result.model
    assert model_left is not None
    assert all(torch.equal(tensors[f"model/{n}"], weight) for n, weight in raw_weights(model_left).items())


def test_raw_weights_after_an_early_stop_are_restored():
    """A run that is stopped between two epochs has its raw weights in the model, not the average."""
    results = train(small_config(ema_decay=0.9), few_digits())
    result = next(results)
    raw = {name: tensor.clone() for name, tensor in result.state.tensors.items() if name.startswith("model/")}
    assert not all(torch.equal(raw[f"model/{n}"], weight) for n, weight in raw_weights(result.model).items())
    results.close()
    assert all(torch.equal(raw[f"model/{n}"], weight) for n, weight in raw_weights(result.model).items())


def test_held_out_noise_with_another_trial_seed_is_the_same(monkeypatch):
    """Two trials with other seeds but the same weights have the same held-out scores; another eval.seed not."""
    weights = build(small_config(), few_digits()).state_dict()
    real = vae.run.build

    def same_weights(config, data, device="cpu"):
        model = real(config, data, device)
        model.load_state_dict(weights)
        return model

    monkeypatch.setattr(vae.run, "build", same_weights)

    def score(*, seed, eval_seed=0, batch_size=1000, **changes):
        config = small_config(
            seed=seed, eval=Evaluation(seed=eval_seed, batch_size=batch_size), optimizer=SGD(lr=1e-30), epochs=1
        )
        return run(dataclasses.replace(config, **changes), few_digits())[0][0]["val/elbo"]

    first = score(seed=0)
    assert score(seed=1) == first
    assert score(seed=0, eval_seed=1) != first
    for batch_size in (1, 7):
        assert score(seed=0, batch_size=batch_size) == pytest.approx(first, rel=1e-6)
    binary = {"data": Digits(binarisation="dynamic"), "likelihood": Bernoulli()}
    assert score(seed=1, **binary) == score(seed=0, **binary)
    assert score(seed=0, eval_seed=1, **binary) != score(seed=0, **binary)


def test_gradient_clip_below_the_norm_scales_the_step():
    """A bound far above the norm changes nothing. The row has the norm before clipping."""
    common = {"optimizer": SGD(lr=1e-3), "batch_size": 96, "epochs": 1}
    start = raw_weights(build(small_config(), few_digits()))
    free, clipped, loose = (
        run(small_config(gradient_clip=bound, **common), few_digits()) for bound in (None, 0.5, 1e9)
    )
    norm = loose[0][0]["train/gradient_norm"]
    assert clipped[0][0]["train/gradient_norm"] == norm > 0.5
    assert all(torch.equal(free[1][name], tensor) for name, tensor in loose[1].items())
    moved = sum((clipped[1][f"model/{n}"] - weight).double().square().sum().item() for n, weight in start.items())
    assert math.sqrt(moved) == pytest.approx(0.5e-3, rel=1e-3)


def test_train_in_bfloat16_is_close_to_float32():
    """Autocast changes the digits of training, not its course; weights and scores stay in float32."""
    common = {"optimizer": Adam(lr=1e-2), "epochs": 4, "network": Mlp(hidden=(16,))}
    full, _ = run(small_config(**common), few_digits())
    reduced, tensors = run(small_config(precision="bfloat16", **common), few_digits())
    assert reduced[-1]["val/elbo"] != full[-1]["val/elbo"]
    assert reduced[-1]["val/elbo"] == pytest.approx(full[-1]["val/elbo"], rel=0.02)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


@torch.no_grad()
def test_kl_under_bfloat16_is_computed_in_float32():
    """Near the prior the KL is a small difference of large numbers, which bfloat16 would lose."""
    config = small_config(precision="bfloat16", conditioning=OnLabel(), prior=LabelConditional())
    model = build(config, few_digits())
    layer = model.encoder.affine[-1]
    layer.weight.mul_(1e-2)
    layer.bias.copy_(torch.tensor([0.02, 0.01, 0.03, 0.02, -0.01, 0.015]))
    x, label, noise = torch.rand(16, 64), torch.eye(10)[torch.arange(16) % 10], torch.zeros(1, 16, 3)
    exact = model.terms(x, label, noise).kl.sum(1)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = model.terms(x, label, noise).kl.sum(1)
    assert reduced.dtype == torch.float32
    assert torch.allclose(exact, reduced, rtol=0.05, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_train_with_compile_compiles_the_terms_of_the_model(monkeypatch, compiled):
    """torch.compile is called on the forward pass of the step, and only with ``compile``."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function: asked.append(function.__name__) or function)
    rows, _ = run(small_config(compile=compiled), few_digits())
    assert asked == (["terms"] if compiled else [])
    assert rows == run(small_config(), few_digits())[0]


@pytest.mark.filterwarnings("ignore")
def test_train_after_many_compilations_still_compiles(monkeypatch):
    """Torch stops compiling a function after eight times, and a worker trains many shapes in turn."""
    ran = []

    def backend(graph, inputs):
        del inputs
        return lambda *arguments: ran.append(1) or graph(*arguments)

    really = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: really(function, backend=backend))
    for latent_size in range(1, 12):
        run(small_config(latent_size=latent_size, epochs=1, batch_size=50, compile=True), few_digits(train=100))
        assert len(ran) == 2 * latent_size, "each of two steps by what was compiled"


@pytest.mark.slow
@pytest.mark.timeout(1200)  # compiling takes a minute on an idle machine
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "changes",
    [{}, {"conditioning": OnLabel(), "prior": LabelConditional(), "ema_decay": 0.9}, {"gradient_clip": 1.0}],
    ids=["vae", "cvae-ema", "clip"],
)
def test_compiled_run_equals_the_eager_run_to_rounding(changes):
    """torch.compile changes the order of sums, and no result by more than that."""
    config = small_config(optimizer=Adam(lr=1e-2), epochs=3, batch_size=40, **changes)
    eager, _ = run(config, few_digits())
    compiled, _ = run(dataclasses.replace(config, compile=True), few_digits())
    for row, other in zip(eager, compiled, strict=True):
        for name in ("train/loss", "train/kl", "val/elbo", "val/kl"):
            assert other[name] == pytest.approx(row[name], rel=1e-3)


def test_train_with_a_batch_larger_than_the_data_takes_one_step_an_epoch():
    """Each step uses all examples."""
    large, exact = (run(small_config(batch_size=size), few_digits())[0] for size in (10_000, 96))
    assert large[-1]["step"] == 2
    assert large[-1]["val/elbo"] == exact[-1]["val/elbo"]


@pytest.mark.parametrize("batch_size", [1, 5, 6])
def test_train_with_odd_batch_sizes_works(batch_size):
    """One example a step, a last batch of one, and images of no power of two."""
    data = noise_images((1, 3, 5), levels=3, classes=2, train=6, validation=1)
    rows, _ = run(small_config(batch_size=batch_size), data)
    assert rows[-1]["step"] == 2 * math.ceil(6 / batch_size)
    assert math.isfinite(rows[-1]["val/elbo"])


def test_train_on_shared_data_does_not_write_to_it():
    """Images and labels, which all trials of a process share, do not change."""
    data = few_digits()
    before = [data.train.digest, data.validation.digest]
    for changes in (
        {"data": Digits(binarisation="dynamic"), "likelihood": Bernoulli()},
        {"data": Digits(binarisation="static"), "likelihood": Bernoulli()},
        {"data": Digits(dequantise=True), "likelihood": Gaussian()},
    ):
        run(small_config(epochs=1, **changes), data)
    after = [make_split(s.name, s.images, s.labels).digest for s in (data.train, data.validation)]
    assert after == before


def test_held_out_pixels_after_other_draws_are_the_same():
    """The binarisation of held-out pixels does not depend on other random draws."""
    config = small_config(data=Digits(binarisation="dynamic"), likelihood=Bernoulli())
    first = held_out(config, few_digits()).batch(slice(None))
    training = pixels_of(few_digits().train, config, 16, torch.device("cpu"), held_out=False)
    assert not torch.equal(training.batch(slice(None)), training.batch(slice(None)))
    assert torch.equal(held_out(config, few_digits()).batch(slice(None)), first)
