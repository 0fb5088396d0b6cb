"""What the tests of services and of exposure share: sweeps in the background, and who listens where."""

from __future__ import annotations

import contextlib
import ipaddress
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.verbs import command, environment
from tests.support.wandb_help import children_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SLOW_SPACE = '''
from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.train_config import TrainConfig


def space(trial):
    """One trial that goes on until it is stopped."""
    return TrainConfig(
        data=Digits(), likelihood=Binomial(), network=Mlp(hidden=(16,)), latent_size=2,
        optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-3, log=True)), epochs=100_000,
    )
'''


def start(*arguments: str | Path, prefix: Sequence[str] = (), **variables: str) -> subprocess.Popen[str]:
    """Begin ``research`` in the background, with ``variables`` in its environment, after the words of ``prefix``."""
    return subprocess.Popen(
        [*prefix, *command(*arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment() | variables,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 240.0) -> None:
    """Until ``condition`` holds; the test fails when the process ends before, or when it takes too long."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended before: {process.stdout.read()}"
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)


def wait_for_events(directory: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the sweep's ledger has ``count`` events."""
    wait_until((directory / "ledger" / f"{count - 1:08d}.json").exists, process)


def family(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found = [pid]
    for one in found:
        found += children_of(one)
    return found


def command_line(pid: int) -> str:
    """What ``ps`` shows of a process; nothing once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def listeners(pid: int) -> list[tuple[str, str, int]]:
    """Where the family of ``pid`` listens: command line of the process, address, port. Of Linux's /proc."""
    found = []
    for one in family(pid):
        sockets = set()
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{one}/fd").iterdir():
                with contextlib.suppress(OSError):
                    sockets.add(str(link.readlink()))
        for kind in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{one}/net/{kind}").read_text().splitlines()[1:]:
                    columns = line.split()
                    place, _, port = columns[1].rpartition(":")
                    if columns[3] == "0A" and f"socket:[{columns[9]}]" in sockets:
                        found.append((command_line(one), _address(place), int(port, 16)))
    return found


def _address(text: str) -> str:
    """An address as the kernel writes it: words of four bytes, each as a number of this machine."""
    packed = b"".join(bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8))
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)
