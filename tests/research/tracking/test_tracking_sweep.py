"""What of a sweep is in W&B beside its trials' rows: tables, figures, models, finalists; and that a resume doubles none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from research.ledger.settings import Metric, Parent
from research.tracking.sweep_run import importances, trials_table
from research.tracking.sync import without_figures
from research.tracking.trial_names import family
from tests.support.places import ROOT
from tests.support.synthetic import MEASURE, failed, new_ledger, row, trial
from tests.support.wandb_help import DISTRIBUTIONS, append_drawn, append_trial, keep_model
from tests.support.wandb_reader import read_run, read_runs, read_sweep, table
from vae.conditioning import OnLabel
from vae.corruption import Masking
from vae.objectives import Elbo, Iwae, Reconstruction
from vae.posteriors import Deterministic
from vae.serialization import to_dict
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from research.tracking.sink import Sink

    Start = Callable[..., Sink]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "vae"),
        ({"objective": Elbo(beta=4.0)}, "beta_vae"),
        ({"conditioning": OnLabel()}, "cvae"),
        ({"objective": Iwae()}, "iwae"),
        ({"objective": Iwae(), "conditioning": OnLabel()}, "label_iwae"),
        ({"objective": Reconstruction(), "posterior": Deterministic()}, "ae"),
        ({"objective": Reconstruction(), "posterior": Deterministic(), "corruption": Masking()}, "denoising_ae"),
    ],
)
def test_a_family_has_a_name(changes, name) -> None:
    """What runs are filtered by."""
    assert family(to_dict(TrainConfig(**changes))) == name


def test_a_draw_without_a_config_has_no_family() -> None:
    """A space that raised leaves an empty config."""
    assert not family({})


def test_runs_can_be_filtered_and_compared(tmp_path: Path, start: Start) -> None:
    """Tags, status in config and summary, flat keys for parallel coordinates, the better end of each objective."""
    sweep = tmp_path / "sweep"
    objectives = (Metric(), Metric(name="val/kl", direction="minimize"))
    ledger = new_ledger(sweep, objectives=objectives)
    sink = start(sweep)
    append_trial(ledger, 0, 3)
    append_trial(ledger, 1, 2, "pruned")
    append_trial(ledger, 2, 2, "fail")
    assert sink.close() == []
    complete, pruned, diverged = read_runs(sweep)
    assert complete.tags == ["quickstart", "vae", "digits", "tpe", "asha", "complete"]
    assert pruned.tags[-1] == "pruned"
    assert diverged.tags[-2:] == ["fail", "diverged"]
    for run, status in ((complete, "COMPLETE"), (pruned, "PRUNED"), (diverged, "FAIL")):
        assert run.config["status"] == run.summary["status"] == status
    assert (pruned.config["ended_epoch"], diverged.config["fail_kind"]) == (1, "diverged")
    assert complete.config["lr"] == complete.config["params/lr"] == 1e-3 / 3
    assert complete.config["family"] == "vae"
    assert complete.metrics["val/elbo"] == "max,last"
    assert complete.metrics["val/kl"] == "min,last"


@pytest.mark.slow
def test_the_sweep_has_a_run_of_its_own(tmp_path: Path, start: Start) -> None:
    """The sink writes tables equal to the ledger; research log adds importances and figures of the complete trials."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    for number in range(12):
        append_drawn(ledger, number, -90.0 - number**2, "pruned" if number in {4, 5} else "complete")
    ledger.append(trial(12, distributions=DISTRIBUTIONS))
    ledger.append(failed(12))
    assert start(sweep).close() == []
    assert len(table(read_sweep(sweep), "trials")) == 13
    assert not any("optuna" in name for name in read_sweep(sweep).rows[0])
    assert without_figures(sweep) == [sweep]
    written: dict[Path, int] = {}
    # By hand there is no hurry; and a second time there is nothing to do.
    for _ in range(2):
        command = [sys.executable, "-m", "research.cli", "log", str(sweep)]
        subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=True)
        before, written = written, {path: path.stat().st_mtime_ns for path in sweep.glob("wandb/offline-run-*/*.wandb")}
    assert written == before
    assert without_figures(sweep) == []
    run = read_sweep(sweep)
    assert len(run.rows) == 1
    assert (run.job_type, run.group, run.name) == ("sweep", "quick", "quick")
    assert run.id == f"quick-{ledger.identity[:8]}-sweep"
    assert run.config["metric"] == "val/elbo"
    assert run.config["measure"] == MEASURE
    assert (run.summary["best_trial"], run.summary["best_value"], run.summary["trials/complete"]) == (0, -90.0, 10)
    trials = table(run, "trials")
    assert [entry["trial"] for entry in trials] == list(range(13))
    assert [entry["status"] for entry in trials] == [view.status for view in ledger.trials.values()]
    assert trials[3]["val/elbo"] == -99.0
    assert trials[3]["lr"] == ledger.trials[3].created.params["lr"]
    assert (trials[3]["rank"], trials[12]["rank"], trials[12]["fail_kind"]) == (4, None, "bug")
    assert trials[3]["run"] in {other.id for other in read_runs(sweep)}
    found = table(run, "importances")
    assert {entry["parameter"] for entry in found} == {"lr", "latent_size"}
    assert sum(entry["importance"] for entry in found) == pytest.approx(1.0)
    logged = {name.split(".")[0] for name in run.rows[0]}
    for figure in ("optimisation_history", "parallel_coordinate", "slice", "importances"):
        assert f"optuna/{figure}" in logged
    assert "pareto_front" not in logged


