"""Object stores: exclusive events, mirrors, leases and copies of data, on a real S3-compatible server (moto)."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from research.driver.best_models import keep_best
from research.errors import CorruptFile, StorageError, UserError
from research.ledger.log import Ledger
from research.models.looks import write_look
from research.planning import preflight
from research.search.spaces import load_recorded
from research.store import lease
from research.store import mirror as storage
from research.store.data_copy import data_address, data_directory
from research.store.folders import verify_folder
from research.store.layout import LOCK
from research.store.object_store import ObjectStore, is_url, parse_url
from tests.research.driver.test_checkpoints import run_trial
from tests.support.places import ROOT
from tests.support.store_server import BUCKET, forget_connections
from tests.support.synthetic import failed, new_ledger, row, session, sweep, trial


@pytest.fixture
def url(gate) -> str:
    """An address that no other test has."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def on(tmp_path, monkeypatch):
    """Switches to another machine's cache; the first is "a"."""

    def switch(name: str) -> None:
        monkeypatch.setenv("RESEARCH_CACHE_DIR", str(tmp_path / name))

    switch("a")
    return switch


def begun(url: str) -> Ledger:
    """A sweep in the store with one trial, on this machine."""
    ledger = new_ledger(storage.mirror_of(url))
    ledger.append(trial(0))
    return ledger


def test_addresses_and_paths_are_told_apart():
    """A scheme makes an address, everything else is a path, as it was."""
    assert [is_url(text) for text in ("sweeps", "/a/b", "./s3", "C.txt", "s3://b", "s3:/b", "http://x")] == (
        [False] * 4 + [True] * 3
    )
    assert parse_url("s3://bucket/a/b/") == ("s3", "bucket", "a", "b")
    assert parse_url("gs://bucket") == ("gs", "bucket")
    assert storage.local("some/where") == Path.cwd() / "some/where" == storage.place("some/where")


@pytest.mark.parametrize(
    "text",
    ["s3://", "s3:///a", "s3:/bucket/a", "s3://b//a", "s3://b/../a", "s3://b/a?x", "http://b/a", "S3://b", "gs://"],
)
def test_a_malformed_address_is_one_line(text):
    """No bucket, an empty or upward part, another scheme: refused with the address and the rule."""
    with pytest.raises(UserError, match="must be") as refusal:
        parse_url(text)
    assert text.rstrip("/") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_local_directory_has_no_store(tmp_path, on):
    """What lies outside the cache is a place of its own; only its path decides, nothing is asked of anybody."""
    assert storage.store_of(tmp_path / "sweeps" / "name") is None
    assert storage.store_of(storage.cache_root() / "sweeps" / "elsewhere") is None
    assert storage.address(tmp_path) == str(tmp_path)
    mirror = storage.mirror_of("s3://bucket/sweeps/name")
    assert storage.address(mirror / "finalists") == "s3://bucket/sweeps/name/finalists"


def _write_as(key: str, words: list[str], go: object, answers: object) -> None:
    store = ObjectStore(key)
    go.wait()  # type: ignore[attr-defined] # an event of another process
    answers.put([store.create(f"event-{number}", word.encode()) for number, word in enumerate(words)])  # type: ignore[attr-defined]


@pytest.mark.slow
def test_two_writers_of_one_event_conflict(url):
    """Two processes create the same 30 objects at once: each object is one writer's, and the other is told."""
    context = multiprocessing.get_context("spawn")
    go, answers = context.Event(), context.Queue()
    writers = [
        context.Process(target=_write_as, args=(url, [f"{name}{i}" for i in range(30)], go, answers)) for name in "xy"
    ]
    for writer in writers:
        writer.start()
    go.set()
    one, other = answers.get(timeout=120), answers.get(timeout=120)
    for writer in writers:
        writer.join(timeout=60)
    assert all(a != b for a, b in zip(one, other, strict=True)), "never both, never neither"
    assert len(ObjectStore(url).names()) == 30


