"""How long the driver waits for one event of the ledger: a local disk, and an S3-compatible server (moto) on loopback.

    python benchmarks/append.py [--events 300]

Writes nothing but temporary folders. A real store adds its network to what moto takes; moto's own work is Python's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300)
    events = parser.parse_args().events
    from tests.support.store_server import BUCKET, CREDENTIALS, start_server

    server, url = start_server()
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ |= CREDENTIALS | {"AWS_ENDPOINT_URL": url, "RESEARCH_CACHE_DIR": f"{folder}/cache"}
            from research.store.mirror import mirror_of, pull
            from research.store.object_store import _filesystem

            _filesystem("s3").mkdir(BUCKET)
            print(f"{'one event, ms':24} {'median':>8} {'90 %':>8} {'longest':>8}")
            show("local disk, synced", appended(Path(folder) / "local", events))
            mirror = mirror_of(f"s3://{BUCKET}/sweeps/append")
            show("moto on loopback", appended(mirror, events))
            os.environ["RESEARCH_CACHE_DIR"] = f"{folder}/new"
            started = time.perf_counter()
            pull(mirror_of(f"s3://{BUCKET}/sweeps/append"))
            print(f"a new machine's mirror of {events + 3} events: {time.perf_counter() - started:.2f} s")
    finally:
        server.kill()
        server.wait()


def appended(directory: Path, events: int) -> list[float]:
    """Seconds of each append of a row."""
    from tests.support.synthetic import new_ledger, row, trial

    ledger = new_ledger(directory)
    ledger.append(trial(0))
    seconds = []
    for epoch in range(events):
        event = row(0, epoch, -100.0 + epoch)
        started = time.perf_counter()
        ledger.append(event)
        seconds.append(time.perf_counter() - started)
    return seconds


def show(name: str, seconds: list[float]) -> None:
    """One line of the table, in milliseconds."""
    ordered = sorted(second * 1e3 for second in seconds)
    print(f"{name:24} {statistics.median(ordered):8.1f} {ordered[int(0.9 * len(ordered))]:8.1f} {ordered[-1]:8.1f}")


if __name__ == "__main__":
    main()
