"""Hypothesis strategies for configs: anything that may be run, whether or not anyone would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from vae.conditioning import OnLabel, Unconditional
from vae.data import Cifar10, Digits, Emnist, FashionMnist, Kmnist, Mnist, Svhn
from vae.likelihoods import Bernoulli, Binomial, Gaussian
from vae.networks import Conv, Mlp
from vae.objectives import ConstantBeta, Cyclical, Elbo, LinearWarmup
from vae.optimizers import SGD, Adam, Adamax, AdamW, ConstantRate, Cosine, Exponential, Milestones, RMSprop
from vae.priors import LabelConditional, StandardNormal
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

sizes = st.integers(1, 2000)
# −0.0 equals 0.0 and is written otherwise; nobody means it.
positive = st.floats(min_value=1e-12, max_value=1e6)
not_negative = st.just(0.0) | positive
below_one = st.just(0.0) | st.floats(min_value=1e-6, max_value=1, exclude_max=True)
names = ["relu", "tanh", "gelu", "silu", "elu", "leaky_relu", "softplus"]

networks = st.builds(
    Mlp,
    hidden=st.lists(sizes, max_size=4).map(tuple),
    decoder_hidden=st.none() | st.lists(sizes, max_size=3).map(tuple),
    activation=st.sampled_from(names),
    dropout=below_one,
) | st.builds(
    Conv,
    channels=st.lists(sizes, min_size=1, max_size=4).map(tuple),
    kernel=st.sampled_from([3, 4, 5]),
    dense=sizes,
    activation=st.sampled_from(names),
    dropout=below_one,
)
adaptive = {
    "lr": positive,
    "betas": st.tuples(below_one, below_one),
    "eps": positive,
    "weight_decay": not_negative,
}
optimizers = st.one_of(
    st.builds(Adam, **adaptive, amsgrad=st.booleans()),
    st.builds(AdamW, **adaptive, amsgrad=st.booleans()),
    st.builds(Adamax, **adaptive),
    st.builds(
        RMSprop,
        lr=positive,
        alpha=below_one,
        eps=positive,
        momentum=below_one,
        centered=st.booleans(),
        weight_decay=not_negative,
    ),
    st.builds(SGD, lr=positive, momentum=below_one, dampening=below_one, weight_decay=not_negative),
    st.builds(SGD, lr=positive, momentum=st.floats(0.1, 0.9), nesterov=st.just(value=True)),
)
schedules = st.one_of(
    st.builds(ConstantRate),
    st.builds(Cosine, warmup_epochs=not_negative, final=st.floats(0.0, 1.0).map(abs)),
    st.builds(Milestones, epochs=st.lists(sizes, min_size=1, max_size=4).map(tuple), factor=positive),
    st.builds(Exponential, factor=st.floats(1e-6, 1.0)),
)


@st.composite
def train_configs(draw: Callable[[st.SearchStrategy], object]) -> TrainConfig:
    """Any config that is allowed: parts drawn freely, then kept to combinations that mean something."""
    epochs = draw(st.integers(1, 200))
    likelihood = draw(
        st.builds(Bernoulli)
        | st.builds(Binomial)
        | st.builds(
            Gaussian, variance=positive, learned=st.sampled_from(["none", "shared", "per_pixel"]), floor=positive
        )
    )
    allowed = ["expected", "static", "dynamic"] if isinstance(likelihood, Bernoulli) else ["none"]
    binarisation = draw(st.sampled_from(allowed))
    data_set = draw(st.sampled_from([Digits, Mnist, FashionMnist, Kmnist, Emnist, Cifar10, Svhn]))
    data = data_set(
        validation=draw(st.none() | st.integers(0, 10_000)),
        split_seed=draw(st.integers(0, 2**40)),
        binarisation=binarisation,
        dequantise=isinstance(likelihood, Gaussian) and draw(st.booleans()),
    )
    conditioning = draw(st.builds(Unconditional) | st.builds(OnLabel, at=st.sampled_from(["input", "every_layer"])))
    learned_prior = isinstance(conditioning, OnLabel) and draw(st.booleans())
    schedule = draw(
        st.builds(ConstantBeta)
        | st.builds(LinearWarmup, epochs=st.floats(1e-3, epochs))
        | st.builds(Cyclical, cycles=st.integers(1, epochs), ramp=st.floats(1e-3, 1.0))
    )
    scored = data.validation != 0 and binarisation != "expected"
    return TrainConfig(
        data=data,
        network=draw(networks),
        latent_size=draw(sizes),
        prior=LabelConditional() if learned_prior else StandardNormal(),
        likelihood=likelihood,
        conditioning=conditioning,
        objective=Elbo(beta=draw(not_negative), beta_schedule=schedule, free_bits=draw(not_negative)),
        optimizer=draw(optimizers),
        schedule=draw(schedules),
        initialisation=draw(
            st.builds(
                Initialisation,
                weights=st.sampled_from(["pytorch", "xavier_uniform", "xavier_normal"]),
                output_bias=st.sampled_from(["default", "data_mean"]),
            )
        ),
        epochs=epochs,
        batch_size=draw(sizes),
        gradient_clip=draw(st.none() | positive),
        ema_decay=draw(st.none() | below_one),
        seed=draw(st.integers(0, 2**63)),
        precision=draw(st.sampled_from(["float32", "bfloat16"])),
        compile=draw(st.booleans()),
        eval=Evaluation(
            seed=draw(st.integers(0, 2**63)),
            samples=draw(sizes),
            batch_size=draw(sizes),
            nll_k=draw(st.integers(0, 5000)) if scored else 0,
            nll_images=draw(sizes),
        ),
    )