@pytest.mark.slow
def test_few_trials_have_tables_and_no_figures(tmp_path: Path, start: Start) -> None:
    """Two trials, of invented distributions: nothing is fitted, nothing fails."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    append_trial(ledger, 0, 2)
    append_trial(ledger, 1, 2)
    assert start(sweep).close() == []
    run = read_sweep(sweep)
    assert len(table(run, "trials")) == 2
    assert not any("optuna" in name or "importances" in name for name in run.rows[0])


def test_the_front_is_a_table(tmp_path: Path) -> None:
    """Of several objectives; importances are of each."""
    ledger = new_ledger(
        tmp_path / "sweep", objectives=(Metric(), Metric(name="val/reconstruction", direction="maximize"))
    )
    for number in range(6):
        append_drawn(ledger, number, -90.0 - number)
    columns, rows = trials_table(ledger, ledger.front())
    assert [entry[columns.index("trial")] for entry in rows] == [view.number for view in ledger.front()]
    assert {entry[columns.index("pareto_rank")] for entry in rows} == {1}
    assert {entry[1] for entry in importances(ledger)[1]} == {"val/elbo", "val/reconstruction"}


@pytest.mark.slow
def test_kept_models_are_artifacts_of_their_runs(tmp_path: Path, start: Start) -> None:
    """Name, files, aliases by rank; the run has its rows once; another session with the same models writes nothing."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    for number, elbo in enumerate((-95.0, -90.0, -99.0)):
        append_drawn(ledger, number, elbo, "pruned" if number == 2 else "complete")
    keep_model(ledger, 0)
    keep_model(ledger, 1)
    assert start(sweep).close() == []
    second, best, other = read_runs(sweep)
    assert best.artifacts == {"quick-trial-0001": ["best", "rank-1"]}
    assert second.artifacts == {"quick-trial-0000": ["rank-2"]}
    assert other.artifacts == {}
    assert best.artifact_files["quick-trial-0001"] == ["config.json", "manifest.json", "model.safetensors"]
    for run in (second, best, other):
        assert [logged["_step"] for logged in run.rows] == [1, 2]
        assert run.summary["status"] == run.config["status"]
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("wandb/offline-run-*/*.wandb")}
    assert start(sweep).close() == []
    assert {path: path.stat().st_mtime_ns for path in sweep.glob("wandb/offline-run-*/*.wandb")} == before
    # A better model takes the place of one: what was not uploaded follows the ledger.
    append_drawn(ledger, 3, -80.0)
    keep_model(ledger, 3)
    shutil.rmtree(sweep / "models" / "trial-0000")
    assert start(sweep).close() == []
    assert [run.artifacts for run in read_runs(sweep)] == [
        {},
        {"quick-trial-0001": ["rank-2"]},
        {},
        {"quick-trial-0003": ["best", "rank-1"]},
    ]
    assert [len(run.rows) for run in read_runs(sweep)] == [2] * 4


