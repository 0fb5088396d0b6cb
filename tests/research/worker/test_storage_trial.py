"""A worker's trial, above all in an object store: real training and a real server; the test is the driver.

Ray needs a minute to start; whole sweeps with real workers are in tests/integration/test_object_storage.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import torch

from research.driver.best_models import keep_best, last_whole
from research.errors import StorageError
from research.ledger.events import RowReported, RowsReported
from research.ledger.log import Ledger
from research.ledger.settings import Metric
from research.provenance import running_sha256
from research.store import mirror as storage
from research.store.folders import verify_folder
from research.store.layout import epoch_folder, replicate_folder
from research.store.object_store import ObjectStore
from research.worker.messages import Assignment
from research.worker.notice import Preempted, StopFile
from research.worker.trial import run_trials
from tests.support.by_hand import WorkerChannel
from tests.support.store_server import BUCKET
from tests.support.synthetic import new_ledger, science, trial
from vae.data import Digits, load_training
from vae.likelihoods import Binomial
from vae.measure import measure_of
from vae.networks import Mlp
from vae.portable import load_model
from vae.serialization import to_dict
from vae.state import StateError, TrainState
from vae.train import train
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from research.ledger.trial_view import TrialView
    from research.worker.messages import Report
    from vae.train import EpochResult

CONFIG = TrainConfig(
    data=Digits(), likelihood=Binomial(), network=Mlp(hidden=(8,)), latent_size=2, ema_decay=0.9, epochs=4, seed=3
)


class _Stopped(Exception):
    """The worker's process is gone."""


def assignment(ledger: Ledger, url: str | None, attempt: int, **more: Any) -> list[Assignment]:
    """What the driver would send; without ``url`` that of a sweep on a disk."""
    data = load_training(CONFIG.data, None)
    view: TrialView = ledger.trials[0]
    metric, replicates = ledger.settings.metric, ledger.settings.replicates
    last = more.get("last", view.last_checkpoint)
    before = {epoch: row for epoch, row in view.rows.items() if last is not None and epoch <= last.epoch}
    best = dataclasses.replace(view, rows=before).best(metric)
    task = Assignment(
        sweep_dir="/not/on/this/node" if url else str(ledger.directory),
        storage=url,
        trial=0,
        attempt=attempt,
        config=to_dict(CONFIG),
        replicates=replicates,
        metric=metric,
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
        again={
            e: epoch_folder(r.checkpoint, replicates) for e, r in view.rows.items() if e not in before and r.checkpoint
        },
        last_epoch=max(view.rows, default=0),
        due=more.get("due", 1),
        report_seconds=more.get("report_seconds", 0.0),
        objectives=[],
        stop_file=more.get("stop_file"),
        best_checkpoint=None if best is None else best.checkpoint,
        best_value=None if best is None else view.curve(metric.name)[best.epoch],
    )
    return [task]


def written_by(ledger: Ledger, *, stop_after: int | None = None) -> WorkerChannel:
    """A channel that writes each row as the driver does, and ends the worker after epoch ``stop_after``."""

    def write(report: Report) -> None:
        rows = [
            RowReported(
                trial=0,
                epoch=each.epoch,
                decision="complete" if each.epoch == CONFIG.epochs else "continue",
                attempt=report.attempt,
                metrics=each.metrics,
                checkpoint=each.checkpoint,
                checkpoint_sha256=each.checkpoint_sha256,
                pictures=each.pictures,
                worker=report.worker,
                time=datetime.now(UTC).isoformat(),
            )
            for each in report.rows
            if each.epoch not in ledger.trials[0].rows
        ]
        if rows:
            ledger.append(RowsReported.of(rows))
        if stop_after in {row.epoch for row in rows}:
            raise _Stopped

    return WorkerChannel(write)


def assert_as_uninterrupted(ledger: Ledger) -> list[EpochResult]:
    """The trial's rows are those of its config's own run, which is returned."""
    rows = ledger.trials[0].rows
    alone = list(train(CONFIG, load_training(CONFIG.data, None)))
    assert list(rows) == [result.row["epoch"] for result in alone]
    for result in alone:
        assert science(rows[result.row["epoch"]].metrics) == science(result.row)
    return alone


