"""What can't be trained is refused by the survey, in one line, and what a trial may fail of by itself is not."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from research.errors import UserError
from research.ledger.settings import Metric, SpaceSource
from research.planning.preflight import check_space, held_out_split
from research.search.spaces import Space, SpaceError
from tests.support.small import digits
from vae.data import Arrays, Digits
from vae.external import External
from vae.likelihoods import Binomial, Gaussian
from vae.networks import Conv, Mlp
from vae.train_config import TrainConfig

PARTS = '''
from dataclasses import dataclass

import torch

from vae.objectives import Elbo


@dataclass(frozen=True)
class Objective:
    """The negative ELBO, or an error of the kind that is asked for."""

    how: str = "not"
    kind = "failing"
    samples = 1
    importance_weighted = False
    posteriors = ("diagonal",)

    def loss(self, batch):
        """A scalar."""
        if self.how == "shapes":
            torch.zeros(2, 3) @ torch.zeros(2, 3)
        if self.how == "memory":
            raise MemoryError
        if self.how == "key":
            raise KeyError("no such layer")
        return Elbo().loss(batch)

    def annealing_epochs(self, epochs):
        """None."""
        return 0

    def cycle_epochs(self, epochs):
        """None."""
'''


def space_of(function):
    """A space with this function."""
    return Space(function=function, source=SpaceSource(name="s", source="", sha256=hashlib.sha256().hexdigest()))


def checked(function):
    """What the survey finds in the space of ``function``."""
    return check_space(space_of(function), metric=None, epochs=1, seed=0, data_dir=None)


@pytest.mark.parametrize(
    "network", [Mlp(hidden=(8,), normalisation="batch"), Conv(channels=(4,), normalisation="batch")]
)
def test_check_space_batch_norm_with_a_last_batch_of_one_is_refused(network):
    """1,150 training examples in batches of 383 leave one; the batch size, the count and the next size are named."""

    def function(trial):
        return TrainConfig(
            data=Digits(), likelihood=Binomial(), network=network, batch_size=trial.suggest_categorical("b", [64, 383])
        )

    with pytest.raises(UserError, match="got 383 for 1150 examples; the next that fits is 384"):
        checked(function)


def test_check_space_batch_norm_with_batches_of_one_is_refused():
    """A batch of one has no variance."""
    with pytest.raises(UserError, match="got 1 for 1150 examples; the next that fits is 2"):
        checked(lambda _: TrainConfig(network=Mlp(hidden=(8,), normalisation="batch"), batch_size=1))


def test_check_space_a_last_batch_of_one_without_batch_norm_is_accepted():
    """Layer normalisation looks at each example alone."""
    checked(lambda _: TrainConfig(network=Mlp(hidden=(8,), normalisation="layer"), batch_size=383))
    checked(lambda _: TrainConfig(network=Mlp(hidden=(8,)), batch_size=1))


@pytest.fixture
def objective(tmp_path):
    """An objective from outside the tree that fails as asked."""
    (tmp_path / "parts.py").write_text(PARTS)
    return lambda how: External(path=f"{tmp_path / 'parts.py'}:Objective", settings={"how": how})


def test_check_space_part_that_fails_at_its_first_batch_is_refused(objective):
    """The line names the error and the network."""

    def function(trial):
        return TrainConfig(network=Mlp(hidden=(trial.suggest_int("w", 4, 9),)), objective=objective("shapes"))

    with pytest.raises(SpaceError, match="the first batch of a network of kind 'mlp' ends in RuntimeError") as caught:
        checked(function)
    assert "\n" not in str(caught.value)


def test_check_space_part_that_fails_in_some_trials_is_accepted(objective):
    """A trial that fails by itself is an ordinary thing; so is one that needs more memory than there is here."""

    def function(trial):
        how = trial.suggest_categorical("how", ["not", "key", "not at all", "memory"])
        return TrainConfig(network=Mlp(hidden=(trial.suggest_int("w", 4, 9),)), objective=objective(how))

    checked(function)
    checked(lambda _: TrainConfig(network=Mlp(hidden=(4,)), objective=objective("memory")))


def test_check_space_one_kind_of_network_that_fails_is_refused(tmp_path, objective):
    """Each kind of network and normalisation is tried, not the smallest and the largest only."""

    def function(trial):
        kind = trial.suggest_categorical("kind", ["none", "batch", "layer"])
        how = "shapes" if kind == "batch" else "not"
        width = {"none": 4, "batch": 8, "layer": 16}[kind]
        return TrainConfig(network=Mlp(hidden=(width,), normalisation=kind), objective=objective(how))

    with pytest.raises(SpaceError, match="ends in RuntimeError"):
        checked(function)


@pytest.mark.parametrize("rows", [2, 9])
def test_check_space_data_without_a_validation_row_are_refused(tmp_path, rows):
    """A tenth of nine rows is none: one line says how to hold some out."""
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "".join(f"{i},{i * i % 7}\n" for i in range(rows)))

    def function(_):
        return TrainConfig(data=Arrays(path=str(path)), likelihood=Gaussian(), network=Mlp(hidden=(4,)), latent_size=2)

    with pytest.raises(UserError, match=r"with \d examples holds out none: set data.validation to") as caught:
        checked(function)
    assert "\n" not in str(caught.value)
    mended = lambda trial: dataclasses.replace(function(trial), data=Arrays(path=str(path), validation=1))  # noqa: E731
    assert checked(mended).data.validation is not None


def test_held_out_split_of_one_example_is_refused():
    """One example can't be divided."""
    data = digits()
    one = dataclasses.replace(data.train, labels=data.train.labels[:1], images=data.train.images[:1])
    with pytest.raises(UserError, match="has one example: give more data"):
        held_out_split(dataclasses.replace(data, train=one, validation=None), TrainConfig(), Metric())
