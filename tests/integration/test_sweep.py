"""One real sweep on real Ray, Optuna and W&B: the same trials everywhere, the best kept, nothing else left."""

from __future__ import annotations

import json

import optuna
import pytest

from research.ledger.log import Ledger
from research.ledger.records import load_record
from research.store.folders import verify_folder
from tests.support.verbs import research, science
from tests.support.wandb_reader import read_runs
from vae.serialization import config_hash, from_dict

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def ledger(finished):
    """The finished sweep's ledger."""
    assert finished.code == 0, finished.output
    return Ledger.open(finished.directory)


@pytest.fixture(scope="module")
def study(finished):
    """The finished sweep's Optuna study."""
    backend = optuna.storages.journal.JournalFileBackend(str(finished.directory / "study.journal"))
    return optuna.load_study(study_name="whole", storage=optuna.storages.JournalStorage(backend))


def test_every_trial_ended_and_the_states_add_up(ledger, study):
    """Eight were asked for, eight ended, in the ledger and in the study alike; none is left RUNNING."""
    states = [view.status for view in ledger.trials.values()]

    assert len(states) == 8
    assert "RUNNING" not in states
    assert [trial.state.name for trial in study.trials] == states
    assert "PRUNED" in states, "the sweep shows early stopping at work"


def test_ledger_study_and_wandb_hold_the_same_configs(ledger, study, finished):
    """What was sampled is what was trained is what is shown."""
    runs = read_runs(finished.directory)

    assert len(runs) == 8
    for number, view in ledger.trials.items():
        config = from_dict(view.created.config)
        assert study.trials[number].params == view.created.params
        assert config_hash(config) == view.created.config_hash
        run = next(run for run in runs if run.config["trial"] == number)
        # W&B's own file drops the difference between 1.0 and 1; the values are the same.
        assert json.dumps(run.config["optimizer"]["lr"]) == json.dumps(config.optimizer.lr)
        assert run.config["latent_size"] == config.latent_size == view.created.params["latent_size"]
        assert config.optimizer.lr == view.created.params["lr"]
        assert config.network.dropout == view.created.params["dropout"]


def test_wandb_rows_equal_the_ledger_to_the_last_digit(ledger, finished):
    """Every epoch of every trial, explicit step, the very floats; the summary holds the best and the status."""
    for run in read_runs(finished.directory):
        view = ledger.trials[run.config["trial"]]
        logged = {row["epoch"]: row for row in run.rows if "epoch" in row}
        assert sorted(logged) == sorted(view.rows)
        for epoch, row in view.rows.items():
            for name in ("train/loss", "val/elbo", "val/reconstruction", "val/kl", "val/active_units"):
                assert logged[epoch][name] == row.metrics[name]
            assert logged[epoch]["_step"] == epoch
        assert run.summary["status"] == view.status
        assert run.exit_code == 0


def test_rows_hold_the_identity_and_one_measure(ledger):
    """``elbo = −(reconstruction + kl)`` exactly, and one measure for all that is ranked together."""
    for view in ledger.trials.values():
        for row in view.rows.values():
            metrics = row.metrics
            assert metrics["val/elbo"] == -(metrics["val/reconstruction"] + metrics["val/kl"])
            assert metrics["measure"] == ledger.settings.measure


def test_the_study_was_told_the_truth(ledger, study):
    """COMPLETE only at full budget with the best value; PRUNED with its curve."""
    for number, view in ledger.trials.items():
        curve = view.curve("val/elbo")
        trial = study.trials[number]
        assert trial.intermediate_values == curve
        if view.status == "COMPLETE":
            assert max(view.rows) == view.created.config["epochs"]
            assert trial.value == max(curve.values())
        else:
            assert max(view.rows) < view.created.config["epochs"]