def flipped(content: bytes) -> bytes:
    """With another last bit."""
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.fixture
def new_sweep(request, tmp_path, monkeypatch):
    """Begin a sweep of one trial, on a ``disk`` or in the ``store``: its ledger, and its address in the store."""
    torch.set_num_threads(1)

    def begin(place: str, name: str = "sweep", **settings: Any) -> tuple[Ledger, str | None]:
        url = None
        if place == "store":
            request.getfixturevalue("gate")
            monkeypatch.setenv("RESEARCH_CACHE_DIR", str(tmp_path / "a"))
            url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        data = load_training(CONFIG.data, None)
        measure = str(measure_of(CONFIG, data.validation, levels=data.levels))
        ledger = new_ledger(tmp_path / name if url is None else storage.mirror_of(url), measure=measure, **settings)
        ledger.append(trial(0, config=to_dict(CONFIG), seed=CONFIG.seed))
        return ledger, url

    return begin


@pytest.fixture
def begun(new_sweep, tmp_path, monkeypatch):
    """A sweep in the store whose trial was stopped after its second epoch; the address."""
    ledger, url = new_sweep("store")
    channel = written_by(ledger, stop_after=2)
    with pytest.raises(_Stopped):
        run_trials(assignment(ledger, url, 0), channel)
    monkeypatch.setenv("RESEARCH_CACHE_DIR", str(tmp_path / "b"))
    return url


def test_a_trial_goes_on_from_the_store_on_another_node(begun, monkeypatch):
    """Stopped after an epoch, gone on with where nothing is local: rows and model equal an uninterrupted run's."""
    ledger = Ledger.open(storage.local(begun))
    assert sorted(ledger.trials[0].rows) == [1, 2]
    channel = written_by(ledger)
    run_trials(assignment(ledger, begun, 1), channel)

    alone = assert_as_uninterrupted(ledger)
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


@pytest.fixture(params=["disk", "store"])
def left(request, new_sweep, tmp_path, monkeypatch):
    """A sweep whose driver was to stop in its trial's third epoch: its ledger and address."""
    ledger, url = new_sweep(request.param)
    steps = itertools.count(1)
    channel = written_by(ledger)
    channel.pause_requested = lambda: len(ledger.trials[0].rows) == 2 and next(steps) == 4
    with pytest.raises(Preempted, match=r"the sweep stops; saved after step \d+, in epoch 3"):
        run_trials(assignment(ledger, url, 0), channel)
    if url is not None:
        monkeypatch.setenv("RESEARCH_CACHE_DIR", str(tmp_path / "b"))
    return ledger, url


def test_a_trial_goes_on_from_the_middle_of_its_epoch(left):
    """On another node: from the step that was saved, to the rows of an uninterrupted run; the save is gone after that."""
    ledger, url = left
    per_epoch = ledger.trials[0].rows[1].metrics["step"]
    run_trials(assignment(ledger, url, 1), written_by(ledger))
    rows = ledger.trials[0].rows
    assert [rows[epoch].worker.get("continued_after_step") for epoch in (1, 2, 3, 4)] == [
        None,
        None,
        *[2 * per_epoch + 4] * 2,
    ]
    assert_as_uninterrupted(ledger)
    kept = ledger.directory.glob("trials/*/*") if url is None else ObjectStore(url).names("trials")
    assert not [name for name in map(str, kept) if "paused" in name]


@pytest.mark.fault("12 corrupt checkpoint")
@pytest.mark.parametrize("damage", ["torn", "altered", "of another config", "of another epoch", "no state at all"])
def test_a_damaged_save_in_mid_epoch_costs_the_epoch(left, tmp_path, tally, damage):
    """Never the wrong weights: the trial goes on from its last row, to the rows of an uninterrupted run."""
    ledger, url = left
    paused = "trials/trial-0000/paused"
    place = ledger.directory if url is None else tmp_path / "theirs"
    if url is not None:
        storage.fetch_folder(ObjectStore(url), paused, place)
    state = place / paused / "state.safetensors"
    if damage == "torn":
        state.write_bytes(state.read_bytes()[:-1])
    elif damage == "altered":
        state.write_bytes(flipped(state.read_bytes()))
    elif damage == "no state at all":
        state.unlink()
    else:
        was = TrainState.load(place / paused)
        other = {"config_hash": "0" * 64} if damage == "of another config" else {"epoch": 1}
        dataclasses.replace(was, **other).save(place / paused)
    if url is not None:
        store = ObjectStore(url)
        store.remove(store.names(paused))
        for file in (place / paused).iterdir():
            store.write(f"{paused}/{file.name}", file.read_bytes())
    tally.happened()
    run_trials(assignment(ledger, url, 1), written_by(ledger))
    rows = ledger.trials[0].rows
    assert [rows[epoch].worker.get("continued_after_step") for epoch in (3, 4)] == [None, None]
    assert_as_uninterrupted(ledger)


