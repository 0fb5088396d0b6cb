"""train_stacked(): what a stack of runs computes is what each of them computes alone."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from torch.autograd import gradcheck

from tests.support.small import few_digits, run, small_config, stacked
from vae.conditioning import OnLabel, OnQuadrants
from vae.corruption import GaussianCorruption, Masking, NoCorruption, SaltAndPepper
from vae.data import Digits
from vae.fast.stackable import groups, pays, why_not
from vae.fast.stacked import StackedAffine, train_stacked
from vae.fast.stacked_optimizers import OneAdam, OneByOne, updates
from vae.likelihoods import Bernoulli, Binomial, Gaussian
from vae.networks import Conv, Mlp
from vae.objectives import Cyclical, Elbo, FactorVae, LinearWarmup
from vae.optimizers import SGD, Adam, Adamax, AdamW, Cosine, Exponential, RMSprop, build_optimizer
from vae.posteriors import DiagonalGaussian, FullCovariance
from vae.priors import Mixture
from vae.run import begin
from vae.state import TrainState
from vae.train_config import Evaluation, Initialisation


def members(draw: random.Random, count: int):
    """Return ``count`` random configs that can be stacked, with about ten steps each on 100 examples."""
    data, likelihood = draw.choice(
        [
            (Digits(), Binomial()),
            (Digits(binarisation="dynamic"), Bernoulli()),
            (Digits(binarisation="static"), Bernoulli()),
            (Digits(dequantise=True), Gaussian(learned=draw.choice(["none", "per_pixel"]))),
        ]
    )
    shared = {
        "data": data,
        "likelihood": likelihood,
        "network": Mlp(
            hidden=tuple(draw.choice([(), (9,), (12, 7)])),
            activation=draw.choice(["relu", "tanh", "silu"]),
            dropout=draw.choice([0.0, 0.3]),
        ),
        "latent_size": draw.randint(1, 5),
        "posterior": draw.choice([DiagonalGaussian(), FullCovariance()]),
        "conditioning": draw.choice([small_config().conditioning, OnLabel(at="every_layer"), OnQuadrants()]),
        "corruption": draw.choice([NoCorruption(), GaussianCorruption(), Masking(), SaltAndPepper()]),
        "batch_size": draw.choice([20, 32]),
        "eval": Evaluation(samples=draw.randint(1, 2), nll_k=draw.choice([0, 4]), nll_images=8),
    }
    return [
        small_config(
            **shared,
            seed=draw.randrange(2**31),
            epochs=draw.randint(2, 3),
            objective=Elbo(
                beta=draw.choice([0.0, 0.5, 4.0]),
                beta_schedule=draw.choice([Elbo().beta_schedule, LinearWarmup(epochs=1.5), Cyclical(cycles=2)]),
                free_bits=draw.choice([0.0, 0.0, 0.2]),
            ),
            optimizer=draw.choice([Adam, AdamW, Adamax, RMSprop, SGD])(lr=draw.choice([1e-4, 1e-3])),
            schedule=draw.choice([small_config().schedule, Cosine(warmup_epochs=0.5), Exponential(factor=0.5)]),
            initialisation=Initialisation(weights=draw.choice(["pytorch", "xavier_normal"])),
            gradient_clip=draw.choice([None, 1.0]),
            ema_decay=draw.choice([None, 0.9]),
        )
        for _ in range(count)
    ]


def assert_close(expected, actual, where="", within=1e-5):
    """Assert equality, of numbers to a relative error of ``within``."""
    if isinstance(expected, dict):
        assert expected.keys() == actual.keys(), where
        for name, value in expected.items():
            assert_close(value, actual[name], f"{where} {name}", within)
    elif isinstance(expected, list):
        assert len(expected) == len(actual), where
        for index, value in enumerate(expected):
            assert_close(value, actual[index], f"{where}[{index}]", within)
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=within, abs=within / 10), where
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=10 * within, atol=within, msg=lambda text: f"{where}: {text}")
    else:
        assert expected == actual, where


def assert_each_as_alone(configs, data):
    """Assert that rows and last tensors of a stack are close to those of each member alone; return the stack's rows."""
    rows, tensors = stacked(configs, data)
    for position, config in enumerate(configs):
        alone_rows, alone_tensors = run(config, data)
        assert_close(alone_rows, rows[position], f"rows of {position}")
        assert_close(alone_tensors, tensors[position], f"state of {position}")
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_member_of_a_stack_equals_the_run_alone(seed):
    """Rows with held-out metrics, weights, averages and moments of random members equal those of their own runs."""
    draw = random.Random(seed)
    configs = members(draw, draw.randint(1, 4))
    data = few_digits(train=100)
    assert_each_as_alone(configs, data)


