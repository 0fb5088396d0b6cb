"""A space that is a function is recorded as a file that stands by itself."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap

import numpy as np
import optuna
import pytest
import torch

from research.errors import UserError
from research.search.function_source import space_of_function
from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.train_config import TrainConfig

WIDTHS = [8, 16]
BASE = TrainConfig(data=Digits(), likelihood=Binomial(), network=Mlp(hidden=(8,)), epochs=3)


def draws(function, seed=0):
    """What ``function`` gives for five trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [function(study.ask()) for _ in range(5)]


def same(function):
    """Record ``function``, compare what both draw, and return the recorded source."""
    space = space_of_function(function)
    assert draws(space.function) == draws(function)
    return space.source.source


def network(trial):
    """A helper beside the space."""
    return Mlp(hidden=(trial.suggest_categorical("width", WIDTHS),))


def of_module(trial):
    """Names imports, a helper, a list and a config of the module."""
    return functools.partial(TrainConfig, data=BASE.data, likelihood=Binomial())(
        network=network(trial), epochs=BASE.epochs
    )


def test_function_of_a_module_is_recorded_with_what_it_names():
    """Imports, helpers, values and configs; drawn alike, and run by a process that knows nothing of this file."""
    source = same(of_module)
    for line in ("import functools", "WIDTHS = [8, 16]", "def network(trial):", "space = of_module"):
        assert line in source
    code = f"{source}\nimport optuna\nprint(space(optuna.create_study().ask()).epochs)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout == "3\n"


def test_function_called_space_needs_no_other_name():
    """The module's function is the space as it is."""

    def space(trial):
        return TrainConfig(latent_size=trial.suggest_int("z", 2, 9))

    assert "space = " not in same(space)


x, row, index = object(), object(), object()  # a notebook has such names, which a space may use for its own


def test_locals_that_are_called_like_globals_are_not_recorded():
    """Arguments and locals of inner functions, loops, comprehensions and lambdas."""

    def inner(trial):
        def double(x):
            return 2 * x

        sizes = [index + 2 for index in range(3)]
        for row in sizes:
            assert row > 1
        larger = max(sizes, key=lambda x: -x)
        return TrainConfig(latent_size=double(larger) + trial.suggest_int("z", 2, 9))

    source = same(inner)
    assert not any(line.startswith(("x =", "row =", "index =")) for line in source.splitlines())


def test_nested_function_is_recorded_with_the_values_of_its_closure():
    """Numbers, texts, lists, tuples, mappings and parts of a config, by their values now."""

    def make(sizes, hidden, options):
        def inner(trial):
            latent = trial.suggest_categorical("z", sizes)
            return TrainConfig(latent_size=latent, network=hidden, **options)

        return inner

    source = same(make([2, 3], Mlp(hidden=(8, 8), activation="tanh"), {"epochs": 7, "batch_size": 32}))
    assert "sizes = [2, 3]" in source
    assert "hidden = Mlp(hidden=(8, 8), activation='tanh')" in source


def test_defaults_are_those_of_the_definition():
    """A loop has changed the name since."""
    made = []
    for width in (4, 5):

        def inner(trial, latent=width, *, epochs=width):
            return TrainConfig(latent_size=latent + trial.suggest_int("more", 0, 3), epochs=epochs)

        made.append(inner)
    assert [config.epochs for config in draws(space_of_function(made[0]).function)] == [4] * 5


def test_recursive_and_decorated_functions_are_recorded():
    """A helper that calls itself, and a decorator of the same module."""
    assert "@doubled" in same(decorated)


def doubled(function):
    """Call with twice the size."""

    @functools.wraps(function)
    def wrapper(trial):
        return function(trial, 2)

    return wrapper


def power(base, exponent):
    """``base`` to the ``exponent``, by recursion."""
    return 1 if exponent == 0 else base * power(base, exponent - 1)


@doubled
def decorated(trial, factor=1):
    """A space with a decorator."""
    return TrainConfig(latent_size=factor * power(2, trial.suggest_int("exponent", 0, 3)))


class Sizes:
    """A class beside the space."""

    smallest = 3


def test_class_of_the_same_module_is_recorded():
    """With its body."""

    def inner(trial):
        return TrainConfig(latent_size=trial.suggest_int("z", Sizes.smallest, 9))

    assert "class Sizes:" in same(inner)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (torch.zeros(2), "a Tensor"),
        (np.arange(3), "a ndarray"),
        (float("nan"), "the number nan"),
        ({1: 2}, "a dict"),
        (object(), "a object"),
        ([lambda: 1], "a function"),
    ],
    ids=["tensor", "array", "nan", "number keys", "object", "list of functions"],
)
def test_value_that_is_no_json_is_refused_by_name(value, named):
    """One line with the name, the kind of value and the remedy."""

    def inner(trial):
        return TrainConfig(latent_size=trial.suggest_int("z", 2, 9) + len(str(value)))

    with pytest.raises(UserError, match=f"space function 'inner' uses 'value', which is {named} and can't be recorded"):
        space_of_function(inner)


@pytest.mark.parametrize("given", [lambda _: TrainConfig(), functools.partial(of_module), print, TrainConfig])
def test_what_is_no_def_is_refused(given):
    """A lambda, a partial, a builtin and a class have no source that could be recorded."""
    with pytest.raises(UserError, match="written with def"):
        space_of_function(given)


def test_function_without_source_is_refused():
    """Made with exec: there is nothing to record."""
    module = {}
    exec("def made(trial):\n    return None", module)
    with pytest.raises(UserError, match="the source of 'made' can't be had"):
        space_of_function(module["made"])


def test_function_of_a_script_is_recorded(tmp_path):
    """``__main__`` cannot be imported anywhere else."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            from research.search.function_source import space_of_function
            from vae.train_config import TrainConfig

            LARGEST = 9

            def mine(trial):
                return TrainConfig(latent_size=trial.suggest_int("z", 2, LARGEST))

            print(space_of_function(mine).source.source)
        """)
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=120)
    assert "LARGEST = 9" in ran.stdout
    assert "from vae.train_config import TrainConfig" in ran.stdout


def test_module_of_no_installed_package_is_refused(tmp_path, monkeypatch):
    """A file beside the script is not found when the sweep is resumed from elsewhere."""
    (tmp_path / "my_helpers.py").write_text("SIZE = 3\n\ndef size():\n    return 4\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_helpers

    def uses_module(trial):
        return TrainConfig(latent_size=trial.suggest_int("z", my_helpers.SIZE, 9))

    with pytest.raises(UserError, match="'my_helpers', which is a module of no installed package"):
        space_of_function(uses_module)
    size = my_helpers.size

    def uses_function(trial):
        return TrainConfig(latent_size=trial.suggest_int("z", size(), 9))

    assert "def size():\n    return 4" in same(uses_function)
