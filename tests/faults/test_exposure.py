"""What a running sweep offers to the network: nothing to other machines, and to this one nothing without its token.

The sweep runs in a network namespace of its own, and a second one plays another machine on the same network. Nothing
of this machine's own network is touched. Needs root, and util-linux and iproute2.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.services import SLOW_SPACE, listeners, start, wait_for_events

pytestmark = [
    pytest.mark.faults,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make network namespaces"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("ip", "unshare", "nsenter"))), reason="needs ip, unshare and nsenter"
    ),
]

ADDRESS, OTHER = "10.199.77.1", "10.199.77.2"


@dataclass(frozen=True)
class Exposed:
    """A sweep that runs in the namespace of process ``here``, and who listens there; ``there`` is another machine."""

    here: int
    there: int
    ports: list[tuple[str, str, int]]
    token: Path

    def python(self, namespace: int, code: str, *arguments: object, **variables: str) -> str:
        """What a program prints that runs in a namespace."""
        done = subprocess.run(
            ["nsenter", "-t", str(namespace), "-n", sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True, text=True, timeout=300, check=False, env=os.environ | variables,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep under way, started by somebody who has switched Ray's tokens off and has a cluster elsewhere."""
    folder = tmp_path_factory.mktemp("exposed")
    (folder / "slow.py").write_text(SLOW_SPACE)
    holders = [subprocess.Popen(["unshare", "--net", "sleep", "1200"]) for _ in range(2)]
    process = None
    try:
        here, there = (one.pid for one in holders)
        while len({Path(f"/proc/{pid}/ns/net").readlink() for pid in (os.getpid(), here, there)}) < 3:
            assert all(one.poll() is None for one in holders), "no network namespaces here"
        for pid, line in [
            (here, "ip link set lo up"),
            (here, f"ip link add here type veth peer name there netns {there}"),
            (here, f"ip addr add {ADDRESS}/24 dev here"),
            (here, "ip link set here up"),
            (there, f"ip addr add {OTHER}/24 dev there"),
            (there, "ip link set there up"),
            (there, "ip link set lo up"),
        ]:
            done = subprocess.run(
                ["nsenter", "-t", str(pid), "-n", *line.split()], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                pytest.skip(f"{line}: {done.stderr.strip()}")
        process = start(
            "sweep", folder / "slow.py", "--trials", "1", "--name", "s", "--storage", folder, "--concurrent", "1",
            "--wandb", "offline", prefix=["nsenter", "-t", str(here), "-n"],
            RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN="of-another-cluster", RAY_ADDRESS="127.0.0.1:1",
        )  # fmt: skip
        wait_for_events(folder / "s", 5, process)
        (token,) = Path(os.environ.get("TMPDIR", "/tmp")).glob(f"rr-{process.pid}-*/token")
        yield Exposed(here, there, listeners(process.pid), token)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 130, output
    finally:
        for one in [*holders, *([process] if process is not None and process.poll() is None else [])]:
            one.kill()
            one.wait()


@pytest.mark.fault("24 exposure")
def test_everything_listens_on_loopback(sweep, tally):
    """Ray's servers, its workers, its agents, W&B's: none has a port on another interface; no dashboard is there, no autoscaler."""
    assert any("gcs_server" in name for name, _, _ in sweep.ports)
    assert any("raylet" in name for name, _, _ in sweep.ports)
    tally.happened(len(sweep.ports))
    assert [one for one in sweep.ports if not one[1].startswith("127.") and one[1] != "::1"] == []
    assert 8265 not in {port for _, _, port in sweep.ports}
    assert [name for name, _, _ in sweep.ports if "dashboard.py" in name or "monitor.py" in name] == []


CONNECT = """
import json, socket, sys
answers = []
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), timeout=10).close()
        answers.append("open")
    except OSError as error:
        answers.append(type(error).__name__)
print(json.dumps(answers))
"""
LISTEN = "import socket; s = socket.create_server(('0.0.0.0', 0)); print(s.getsockname()[1], flush=True); s.accept()"


@pytest.mark.fault("24 exposure")
def test_another_machine_reaches_nothing(sweep, tally):
    """From the other namespace every port refuses, while one that is open to all answers."""
    with subprocess.Popen(
        ["nsenter", "-t", str(sweep.here), "-n", sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True
    ) as control:
        open_port = int(control.stdout.readline())
        ports = [port for _, _, port in sweep.ports]
        *answers, reached = json.loads(sweep.python(sweep.there, CONNECT, ADDRESS, *ports, open_port))
    assert reached == "open", "the other machine is on the network"
    tally.happened(len(ports))
    assert set(answers) == {"ConnectionRefusedError"}


ASK = """
import json, sys, grpc
METHODS = ("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo", "/ray.rpc.InternalKVGcsService/InternalKVKeys",
           "/ray.rpc.JobInfoGcsService/GetAllJobInfo", "/ray.rpc.NodeManagerService/GetNodeStats",
           "/ray.rpc.ObjectManagerService/Pull", "/ray.rpc.CoreWorkerService/PushTask",
           "/ray.rpc.CoreWorkerService/GetCoreWorkerStats", "/ray.rpc.ReporterService/GetTraceback")
answers = {}
for port in map(int, sys.argv[2:]):
    answers[port] = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in METHODS:
            try:
                metadata = [("authorization", "Bearer " + sys.argv[1])] if sys.argv[1] else []
                channel.unary_unary(method)(b"", timeout=5, metadata=metadata)
                answers[port].append("OK")
            except grpc.RpcError as error:
                answers[port].append(error.code().name)
                if answers[port][-1] in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    break
print(json.dumps(answers))
"""


@pytest.mark.fault("24 exposure")
@pytest.mark.parametrize("token", ["", "of-another-cluster"])
def test_on_this_machine_nothing_answers_without_the_token(sweep, tally, token):
    """Every gRPC server of the sweep says UNAUTHENTICATED to calls of every service; with the token it answers."""
    pytest.importorskip("grpc")
    ports = [port for _, _, port in sweep.ports]
    answers = json.loads(sweep.python(sweep.here, ASK, token, *ports))
    asked = [codes for codes in answers.values() if "UNAUTHENTICATED" in codes]
    assert len(asked) >= 4, answers  # GCS, raylet, object manager, driver, worker
    tally.happened(len(asked))
    # UNAVAILABLE, DEADLINE_EXCEEDED: a server that does not speak gRPC. UNIMPLEMENTED: not a service of this server.
    silent = {"UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert {code for codes in answers.values() for code in codes} <= silent, answers
    ours = json.loads(sweep.python(sweep.here, ASK, sweep.token.read_text(), *ports))
    assert any("OK" in codes for codes in ours.values()), ours


BROWSE = """
import json, sys, urllib.error, urllib.request
answers = {}
PATHS = ("/", "/api/jobs/", "/api/job_agent/jobs/", "/get_or_create_runtime_env", "/metrics")
for port in map(int, sys.argv[1:]):
    for path, body in [(path, body) for path in PATHS for body in (None, b"{}")]:
        try:
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=5)
            answers[f"{port}{path}"] = answer.read(200).decode(errors="replace")
        except urllib.error.HTTPError as error:
            answers.setdefault(f"{port}{path}", error.code)
        except Exception as error:
            answers[f"{port}{path}"] = type(error).__name__
            break  # it speaks no HTTP
print(json.dumps(answers))
"""


@pytest.mark.fault("24 exposure")
def test_the_http_servers_tell_figures_at_most(sweep, tally):
    """Without a token nothing but Prometheus' figures is served: no jobs, no runtime environments, no pages."""
    answers = json.loads(sweep.python(sweep.here, BROWSE, *(port for _, _, port in sweep.ports)))
    tally.happened(len(answers))
    served = {place: text for place, text in answers.items() if isinstance(text, str) and " " in text}
    assert all(text.startswith("# HELP") for text in served.values()), served
    assert 401 in answers.values(), answers


JOIN = """
import pathlib, sys, ray
try:
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
    ray.get(ray.remote(num_cpus=0)(lambda: pathlib.Path(sys.argv[2]).touch()).remote(), timeout=60)
    print("joined")
except BaseException as error:
    print(type(error).__name__, str(error)[:300])
"""


@pytest.mark.fault("24 exposure")
def test_another_user_can_not_run_code(sweep, tally, tmp_path):
    """A Ray client that has another token can't connect, and its task does not run; the token's file is private."""
    (port,) = {port for name, _, port in sweep.ports if "gcs_server" in name}
    marker = tmp_path / "ran"
    said = sweep.python(
        sweep.here, JOIN, f"127.0.0.1:{port}", marker, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="of-another-cluster"
    )
    # That it is for the token: the test above, where the same server answers who has it.
    assert said.startswith(("ConnectionError", "AuthenticationError")), said
    assert not marker.exists()
    assert sweep.token.stat().st_mode & 0o777 == 0o600
    assert sweep.token.parent.stat().st_mode & 0o777 == 0o700
    tally.happened()
