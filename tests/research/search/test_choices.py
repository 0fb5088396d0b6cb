"""Choices of a space: what JSON gives back is accepted, numbers of NumPy too, and the rest is refused at the survey."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from research.ledger.settings import SpaceSource, Tpe
from research.search.spaces import Space, SpaceError, survey
from research.search.study import StudyView
from tests.support.synthetic import new_ledger, row
from vae.networks import Mlp
from vae.train_config import TrainConfig


def space_of(choices, use=lambda _: 8):
    """A space with one choice."""

    def function(trial):
        return TrainConfig(network=Mlp(hidden=(use(trial.suggest_categorical("which", choices)),)), epochs=1)

    return Space(function=function, source=SpaceSource(name="s", source="", sha256=hashlib.sha256().hexdigest()))


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ([(32,), (64, 32)], "a tuple, which JSON gives back as a list"),
        ([()], "a tuple"),
        ([Path("a"), Path("b")], "of type PosixPath"),
        ([Mlp(), Mlp(hidden=(4,))], "of type Mlp"),
        ([[1, (2, 3)]], "of type list"),
        ([{1: "a"}], "of type dict"),
        ([{"a"}], "of type set"),
        ([1 + 2j], "of type complex"),
        ([b"a"], "of type bytes"),
        ([math.nan, 1.0], "no finite number"),
        ([math.inf], "no finite number"),
        ([np.arange(3)], "of type ndarray"),
        ([torch.nn.ReLU], "of type type"),
    ],
)
def test_survey_choice_that_is_no_json_is_refused_with_the_way_to_write_it(choices, told):
    """One line names the parameter, the choice and what to write instead."""
    with pytest.raises(SpaceError) as caught:
        survey(space_of(choices), epochs=None, seed=0)
    line = str(caught.value)
    assert "parameter 'which' has the choice " in line
    assert told in line
    assert "\n" not in line
    if "finite" not in told:
        assert "trial.suggest_categorical('which', [" in line


@pytest.mark.parametrize(
    "choices",
    [
        list(2 ** np.arange(4, 7)),
        [np.float64(0.5), np.float64(1.0)],
        [np.float32(0.5)],
        [np.bool_(True), np.bool_(False)],
        [torch.tensor(8), torch.tensor(16)],
        [np.array(3)],
        [np.str_("a")],
        [None, True, 3, 0.5, "a"],
        [[16, 16], [32]],
        [{"a": [1, None]}],
    ],
)
def test_ask_choice_that_json_knows_is_drawn_and_recorded(tmp_path, choices):
    """Numbers of NumPy and torch become Python's own; lists and dictionaries stay as they are."""
    space = space_of(choices)
    assert len(survey(space, epochs=None, seed=0, draws=5).configs) == 5
    ledger = new_ledger(tmp_path)
    created = StudyView(ledger, tmp_path / "study.journal").ask(space, 0)
    assert ledger.trials[0].fail_kind is None
    plain = [choice.item() if hasattr(choice, "item") else choice for choice in choices]
    assert created.params["which"] in plain
    assert type(created.params["which"]).__module__ == "builtins"


def test_survey_numpy_choice_is_usable_as_before():
    """A space may use the drawn number in arithmetic and as a size."""
    found = survey(space_of(list(2 ** np.arange(4, 7)), use=int), epochs=None, seed=0)
    assert {config.network.hidden[0] for config in found.configs} == {16, 32, 64}


@pytest.mark.filterwarnings("ignore:Choices for a categorical")
def test_study_of_list_choices_is_rebuilt_and_draws_on(tmp_path):
    """A sweep whose choices are lists goes on after a restart, with TPE past its start."""
    space = space_of([[16, 16], [32], []], use=lambda value: len(value) + 1)
    ledger = new_ledger(tmp_path, sampler=Tpe(startup_trials=1), trials=20)
    for number in range(12):
        study = StudyView(ledger, tmp_path / "study.journal")
        for _, view in sorted(ledger.trials.items()):
            study.add(view, ended=True)
        study.ask(space, number)
        view = ledger.trials[number]
        if not view.terminal:
            ledger.append(row(number, 1, -100.0 - number, "complete"))
    assert {view.fail_kind for view in ledger.trials.values()} <= {None, "duplicate"}
    assert len(ledger.trials) == 12
