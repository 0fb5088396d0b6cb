"""Machines for a cluster's tests: each has its own network address, processes, /tmp/ray and sshd.

They are namespaces of this machine. A node sees neither the processes nor the Ray of anybody else, which is what
makes it safe to let Ray's launcher run ``ray stop`` there. What they share with this machine is the file system, so
they find this Python environment where it lies, and a folder at /mnt, which stands for an NFS.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

TOOLS = ("ip", "setpriv", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen", "rsync")
STORAGE = Path("/mnt")  # in the nodes' mount namespaces alone
_PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str | None:
    """Why there can be no nodes here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=_PATH) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: iproute2 util-linux openssh-server rsync)"
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "true"], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else f"no namespaces: {tried.stderr.decode().strip()}"


def _run(*command: str | Path, **options) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, env={**os.environ, "PATH": _PATH}, **options
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Node:
    """One machine: ``process`` holds its namespaces; with it every process of the node dies."""

    name: str
    address: str
    home: Path
    process: subprocess.Popen[bytes] | None = None
    init: int = 0  # its process 1, as this machine numbers it

    def shell(self, command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``command`` on the node, as somebody who is logged in there."""
        return subprocess.run(
            ["nsenter", "-t", str(self.init), "-a", "env", f"HOME={self.home}", "bash", "-lc", command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def power_off(self) -> None:
        """SIGKILL of its process 1: the kernel kills every other process of the node with it."""
        with suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        self.process.wait(timeout=60)


@dataclass
class Machines:
    """``count`` nodes on a network of their own, with the launcher's place on it."""

    folder: Path
    count: int
    nodes: list[Node] = field(default_factory=list)
    tag: str = field(default_factory=lambda: f"rt{os.getpid()}")

    @property
    def subnet(self) -> str:
        """The first three numbers of all addresses: another run's differ, or SSH's shared connections would be mixed."""
        return f"10.83.{os.getpid() % 250 + 1}"

    @property
    def hub(self) -> str:
        """The network namespace with the bridge, where the launcher runs."""
        return f"{self.tag}hub"

    @property
    def key(self) -> Path:
        """The private key that every node lets in."""
        return self.folder / "key"

    @property
    def shared(self) -> Path:
        """What the nodes see at ``STORAGE``."""
        return self.folder / "shared"

    def __enter__(self) -> Self:
        self.shared.mkdir(parents=True)
        Path("/tmp/ray").mkdir(exist_ok=True)  # what the nodes cover with folders of their own
        for name in ("key", "host"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name)
        try:
            _run("ip", "netns", "add", self.hub)
            in_hub = ("ip", "-n", self.hub)
            _run(*in_hub, "link", "set", "lo", "up")
            _run(*in_hub, "link", "add", "bridge", "type", "bridge")
            _run(*in_hub, "addr", "add", f"{self.subnet}.1/24", "dev", "bridge")
            _run(*in_hub, "link", "set", "bridge", "up")
            for number in range(self.count):
                home = self.folder / f"node{number}"
                node = Node(f"node{number}", f"{self.subnet}.{10 + number}", home)
                self.nodes.append(node)
                self._furnish(node)
                self.power_on(node)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.power_off()
            subprocess.run(["ip", "netns", "del", self.tag + node.name], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.hub], capture_output=True, check=False)

    def _furnish(self, node: Node) -> None:
        """The network and the home folder of a node. Installed there: this very environment, by a link."""
        space = self.tag + node.name
        _run("ip", "netns", "add", space)
        _run("ip", "-n", self.hub, "link", "add", node.name, "type", "veth", "peer", "name", "eth0", "netns", space)
        _run("ip", "-n", self.hub, "link", "set", node.name, "master", "bridge", "up")
        _run("ip", "-n", space, "link", "set", "lo", "up")
        _run("ip", "-n", space, "addr", "add", f"{node.address}/24", "dev", "eth0")
        _run("ip", "-n", space, "link", "set", "eth0", "up")
        _run("ip", "-n", space, "route", "add", "default", "via", f"{self.subnet}.1")
        (node.home / "vae-research").mkdir(parents=True)
        (node.home / "ray").mkdir()
        (node.home / "vae-research" / ".venv").symlink_to(Path(sys.executable).parent.parent)
        (node.home / ".bashrc").write_text(f"export PATH={_PATH}\n")
        (node.home / "sshd_config").write_text(
            f"HostKey {self.folder}/host\nAuthorizedKeysFile {self.folder}/key.pub\nStrictModes no\nUsePAM no\n"
            f"PermitRootLogin prohibit-password\nPidFile none\n"
        )
        lines = Path("/etc/passwd").read_text().splitlines()
        root = f"root:x:0:0:root:{node.home}:/bin/bash"  # ssh asks nobody else where ~ is
        (node.home / "passwd").write_text("\n".join([root, *(line for line in lines if ":0:0:" not in line), ""]))

    def power_on(self, node: Node) -> None:
        """Start the node's processes: sshd, and what is then run through it."""
        inside = (
            f"hostname {node.name} && mount --bind {self.shared} {STORAGE} && mount --bind {node.home}/ray /tmp/ray && "
            f"mount --bind {node.home}/passwd /etc/passwd && mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /run && mkdir /run/sshd && "
            f"exec {shutil.which('sshd', path=_PATH)} -D -e -f {node.home}/sshd_config"
        )
        log = (node.home / "sshd.log").open("wb")
        node.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.tag + node.name, "unshare", "--pid", "--mount", "--uts", "--ipc", "--fork",
             "--kill-child=SIGKILL", "--mount-proc", "sh", "-c", inside],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, "PATH": _PATH},
        )  # fmt: skip
        log.close()
        children = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert node.process.poll() is None, (node.home / "sshd.log").read_text()
            if children.read_text().strip() and "listening" in (node.home / "sshd.log").read_text():
                node.init = int(children.read_text().split()[0])
                return
            time.sleep(0.05)
        raise TimeoutError(f"no sshd on {node.name}: {(node.home / 'sshd.log').read_text()}")

    def from_launcher(self, command: list[str]) -> list[str]:
        """``command`` as it is run on the machine beside the nodes."""
        return ["ip", "netns", "exec", self.hub, *command]
