"""A cluster brought up for real: Ray's launcher through sshd, three nodes, sweeps submitted, killed, and fetched.

The nodes are namespaces of this machine (see ``nodes.py``): real addresses, real SSH, a real launcher, but one kernel,
one disk, and this Python environment in place of one that the setup commands would install.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from research.ledger.log import Ledger
from research.store.folders import verify_folder
from tests.support.nodes import STORAGE, Machines, missing
from tests.support.on_premise import Launcher, fill_in
from tests.support.verbs import deterministic, told

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def launcher(tmp_path_factory) -> Launcher:
    """A cluster that is up, and the machine from which it was brought up; taken down again in the end."""
    pytest.importorskip("aiohttp", reason="Ray's job client is in the extra 'cluster'")
    if (reason := missing()) is not None:
        pytest.skip(reason)
    bystander = subprocess.Popen(["sleep", "3600"])  # what `ray stop` and everything else below must not touch
    with Machines(tmp_path_factory.mktemp("nodes"), 3) as machines:
        for node in machines.nodes:
            seen = node.shell("ps -e -o comm=").stdout
            assert "sleep" not in seen, f"{node.name} sees processes that are not its own: {seen}"
        made = fill_in(machines)
        made.ray("up", "--yes", "--no-config-cache", str(made.file))
        yield made
        made.ray("down", "--yes", str(made.file))
        left = machines.nodes[0].shell("pgrep -c gcs_server").stdout
        assert left.strip() == "0", "ray down leaves no Ray on the head"
    assert bystander.poll() is None, "a process of another machine was ended"
    bystander.kill()
    bystander.wait()


def arguments(launcher: Launcher, space: Path, name: str) -> list[str]:
    """``research submit`` of the sweep whose local twin is ``verbs.deterministic``."""
    return ["submit", str(launcher.file), *deterministic(space, STORAGE / "sweeps", name)[1:]]


def home_of(launcher: Launcher, name: str) -> Path:
    """Where this test sees the sweep's directory that the nodes have on their shared storage."""
    return launcher.machines.shared / "sweeps" / name


