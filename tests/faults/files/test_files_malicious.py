"""Files made to run code when they are read: none does, whatever it is called and wherever it lies."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from research.cli import app as cli
from research.driver.best_models import keep_best, last_whole
from research.errors import UserError
from research.ledger.log import Ledger
from research.ledger.records import load_record
from research.models.apply import draw_mask, model_folder
from research.planning import earlier
from research.views import show
from research.views.results import open_sweep
from tests.support.invented import whole
from tests.support.synthetic import new_ledger, row, trial
from vae.config import ConfigError
from vae.data import Arrays, Cifar10, DataError, ImageFolder, load_training
from vae.portable import load_model
from vae.serialization import from_json
from vae.state import STATE_FILE, StateError, TrainState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVIL = "21 malicious file"


class Evil:
    """What touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path):
    """What an evil file makes; and that it does so when it is let."""
    place = tmp_path / "executed"
    pickle.loads(pickle.dumps(Evil(place)))
    assert place.is_dir()
    place.rmdir()
    yield place
    assert not place.exists(), "code of the file ran"


def payloads(marker: Path) -> dict[str, bytes]:
    """The same evil, dressed as each format."""
    plain = pickle.dumps(Evil(marker))
    saved, array, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"weights": Evil(marker)}, saved)
    np.save(array, np.array([Evil(marker)], dtype=object), allow_pickle=True)
    np.savez(archive, x=np.array([Evil(marker)], dtype=object))
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("x.npy", plain)
    return {
        "pickle": plain,
        "torch": saved.getvalue(),
        "npy": array.getvalue(),
        "npz": archive.getvalue(),
        "pickle in a zip": inner.getvalue(),
    }