def test_the_same_content_again_is_no_conflict(url):
    """A library that repeats a put whose answer was lost meets its own object: that is success."""
    store = ObjectStore(url)
    assert store.create("event", b"mine")
    assert store.create("event", b"mine")
    assert not store.create("event", b"theirs")
    assert store.read("event") == b"mine"


def test_an_event_is_in_the_store_before_it_is_taken_in(url, on, gate):
    """Where the store refuses, neither the mirror nor the views have the event, and no later one is tried."""
    ledger = begun(url)
    gate.mode = 403
    with pytest.raises(StorageError, match="refuses") as refusal:
        ledger.append(row(0, 0, -3.0))
    gate.mode = "open"
    assert url in str(refusal.value)
    assert ledger.trials[0].rows == {}
    assert len(Ledger.open(ledger.directory)) == 3
    with pytest.raises(StorageError, match="refuses"):
        ledger.append(row(0, 0, -3.0))
    again = Ledger.open(storage.local(url))
    again.append(row(0, 0, -3.0))
    assert len(ObjectStore(url).names("ledger")) == 4


def test_a_new_machine_has_the_same_ledger(url, on):
    """From nothing but the address: every event, byte for byte; then only what is new."""
    ledger = begun(url)
    on("b")
    there = Ledger.open(storage.local(url))
    assert there.directory != ledger.directory
    assert (there.identity, there.trials) == (ledger.identity, ledger.trials)
    on("a")
    ledger.append(row(0, 0, -3.0))
    on("b")
    storage.follow(there.directory)
    assert [event.type for event in there.refresh()] == ["row"]


@pytest.mark.fault("15 two drivers")
def test_a_second_driver_is_stopped_by_the_store(url, on, tally):
    """Two machines that both believe to drive: the second to write an event's number is refused, the first goes on."""
    first = begun(url)
    on("b")
    second = Ledger.open(storage.local(url))
    on("a")
    first.append(row(0, 0, -3.0))
    on("b")
    with pytest.raises(UserError, match="two drivers share this sweep"):
        second.append(row(0, 0, -4.0))
    tally.happened()
    on("a")
    first.append(failed(0))
    on("c")
    whole = Ledger.open(storage.local(url))
    assert whole.trials[0].rows[0].metrics["val/elbo"] == -3.0


@pytest.mark.fault("11 corrupt state")
@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_damage_in_the_store_is_named(url, on, tally, damage):
    """A torn or a missing event in the store is refused by name on a new machine."""
    ledger = begun(url)
    ledger.append(row(0, 0, -3.0))
    store, name = ObjectStore(url), "ledger/00000002.json"
    if damage == "torn":
        store.write(name, store.read(name)[:-9])
    else:
        store.remove([name])
    tally.happened()
    on("b")
    with pytest.raises(CorruptFile, match=r"00000002\.json is (damaged|missing)"):
        Ledger.open(storage.local(url))


def test_a_mirror_of_another_sweep_is_refused(url, on):
    """A sweep that was deleted in the store and begun again there is not mixed with what this machine had of it."""
    begun(url)
    store = ObjectStore(url)
    store.remove(store.names())
    on("b")
    Ledger.create(storage.mirror_of(url), sweep(trials=9)).append(session())
    on("a")
    with pytest.raises(UserError, match="mirror of another sweep"):
        storage.local(url)


