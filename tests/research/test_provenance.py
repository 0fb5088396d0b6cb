"""Provenance: the code's identity is exact, nothing heavy is imported, no secret comes along."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from research import provenance
from tests.support.places import ROOT

if TYPE_CHECKING:
    from pathlib import Path

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout of three packages, as if it were ours."""
    for name in provenance.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.py").write_text(f"NAME = {name!r}\n")
    (tmp_path / "README.md").write_text("hello\n")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "begin"]):
        subprocess.run([*GIT, *arguments], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return tmp_path


def test_a_clean_checkout_has_a_commit_and_no_diff(checkout: Path) -> None:
    """A commit alone names the code; a changed README does not make it dirty."""
    (checkout / "README.md").write_text("changed\n")
    facts = provenance.code()
    head = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    assert (facts["commit"], facts["dirty"], facts["diff_sha256"]) == (head.stdout.strip(), False, None)
    assert provenance.diff_text() == ""


def test_changed_and_new_sources_are_in_the_diff(checkout: Path) -> None:
    """The diff rebuilds the code that ran: applied to the commit it gives the same source_sha256."""
    before = provenance.code()
    (checkout / "vae" / "part.py").write_text("NAME = 'other'\n")
    (checkout / "research" / "new.py").write_text("x = 1\n")
    (checkout / "vae" / "weights.bin").write_bytes(b"\0" * 100)
    facts, diff = provenance.code(), provenance.diff_text()
    assert facts["dirty"] is True
    assert facts["source_sha256"] != before["source_sha256"]
    assert facts["diff_sha256"] is not None
    assert diff is not None
    (checkout / "research" / "new.py").unlink()
    subprocess.run([*GIT, "checkout", "-q", "."], cwd=checkout, check=True)
    assert provenance.code() == before
    subprocess.run([*GIT, "apply", "-"], cwd=checkout, input=diff, text=True, check=True)
    assert provenance.code()["source_sha256"] == facts["source_sha256"]


def test_outside_a_checkout_only_the_source_hash_is_known(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed inside somebody else's repository, or without git, no commit is claimed."""
    whole = provenance.code()["source_sha256"]
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "empty"))
        assert provenance.code() == {
            "commit": None,
            "dirty": False,
            "diff_sha256": None,
            "source_sha256": whole,
        }
    site = checkout / "venv" / "site-packages"
    for name in provenance.PACKAGES:
        (site / name).mkdir(parents=True)
        (site / name / "part.py").write_text(f"NAME = {name!r}\n")
    monkeypatch.setattr(provenance, "ROOT", site)
    assert provenance.code()["commit"] is None
    assert provenance.diff_text() is None
    assert provenance.code()["source_sha256"] == whole


def test_facts_are_json_import_nothing_heavy_and_hold_no_secret() -> None:
    """Versions and hardware come without importing the libraries, and without the environment."""
    script = (
        "import json, sys; from research import provenance as p; "
        "print(json.dumps([p.code(), p.versions(), p.hardware(), "
        "sorted(sys.modules.keys() & {'torch', 'ray', 'optuna', 'wandb', 'numpy'})]))"
    )
    environment = {"PATH": "/usr/bin:/bin", "WANDB_API_KEY": "canary-" * 5, "GIT_DIR": "/nowhere"}
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "canary" not in result.stdout
    code, versions, hardware, imported = json.loads(result.stdout)
    assert set(code) == {"commit", "dirty", "diff_sha256", "source_sha256"}
    assert {"python", "torch", "ray", "optuna", "wandb", "numpy", "torchvision"} <= set(versions)
    assert hardware["cores"] >= 1
    assert hardware["cpu"]
    assert "gpus" not in hardware
    assert imported == []


def test_torch_is_named_by_its_build() -> None:
    """The recorded version equals torch.__version__, build suffix included."""
    torch = pytest.importorskip("torch")
    assert provenance.versions()["torch"] == torch.__version__
