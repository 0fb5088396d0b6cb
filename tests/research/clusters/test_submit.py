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

TOKEN = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0xLaB3d"

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


def packed(tmp_path, *others: Path) -> Path:
    """A folder with the code and ``others``."""
    folder = tmp_path / "packed"
    folder.mkdir()
    pack(folder, others)
    return folder


def test_pack_checkout_sends_tracked_files_only(tmp_path, monkeypatch):
    """Of a checkout go the tracked files of the packages, changed ones as they are; not what lies beside them."""
    root = tmp_path / "checkout"
    for name in provenance.PACKAGES:
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text("X = 1\n")
    (root / "README.md").write_text("hello\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(root)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    (root / "vae" / "__init__.py").write_text("X = 2\n")
    (root / "vae" / "new.py").write_text("Y = 1\n")
    for name in (".env", "key.pem", "notes.txt"):
        (root / "vae" / name).write_text("x\n")
    monkeypatch.setattr(provenance, "ROOT", root)
    with pytest.raises(UserError, match=r"git add vae/new\.py"):
        pack(tmp_path / "refused")

    subprocess.run([*git, "add", "vae/new.py"], check=True)
    folder = packed(tmp_path)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "packed.json", "research/__init__.py", "search_spaces/__init__.py", "vae/__init__.py", "vae/new.py",
    ]  # fmt: skip
    assert (folder / "vae" / "__init__.py").read_text() == "X = 2\n"

    (root / "vae" / "new.py").write_text(f"TOKEN = '{TOKEN}'\n")
    with pytest.raises(UserError, match="GitHub") as caught:
        pack(tmp_path / "again")
    assert TOKEN not in str(caught.value)


def test_pack_wheel_sends_its_record(tmp_path, monkeypatch):
    """Of an installed wheel go the packages' files of its RECORD, and nothing that lies among them."""
    root = tmp_path / "site"
    lines = []
    for name in provenance.PACKAGES:
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text("")
        lines.append(f"{name}/__init__.py,,")
    (root / "vae" / ".env").write_text("x")
    info = root / "vae_research-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: vae-research\nVersion: 9\n")
    (info / "RECORD").write_text("\n".join([*lines, "../bin/research,,", "vae_research-9.dist-info/RECORD,,"]))
    monkeypatch.setattr(provenance, "ROOT", root)
    monkeypatch.syspath_prepend(str(root))
    folder = packed(tmp_path)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "packed.json", "research/__init__.py", "search_spaces/__init__.py", "vae/__init__.py",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [".env", ".ENV.local", "prod.env", "server.pem", "id_rsa", "id_ed25519", ".netrc", "_netrc", "x.KEY", ".pypirc", "keys.p12",
     ".ssh/config", ".aws/config", "my-service-account-3.json", "secrets.yaml", ".git-credentials", "client_secret_1.json"],
)  # fmt: skip
def test_pack_file_named_like_a_secret_is_refused(tmp_path, name):
    """Inside of a folder that is sent, named itself, and behind a link with a harmless name."""
    secret = tmp_path / "parts" / name
    secret.parent.mkdir(parents=True)
    secret.write_text("x\n")
    (tmp_path / "harmless").symlink_to(secret)
    for number, other in enumerate((tmp_path / "parts", secret, tmp_path / "harmless")):
        (folder := tmp_path / f"packed-{number}").mkdir()
        with pytest.raises(UserError, match="holds secrets, by its name"):
            pack(folder, [other])


def test_pack_file_with_a_secret_inside_is_refused(tmp_path, monkeypatch):
    """A token by its form, a private key, and a value of the environment; the value is not repeated."""
    monkeypatch.setenv("DB_PASS", "canary-5f0e7d/3")
    for number, text in enumerate((f"x = '{TOKEN}'", "-----BEGIN PRIVATE KEY-----\nabc", "x = 'canary-5f0e7d/3'")):
        (folder := tmp_path / f"packed-{number}").mkdir()
        (tmp_path / "part.py").write_text(text)
        with pytest.raises(UserError, match="is not sent to the cluster, because it holds ") as caught:
            pack(folder, [tmp_path / "part.py"])
        assert text not in str(caught.value)


def test_pack_links_that_lead_out_are_refused_and_others_followed(tmp_path):
    """A file and a folder outside are not sent; a link inside is sent as what it leads to; a cycle is refused."""
    parts = tmp_path / "parts"
    (parts / "sub").mkdir(parents=True)
    (parts / "sub" / "a.py").write_text("A = 1\n")
    (parts / "b.py").symlink_to("sub/a.py")
    (parts / "other").symlink_to("sub")
    (parts / ".git").mkdir()
    (parts / ".git" / "config").write_text("x")
    (parts / ".venv" / "bin").mkdir(parents=True)
    (parts / ".venv" / "pyvenv.cfg").write_text("")
    (parts / ".venv" / "bin" / "python").symlink_to(sys.executable)
    folder = packed(tmp_path, parts)
    sent = folder / "parts"
    assert sorted(str(p.relative_to(sent)) for p in sent.rglob("*") if p.is_file()) == [
        "b.py",
        "other/a.py",
        "sub/a.py",
    ]
    assert not any(path.is_symlink() for path in sent.rglob("*"))

    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("x")
    for number, target in enumerate(("../outside/x", "../outside", "/etc/hostname", "..", ".")):
        (parts / "link").symlink_to(target)
        (folder := tmp_path / f"packed-{number}").mkdir()
        with pytest.raises(UserError, match="link"):
            pack(folder, [parts])
        (parts / "link").unlink()


def test_pack_what_is_no_file_is_refused(tmp_path):
    """A FIFO would be waited for, for ever."""
    (tmp_path / "parts").mkdir()
    os.mkfifo(tmp_path / "parts" / "pipe")
    with pytest.raises(UserError, match="no regular file"):
        packed(tmp_path, tmp_path / "parts")


def test_submit_command_with_a_secret_is_refused(research, submitted):
    """The command line is shown to everyone who sees the cluster's jobs."""
    code, said = research("submit", "c.yaml", "./mine.py", "--concurrent", "2", "--detach", "--name", TOKEN)
    assert (code, submitted) == (2, [])
    assert "GitHub" in said
    assert TOKEN not in said


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

    assert code == 2, said
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
