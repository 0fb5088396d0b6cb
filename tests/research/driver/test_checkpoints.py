"""The sweep's best K: derived from the ledger, whole at every moment, damage refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch

from research.driver.best_models import keep_best
from research.errors import CorruptFile, UserError
from research.ledger.log import Ledger
from research.ledger.records import load_record
from research.models.looks import model_hash
from research.store.folders import verify_folder, write_folder
from research.store.layout import trial_name
from tests.support.places import ROOT
from tests.support.synthetic import failed, new_ledger, row, trial
from vae.portable import WEIGHTS_FILE as WEIGHTS
from vae.state import TrainState

if TYPE_CHECKING:
    from pathlib import Path


def save_checkpoint(ledger: Ledger, number: int, epoch: int, *, ema: bool = False) -> dict[str, Any]:
    """A real training state on disk; what its row says of it."""
    relative = f"trials/{trial_name(number)}/epoch-{epoch:04d}-0"
    weight = torch.full((3, 4), float(10 * number + epoch))
    tensors = {
        "model/encoder.weight": weight,
        "model/running_mean": torch.tensor([1.5], dtype=torch.bfloat16),
        "optimizer/encoder.weight/exp_avg": torch.ones(3, 4),
    }
    if ema:
        tensors["ema/encoder.weight"] = weight + 0.25
    sizes = {"channels": 1, "height": 8, "width": 8, "levels": 16, "num_classes": 10}
    state = TrainState(config_hash=f"hash-{number}", epoch=epoch, step=epoch * 10, sizes=sizes, tensors=tensors)
    return {"checkpoint": relative, "checkpoint_sha256": state.save(ledger.directory / relative)}


def run_trial(
    ledger: Ledger, number: int, elbos: list[float], decision: str | None = "complete", *, ema: bool = False
) -> None:
    """A trial with a checkpoint at every epoch and a picture at the first; running where decision is None."""
    ledger.append(trial(number))
    for epoch, elbo in enumerate(elbos):
        last = decision is not None and epoch == len(elbos) - 1
        saved = save_checkpoint(ledger, number, epoch, ema=ema)
        picture = f"pictures/{trial_name(number)}-epoch-{epoch:04d}-samples.png"
        (ledger.directory / "pictures").mkdir(exist_ok=True)
        (ledger.directory / picture).write_bytes(f"picture {number} {epoch}".encode())
        pictures = {"samples": picture} if epoch == 0 else {}
        ledger.append(row(number, epoch, elbo, decision if last else "continue", pictures=pictures, **saved))


def names(directory: Path) -> list[str]:
    """What lies in ``directory``."""
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_a_model_folder_is_the_best_row_and_nothing_else(tmp_path: Path) -> None:
    """Weights, metrics, config, record and pictures of the best epoch, not of the last."""
    ledger = new_ledger(tmp_path)
    run_trial(ledger, 0, [-30.0, -20.0, -25.0])
    assert keep_best(ledger, tmp_path) == []
    folder = tmp_path / "models" / "trial-0000"
    assert set(verify_folder(folder)) == {
        "config.json",
        WEIGHTS,
        "metrics.json",
        "README.md",
        "record.json",
        "samples.png",
    }
    weights = safetensors.torch.load_file(folder / WEIGHTS)
    assert set(weights) == {"encoder.weight", "running_mean"}
    assert torch.equal(weights["encoder.weight"], torch.full((3, 4), 1.0))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["epoch"], metrics["val/elbo"]) == (1, -20.0)
    assert json.loads((folder / "config.json").read_text()) == ledger.trials[0].created.config
    assert (folder / "samples.png").read_bytes() == b"picture 0 0"
    record = load_record(folder)
    assert (record.trial, record.best_epoch, len(record.rows)) == (0, 1, 3)
    assert model_hash(folder) == verify_folder(folder)[WEIGHTS]


def test_the_average_is_kept_where_there_is_one(tmp_path: Path) -> None:
    """The kept weights are the evaluated ones: the EMA's, with the raw ones where none is averaged."""
    ledger = new_ledger(tmp_path)
    run_trial(ledger, 0, [-30.0], ema=True)
    keep_best(ledger, tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "models" / "trial-0000" / WEIGHTS)
    assert torch.equal(weights["encoder.weight"], torch.full((3, 4), 0.25))
    assert weights["running_mean"].dtype == torch.bfloat16


