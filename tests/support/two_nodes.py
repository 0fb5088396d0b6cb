"""Run by the tests: a Ray cluster of two nodes on this machine. Prints its address and pids; ends with its input."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from typing import Any

from ray.cluster_utils import Cluster

ATTEMPTS = 3
MEMORY = 80 * 1024 * 1024  # of each node's object store, which holds next to nothing here


def pids(node: Any) -> dict[str, int]:
    """A node's processes by their kind: ``raylet``, and on the head ``gcs_server``."""
    return {kind: found[0].process.pid for kind, found in node.all_processes.items()}


def main() -> None:
    """One CPU on each node."""
    folder = tempfile.mkdtemp(prefix="two-")  # short: Ray puts sockets there
    options = {"num_cpus": 1, "object_store_memory": MEMORY}
    for attempt in range(ATTEMPTS):
        try:
            head = {**options, "include_dashboard": False, "temp_dir": folder}
            cluster = Cluster(initialize_head=True, head_node_args=head)
            other = cluster.add_node(**options)
            break
        except Exception:  # on a machine under load Ray's own 30 seconds may not do
            if attempt == ATTEMPTS - 1:
                raise
    told = {"address": cluster.address, "head": pids(cluster.head_node), "other": pids(other)}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