def test_models_are_in_the_store_and_come_from_it(url, on):
    """The best K are kept in the store, checkpoints of ended trials go there too; a new machine has the models."""
    ledger = new_ledger(storage.mirror_of(url), keep=2)
    store = ObjectStore(url)
    for number, elbo in enumerate((-30.0, -20.0, -10.0)):
        run_trial(ledger, number, [elbo - 1, elbo])
        for folder in ("trials", "pictures"):
            for path in sorted((ledger.directory / folder).rglob("*")):
                if path.is_file():  # as a worker does: the mirror has no checkpoints
                    store.write(str(path.relative_to(ledger.directory)), path.read_bytes())
                    path.unlink()
        assert keep_best(ledger, ledger.directory) == []
    assert storage.whole_folders(store, "models") == {"trial-0001", "trial-0002"}
    assert store.names("trials") == []
    ours = verify_folder(ledger.directory / "models" / "trial-0002")
    assert "samples.png" in ours
    on("b")
    there = storage.local(f"{url}/models/trial-0002")
    assert verify_folder(there) == ours
    assert keep_best(Ledger.open(storage.local(url)), storage.mirror_of(url)) == []


@pytest.mark.fault("12 corrupt checkpoint")
def test_a_damaged_checkpoint_is_not_made_a_model(url, on, tally):
    """One flipped byte of a checkpoint in the store: reported with the file's name, and left where it is."""
    ledger = new_ledger(storage.mirror_of(url), keep=1)
    run_trial(ledger, 0, [-3.0])
    storage.push_folder(ObjectStore(url), ledger.directory, "trials/trial-0000")
    name = "trials/trial-0000/epoch-0000-0/state.safetensors"
    content = bytearray(ObjectStore(url).read(name))
    content[-1] ^= 1
    ObjectStore(url).write(name, bytes(content))
    tally.happened()
    problems = keep_best(ledger, ledger.directory)
    assert len(problems) == 1
    assert "state.safetensors is damaged" in problems[0]
    assert name in ObjectStore(url).names()
    assert ObjectStore(url).names("models") == []


def test_half_a_model_is_not_taken_for_one(url, on):
    """A folder without its manifest, as a killed upload leaves it, is not fetched, and is made whole."""
    ledger = new_ledger(storage.mirror_of(url), keep=1)
    run_trial(ledger, 0, [-3.0])
    storage.push_folder(ObjectStore(url), ledger.directory, "trials/trial-0000")
    ObjectStore(url).write("models/trial-0000/model.safetensors", b"half")
    on("b")
    storage.local(url)
    assert not (storage.mirror_of(url) / "models").exists()
    assert keep_best(Ledger.open(storage.mirror_of(url)), storage.mirror_of(url)) == []
    on("c")
    verify_folder(storage.local(url) / "models" / "trial-0000")


def test_a_look_at_test_is_in_the_store(url, on):
    """What was looked at on one machine is known on every other."""
    ledger = begun(url)
    write_look(ledger.directory / "models" / "trial-0000", {"model": "m"}, {"x": 1.0}, "why")
    on("b")
    assert len(list((storage.local(url) / "looks").glob("*.json"))) == 1


def test_a_worker_keeps_nothing_that_it_was_told_to_forget(url, on):
    """Scratch is empty at each trial's start; folders go to the store whole; of the old ones those named stay."""
    place = storage.Workplace("unused", url)
    for epoch in (1, 2, 3):
        folder = place.directory / f"trials/trial-0000/epoch-000{epoch}-0"
        folder.mkdir(parents=True)
        (folder / "state.safetensors").write_bytes(b"state")
        place.keep(f"trials/trial-0000/{folder.name}")
    place.forget("trials/trial-0000", but={"epoch-0001-0", "epoch-0003-0"})
    assert {name.split("/")[2] for name in ObjectStore(url).names("trials")} == {"epoch-0001-0", "epoch-0003-0"}
    again = storage.Workplace("unused", url)
    assert list(again.directory.iterdir()) == []
    again.fetch("trials/trial-0000/epoch-0001-0")
    assert (again.directory / "trials/trial-0000/epoch-0001-0/state.safetensors").read_bytes() == b"state"


HOLD = """
import sys
from research.store import lease
lease.RENEW_SECONDS = 0.2
with lease.Lease(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


# Before HOLD: a machine whose clock is some hours off.
OTHER_CLOCK = """
import datetime
from research.store import lease


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) + datetime.timedelta(hours={hours})


