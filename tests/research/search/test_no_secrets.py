"""A secret in what a sweep records word for word is refused, and the refusal does not repeat it."""

from __future__ import annotations

import hashlib

import pytest

from research.errors import UserError
from research.ledger.settings import SpaceSource
from research.search.spaces import Space, survey
from vae.data import Arrays
from vae.likelihoods import Gaussian
from vae.networks import Mlp
from vae.train_config import TrainConfig

CANARY = "canary-5f0e7d/3"
TOKEN = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0xLaB3d"


def space_of(function, source=""):
    """A space with this function and this source."""
    return Space(function=function, source=SpaceSource(name="s", source=source, sha256=hashlib.sha256().hexdigest()))


def config(path="a.csv"):
    """A small config with a data path."""
    return TrainConfig(data=Arrays(path=path), likelihood=Gaussian(), network=Mlp(hidden=(4,)), epochs=1)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f"KEY = '{TOKEN}'", "a token (GitHub Token)"),
        (f"PASSWORD = '{CANARY}'", "the value of DB_PASS"),
        ("URL = 's3://me:hunter2@bucket.example/x'", "the password of a URL"),
        ("KEY = '''-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----'''", "a token (private key)"),
    ],
)
def test_survey_source_with_a_secret_is_refused_by_line(monkeypatch, line, kind):
    """The line's number and the kind of the secret are named."""
    monkeypatch.setenv("DB_PASS", CANARY)
    with pytest.raises(UserError) as caught:
        survey(space_of(lambda _: config(), f"import os\n{line}\n"), epochs=None, seed=0)
    said = str(caught.value)
    assert kind in said
    assert "in line 2" in said or "private" in said
    assert TOKEN not in said
    assert CANARY not in said


def test_survey_config_with_a_secret_is_refused_by_its_path(monkeypatch):
    """A data path with a password, and one with a value of the environment."""
    monkeypatch.setenv("DB_PASS", CANARY)
    for path in (f"/data/{CANARY}/a.csv", f"/data/{TOKEN}/a.csv"):
        with pytest.raises(UserError, match=r"the config holds .* at data\.path") as caught:
            survey(space_of(lambda _, path=path: config(path)), epochs=None, seed=0)
        assert CANARY not in str(caught.value)
        assert TOKEN not in str(caught.value)


def test_survey_choice_with_a_secret_is_refused(monkeypatch):
    """The parameter is named."""
    monkeypatch.setenv("DB_PASS", CANARY)

    def function(trial):
        trial.suggest_categorical("server", ["a", CANARY])
        return config()

    with pytest.raises(UserError, match="parameter 'server' holds the value of DB_PASS") as caught:
        survey(space_of(function), epochs=None, seed=0)
    assert CANARY not in str(caught.value)


def test_survey_ordinary_space_is_not_refused(monkeypatch):
    """A password that is a plain word, the name of a parameter or of a kind refuses nothing."""
    for name, value in {"DB_PASS": "bernoulli", "SORT_KEY": "val/elbo", "MY_TOKEN": "latent", "KEY": "digits"}.items():
        monkeypatch.setenv(name, value)
    source = "# see https://user:password@host.example\n# bernoulli val/elbo latent digits\nKEY = 'key_size'\n"
    assert len(survey(space_of(lambda _: config("bernoulli/digits.csv"), source), epochs=None, seed=0).configs) == 50