def test_a_trial_is_left_when_the_drivers_file_appears(new_sweep, tmp_path, monkeypatch):
    """It is looked for between steps; what is saved is the trial as it is then."""
    ledger, _ = new_sweep("disk")
    monkeypatch.setattr("research.worker.notice._LOOK_EVERY_S", 0.0)
    file = tmp_path / "stop"
    write, stop = written_by(ledger).report, StopFile(str(file))

    def written_and_stopped(report: Report) -> None:
        write([report])
        file.touch()

    channel = WorkerChannel(written_and_stopped, pause=stop.there)
    with pytest.raises(Preempted, match=r"the sweep stops; saved after step (\d+), in epoch 2"):
        run_trials(assignment(ledger, None, 0, stop_file=str(file)), channel)
    state = TrainState.load(ledger.directory / "trials" / "trial-0000" / "paused")
    assert (state.epoch, state.step) == (1, ledger.trials[0].rows[1].metrics["step"] + 1)


@pytest.mark.fault("12 corrupt checkpoint")
@pytest.mark.parametrize("place", ["disk", "store"])
@pytest.mark.parametrize(("replicates", "damaged"), [(1, 0), (3, 0), (3, 2)])
def test_a_damaged_checkpoint_is_passed_over(new_sweep, monkeypatch, tally, place, replicates, damaged):
    """One replicate's state of the last epoch: the trial goes on from the epoch before, to the rows that it would have had."""
    # Then the first epoch is the best, and its checkpoint is kept too.
    settings = {"replicates": replicates, "metric": Metric(direction="minimize")}
    ledger, url = new_sweep(place, **settings)
    twin, _ = new_sweep("disk", "twin", **settings)
    channel = written_by(twin)
    run_trials(assignment(twin, None, 0), channel)
    channel = written_by(ledger, stop_after=2)
    with pytest.raises(_Stopped):
        run_trials(assignment(ledger, url, 0), channel)

    folder = epoch_folder(ledger.trials[0].rows[2].checkpoint, replicates)
    file = f"{replicate_folder(folder, damaged, replicates)}/state.safetensors"
    if url is None:
        (ledger.directory / file).write_bytes(flipped((ledger.directory / file).read_bytes()))
    else:
        store = ObjectStore(url)
        store.write(file, flipped(store.read(file)))
    tally.happened()
    whole, (problem,) = last_whole(ledger.directory, ledger.trials[0], replicates)
    assert whole.epoch == 1
    assert problem.startswith("the checkpoint of epoch 2 can't be used: ")
    channel = written_by(ledger)
    run_trials(assignment(ledger, url, 1, last=whole), channel)
    rows, expected = ledger.trials[0].rows, twin.trials[0].rows
    assert rows.keys() == expected.keys() == {1, 2, 3, 4}
    for epoch, row in expected.items():
        assert science(rows[epoch].metrics) == science(row.metrics)
        assert rows[epoch].checkpoint_sha256 == row.checkpoint_sha256
        assert rows[epoch].attempt == (0 if epoch <= 2 else 1)


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
    channel = written_by(ledger)
    with pytest.raises(StateError, match=r"its sha256|altered|not readable"):
        run_trials(assignment(ledger, begun, 1), channel)
    assert sorted(ledger.trials[0].rows) == [1, 2]


@pytest.mark.fault("10 storage unwritable or gone")
def test_a_worker_that_is_refused_says_where(begun, gate, monkeypatch, tally):
    """403 on a worker: one line with the address and the node, before anything is reported."""
    ledger = Ledger.open(storage.local(begun))
    channel = written_by(ledger)
    task = assignment(ledger, begun, 1)
    gate.mode = 403
    with pytest.raises(StorageError, match=r"the store refuses .* \(on .+\)"):
        run_trials(task, channel)
    assert gate.turned_away > 0
    tally.happened()
    assert sorted(ledger.trials[0].rows) == [1, 2]