@pytest.mark.slow
def test_what_was_uploaded_is_not_written_again(tmp_path: Path, start: Start) -> None:
    """A model that is kept after its run's upload comes in a directory without rows; the sweep's next row has a later step."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    append_drawn(ledger, 0, -95.0)
    assert start(sweep).close() == []
    first = read_sweep(sweep)
    (sweep / "wandb" / "uploaded").mkdir()
    for directory in (sweep / "wandb").glob("offline-run-*"):
        (sweep / "wandb" / "uploaded" / f"{directory.name}.json").write_text('{"state": "uploaded"}')
    time.sleep(1.1)  # W&B names directories by the second
    keep_model(ledger, 0)
    append_drawn(ledger, 1, -96.0)
    assert start(sweep).close() == []
    runs = [run for run in read_runs(sweep) if run.config["trial"] == 0]
    assert len({run.id for run in runs}) == 1
    assert sorted(len(run.rows) for run in runs) == [0, 2]
    (supplement,) = (run for run in runs if not run.rows)
    assert supplement.artifacts == {"quick-trial-0000": ["best", "rank-1"]}
    (original,) = (run for run in runs if run.rows)
    assert supplement.config == original.config
    assert supplement.summary["val/elbo"] == -95.0
    assert supplement.summary["best/val/elbo"] == original.summary["best/val/elbo"]
    sweeps = [read_run(path) for path in sorted((sweep / "wandb").glob("offline-run-*-sweep"))]
    assert [len(run.rows) for run in sweeps] == [1, 1]
    assert sweeps[0].rows[0]["_step"] == first.rows[0]["_step"] < sweeps[1].rows[0]["_step"]


@pytest.mark.slow
def test_finalists_name_their_parents(tmp_path: Path, start: Start) -> None:
    """Group, job type, tag, the parent's run; and the parent's own run shows them."""
    sweep = tmp_path / "sweep"
    parent = new_ledger(sweep)
    append_trial(parent, 0, 2)
    append_trial(parent, 1, 2)
    assert start(sweep).close() == []
    ledger = new_ledger(
        sweep / "finalists", name="quick-finalists", parent=Parent(name="quick", identity=parent.identity)
    )
    ledger.append(trial(0, parent_trial=1))
    ledger.append(row(0, 1, -88.0, "complete"))
    keep_model(ledger, 0)
    time.sleep(1.1)  # W&B names directories by the second
    assert start(sweep / "finalists").close() == []
    (run,) = read_runs(sweep / "finalists")
    assert (run.group, run.job_type, run.name) == ("quick-finalists", "finalist", "quick-finalists/trial-0")
    assert "finalist" in run.tags
    assert run.config["parent_sweep"] == "quick"
    assert run.config["parent_trial"] == 1
    assert run.config["parent_run"] == read_runs(sweep)[1].id
    assert run.artifacts == {"quick-finalists-trial-0000": ["best", "finalist", "rank-1"]}
    assert read_sweep(sweep / "finalists").config["parent_sweep"] == "quick"
    assert [entry["parent_trial"] for entry in table(read_sweep(sweep), "finalists")] == [1]


@pytest.mark.slow
def test_an_artifact_holds_the_files_of_the_manifest_alone(tmp_path: Path, start: Start) -> None:
    """Neither what was put beside them nor what a link leads to; a folder with a link in a file's place is not logged."""
    sweep, secret = tmp_path / "sweep", tmp_path / "secret"
    secret.write_text("a private key")
    ledger = new_ledger(sweep)
    for number, elbo in enumerate((-95.0, -90.0, -93.0, -97.0)):
        append_drawn(ledger, number, elbo)
        keep_model(ledger, number)
    models = sweep / "models"
    (models / "trial-0000" / "notes.txt").symlink_to(secret)
    (models / "trial-0000" / "beside.txt").write_text("not of the model")
    (models / "trial-0001" / "config.json").unlink()
    (models / "trial-0001" / "config.json").symlink_to(secret)
    (models / "trial-0002").rename(tmp_path / "elsewhere")
    (models / "trial-0002").symlink_to(tmp_path / "elsewhere")
    (models / "trial-0003" / "model.safetensors").unlink()
    os.mkfifo(models / "trial-0003" / "model.safetensors")
    said = start(sweep).close(60)
    assert [line.rpartition(": ")[2] for line in said if "not logged" in line] == ["not logged"] * 3
    logged = [run.artifact_files for run in read_runs(sweep)]
    assert logged[1:] == [{}, {}, {}]
    assert logged[0] == {"quick-trial-0000": ["config.json", "manifest.json", "model.safetensors"]}
