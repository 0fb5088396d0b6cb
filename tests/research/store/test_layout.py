"""The names in a sweep's directory: each is made in one place, and the same inside a store and a ledger."""

from __future__ import annotations

import ast

import pytest

from research.store import layout
from research.store.layout import NAMES, SweepFolder, is_event, is_kept, sweep_around, trial_name, trial_number
from tests.support.places import FIXTURES, ROOT
from vae import portable
from vae.system import manifest

SWEEP = SweepFolder(FIXTURES / "small-digits")

FOLDERS = {"ledger", "trials", "models", "looks", "pictures", "aside", "finalists", "wandb", "ray"}
FILES = {"space.py", "study.journal", "latest-event.json", "lock", "test.json", "report.html"}
BEGINNINGS = ("ledger/", "models/", "looks/", "pictures/", "aside/", "finalists/", "trials/trial-")


def test_sweep_folder_of_an_earlier_sweep_finds_its_files():
    """The names are those of the sweeps that exist."""
    assert SWEEP.is_sweep
    assert SWEEP.events()[0] == SWEEP.event(0)
    assert SWEEP.events() == [SWEEP.event(index) for index in range(len(SWEEP.events()))]
    assert SWEEP.space.is_file()
    assert (SWEEP.model(1) / layout.RECORD).is_file()


def test_names_are_the_paths_relative_to_the_directory():
    """A ledger and an object store name what the directory has."""
    assert str(NAMES.event(12)) == "ledger/00000012.json"
    assert str(NAMES.checkpoint(7, 4, 1)) == "trials/trial-0007/epoch-0004-1"
    assert str(NAMES.paused(7)) == "trials/trial-0007/paused"
    assert str(NAMES.picture(7, 4, "codes")) == "pictures/trial-0007-epoch-0004-codes.png"
    assert str(NAMES.finalists.model(7)) == "finalists/models/trial-0007"
    assert NAMES.wandb_mark("trial-0007") == SWEEP.wandb_mark("trial-0007").relative_to(SWEEP.path)


def test_model_files_have_the_same_names_in_vae():
    """``vae`` may not import them, and the command line may not import ``vae.portable``, which needs torch."""
    assert (portable.CONFIG_FILE, portable.WEIGHTS_FILE) == (layout.CONFIG, layout.WEIGHTS)
    assert manifest.MANIFEST == layout.MANIFEST


@pytest.mark.parametrize("number", [0, 7, 12345])
def test_trial_number_of_a_trial_name_is_the_trial(number):
    """Numbers beyond four digits, too."""
    assert trial_number(trial_name(number)) == number


@pytest.mark.parametrize("name", ["trial-7", "trial-0007-1", ".trial-0007.1-new.tmp", "trial-" + "1" * 16, "code"])
def test_trial_number_of_another_name_is_none(name):
    """No other folder is taken for a trial's."""
    assert trial_number(name) is None


def test_sweep_around_a_model_is_the_sweep_whose_models_it_is_in(tmp_path):
    """A model elsewhere, or in a folder that only looks like a sweep's, is in none."""
    assert sweep_around(SWEEP.model(1)) == SWEEP
    assert sweep_around(SWEEP.aside / "trial-0001") is None
    assert sweep_around(SweepFolder(tmp_path).model(1)) is None


def test_is_event_and_is_kept_tell_a_stores_objects_apart():
    """Checkpoints, pictures and the lease are neither."""
    assert is_event(str(NAMES.event(3)))
    kept = (NAMES.model(3) / layout.RECORD, NAMES.looks / "a.json", NAMES.code_diff(0), NAMES.test_summary)
    assert all(is_kept(str(path)) and not is_event(str(path)) for path in kept)
    others = (NAMES.checkpoint(1, 2, 0) / "state", NAMES.picture(1, 2, "codes"), NAMES.lock, NAMES.models / "x")
    assert not any(is_event(str(path)) or is_kept(str(path)) for path in others)


def test_no_other_module_spells_a_path_of_a_sweep():
    """Every literal path of a sweep's directory is in the layout. Docstrings may name them."""
    found = []
    for file in sorted((ROOT / "research").rglob("*.py")):
        if file.name == "layout.py":
            continue
        nodes = list(ast.walk(ast.parse(file.read_text())))
        joined = [node.right for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)]
        literals = [(node.value, node in joined) for node in nodes if isinstance(node, ast.Constant)]
        found += [
            f"{file.relative_to(ROOT)}: {text!r}"
            for text, is_joined in literals
            if isinstance(text, str)
            and (text.startswith(BEGINNINGS) or (is_joined and text.partition("/")[0] in FOLDERS | FILES))
        ]
    # Ray's own folder for temporary files, which is no sweep's.
    assert found == ["research/planning/preflight.py: 'ray'"]
