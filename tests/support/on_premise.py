"""cluster/on-premise.yaml filled in for the nodes of ``nodes.py``, and the commands of a person who uses it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from tests.support.nodes import STORAGE
from tests.support.places import ROOT
from tests.support.verbs import command, environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.nodes import Machines


@dataclass
class Launcher:
    """The machine beside the cluster: it has the project, the key and the token."""

    machines: Machines
    file: Path

    @property
    def home(self) -> Path:
        """Where its token and the launcher's memory are."""
        return self.machines.folder / "launcher"

    def environment(self) -> dict[str, str]:
        """Of a person who is logged in there."""
        return environment() | {
            "HOME": str(self.home),
            "RAY_TMPDIR": str(self.home),
            "RAY_AUTH_MODE": "token",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Begin ``research WORDS`` in the background."""
        return subprocess.Popen(
            self.machines.from_launcher(command(*words)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment(), cwd=self.home,
        )  # fmt: skip

    def research(self, *words: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run ``research WORDS`` to its end."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(words, process.returncode, output)

    def ray(self, *words: str, timeout: float = 600) -> str:
        """Run ``ray WORDS`` in the project's folder; what it said."""
        done = subprocess.run(
            self.machines.from_launcher([sys.executable, "-m", "ray.scripts.scripts", *words]),
            capture_output=True, text=True, timeout=timeout, env=self.environment(), cwd=ROOT, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


def fill_in(machines: Machines) -> Launcher:
    """A launcher whose cluster file is the project's own, with these machines at the lines marked EDIT.

    The commands that install are left out: the nodes find this environment under the name that they would make.
    """
    launcher = Launcher(machines, machines.folder / "launcher" / "on-premise.yaml")
    launcher.home.mkdir()
    text = (ROOT / "cluster" / "on-premise.yaml").read_text().replace("/shared", str(STORAGE))
    config = yaml.safe_load(text)
    head, *workers = machines.nodes
    config["cluster_name"] = machines.tag
    config["provider"] |= {"head_ip": head.address, "worker_ips": [node.address for node in workers]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(machines.key)}
    config["setup_commands"] = [line for line in config["setup_commands"] if ".bashrc" in line]
    launcher.file.write_text(yaml.safe_dump(config))
    launcher.ray("get-auth-token", "--generate")
    return launcher
