"""Ten CPU steps of three models, against the numbers that they gave before: a change of numerics is never by accident.

``--bless`` rewrites the files beside this one; the diff is the change to review.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.small import few_digits, run
from vae.conditioning import OnLabel
from vae.data import Digits
from vae.likelihoods import Bernoulli
from vae.networks import Conv, Mlp
from vae.objectives import Elbo, LinearWarmup
from vae.optimizers import Adam, Cosine
from vae.priors import LabelConditional
from vae.train_config import Evaluation, Initialisation, TrainConfig

COMMON = {"epochs": 2, "batch_size": 40, "optimizer": Adam(lr=3e-3)}
MODELS = {
    "mlp-binomial": TrainConfig(
        network=Mlp(hidden=(32, 16)),
        latent_size=4,
        initialisation=Initialisation(output_bias="data_mean"),
        eval=Evaluation(samples=2, nll_k=8),
        **COMMON,
    ),
    "cvae": TrainConfig(
        network=Mlp(hidden=(32,), activation="tanh", dropout=0.1),
        latent_size=4,
        conditioning=OnLabel(at="every_layer"),
        prior=LabelConditional(),
        objective=Elbo(beta=2.0, beta_schedule=LinearWarmup(epochs=1), free_bits=0.1),
        ema_decay=0.9,
        **COMMON,
    ),
    "conv-bernoulli-dynamic": TrainConfig(
        data=Digits(binarisation="dynamic"),
        likelihood=Bernoulli(),
        network=Conv(channels=(4, 8), dense=16, activation="silu"),
        latent_size=4,
        schedule=Cosine(warmup_epochs=0.5),
        initialisation=Initialisation(weights="xavier_uniform"),
        gradient_clip=10.0,
        **COMMON,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_numbers_are_as_they_were(name, request):
    """Rows equal the blessed ones: figures to 10⁻⁴, so that another CPU passes; counts, names and text exactly."""
    rows, _ = run(MODELS[name], few_digits(200, 80))  # five steps an epoch
    assert rows[-1]["step"] == 10
    file = Path(__file__).with_name(f"{name}.json")
    if request.config.getoption("bless"):
        file.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return
    expected = json.loads(file.read_text(encoding="utf-8"))
    assert len(expected) == len(rows)
    for before, now in zip(expected, rows, strict=True):
        assert before.keys() == now.keys()
        for metric, value in before.items():
            exact = isinstance(value, int | str)  # bool too
            assert now[metric] == (value if exact else pytest.approx(value, rel=1e-4, abs=1e-5)), metric