lease.datetime = Clock
"""


@pytest.fixture
def quick(monkeypatch):
    """A lease that is stale after eight seconds."""
    monkeypatch.setattr(lease, "STALE_SECONDS", 8.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)


def hold(mirror: Path) -> subprocess.Popen[str]:
    """Another process with the lease."""
    command = [sys.executable, "-c", HOLD, str(mirror)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
@pytest.mark.fault("15 two drivers")
@pytest.mark.parametrize("hours", [-1, 1, -24 * 365])
def test_lease_of_a_live_holder_with_another_clock_is_not_taken(url, on, quick, tally, hours):
    """A driver whose clock is an hour, or a year, behind or ahead keeps its lease, and is named as the driver."""
    mirror = storage.mirror_of(url)
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_CLOCK.format(hours=hours) + HOLD, str(mirror)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "held\n"
        written = datetime.fromisoformat(json.loads(ObjectStore(url).read(LOCK))["time"])
        assert abs((datetime.now(UTC) - written).total_seconds()) > 3000, "its clock is another"
        tally.happened()
        with pytest.raises(UserError, match=f"in use by process {process.pid} on "), lease.Lease(mirror):
            pass
        assert str(process.pid) in str(lease.lease_holder(mirror))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_lease_holder_that_is_not_renewed_is_nobody_after_a_while(url, on, quick, monkeypatch):
    """Nobody drives where the lease stays the same for longer than a driver takes to renew it."""
    mirror = storage.mirror_of(url)
    process = hold(mirror)
    process.kill()
    process.communicate()
    monkeypatch.setattr(lease, "_machine", lambda: "another machine")
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.5)

    assert str(process.pid) in str(lease.lease_holder(mirror))
    time.sleep(0.6)
    assert lease.lease_holder(mirror) is None


@pytest.mark.slow
@pytest.mark.fault("15 two drivers")
def test_a_live_holder_is_named_and_a_dead_one_is_succeeded(url, on, quick, tally, monkeypatch):
    """Renewed while we watch: refused with pid and host. Dead here: succeeded at once. Dead elsewhere: when stale."""
    mirror = storage.mirror_of(url)
    process = hold(mirror)
    assert str(process.pid) in str(lease.lease_holder(mirror))
    with pytest.raises(UserError, match=f"in use by process {process.pid} on "), lease.Lease(mirror):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    tally.happened(2)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(lease, "_machine", lambda: "another machine")
        before = time.monotonic()
        with lease.Lease(mirror):
            assert time.monotonic() - before >= 8.0, "a holder that may be alive was not waited for"
    process = hold(mirror)
    process.kill()
    process.communicate()
    with lease.Lease(mirror):
        assert str(os.getpid()) in str(lease.lease_holder(mirror))
    assert lease.lease_holder(mirror) is None
    assert ObjectStore(url).names() == []


def test_a_store_that_ignores_the_condition_is_refused(url, on, monkeypatch):
    """A store that would overwrite an event is found before the first one. No such server runs here: put is patched."""

    def careless(self, name, content):
        self.write(name, content)
        return True

    monkeypatch.setattr(ObjectStore, "create", careless)
    with pytest.raises(UserError, match="conditional writes"):
        preflight.check_place(storage.place(url), "name")


def test_a_place_in_the_store_is_checked(url, on):
    """A free name is taken, a taken one refused with the address; the probe leaves nothing behind."""
    place = preflight.check_place(storage.place(url), "name")
    assert place == storage.mirror_of(f"{url}/name")
    assert ObjectStore(url).names() == []
    new_ledger(place)
    with pytest.raises(UserError, match=f"research resume {url}/name"):
        preflight.check_place(storage.place(url), "name")
    on("b")
    with pytest.raises(UserError, match=f"research resume {url}/name"):
        preflight.check_place(storage.place(url), "name")


def test_a_missing_bucket_no_credentials_and_no_sweep_are_one_line(gate, on, monkeypatch, tmp_path):
    """Each names the place and what to do."""
    with pytest.raises(
        StorageError, match=r"s3://no-such-bucket/sweeps can't be written: there is no bucket .*; make it"
    ):
        preflight.check_place(storage.place("s3://no-such-bucket/sweeps"), "name")
    with pytest.raises(UserError, match="no-such-sweep is not a sweep"):
        storage.local(f"s3://{BUCKET}/no-such-sweep")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    forget_connections()
    with pytest.raises(StorageError, match=r"no credentials were found .* AWS_ACCESS_KEY_ID"):
        storage.local(f"s3://{BUCKET}/no-such-sweep")


def test_a_missing_library_names_the_extra(on, monkeypatch):
    """Without gcsfs, gs:// is refused with what to install."""
    forget_connections()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"gs:// needs gcsfs: .*vae-research\[gcs\]"):
        storage.local("gs://bucket/sweep")


