"""A sweep that is sent to a cluster: what goes along, and what is refused before; the sending is a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from research import provenance
from research.clusters import jobs
from research.clusters.pack import pack
from research.errors import UserError

SPACE = """
from vae.data import Digits
from vae.likelihoods import Binomial
from vae.train_config import TrainConfig

def space(trial):
    return TrainConfig(data=Digits(), likelihood=Binomial(), latent_size=trial.suggest_int("latent_size", 2, 8))
"""

pytestmark = pytest.mark.usefixtures("cluster_file")


@pytest.fixture(autouse=True)
def own_space(cluster_file):
    """A space of the person's own, in the working directory."""
    (cluster_file / "mine.py").write_text(SPACE)


@pytest.fixture
def submitted(monkeypatch):
    """What would have been submitted: cluster, name, command and files."""
    calls = []

    def remember(*call):
        calls.append(call)
        return "job-0"

    monkeypatch.setattr(jobs, "submit", remember)
    return calls


def asked_there(folder: Path) -> dict:
    """``provenance.code()`` and the diff, as a process says them that runs in ``folder``."""
    script = (
        "import json; from research import provenance as p; print(json.dumps([p.code(), p.diff_text(), str(p.ROOT)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    code, diff, root = json.loads(done.stdout)
    assert Path(root) == folder
    return {"code": code, "diff": diff}


def test_packed_code_says_what_it_was_packed_from(tmp_path):
    """Without git, the copy names the same commit, differences and fingerprint; and it has nothing that needn't go."""
    folder = tmp_path / "packed"
    folder.mkdir()
    pack(folder)

    assert asked_there(folder) == {"code": provenance.code(), "diff": provenance.diff_text()}
    assert {path.name for path in folder.iterdir()} == {
        *provenance.PACKAGES, "pyproject.toml", "constraints.txt", provenance.PACKED,
    }  # fmt: skip
    assert not list(folder.rglob("*.pyc"))


def test_packed_code_that_was_edited_names_no_commit(tmp_path):
    """Whoever changes the copy has other code: it is not passed off as the commit's."""
    folder = tmp_path / "packed"
    folder.mkdir()
    pack(folder)
    (folder / "vae" / "more.py").write_text("X = 1\n")

    told = asked_there(folder)
    assert told["code"]["commit"] is None
    assert told["code"]["source_sha256"] != provenance.source_sha256()


def test_what_goes_along(tmp_path):
    """Files and folders of the person's lie beside the packages; none takes the place of one."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mine.py").write_text("X = 1\n")
    (tmp_path / "vae.py").write_text("")
    folder = tmp_path / "packed"
    folder.mkdir()
    pack(folder, [tmp_path / "mine.py", tmp_path / "parts"])
    assert (folder / "mine.py").read_text() == SPACE
    assert (folder / "parts" / "mine.py").is_file()

    for wrong in ("vae.py", "absent.py"):
        other = tmp_path / f"packed-{wrong}"
        other.mkdir()
        with pytest.raises(UserError, match=wrong):
            pack(other, [tmp_path / wrong])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["c.yaml", "nope", "--concurrent", "2"], "unknown space 'nope'"),
        (["c.yaml", "vae"], "--concurrent"),
        (["c.yaml", "vae", "--concurrent", "2", "--metric", "val/nope"], "val/nope"),
        (["c.yaml", "vae", "--concurrent", "2", "--trials", "many"], "--trials"),
        (["c.yaml", "vae", "--concurrent", "2", "--trails", "3"], "--trails"),
        (["c.yaml", "vae", "--concurrent", "2", "--sampler", "nope"], "nope"),
        (["c.yaml", "vae", "--concurrent", "2", "--name", "a/b"], "a/b"),
        (["c.yaml", "vae", "--concurrent", "2", "--address", "auto"], "--address"),
        (["c.yaml", "vae", "--concurrent", "2", "--learn-from", "."], "'.'"),
        (["c.yaml", "--resume", "x", "--trials", "3"], "--trials"),
        (["absent.yaml", "vae", "--concurrent", "2"], "absent.yaml"),
        (["--concurrent", "2", "c.yaml", "vae"], "CLUSTER comes first"),
    ],
)
def test_mistakes_cost_no_round_trip(research, submitted, words, told):
    """One line, exit code 2, nothing submitted."""
    code, said = research("submit", *words)

    assert code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert told in said
    assert submitted == []


def test_the_command_that_runs_there(research, submitted):
    """Every option as given; the person's space as a file that goes along; the cluster's address and storage added."""
    code, said = research(
        "submit", "c.yaml", "./mine.py", "--concurrent", "4", "--trials", "7", "--name", "n", "--detach"
    )

    assert code == 0, said
    ((cluster, name, command, files),) = submitted
    assert (cluster, name, files) == ("c.yaml", "n", [Path("mine.py")])
    assert command == [
        "sweep", "mine.py", "--concurrent", "4", "--trials", "7", "--name", "n",
        "--storage", "/shared/sweeps", "--address", "auto",
    ]  # fmt: skip
    assert "research watch c.yaml n" in said
    assert "research stop c.yaml n" in said


def test_a_sweep_without_a_name_gets_one_here(research, submitted):
    """The name is chosen before the sweep is sent: it is what watch, stop and fetch are told."""
    research("submit", "c.yaml", "vae", "--concurrent", "4", "--detach")

    ((_, name, command, _),) = submitted
    assert name.startswith("vae-")
    assert command[command.index("--name") + 1] == name


def test_resuming_there(research, submitted):
    """--resume NAME is research resume on the storage; its options are passed on."""
    research("submit", "c.yaml", "--resume", "n", "--storage", "/nfs", "--allow-changed-code", "--detach")

    assert submitted == [("c.yaml", "n", ["resume", "/nfs/n", "--address", "auto", "--allow-changed-code"], [])]


def test_without_rays_job_client(research, monkeypatch):
    """One line says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for words in (["stop", "c.yaml", "n"], ["fetch", "c.yaml", "n"], ["watch", "c.yaml", "n"]):
        code, said = research(*words)
        assert code == 2
        assert ".[cluster]" in said