def test_the_best_models_are_kept_whole_and_nothing_else(ledger, finished):
    """The best three, verified, each bound to the row that earned its place; no checkpoint or Ray state left."""
    best = [f"trial-{view.number:04d}" for view in ledger.ranked()[:3]]
    models = finished.directory / "models"

    assert sorted(path.name for path in models.iterdir()) == sorted(best)
    for view in ledger.ranked()[:3]:
        folder = models / f"trial-{view.number:04d}"
        assert {"config.json", "model.safetensors", "metrics.json", "record.json"} <= set(verify_folder(folder))
        row = json.loads((folder / "metrics.json").read_text())
        assert row == view.best(ledger.settings.metric).metrics | {"epoch": row["epoch"]}
    assert not (finished.directory / "ray").exists()
    assert list((finished.directory / "trials").iterdir()) == []


def test_the_kept_weights_score_what_their_row_says(ledger, finished):
    """Evaluating the kept model gives the row that earned its place, to the last digit (averaged weights here)."""
    folder = finished.directory / "models" / f"trial-{ledger.ranked()[0].number:04d}"
    answer = research("evaluate", folder, "--json")

    row = json.loads((folder / "metrics.json").read_text())
    evaluated = json.loads(answer.output)
    assert answer.code == 0
    assert [evaluated[f"val/{n}"] for n in ("elbo", "kl")] == [row[f"val/{n}"] for n in ("elbo", "kl")]
    assert evaluated["measure"] == row["measure"]


def test_the_best_config_reproduces_exactly(finished):
    """Trained again from its record, on the same machine, every row is equal; exit code 0."""
    again = research("reproduce", finished.directory, "--rank", "1")

    assert "reproduced exactly" in again.output
    assert again.code == 0


def test_each_trial_equals_a_single_run_of_its_config(ledger, finished, tmp_path):
    """``research train`` of a pruned trial's config gives the same first rows, bit for bit."""
    pruned = next(view for view in ledger.trials.values() if view.status == "PRUNED")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(pruned.created.config))
    done = research("train", config, "--out", tmp_path / "run")

    rows = load_record(tmp_path / "run").rows
    assert done.code == 0
    for epoch, row in pruned.rows.items():
        assert science(rows[epoch - 1]) == science(row.metrics)


def test_show_reads_the_ledger(ledger, finished):
    """As text with the commands that come next, as JSON with every trial's status, config and metrics."""
    text = research("show", finished.directory)
    shown = json.loads(research("show", finished.directory, "--json").output)

    assert "research reproduce" in text.output
    assert [trial["status"] for trial in shown["trials"]] == [view.status for view in ledger.trials.values()]
    assert shown["trials"][0]["config"] == ledger.trials[0].created.config
    assert shown["best"][0]["trial"] == ledger.ranked()[0].number
    assert shown["looks_at_test"] == 0


def test_a_look_at_test_is_written_down_once(finished):
    """The same model on the same data returns the stored row; the count of looks does not grow."""
    folder = next((finished.directory / "models").iterdir())
    first = research("evaluate", folder, "--split", "test", "--json")
    second = research("evaluate", folder, "--split", "test", "--json")

    one, two = json.loads(first.output), json.loads(second.output)
    assert (one.pop("stored"), two.pop("stored")) == (False, True)
    assert one == two
    assert len(list((finished.directory / "looks").glob("*.json"))) == 1
    # Taken back: the other tests of this sweep see it as it ended.
    for look in (finished.directory / "looks").glob("*.json"):
        look.unlink()


def test_a_finished_sweep_is_neither_begun_again_nor_resumed(finished, small_space):
    """Its name is taken, and there is nothing to resume: one line each, exit code 2."""
    storage, name = finished.directory.parent, finished.directory.name
    again = research("sweep", small_space, "--name", name, "--storage", storage)
    resumed = research("resume", finished.directory)

    assert (again.code, resumed.code) == (2, 2)
    assert "exists already" in again.output
    assert "nothing to resume" in resumed.output
