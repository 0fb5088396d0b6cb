"""A sweep's options: once for the command line and for Python, understood without data, cluster or network."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import research
from research.cli import cluster, runs, sweeps
from research.errors import UserError
from research.planning.prepare import check, prepare
from research.planning.request import SweepRequest
from tests.support.store_server import BUCKET, gate, object_server  # noqa: F401 - fixtures


def defaults_of(function):
    """By parameter, the default; for lists and unset values alike None."""
    found = {}
    for name, one in inspect.signature(function).parameters.items():
        found[name] = None if one.default is inspect.Parameter.empty else one.default
    return found


def test_request_has_every_option_of_the_command_line_with_its_default():
    """Neither has an option more, and no default differs."""
    line = defaults_of(sweeps.sweep)
    python = {
        one.name: None if one.default in (dataclasses.MISSING, ()) else one.default
        for one in dataclasses.fields(SweepRequest)
    }
    assert line | {"storage": Path(line["storage"])} == python


@pytest.mark.parametrize(
    ("verb", "function"), [(runs.evaluate, research.evaluate), (runs.reproduce, research.reproduce)]
)
def test_python_functions_have_the_options_of_their_verbs(verb, function):
    """But for how the result is printed, and the threads, which are the caller's own."""
    line = defaults_of(verb)
    for printed in ("as_json", "threads"):
        line.pop(printed, None)
    assert line == defaults_of(function)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"trials": 0}, "trials must be a whole number of at least 1, got 0"),
        ({"reduction": 1}, "reduction must be a whole number of at least 2, got 1"),
        ({"stuck_minutes": -1.0}, "stuck_minutes must be a number of at least 0, got -1.0"),
        ({"seed": "3"}, "seed must be a whole number of at least 0, got '3'"),
        ({"trials": 2.5}, "trials must be a whole number of at least 1, got 2.5"),
        ({"trials": [3]}, r"trials must be a whole number of at least 1, got \[3\]"),
        ({"keep": True}, "keep must be a whole number of at least 1, got True"),
        ({"stuck_minutes": float("nan")}, "stuck_minutes must be a number of at least 0, got nan"),
    ],
    ids=str,
)
def test_request_refuses_numbers_that_no_sweep_can_have(options, told):
    """At once, in one line."""
    with pytest.raises(UserError, match=told):
        SweepRequest(space="quickstart", **options)


def test_request_takes_a_single_value_for_a_list():
    """A metric need not be wrapped."""
    assert SweepRequest(space="quickstart", metric="val/elbo").metric == ("val/elbo",)


def test_importing_research_is_cheap():
    """Neither PyTorch nor Ray nor pandas, also with a request."""
    code = (
        "import sys, research; research.SweepRequest(space='quickstart')\n"
        "print([name for name in ('torch', 'ray', 'pandas', 'optuna', 'wandb') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "[]\n"


def test_check_needs_neither_data_nor_store():
    """The data directory and the sweeps to learn from may be where only the cluster sees them."""
    name = check(
        SweepRequest(
            space="quickstart",
            name="mine",
            address="auto",
            concurrent=4,
            data_dir="s3://nowhere/data",
            storage="s3://nowhere/sweeps",
            start_from="s3://nowhere/sweeps/other",
            learn_from="s3://nowhere/sweeps/other",
        )
    )
    assert name == "mine"


def test_submit_transfers_no_data_to_this_machine(gate):  # noqa: F811 - the fixture
    """The options are read, the request is checked, and the store is asked for nothing."""
    gate.mode = 403
    given = ["quickstart", "--concurrent", "2", "--data-dir", f"s3://{BUCKET}/data", "--name", "mine"]
    name, command, files = cluster._checked_sweep(given, "/shared/sweeps")
    assert (name, files) == ("mine", [])
    assert command[: len(given) + 1] == ["sweep", *given]
    assert gate.turned_away == 0


def test_prepare_gives_settings_and_writes_nothing(tmp_path):
    """Every check has passed, and the storage is as it was."""
    prepared = prepare(SweepRequest(space="quickstart", storage=tmp_path, name="s", trials=3, wandb="disabled"))
    assert prepared.directory == tmp_path / "s"
    assert (prepared.settings.name, prepared.settings.trials, prepared.settings.wandb) == ("s", 3, "disabled")
    assert list(tmp_path.iterdir()) == []


def test_prepare_of_a_space_that_changes_the_directory_keeps_relative_paths(tmp_path, monkeypatch):
    """They were meant from where the caller was."""
    (tmp_path / "elsewhere").mkdir()
    space = tmp_path / "moves.py"
    space.write_text(
        f"import os\nos.chdir({str(tmp_path / 'elsewhere')!r})\nfrom search_spaces.quickstart import space\n"
    )
    monkeypatch.delenv("RESEARCH_STARTED_IN", raising=False)
    monkeypatch.chdir(tmp_path)
    prepared = prepare(SweepRequest(space=space, storage="sweeps", name="s", wandb="disabled"))
    assert prepared.directory == tmp_path / "sweeps" / "s"
