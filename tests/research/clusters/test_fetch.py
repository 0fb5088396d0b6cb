"""A sweep that comes home; rsync is a stand-in here (a real one: tests/integration/test_cluster.py)."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from research.clusters import fetch
from research.clusters.access import LostConnection
from research.errors import CorruptFile, UserError
from research.ledger.log import Ledger
from research.store.folders import write_folder
from tests.support.invented import drawn, last_row, values, whole

pytestmark = pytest.mark.usefixtures("cluster_file")


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A sweep on a cluster's storage; rsync is a copy of its folder, and ``away.cut`` ends it after so many files."""
    far = tmp_path / "far" / "n"
    far.mkdir(parents=True)
    ledger = whole(far)
    (far / "trials" / "trial-0014").mkdir(parents=True)
    (far / "trials" / "trial-0014" / "big").write_bytes(b"x")
    (far / "lock").write_text("")
    write_folder(far / "models" / "trial-0000", {"config.json": b"{}", "model.safetensors": b"weights"})
    place = SimpleNamespace(folder=far, ledger=ledger, cut=None)

    def bring(cluster, source, target, exclude):
        assert (cluster, source) == ("c.yaml", "/shared/sweeps/n")
        assert {"trials/", "/lock"} <= set(exclude)
        files = sorted(path for path in far.rglob("*") if path.is_file())
        files = [path for path in files if "trials" not in path.relative_to(far).parts and path.name != "lock"]
        for path in files[: place.cut]:
            there = target / path.relative_to(far)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.unlink(missing_ok=True)  # rsync writes beside and renames: never into a file that has other names
            shutil.copyfile(path, there)
        if place.cut is not None:
            raise LostConnection("cut")

    monkeypatch.setattr(fetch, "rsync_down", bring)
    return place


def bring_home():
    """``research fetch c.yaml n``, as a function."""
    return fetch.fetch("c.yaml", "n", storage="/shared/sweeps", to=Path("home"))


def test_a_sweep_comes_home(away, research):
    """Ledger and models, verified; checkpoints and lock stay there; the line says how much came."""
    code, said = research("fetch", "c.yaml", "n", "--to", "home")

    assert code == 0, said
    assert f"{len(away.ledger)} events ({len(away.ledger)} new), 1 kept models" in said
    assert len(Ledger.open(Path("home/n"))) == len(away.ledger)
    assert sorted(path.name for path in Path("home").iterdir()) == ["n"]
    assert not Path("home/n/trials").exists()


def test_fetched_again_it_brings_what_is_new(away):
    """More events, another best model: both come; a model that the cluster no longer keeps goes; what was added stays."""
    bring_home()
    Path("home/n/report.html").write_text("mine")
    away.ledger.append(drawn(15))
    away.ledger.append(last_row(15, values(15, 9)))
    shutil.rmtree(away.folder / "models" / "trial-0000")
    write_folder(away.folder / "models" / "trial-0015", {"config.json": b"{}", "model.safetensors": b"better"})
    found = bring_home()

    assert (found.new, found.models) == (2, 1)
    assert [path.name for path in Path("home/n/models").iterdir()] == ["trial-0015"]
    assert Path("home/n/report.html").read_text() == "mine"
    assert bring_home().new == 0


@pytest.mark.fault("26 fetch cut off")
@pytest.mark.parametrize("before", [False, True])
def test_a_fetch_that_is_cut_off(away, tally, before):
    """Nothing that looks whole: what was home stays as it was, and the next fetch ends what this one began."""
    if before:
        bring_home()
    away.ledger.append(drawn(15))
    for cut in (0, 3, 20):
        away.cut = cut
        with pytest.raises(LostConnection):
            bring_home()
        tally.happened()
        assert Path("home/n").exists() == before
        if before:
            assert len(Ledger.open(Path("home/n"))) == len(away.ledger) - 1
    away.cut = None

    assert bring_home().events == len(away.ledger)
    assert sorted(path.name for path in Path("home").iterdir()) == ["n"]


@pytest.mark.fault("26 fetched file damaged")
@pytest.mark.parametrize("where", ["ledger/00000005.json", "models/trial-0000/model.safetensors"])
def test_what_arrives_damaged_is_refused(away, tally, where):
    """A byte that is wrong in an event or in weights: refused by name, nothing that looks whole is left."""
    content = (away.folder / where).read_bytes()
    (away.folder / where).write_bytes(content[:-3] + b"???")
    tally.happened()

    with pytest.raises(CorruptFile, match=Path(where).name):
        bring_home()
    assert not Path("home/n").exists()


@pytest.mark.fault("26 fetch killed between its two renames")
def test_a_fetch_killed_at_its_end(away, tally):
    """The old copy has its other name, the new one not yet its own: the next fetch finds both and loses nothing."""
    bring_home()
    Path("home/n/report.html").write_text("mine")
    Path("home/n").rename("home/.n.previous")
    tally.happened()
    bring_home()

    assert Path("home/n/report.html").read_text() == "mine"
    assert sorted(path.name for path in Path("home").iterdir()) == ["n"]


def test_a_copy_that_went_its_own_way_is_not_overwritten(away):
    """A sweep that was resumed at home has events that the cluster doesn't know: refused, both stay."""
    bring_home()
    Ledger.open(Path("home/n")).append(drawn(20))
    away.ledger.append(drawn(15))

    with pytest.raises(UserError, match="its own way"):
        bring_home()
    assert 20 in Ledger.open(Path("home/n")).trials


def test_a_dashboard_brings_no_files(research):
    """One line with the remedy, nothing left behind."""
    code, said = research("fetch", "http://h:8265", "n", "--to", "home")

    assert code == 2
    assert "brings no files" in said
    assert list(Path("home").iterdir()) == []


def test_a_sweep_comes_home_from_object_storage(away, monkeypatch):
    """Its mirror on this machine is what is copied; files that are home already are not written into."""
    monkeypatch.setattr(fetch, "local", lambda url: {"s3://b/sweeps/n": away.folder}[url])
    for _ in range(2):
        found = fetch.fetch("http://h:8265", "n", storage="s3://b/sweeps", to=Path("home"))

    assert (found.events, found.new, found.models) == (len(away.ledger), 0, 1)
    assert sorted(path.name for path in Path("home").iterdir()) == ["n"]
