"""Every verb that reads a model folder compares it with its manifest, its record and the sweep around it."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from research.errors import CorruptFile, UserError
from research.experiments.finalists import look_at_test
from research.experiments.variants import read_subject
from research.ledger.records import load_record
from research.models.apply import model_folder
from research.models.evaluation import evaluate_model
from research.store.folders import write_folder
from research.views.results import open_sweep
from tests.support.places import FIXTURES
from tests.support.verbs import research
from vae.config import ConfigError
from vae.portable import load_model

if TYPE_CHECKING:
    from pathlib import Path

ASK = {"split": "validation", "nll_k": 0, "images": 10, "data": None, "data_dir": None, "device": "cpu", "why": "test"}
DOORS = {
    "evaluate": lambda model: evaluate_model(model, **ASK),
    "the verbs that apply a model": model_folder,
    "the Python API of a model": load_model,
    "a record": load_record,
    "a record by its file": lambda model: load_record(model / "record.json"),
    "ablate": lambda model: read_subject(model, 1),
    "ablate of its config": lambda model: read_subject(model / "config.json", 1),
    "a sweep's rank": lambda model: open_sweep(model.parent.parent).model(1),
}


@pytest.fixture
def model(tmp_path) -> Path:
    """The kept model of a copy of the earlier sweep."""
    sweep = shutil.copytree(FIXTURES / "small-digits", tmp_path / "small-digits")
    return sweep / "models" / "trial-0001"


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "record.json", "metrics.json", "README.md"])
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_model_folder_with_one_flipped_bit_is_refused_at_every_door(model, door, name):
    """The file is named, whichever it is."""
    flip(model / name)
    with pytest.raises((CorruptFile, ConfigError), match=rf"{name} is damaged"):
        door(model)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_model_folder_whole_is_read_at_every_door(model, door):
    """What is as it was is read, through a symbolic link, too."""
    door(model)
    if door is not DOORS["a sweep's rank"]:
        link = model.parent / "link"
        link.symlink_to(model)
        door(link)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "record.json", "manifest.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "absurd size", "dangling link"])
def test_model_folder_with_something_else_than_a_file_is_refused(model, kind, name):
    """Nothing waits, and nothing is read without end."""
    (model / name).unlink()
    match kind:
        case "pipe":
            os.mkfifo(model / name)
        case "device":
            (model / name).symlink_to("/dev/zero")
        case "directory":
            (model / name).mkdir()
        case "absurd size":
            with (model / name).open("wb") as file:
                file.truncate(1 << 42)
        case _:
            (model / name).symlink_to("nowhere")
    for door in DOORS.values():
        with pytest.raises((UserError, ConfigError), match=name.partition(".")[0]):
            door(model)


def test_model_folder_without_its_manifest_is_refused_with_a_record_beside_the_weights(model, tmp_path):
    """Without a manifest nothing says whether the weights are the record's; weights and config alone are a model."""
    (model / "manifest.json").unlink()
    for door in (DOORS["evaluate"], model_folder, load_record):
        with pytest.raises(CorruptFile, match=r"manifest\.json is missing"):
            door(model)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model / name, alone / name)
    assert evaluate_model(alone, **ASK).row["val/elbo"] == pytest.approx(-157.05018449151558, rel=1e-4)


def test_model_folder_with_another_split_in_its_config_is_refused_with_a_manifest_that_fits(model):
    """Its held-out examples would be others, training examples among them; the record has the config, too."""
    config = json.loads((model / "config.json").read_bytes())
    config["data"]["split_seed"] = 7
    files = {path.name: path.read_bytes() for path in model.iterdir() if path.name != "manifest.json"}
    write_folder(model, files | {"config.json": json.dumps(config).encode()})
    for door in (DOORS["evaluate"], model_folder):
        with pytest.raises(CorruptFile, match=r"config\.json is not the config in record\.json"):
            door(model)


def test_model_folder_in_the_place_of_another_trial_is_refused(model):
    """A whole folder under another trial's name gives another model's figures."""
    other = shutil.copytree(model, model.parent / "trial-0000")
    for door in (DOORS["evaluate"], model_folder, load_record):
        with pytest.raises(CorruptFile, match="holds the model of trial 1"):
            door(other)
    moved = shutil.copytree(model, model.parent.parent.parent / "anywhere")  # out of the sweep it is its own witness
    assert model_folder(moved) == moved


def test_model_folder_of_a_sweep_with_a_damaged_ledger_is_read(model):
    """The model is whole; the ledger's damage is told by the verbs that need the ledger."""
    flip(model.parent.parent / "ledger" / "00000020.json")
    assert evaluate_model(model, **ASK).row["val/elbo"] == pytest.approx(-157.05018449151558, rel=1e-4)


def test_finalists_look_at_test_verifies_the_models(model, monkeypatch):
    """The sealed look at test never sees other weights."""
    sweep = open_sweep(model.parent.parent).ledger
    chosen = {"parent_trial": None, "seeds": [sweep.trials[1].created.seed], "kept_trial": 1}
    flip(model / "model.safetensors")
    monkeypatch.setattr("research.experiments.finalists.write_sealed", lambda *_: pytest.fail("it was looked at"))
    with pytest.raises(CorruptFile, match=r"model\.safetensors is damaged"):
        look_at_test(
            {"configurations": [chosen], "directory": str(sweep.directory)},
            nll_k=0,
            images=1,
            data_dir=None,
            device="cpu",
        )
    assert not (model.parent.parent / "looks").exists()


def test_train_from_a_damaged_model_folder_is_one_line(model):
    """Train takes the config of a model folder, and no other."""
    flip(model / "config.json")
    for place in (model, model / "config.json"):
        ran = research("train", place, "--out", model.parent / "out")
        assert ran.code == 2, ran.output
        assert "config.json is damaged" in ran.output