def wait_for_events(directory: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the sweep's ledger has ``count`` events; fails if whoever follows it ends before."""
    while not (directory / "ledger" / f"{count - 1:08d}.json").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def wait_for_workers(launcher: Launcher, count: int) -> None:
    """Until so many nodes beside the head run a raylet."""
    workers = launcher.machines.nodes[1:]
    while sum(node.shell("pgrep -c raylet").stdout.strip() not in {"", "0"} for node in workers) < count:
        time.sleep(1)


@pytest.mark.fault("26 node lost, then the driver")
def test_a_sweep_survives_its_node_and_its_driver(launcher, small_space, twin, tmp_path, tally):
    """A node switched off, then the driver killed, resumed and fetched: the twin's trials and weights, bit for bit."""
    wait_for_workers(launcher, 2)
    directory = home_of(launcher, "lost")
    following = launcher.start(*arguments(launcher, small_space, "lost"))
    wait_for_events(directory, 8, following)
    ledger = Ledger.open(directory)
    hosts = [view.rows[max(view.rows)].worker["host"] for view in ledger.trials.values() if view.rows]
    victim = next(node for node in launcher.machines.nodes if node.name == hosts[-1])
    assert victim is not launcher.machines.nodes[0], "no trial runs on the head"
    victim.power_off()
    assert victim.process.returncode is not None
    tally.happened()
    launcher.machines.power_on(victim)  # it boots; the head's autoscaler starts Ray on it again

    expected = Ledger.open(twin.directory)
    wait_for_events(directory, 2 * len(expected) // 3, following)
    ledger.refresh()
    driver = ledger.sessions[-1].pid
    killed = launcher.machines.nodes[0].shell(f"kill -KILL {driver}")
    output, _ = following.communicate(timeout=300)
    assert killed.returncode == 0, killed.stderr
    assert following.returncode == 128 + signal.SIGKILL, output
    assert "--resume lost" in output
    tally.happened()

    resumed = launcher.research("submit", launcher.file, "--resume", "lost", "--storage", STORAGE / "sweeps")
    assert resumed.returncode == 0, resumed.stdout
    fetched = launcher.research("fetch", launcher.file, "lost", "--storage", STORAGE / "sweeps", "--to", tmp_path)
    assert fetched.returncode == 0, fetched.stdout

    ledger = Ledger.open(tmp_path / "lost")
    assert len(ledger.sessions) == 2
    assert any(view.attempt > 0 for view in ledger.trials.values())
    tally.losing(len(expected.trials) - len(ledger.trials))
    assert told(ledger) == told(expected)
    for view in expected.ranked()[:3]:
        place = f"models/trial-{view.number:04d}"
        verify_folder(tmp_path / "lost" / place)
        weights = [folder / place / "model.safetensors" for folder in (tmp_path / "lost", twin.directory)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    wait_for_workers(launcher, 2)  # the node that was switched off is one of them again


def test_the_record_names_the_code_that_was_sent(launcher, small_space, tmp_path):
    """What ran there is this tree: commit, differences and fingerprint are what they are here, though git is not there."""
    from research import provenance

    ran = launcher.research(*arguments(launcher, small_space, "code"), "--trials", "1")
    assert ran.returncode == 0, ran.stdout
    ledger = Ledger.open(home_of(launcher, "code"))
    assert ledger.created.code == provenance.code()
    assert ledger.created.settings.space.source == small_space.read_text()


def test_stopped_cleanly_watched_and_resumed(launcher, small_space):
    """research stop is a Ctrl-C for the driver: its last words, exit code 130; watch and --resume go on from there."""
    directory = home_of(launcher, "stopped")
    # More trials than the others': it has to be at work when the request to stop arrives.
    asked = [*arguments(launcher, small_space, "stopped"), "--trials", "24"]
    begun = launcher.research(*asked, "--detach")
    assert begun.returncode == 0, begun.stdout
    twice = launcher.research(*asked)
    assert twice.returncode == 2
    assert "already" in twice.stdout
    following = launcher.start("watch", launcher.file, "stopped")
    wait_for_events(directory, 8, following)
    stopped = launcher.research("stop", launcher.file, "stopped", "--storage", STORAGE / "sweeps")
    output, _ = following.communicate(timeout=300)

    ledger = Ledger.open(directory)
    assert stopped.returncode == 0, stopped.stdout
    assert following.returncode == 130, output
    assert "stopped. Continue with" in output
    assert "stopped. Continue with" in stopped.stdout
    assert ledger.interrupted is not None
    assert any(view.status == "RUNNING" for view in ledger.trials.values())

    resumed = launcher.research("submit", launcher.file, "--resume", "stopped", "--storage", STORAGE / "sweeps")
    assert resumed.returncode == 0, resumed.stdout
    assert all(view.terminal for view in Ledger.open(directory).trials.values())


@pytest.mark.fault("26 connection to a cluster lost")
def test_a_lost_connection_is_taken_up_again(launcher, small_space, tally):
    """The SSH that carries the job's log is killed: the sweep goes on, and nothing is said twice or left out."""
    directory = home_of(launcher, "cut")
    following = launcher.start(*arguments(launcher, small_space, "cut"))
    wait_for_events(directory, 6, following)
    killed = 0
    for process in ssh_of(launcher):
        with suppress(ProcessLookupError):  # one that ended because another did
            os.kill(process, signal.SIGKILL)
            killed += 1
    assert killed
    tally.happened()
    output, _ = following.communicate(timeout=600)

    assert following.returncode == 0, output
    assert "the sweep goes on" in output
    for number in Ledger.open(directory).trials:
        assert output.count(f"trial {number} starts") == 1
    assert output.count("6 of 6 trials ended") == 1


def ssh_of(launcher: Launcher) -> list[int]:
    """The processes of this machine that carry connections to the cluster's nodes: the test's own, by its key."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            network = str((folder / "ns" / "net").readlink())
        except OSError:
            continue
        if words.startswith("ssh") and network == hub_network(launcher):
            found.append(int(folder.name))
    return found


def hub_network(launcher: Launcher) -> str:
    """The identity of the network that the launcher is on."""
    return f"net:[{Path('/run/netns', launcher.machines.hub).stat().st_ino}]"


def test_ctrl_c_leaves_the_sweep_running(launcher, small_space):
    """SIGINT of who follows: exit code 130, how to follow and how to stop; the sweep ends all the same."""
    directory = home_of(launcher, "left")
    following = launcher.start(*arguments(launcher, small_space, "left"))
    wait_for_events(directory, 6, following)
    following.send_signal(signal.SIGINT)
    output, _ = following.communicate(timeout=120)
    assert following.returncode == 130, output
    assert f"research watch {launcher.file} left" in output
    assert f"research stop {launcher.file} left" in output

    watched = launcher.research("watch", launcher.file, "left")
    assert watched.returncode == 0, watched.stdout
    assert all(view.terminal for view in Ledger.open(directory).trials.values())