def test_the_worse_leave_when_better_ones_come(tmp_path: Path) -> None:
    """At most K models, always the best of the ended trials, pruned ones included, failed ones never."""
    ledger = new_ledger(tmp_path)
    seen = []
    for number, (elbo, decision) in enumerate(
        [(-30.0, "complete"), (-20.0, "pruned"), (-25.0, "complete"), (-1.0, "fail"), (-10.0, "complete")]
    ):
        run_trial(ledger, number, [elbo], decision)
        assert keep_best(ledger, tmp_path) == []
        seen.append([int(name[-1]) for name in names(tmp_path / "models")])
    assert seen == [[0], [0, 1], [1, 2], [1, 2], [1, 4]]
    assert names(tmp_path / "trials") == []


def test_running_trials_are_not_touched_and_failed_ones_are_cleared(tmp_path: Path) -> None:
    """The checkpoints of whatever may still continue stay; those of a failed trial go."""
    ledger = new_ledger(tmp_path)
    run_trial(ledger, 0, [-30.0], None)
    run_trial(ledger, 1, [-20.0], None)
    ledger.append(failed(1))
    (tmp_path / "trials" / "trial-0009").mkdir()  # not in the ledger
    assert keep_best(ledger, tmp_path) == []
    assert names(tmp_path / "trials") == ["trial-0000", "trial-0009"]
    assert names(tmp_path / "models") == []


