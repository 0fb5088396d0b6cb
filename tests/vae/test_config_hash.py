"""Config hashes survive new fields: records, ledgers and checkpoints of earlier versions still fit."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.support.places import FIXTURES
from vae import serialization
from vae.conditioning import OnLabel, OnQuadrants
from vae.corruption import SaltAndPepper
from vae.data import Arrays, Mnist
from vae.likelihoods import Bernoulli, Gaussian
from vae.networks import Conv, Mlp, ResNet
from vae.objectives import Elbo, FactorVae, Iwae, LinearWarmup, Reconstruction, WaeMmd
from vae.optimizers import AdamW, Cosine, Milestones
from vae.posteriors import Deterministic, FullCovariance
from vae.priors import LabelConditional, Mixture, Vamp
from vae.serialization import as_earlier, config_hash, from_dict, from_json, from_record, in_sweep_of, to_dict
from vae.train_config import Evaluation, Initialisation, TrainConfig

FIXTURE = FIXTURES / "small-digits"
GREY = Mnist(binarisation="static")

# Hashes of version 0.1.0. One that changes makes the checkpoints and records of earlier sweeps unusable.
HASHES = {
    "the defaults": (TrainConfig(), "30d52cba3fd2d7a580af273a5b8929a147e6e5ba890e54cd813fe330218ede1b"),
    "a beta-VAE with a warm-up": (
        TrainConfig(objective=Elbo(beta=4.0, beta_schedule=LinearWarmup(epochs=5))),
        "d8d1a9be56eca86ef98bd633433956c2e315f30bcf5a4b587aa52245c85b3c9f",
    ),
    "a CVAE": (
        TrainConfig(conditioning=OnLabel(), prior=LabelConditional()),
        "f4cd9fc0738237e0a6dfb937d35b07f1bca3b729e55f1f00c0ae0b6755e1f402",
    ),
    "an IWAE with estimates": (
        TrainConfig(objective=Iwae(k=5), eval=Evaluation(samples=4, nll_k=100, nll_images=200)),
        "2140d7226be97c746c606be863862b11d76a66416d561aefe5ab6c51594df488",
    ),
    "convolutions on MNIST": (
        TrainConfig(data=GREY, likelihood=Bernoulli(), network=Conv(), batch_size=64),
        "53507283c68e2f8bac8a094b43e9667bfb075a0f09e9fd92783bf939d360dd4c",
    ),
    "a residual network, full covariance": (
        TrainConfig(data=GREY, likelihood=Bernoulli(), network=ResNet(), posterior=FullCovariance(), ema_decay=0.99),
        "be8fd89c6e578e1e23ae91da5b9eeb59539df19311375cbec51ca4cfcef3398c",
    ),
    "a table of numbers": (
        TrainConfig(data=Arrays(path="table.csv", scaling="standardise"), likelihood=Gaussian(learned="shared")),
        "92e1a23f09584cd1aee34978e5ab744cd9002a46f0d93c06492cc29e147db3b1",
    ),
    "a WAE with a mixture": (
        TrainConfig(posterior=Deterministic(), objective=WaeMmd(), optimizer=AdamW(lr=3e-4), schedule=Cosine()),
        "96be9014e4ed35493a0375342e7f3c93f3b88abef887d52029cf61e192618a06",
    ),
    "a FactorVAE on the rest of an image": (
        TrainConfig(
            objective=FactorVae(), conditioning=OnQuadrants(), initialisation=Initialisation(weights="xavier_normal")
        ),
        "367f4f30f4a52735ac248cb9ab3f9353656b7123e19f555a39c4802232be0583",
    ),
    "a VampPrior": (
        TrainConfig(
            prior=Vamp(), network=Mlp(hidden=(300, 300)), schedule=Milestones(epochs=(5, 8)), gradient_clip=1.0, seed=7
        ),
        "9dc9b79167cf0e27b4c563f900855f13862ddc115140d75b12823b18f1cde6ac",
    ),
    "a denoising autoencoder": (
        TrainConfig(posterior=Deterministic(), objective=Reconstruction(), corruption=SaltAndPepper(fraction=0.25)),
        "6be8eadd725fd6bf55d9386953758856269460b1f2d84d6374b03eb6c03e4358",
    ),
    "a mixture prior": (
        TrainConfig(prior=Mixture(components=5), latent_size=2, precision="bfloat16"),
        "72e765694dc8e6b67aafd913a6ad8510c8c3813ff20093a578fc89bad8678b3b",
    ),
}


@pytest.fixture
def later_field(monkeypatch):
    """Pretend that ``eval.samples`` was added later, and that configs without it mean 3 samples."""
    monkeypatch.setitem(serialization.LATER_FIELDS, ("Evaluation", "samples"), 3)


@pytest.mark.parametrize("name", HASHES)
def test_config_hash_of_version_0_1_0_is_unchanged(name):
    """Each pinned config has the hash that version 0.1.0 gave it, made in Python and read from JSON alike."""
    config, expected = HASHES[name]

    assert config_hash(config) == expected
    assert config_hash(from_json(json.dumps(to_dict(config)))) == expected


def test_config_hash_of_every_recorded_config_fits():
    """The hashes in an earlier ledger are those of its configs as they are read today."""
    events = [json.loads(path.read_text())["event"] for path in sorted((FIXTURE / "ledger").iterdir())]
    trials = [event for event in events if event["type"] == "trial"]

    assert len(trials) == 3
    for event in trials:
        assert config_hash(from_record(event["config"])) == event["config_hash"]


def test_config_hash_leaves_out_a_later_field_at_its_default_or_earlier_value(later_field):
    """Only another value than these two is hashed; every other field is hashed as before."""
    default, earlier, other = (TrainConfig(eval=Evaluation(samples=samples)) for samples in (1, 3, 2))

    assert config_hash(default) == config_hash(earlier)
    assert config_hash(other) != config_hash(default)
    assert config_hash(dataclasses.replace(default, seed=1)) != config_hash(default)


def test_from_record_gives_a_missing_later_field_its_earlier_value(later_field):
    """A user's own JSON without the field takes today's default; a value that is there stays, in both."""
    values = to_dict(TrainConfig())
    del values["eval"]["samples"]

    assert from_record(values).eval.samples == 3
    assert from_json(json.dumps(values), recorded=True).eval.samples == 3
    assert from_dict(values).eval.samples == 1
    assert from_record(to_dict(TrainConfig(eval=Evaluation(samples=2)))).eval.samples == 2


def test_from_record_hash_of_an_earlier_config_is_its_recorded_hash(later_field):
    """A config of before the field existed keeps the hash that its text has."""
    values = to_dict(TrainConfig())
    del values["eval"]["samples"], values["eval"]["subset"], values["metrics"]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))

    assert config_hash(from_record(values)) == serialization.hashlib.sha256(text.encode()).hexdigest()


def test_eval_subset_of_an_earlier_config_is_first_and_of_a_new_one_permuted():
    """Neither value is hashed, so records of both kinds fit their hash; both are written down."""
    values = to_dict(TrainConfig())
    assert values["eval"].pop("subset") == "permuted"

    assert from_record(values).eval.subset == "first"
    assert from_dict(values).eval.subset == "permuted"
    assert to_dict(from_record(values))["eval"]["subset"] == "first"
    assert config_hash(from_record(values)) == config_hash(TrainConfig()) == HASHES["the defaults"][1]


def test_in_sweep_of_gives_a_draw_the_rule_of_its_sweep():
    """A sweep of an earlier version goes on under its rule; one that names a rule keeps what its space says."""
    drawn, recorded = TrainConfig(seed=3), to_dict(TrainConfig(eval=Evaluation(subset="permuted")))
    earlier = json.loads(json.dumps(recorded))
    del earlier["eval"]["subset"]

    assert in_sweep_of(drawn, earlier) == TrainConfig(seed=3, eval=Evaluation(subset="first"))
    assert in_sweep_of(drawn, recorded) == drawn


def test_as_earlier_makes_an_explicit_earlier_value_equal_to_a_missing_one():
    """Another value stays, and so does every other field."""
    assert as_earlier("Evaluation", {"samples": 1, "subset": "first"}) == {"samples": 1}
    assert as_earlier("Evaluation", {"subset": "permuted"}) == {"subset": "permuted"}
    assert as_earlier("Elbo", {"subset": "first"}) == {"subset": "first"}


def test_every_later_field_exists():
    """The list names fields of today's parts, each with a default."""
    parts = {name for name, _ in serialization.LATER_FIELDS}
    known = serialization._ADAPTER.json_schema()["$defs"] | {"TrainConfig": serialization._ADAPTER.json_schema()}

    assert parts <= set(known)
    for owner, field in serialization.LATER_FIELDS:
        assert field in known[owner]["properties"]
        assert field not in known[owner].get("required", [])