def readers(place: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Each file that a person may hand us, and what reads it."""
    model, state = place / "model", place / "state"
    for folder in (model, state, place / "images"):
        folder.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text("{}")
    (state / "state.json").write_text(json.dumps({"format": 1, "sha256": ""}))

    def arrays(name: str) -> Callable[[], object]:
        return lambda: load_training(Arrays(path=name), place)

    return {
        "model.safetensors": (model / "model.safetensors", lambda: load_model(model)),
        "config.json": (place / "c" / "config.json", lambda: load_model(place / "c")),
        "state": (state / STATE_FILE, lambda: TrainState.load(state)),
        "state.json": (place / "j" / "state.json", lambda: TrainState.load(place / "j")),
        "record.json": (place / "record.json", lambda: load_record(place / "record.json")),
        "--start-from": (place / "start.json", lambda: earlier.start_from(str(place / "start.json"))),
        "--mask npy": (place / "mask.npy", lambda: draw_mask(str(place / "mask.npy"), (1, 8, 8))),
        "--mask png": (place / "mask.png", lambda: draw_mask(str(place / "mask.png"), (1, 8, 8))),
        **{f"data {s}": (place / f"a{s}", arrays(f"a{s}")) for s in (".npy", ".npz", ".csv", ".parquet")},
        "an image": (place / "images" / "a.png", lambda: load_training(ImageFolder(path="images"), place)),
        "a batch of CIFAR-10": (
            place / "cifar-10-batches-py" / "data_batch_1",
            lambda: load_training(Cifar10(), place),
        ),
        "an event": (place / "sweep" / "ledger" / "00000000.json", lambda: Ledger.open(place / "sweep")),
    }


@pytest.mark.fault(EVIL)
@pytest.mark.parametrize("reader", [
    "model.safetensors", "config.json", "state", "state.json", "record.json", "--start-from", "--mask npy", "--mask png",
    "data .npy", "data .npz", "data .csv", "data .parquet", "an image", "a batch of CIFAR-10", "an event",
])  # fmt: skip
def test_a_pickle_is_refused_wherever_it_is_put(tmp_path, marker, tally, reader):
    """By every reader, in every dress, with one of our own errors; and nothing runs."""
    path, read = readers(tmp_path)[reader]
    path.parent.mkdir(parents=True, exist_ok=True)
    for payload in payloads(marker).values():
        path.write_bytes(payload)
        if reader == "state":
            import hashlib

            (path.parent / "state.json").write_text(
                json.dumps({"format": 1, "sha256": hashlib.sha256(payload).hexdigest()})
            )
        tally.happened()
        with pytest.raises((UserError, ConfigError, DataError, StateError)):
            read()


@pytest.mark.fault(EVIL)
def test_pickles_that_lie_about_in_a_sweep_are_not_looked_at(tmp_path, marker, tally, monkeypatch, capsys):
    """Ray's files, and anything else by any name, in each folder: every verb that reads a sweep passes them by."""
    ledger = whole(tmp_path / "sweep")
    place = ledger.directory
    for folder in (".", "ledger", "ray/session-0", "models", "trials", "wandb", "looks", "pictures", "finalists"):
        (place / folder).mkdir(parents=True, exist_ok=True)
        for name in (
            "tuner.pkl",
            "searcher.pkl",
            "searcher-state-1.pkl",
            "trainable.pkl",
            "x.pt",
            "a.npy",
            "error.pkl",
        ):
            (place / folder / name).write_bytes(payloads(marker)["pickle"])
            tally.happened()
    experiment = {
        "runner_data": {
            "_earliest_stopping_actor": {"_type": "CLOUDPICKLE_FALLBACK", "value": payloads(marker)["pickle"].hex()}
        }
    }
    (place / "ray/session-0" / "experiment_state-1.json").write_text(json.dumps(experiment))
    opened = Ledger.open(place)
    show.as_json(opened)
    open_sweep(place).trials()
    for arguments in (("show", place), ("report", place, "--csv", tmp_path / "t")):
        monkeypatch.setattr(sys, "argv", ["research", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        assert done.value.code == 0
    keep_best(opened, place)


@pytest.mark.fault(EVIL)
@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**12, 0, 7])
def test_a_lying_header_of_safetensors_is_refused_and_takes_no_memory(tmp_path, tally, length):
    """A header that claims exabytes, or nothing."""
    (tmp_path / "config.json").write_text("{}")
    for header in (
        b"{}",
        b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
        b"[" * 5000,
    ):
        (tmp_path / "model.safetensors").write_bytes(length.to_bytes(8, "little") + header)
        tally.happened()
        with pytest.raises(ConfigError, match="is not a readable model folder"):
            load_model(tmp_path)


@pytest.mark.fault(EVIL)
def test_a_config_that_asks_for_the_moon_takes_no_memory(tmp_path, tally):
    """A model folder whose config is of another, huge network: refused before a weight is allocated."""
    import safetensors.torch

    weights = safetensors.torch.save(
        {"a": torch.zeros(1)},
        metadata={"sizes": json.dumps({"channels": 1, "height": 8, "width": 8, "levels": 16, "num_classes": 10})},
    )
    (tmp_path / "model.safetensors").write_bytes(weights)
    for config in (
        '{"latent_size": 10000000000000}',
        f'{{"latent_size": {10**30}}}',
        '{"network": {"kind": "mlp", "hidden": [99999999999]}}',
    ):
        (tmp_path / "config.json").write_text(config)
        tally.happened()
        with pytest.raises(ConfigError, match="is not a readable model folder"):
            load_model(tmp_path)


@pytest.mark.fault(EVIL)
@pytest.mark.parametrize(
    "part",
    [
        {"path": "os:mkdir", "settings": {"path": "MARKER"}},
        {"path": "os:system", "settings": {"command": "mkdir MARKER"}},
        {"path": "subprocess:Popen", "settings": {"args": ["mkdir", "MARKER"]}},
        {"path": "builtins:exec", "settings": {}},
        {"path": "pathlib:Path", "settings": {}},
    ],
)
def test_an_external_part_is_a_dataclass_and_not_whatever_can_be_called(marker, tally, part):
    """A config that names a function, or a class that does something when it is made, is refused and calls nothing."""
    text = json.dumps({"objective": {"kind": "external", **part}}).replace("MARKER", str(marker))
    tally.happened()
    with pytest.raises(ConfigError, match="that is a dataclass"):
        from_json(text)


@pytest.mark.fault(EVIL)
def test_links_out_of_a_sweep_are_not_followed(tmp_path, tally):
    """A checkpoint that the ledger places outside the sweep, by name or by a link, is neither loaded nor removed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / STATE_FILE).write_bytes(b"precious")
    place = tmp_path / "sweep"
    for number, checkpoint in enumerate(["../outside", str(outside), "trials/trial-0002/link"]):
        directory = place / str(number)
        ledger = new_ledger(directory)
        for created in range(number + 1):
            ledger.append(trial(created))
        ledger.append(row(number, 1, -1.0, checkpoint=checkpoint, checkpoint_sha256="0"))
        if number == 2:
            (directory / "trials" / "trial-0002").mkdir(parents=True)
            (directory / "trials" / "trial-0002" / "link").symlink_to(outside)
        continued, (problem,) = last_whole(directory, ledger.trials[number], 1)
        tally.happened()
        assert continued is None
        assert "is not inside" in problem
        ledger.append(row(number, 2, -1.0, "complete", checkpoint=checkpoint, checkpoint_sha256="0"))
        keep_best(ledger, directory)
        shutil.rmtree(directory)
    assert (outside / STATE_FILE).read_bytes() == b"precious"


@pytest.mark.fault(EVIL)
def test_a_manifest_can_not_name_files_outside_its_folder(tmp_path, tally):
    """``../secret`` in a manifest is refused, not hashed."""
    (tmp_path / "secret").write_text("s")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for name in ("../secret", "/etc/passwd", "", ".", "a\0b"):
        (folder / "manifest.json").write_text(json.dumps({name: "0" * 64}, indent=2) + "\n")
        tally.happened()
        with pytest.raises(UserError, match=r"manifest.json is damaged"):
            model_folder(folder)