def test_stacked_step_moves_each_member_by_its_own_gradient():
    """After one plain step at rate 1 each member's weights have moved by its own gradient."""
    data = few_digits(train=32)
    configs = [
        small_config(seed=seed, epochs=1, objective=Elbo(beta=beta), optimizer=SGD(lr=1.0))
        for seed, beta in [(1, 0.5), (2, 1.0), (3, 8.0)]
    ]
    _, tensors = stacked(configs, data)
    for position, config in enumerate(configs):
        _, alone = run(config, data)
        for name, weights in alone.items():
            torch.testing.assert_close(tensors[position][name], weights, rtol=1e-5, atol=1e-6)


def test_stacked_affine_backward_agrees_with_finite_differences():
    """The hand-written backward pass agrees with finite differences in float64."""
    draw = torch.Generator().manual_seed(random.randrange(2**31))
    shapes = [(3, 4, 5), (3, 2, 5), (3, 2)]
    inputs = [torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert gradcheck(StackedAffine.apply, inputs)


def test_member_of_a_stack_with_other_companions_has_the_same_bits():
    """The other members, and when they leave, change no bit of a member's rows and state."""
    data = few_digits(train=100)
    configs = [small_config(seed=seed, epochs=4, ema_decay=0.9) for seed in range(4)]
    rows, tensors = stacked(configs, data)
    fewer_rows, fewer_tensors = stacked(configs, data, stop=[(0, 1), (2, 2)])
    assert [len(each) for each in rows] == [4, 4, 4, 4]
    assert [len(each) for each in fewer_rows] == [1, 4, 2, 4]
    for position in (1, 3):
        assert rows[position] == fewer_rows[position]
        for name, tensor in tensors[position].items():
            assert torch.equal(tensor, fewer_tensors[position][name]), name
    other_rows, _ = stacked([configs[3], configs[1]], data)
    assert [rows[3], rows[1]] == other_rows


def test_stack_when_a_member_diverges_continues_without_it():
    """A member with a far too high rate ends with the reason, and the rows of the others do not change."""
    data = few_digits(train=100)
    wild = small_config(seed=1, epochs=3, optimizer=SGD(lr=1e6))
    tame = small_config(seed=2, epochs=3)
    reasons = [
        {position: result.diverged for position, result in results.items()}
        for results in train_stacked([wild, tame], data)
    ]
    assert reasons[0][0] is not None
    assert [{1}, {1}] == [set(each) for each in reasons[1:]]
    assert all(each[1] is None for each in reasons)
    _, rows = stacked([wild, tame], data)[0]
    assert stacked([tame], data)[0][0] == rows


def test_checkpoint_of_a_member_resumes_alone_or_in_another_stack(tmp_path):
    """A member saved in a stack continues alone, or in another stack whose members are at other epochs."""
    data = few_digits(train=100)
    configs = [small_config(seed=seed, epochs=4, ema_decay=0.9) for seed in range(3)]
    whole, _ = stacked(configs, data)
    epochs = train_stacked(configs, data)
    for epoch in (1, 2):
        for position, result in next(epochs).items():
            result.state.save(tmp_path / f"{position}-{epoch}")
    alone, _ = run(configs[1], data, TrainState.load(tmp_path / "1-2"))
    assert_close(whole[1][2:], alone)
    states = [None, TrainState.load(tmp_path / "1-1"), TrainState.load(tmp_path / "2-2")]
    again, _ = stacked(configs, data, states)
    assert [whole[0], whole[1][1:], whole[2][2:]] == again


def test_stacked_run_after_five_epochs_is_nearer_than_another_seed():
    """After five epochs a stacked run's ELBO differs from the same run's alone by less than from the next seed's."""
    data = few_digits()
    configs = [small_config(seed=seed, epochs=5) for seed in (1, 2)]
    rows, _ = stacked(configs, data)
    alone = [run(config, data)[0][-1]["val/elbo"] for config in configs]
    spread = abs(alone[0] - alone[1])
    for position in (0, 1):
        assert abs(rows[position][-1]["val/elbo"] - alone[position]) < spread


@pytest.mark.slow
@pytest.mark.timeout(1200)  # compiling takes a minute on an idle machine
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_compiled_stack_equals_the_eager_stack(dropout):
    """Metrics and weights of each member agree to rounding, also after one has left and with a smaller last batch."""
    shared = {"network": Mlp(hidden=(12,), dropout=dropout), "batch_size": 40, "conditioning": OnLabel()}
    eager = [
        small_config(**shared, seed=seed, epochs=epochs, objective=Elbo(beta=beta, free_bits=bits), gradient_clip=clip)
        for seed, epochs, beta, bits, clip in [(1, 3, 0.5, 0.0, None), (2, 2, 4.0, 0.2, 1.0), (3, 3, 1.0, 0.0, None)]
    ]
    data = few_digits(train=100)
    expected, weights = stacked(eager, data)
    rows, tensors = stacked([dataclasses.replace(config, compile=True) for config in eager], data)
    assert_close(expected, rows, "rows", within=1e-4)
    assert_close(weights, tensors, "state", within=1e-4)


def test_stack_with_compile_compiles_only_its_own_terms(monkeypatch):
    """torch.compile is called once, on the terms of the stack's model."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function: asked.append(function.__name__) or function)
    configs = [small_config(seed=seed, epochs=1, compile=True) for seed in (1, 2)]
    rows, _ = stacked(configs, few_digits())
    assert asked == ["terms"]
    assert rows == stacked([dataclasses.replace(config, compile=False) for config in configs], few_digits())[0]


def test_why_not_with_each_obstacle_names_it():
    """The reason names the obstacle, and a stack of such configs is refused with that reason."""
    config = small_config()
    changed = dataclasses.replace
    assert why_not([config, changed(config, seed=9, epochs=7, ema_decay=0.5, optimizer=SGD())]) is None
    for name, other in {
        "latent_size differs": changed(config, latent_size=4),
        "network differs": changed(config, network=Mlp(hidden=(9,))),
        "batch_size differs": changed(config, batch_size=16),
        "'conv'": changed(config, network=Conv(channels=(4,))),
        "'batch'": changed(config, network=Mlp(hidden=(8,), normalisation="batch")),
        "'factor_vae'": changed(config, objective=FactorVae()),
        "'mixture'": changed(config, prior=Mixture()),
        "'shared'": changed(config, likelihood=Gaussian(learned="shared"), data=Digits(dequantise=True)),
        "bfloat16": changed(config, precision="bfloat16"),
        "compile differs": changed(config, compile=True),
    }.items():
        reason = why_not([config, other])
        assert reason is not None
        assert name in reason
        with pytest.raises(ValueError, match="can't train as one stack"):
            next(train_stacked([config, other], few_digits()))
    dropout = changed(config, network=Mlp(hidden=(8,), dropout=0.1))
    assert why_not([dropout], "cpu") is None
    assert "dropout" in str(why_not([dropout], "cuda"))


def test_pays_on_a_cpu_for_small_models_and_on_a_gpu_for_all():
    """The size of a step's matrix products decides. A config that can't be stacked never pays."""
    data = few_digits()
    assert pays(small_config(), data)
    assert pays(small_config(network=Mlp(hidden=(5000, 5000))), data, "cuda")
    assert not pays(small_config(network=Mlp(hidden=(8,), dropout=0.1)), data, "cuda")
    assert not pays(small_config(compile=True), data)
    assert not pays(small_config(network=Conv(channels=(4,))), data)
    assert not pays(small_config(network=Mlp(hidden=(5000, 5000))), data)


def test_groups_of_mixed_configs_put_each_position_into_one_group():
    """A config that can't be stacked is alone in its group."""
    conv = small_config(network=Conv(channels=(4,)))
    configs = [small_config(seed=1), small_config(latent_size=4), conv, small_config(seed=2), conv]
    assert groups(configs) == [[0, 3], [1], [2], [4]]


@pytest.mark.parametrize(
    "optimizer",
    [
        Adam(betas=(0.5, 0.9), eps=1e-4, weight_decay=0.1),
        Adam(amsgrad=True),
        AdamW(weight_decay=0.3),
        Adamax(),
        RMSprop(momentum=0.5),
        SGD(momentum=0.9),
        SGD(),
    ],
)
def test_member_with_each_optimizer_equals_the_run_alone(optimizer):
    """Rows, weights and moments equal those of runs alone, also after a member has left."""
    data = few_digits(train=100)
    configs = [
        small_config(seed=seed, epochs=3, optimizer=optimizer, schedule=Exponential(factor=0.5), gradient_clip=clip)
        for seed, clip in [(1, None), (2, 5.0), (3, None)]
    ]
    rows, tensors = stacked(configs, data, stop=[(0, 1)])
    for position, config in enumerate(configs):
        alone_rows, alone_tensors = run(config, data)
        assert_close(alone_rows[: len(rows[position])], rows[position], f"rows of {position}")
        if position > 0:
            assert_close(alone_tensors, tensors[position], f"state of {position}")


def of_one_update(draw: random.Random, **shared):
    """Return a config for :class:`OneAdam` with random rate, betas, eps, decay, clipping and average."""
    kind = draw.choice([Adam, AdamW])
    optimizer = kind(
        lr=10 ** draw.uniform(-4, -2),
        betas=(draw.uniform(0, 0.95), draw.uniform(0.5, 0.999)),
        eps=10 ** draw.uniform(-8, -3),
        weight_decay=draw.choice([0.0, 0.2]),
    )
    return small_config(
        seed=draw.randrange(2**31),
        optimizer=optimizer,
        schedule=draw.choice([small_config().schedule, Exponential(factor=0.5)]),
        gradient_clip=draw.choice([None, 5.0]),
        ema_decay=draw.choice([None, 0.9]),
        **shared,
    )


@pytest.fixture
def one_adam(monkeypatch):
    """Use the update of a GPU on the CPU."""
    monkeypatch.setattr("vae.fast.stacked.updates", OneAdam)


@pytest.mark.usefixtures("one_adam")
@pytest.mark.parametrize("seed", range(6))
def test_one_adam_for_all_members_equals_each_run_alone(seed, tmp_path):
    """Rows, weights, moments and averages agree, also when resumed in a stack or alone from a stack's checkpoint."""
    draw = random.Random(seed)
    configs = [of_one_update(draw, epochs=3) for _ in range(4)]
    data = few_digits(train=100)
    rows = assert_each_as_alone(configs, data)
    for position, result in next(train_stacked(configs, data)).items():
        result.state.save(tmp_path / str(position))
    states = [TrainState.load(tmp_path / str(position)) for position in range(4)]
    assert stacked(configs, data, states)[0] == [each[1:] for each in rows]
    assert_close(rows[2][1:], run(configs[2], data, states[2])[0], "resumed alone")


@pytest.mark.usefixtures("one_adam")
def test_one_adam_with_other_companions_has_the_same_bits():
    """The other members, their order, and when they leave have no effect on a member."""
    draw = random.Random(5)
    configs = [of_one_update(draw, epochs=4) for _ in range(5)]
    data = few_digits(train=100)
    rows, tensors = stacked(configs, data)
    for stop in [(0, 1)], [(1, 1), (3, 2)], [(4, 1), (2, 2)]:
        fewer_rows, fewer_tensors = stacked(configs, data, stop=stop)
        for position in range(5):
            assert rows[position][: len(fewer_rows[position])] == fewer_rows[position]
            if position not in dict(stop):
                assert all(torch.equal(tensors[position][n], t) for n, t in fewer_tensors[position].items())
    other_rows, _ = stacked(configs[::-1], data)
    assert rows == other_rows[::-1]


@pytest.mark.parametrize("seed", range(3))
def test_one_adam_on_random_gradients_equals_torchs_adam(seed):
    """Ten steps on random weights and gradients equal torch's Adam and AdamW in float64, with settings by row."""
    draw = random.Random(seed)
    data = few_digits(train=100)
    runs = [begin(of_one_update(draw), data, None, torch.device("cpu")) for _ in range(4)]
    for each in runs:
        each.config = dataclasses.replace(each.config, gradient_clip=None)
    table = torch.stack([torch.nn.utils.parameters_to_vector(each.parameters).detach() for each in runs])
    shapes = [parameter.shape for parameter in runs[0].parameters]
    expected = [torch.nn.Parameter(row.double()) for row in table]
    optimizers = [build_optimizer(each.config.optimizer, [row]) for each, row in zip(runs, expected, strict=True)]
    ours = OneAdam(runs, table)
    schedule = ours.begin([[each.config.optimizer.lr for each in runs]] * 10)
    stream = torch.Generator().manual_seed(seed)
    for its in schedule:
        gradients = [torch.randn((4, *shape), generator=stream) for shape in shapes]
        for k, (row, optimizer) in enumerate(zip(expected, optimizers, strict=True)):
            row.grad = torch.cat([each[k].flatten() for each in gradients]).double()
            optimizer.step()
        assert ours.step(gradients, *its) is None
    torch.testing.assert_close(table, torch.stack([row.detach() for row in expected]).float(), rtol=1e-5, atol=1e-6)


def test_groups_on_a_gpu_do_not_mix_kinds_of_updates():
    """On a GPU either all optimizers of a stack are updated by :class:`OneAdam`, or none is."""
    adam, sgd, amsgrad = (small_config(optimizer=each) for each in (Adam(), SGD(), Adam(amsgrad=True)))
    assert groups([adam, sgd, amsgrad, adam], "cuda") == [[0, 3], [1, 2]]
    assert groups([adam, sgd, amsgrad, adam], "cpu") == [[0, 1, 2, 3]]
    assert isinstance(updates([], torch.empty(0, 5)), OneByOne)
    assert isinstance(updates([], torch.empty(0, 5, device="meta")), OneAdam)