def test_keeping_again_changes_nothing(tmp_path: Path) -> None:
    """A second call writes no file and removes none, and what was added to a model folder stays."""
    ledger = new_ledger(tmp_path)
    for number, elbo in enumerate([-30.0, -20.0, -10.0]):
        run_trial(ledger, number, [elbo])
    keep_best(ledger, tmp_path)
    (tmp_path / "models" / "trial-0002" / "look.json").write_text("{}")

    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = stamps()
    assert keep_best(Ledger.open(tmp_path), tmp_path) == []
    assert stamps() == before


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "no checkpoint", "outside"])
def test_a_bad_checkpoint_costs_a_line_and_not_the_sweep(tmp_path: Path, damage: str) -> None:
    """The problem names trial and file, the next best model stays in its place, the evidence is kept."""
    ledger = new_ledger(tmp_path, keep=1)
    run_trial(ledger, 0, [-30.0])
    assert keep_best(ledger, tmp_path) == []
    state = tmp_path / "trials" / "trial-0001" / "epoch-0000-0" / "state.safetensors"
    if damage in {"no checkpoint", "outside"}:
        ledger.append(trial(1))
        checkpoint = "../elsewhere" if damage == "outside" else None
        ledger.append(row(1, 0, -20.0, "complete", checkpoint=checkpoint))
    else:
        run_trial(ledger, 1, [-20.0])
        content = state.read_bytes()
        if damage == "flip":
            state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif damage == "truncate":
            state.write_bytes(content[: len(content) // 2])
        else:
            state.unlink()
    for _ in range(2):
        (problem,) = keep_best(ledger, tmp_path)
        assert "the model of trial 1 could not be kept" in problem
        assert "\n" not in problem
        assert names(tmp_path / "models") == ["trial-0000"]
    if damage in {"flip", "truncate"}:
        assert str(state) in problem
        state.write_bytes(content)
        assert keep_best(ledger, tmp_path) == []
        assert names(tmp_path / "models") == ["trial-0001"]
        assert names(tmp_path / "trials") == []


def test_a_full_disk_costs_a_line_and_not_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a new model can't be written the old one stays, and the next call mends it."""
    ledger = new_ledger(tmp_path, keep=1)
    run_trial(ledger, 0, [-30.0])
    keep_best(ledger, tmp_path)
    run_trial(ledger, 1, [-20.0])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        (problem,) = keep_best(ledger, tmp_path)
    assert "No space left on device" in problem
    assert names(tmp_path / "models") == ["trial-0000"]
    assert keep_best(ledger, tmp_path) == []
    assert names(tmp_path / "models") == ["trial-0001"]


def test_a_damaged_model_is_made_again_while_its_checkpoint_is_there(tmp_path: Path) -> None:
    """A kept model that doesn't verify is replaced, or reported when nothing is left to make it from."""
    ledger = new_ledger(tmp_path)
    run_trial(ledger, 0, [-30.0])
    weights = tmp_path / "models" / "trial-0000" / WEIGHTS
    keep_best(ledger, tmp_path)
    save_checkpoint(ledger, 0, 0)
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert keep_best(ledger, tmp_path) == []
    assert weights.read_bytes() == good
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (problem,) = keep_best(ledger, tmp_path)
    assert "the model of trial 0 could not be kept" in problem


def test_every_flipped_bit_of_a_model_folder_is_refused_by_name(tmp_path: Path) -> None:
    """verify_folder names the file in which a byte changed; an unlisted file may come and go."""
    folder = tmp_path / "model"
    write_folder(folder, {"config.json": b'{"a": 1}\n', WEIGHTS: bytes(range(64))})
    (folder / "look.json").write_text("{}")
    for name in ("config.json", WEIGHTS, "manifest.json"):
        good = (folder / name).read_bytes()
        for place in range(len(good)):
            (folder / name).write_bytes(good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :])
            with pytest.raises(CorruptFile, match=r"model/\S+ (is damaged|can't be read)") as refusal:
                verify_folder(folder)
            assert name in str(refusal.value) or name == "manifest.json"
        (folder / name).unlink()
        with pytest.raises(CorruptFile, match=rf"model/{name} can't be read"):
            verify_folder(folder)
        (folder / name).write_bytes(good)
    assert set(verify_folder(folder)) == {"config.json", WEIGHTS}


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    """Other content takes the folder's place; names that would leave it are refused."""
    folder = tmp_path / "deep" / "model"
    write_folder(folder, {"a": b"1", "b": b"2"})
    write_folder(folder, {"a": b"3"})
    assert names(folder) == ["a", "manifest.json"]
    assert names(folder.parent) == ["model"]
    for name in ("../a", "manifest.json", "", ".."):
        with pytest.raises(ValueError, match="plain"):
            write_folder(folder, {name: b""})


def test_model_hash_of_no_model_is_one_line(tmp_path: Path) -> None:
    """A folder without weights is named."""
    with pytest.raises(UserError, match="not a model folder"):
        model_hash(tmp_path)


@pytest.mark.faults
@pytest.mark.fault("18 killed while models change places")
def test_sigkill_at_every_step_leaves_a_valid_model_and_is_mended(tmp_path: Path, tally: Any) -> None:
    """Killed before each change of the disk and at random moments: one whole model always, then the right."""
    pristine = tmp_path / "pristine"
    ledger = new_ledger(pristine, keep=1)
    run_trial(ledger, 0, [-30.0])
    keep_best(ledger, pristine)
    run_trial(ledger, 1, [-20.0, -10.0])
    run_trial(ledger, 2, [-40.0], None)
    output = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_keeper", str(pristine), str(tmp_path / "work")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    results = json.loads(output)
    by_step = [result for result in results if result["step"] is not None]
    assert sum(result["killed"] for result in by_step) > 25  # steps that the call has
    assert not by_step[-1]["killed"]  # and the plan went past the last of them
    assert sum(result["killed"] for result in results if result["step"] is None) == 30  # at random moments
    tally.happened(sum(result["killed"] for result in results))
    assert tally.committed >= 50
    tally.losing(sum(not result["after_kill"] for result in results))
    assert {tuple(result["after_kill"]) for result in results} == {
        ("trial-0000",),
        ("trial-0000", "trial-0001"),
        ("trial-0001",),
    }
    for result in results:
        assert result["problems"] == []
        assert result["models"] == result["valid"] == ["trial-0001"]
        assert result["trials"] == ["trial-0002"]
