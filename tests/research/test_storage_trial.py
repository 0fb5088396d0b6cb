"""A worker's trial in an object store: real training and a real server; only Tune's report is stood in for.

Ray needs a minute to start; whole sweeps with real workers are in tests/integration/test_object_storage.py.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import TypeAdapter
from store_server import BUCKET
from synthetic import new_ledger, trial

from research import storage
from research.checkpoints import keep_best
from research.errors import StorageError
from research.folders import verify_folder
from research.ledger import Ledger, RowReported
from research.object_store import ObjectStore
from research.provenance import running_sha256
from research.settings import Metric
from research.trial import Assignment, run_trial
from vae.data import Digits, load_training
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.portable import load_model
from vae.serialization import to_dict
from vae.state import StateError
from vae.train import train
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from research.ledger import TrialView

CONFIG = TrainConfig(
    data=Digits(), likelihood=Binomial(), network=Mlp(hidden=(8,)), latent_size=2, ema_decay=0.9, epochs=4, seed=3
)


class _Stopped(Exception):
    """The worker's process is gone."""


def assignment(ledger: Ledger, url: str, attempt: int) -> dict[str, Any]:
    """What the driver would send."""
    data = load_training(CONFIG.data, None)
    view: TrialView = ledger.trials[0]
    last, best = view.last_checkpoint, view.best(Metric())
    task = Assignment(
        sweep_dir="/not/on/this/node",
        storage=url,
        trial=0,
        attempt=attempt,
        config=to_dict(CONFIG),
        replicates=1,
        metric=Metric(),
        threads=1,
        device="cpu",
        gpus=0.0,
        source_sha256=running_sha256(),
        data_dir=None,
        data_hash=data.data_hash,
        split_hash=data.split_hash,
        picture_epochs=[CONFIG.epochs],
        resume_from=None if last is None else last.checkpoint,
        resume_sha256=None if last is None else last.checkpoint_sha256,
        again={},
        best_checkpoint=None if best is None else best.checkpoint,
        best_value=None if best is None else view.curve("val/elbo")[best.epoch],
    )
    return {"assignments": TypeAdapter(list[Assignment]).dump_json([task]).decode()}


def written_by(ledger: Ledger, *, stop_after: int | None = None) -> Callable[[dict[str, Any]], None]:
    """A report that does what the driver does with one, and ends the worker after epoch ``stop_after``."""

    def report(result: dict[str, Any]) -> None:
        told = json.loads(result["report"])
        epoch = told["metrics"]["epoch"]
        named = {
            name: told[name] for name in ("attempt", "metrics", "checkpoint", "checkpoint_sha256", "pictures", "worker")
        }
        decision = "complete" if epoch == CONFIG.epochs else "continue"
        ledger.append(RowReported(trial=0, epoch=epoch, decision=decision, **named))
        if epoch == stop_after:
            raise _Stopped

    return report


@pytest.fixture
def begun(gate, tmp_path, monkeypatch):
    """A sweep in the store whose trial was stopped after its second epoch; the address."""
    torch.set_num_threads(1)
    monkeypatch.setenv("RESEARCH_CACHE_DIR", str(tmp_path / "a"))
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    ledger = new_ledger(storage.mirror_of(url))
    ledger.append(trial(0, config=to_dict(CONFIG), seed=CONFIG.seed))
    monkeypatch.setattr("research.trial.tune.report", written_by(ledger, stop_after=2))
    with pytest.raises(_Stopped):
        run_trial(assignment(ledger, url, 0))
    monkeypatch.setenv("RESEARCH_CACHE_DIR", str(tmp_path / "b"))
    return url


def test_a_trial_goes_on_from_the_store_on_another_node(begun, monkeypatch):
    """Stopped after an epoch, gone on with where nothing is local: rows and model equal an uninterrupted run's."""
    ledger = Ledger.open(storage.local(begun))
    assert sorted(ledger.trials[0].rows) == [1, 2]
    monkeypatch.setattr("research.trial.tune.report", written_by(ledger))
    run_trial(assignment(ledger, begun, 1))

    alone = list(train(CONFIG, load_training(CONFIG.data, None)))
    for result in alone:
        ours = ledger.trials[0].rows[result.row["epoch"]].metrics
        assert {n: v for n, v in ours.items() if not n.startswith("time/")} == {
            n: v for n, v in result.row.items() if not n.startswith("time/")
        }
    assert keep_best(ledger, ledger.directory) == []
    assert ObjectStore(begun).names("trials") == []
    folder = storage.local(f"{begun}/models/trial-0000")
    assert "samples.png" in verify_folder(folder), "its pictures came along"
    best = max(alone, key=lambda result: result.row["val/elbo"])
    assert ledger.trials[0].best(Metric()).epoch == best.row["epoch"]
    if best is alone[-1]:
        weights = best.state.weights()
        for name, tensor in load_model(folder)[1].state_dict().items():
            assert torch.equal(tensor, weights[name])


@pytest.mark.fault("12 corrupt checkpoint")
@pytest.mark.parametrize("damage", ["other", "torn", "gone"])
def test_a_wrong_checkpoint_is_never_gone_on_from(begun, monkeypatch, tally, damage):
    """Another epoch's state in the place of the row's, a torn one, none: refused by name, nothing reported."""
    ledger = Ledger.open(storage.local(begun))
    store = ObjectStore(begun)
    last = ledger.trials[0].last_checkpoint.checkpoint
    states = [name for name in store.names("trials") if name.endswith("state.safetensors")]
    if damage == "other":
        first = ledger.trials[0].rows[1].checkpoint
        assert f"{first}/state.safetensors" in states
        for file in ("state.safetensors", "state.json"):
            store.write(f"{last}/{file}", store.read(f"{first}/{file}"))
    elif damage == "torn":
        store.write(f"{last}/state.safetensors", store.read(f"{last}/state.safetensors")[:-1])
    else:
        store.remove([f"{last}/state.safetensors", f"{last}/state.json"])
    tally.happened()
    monkeypatch.setattr("research.trial.tune.report", written_by(ledger))
    with pytest.raises(StateError, match=r"its sha256|altered|not readable"):
        run_trial(assignment(ledger, begun, 1))
    assert sorted(ledger.trials[0].rows) == [1, 2]


@pytest.mark.fault("10 storage unwritable or gone")
def test_a_worker_that_is_refused_says_where(begun, gate, monkeypatch, tally):
    """403 on a worker: one line with the address and the node, before anything is reported."""
    ledger = Ledger.open(storage.local(begun))
    monkeypatch.setattr("research.trial.tune.report", written_by(ledger))
    task = assignment(ledger, begun, 1)
    gate.mode = 403
    with pytest.raises(StorageError, match=r"the store refuses .* \(on .+\)"):
        run_trial(task)
    assert gate.turned_away > 0
    tally.happened()
    assert sorted(ledger.trials[0].rows) == [1, 2]