def test_a_storage_without_links_or_locks_is_refused(tmp_path, monkeypatch):
    """A mount that can't link is found before the sweep begins. No such mount is here: link is patched."""

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UserError, match=r"no hard links .*s3://"):
        preflight.check_place(tmp_path, "name")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_data_are_copied_once_for_all_processes(url, on, gate):
    """Four processes ask at once: one copy, equal to what is stored; other files there are another copy."""
    store = ObjectStore(url)
    store.write("MNIST/raw/a", b"a" * 100_000)
    store.write("MNIST/raw/b", b"b")
    store.write("images/one [1]*.png", b"a name that is no pattern")
    code = "import sys; from research.store.data_copy import data_directory; print(data_directory(sys.argv[1]))"
    command = [sys.executable, "-c", code, url]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) for _ in range(4)]
    said = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert len(said) == 1
    copy = Path(said.pop())
    assert (copy / "MNIST/raw/a").read_bytes() == b"a" * 100_000
    assert (copy / "images/one [1]*.png").read_bytes() == b"a name that is no pattern"
    inodes = (copy / "MNIST/raw/a").stat().st_ino
    assert data_directory(url) == copy
    assert (copy / "MNIST/raw/a").stat().st_ino == inodes, "not copied again"
    assert data_address(copy) == url
    store.write("MNIST/raw/b", b"another")
    other = data_directory(url)
    assert other != copy
    assert (other / "MNIST/raw/b").read_bytes() == b"another"
    with pytest.raises(UserError, match="holds nothing"):
        data_directory(f"{url}/nothing")


def test_a_short_outage_is_retried(url, on, gate):
    """A store that answers nothing and then 500 for a moment: the put succeeds, once."""
    store = ObjectStore(url)
    for mode in ("closed", 500):
        before = gate.turned_away
        gate.mode = mode
        timer = threading.Timer(0.5, setattr, (gate, "mode", "open"))
        timer.start()
        assert store.create(f"after-{mode}", b"content")
        assert gate.turned_away > before


def test_a_new_machine_has_the_space(url, on):
    """The space's file comes from the ledger, also when the mirror holds an older one."""
    ledger = begun(url)
    copy = ledger.directory / "space.py"
    copy.write_text("old")
    source = dataclasses.replace(ledger.settings.space, name="no/such/file.py")
    assert load_recorded(source, copy).source.sha256 == source.sha256
    assert copy.read_text() == source.source


def test_a_picture_that_is_missing_costs_nothing(url, on):
    """Pictures come to the driver before their row does; one that is not there is no error, nor is a store that fails."""
    mirror = storage.mirror_of(url)
    ObjectStore(url).write("pictures/a.png", b"png")
    storage.fetch_pictures(mirror, ["pictures/a.png"])
    assert (mirror / "pictures/a.png").read_bytes() == b"png"
    storage.fetch_pictures(mirror, ["pictures/none.png"])
    assert not (mirror / "pictures/none.png").exists()
