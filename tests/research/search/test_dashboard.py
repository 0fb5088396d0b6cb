"""optuna-dashboard on a sweep's study: it opens the file by its path, and shows trials as they come."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution, distribution_to_json

from research.search.study import StudyView
from tests.support.synthetic import new_ledger, row, trial

DISTRIBUTIONS = {"lr": distribution_to_json(FloatDistribution(1e-5, 1e-1, log=True))}


@pytest.fixture
def dashboard():
    """Start ``optuna-dashboard FILE`` on a free local port; what its HTTP API answers. Ended by its process."""
    started = []

    def open_on(journal):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = Path(sys.executable).with_name("optuna-dashboard")
        command = [program, journal, "--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref", "--quiet"]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def ask(path):
            deadline = time.monotonic() + 120
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=30) as answer:
                        return json.load(answer)
                except urllib.error.URLError:
                    assert started[-1].poll() is None, "optuna-dashboard ended"
                    assert time.monotonic() < deadline, "optuna-dashboard does not answer"
                    time.sleep(0.2)

        return ask

    yield open_on
    for process in started:
        process.terminate()
        process.wait(timeout=30)


def of_number(number, ledger):
    """A new trial of one parameter, in the ledger."""
    ledger.append(trial(number, params={"lr": 1e-3 / (number + 1)}, distributions=DISTRIBUTIONS))
    return ledger.trials[number]


@pytest.mark.slow
def test_trials_appear_while_the_study_is_written(tmp_path, dashboard):
    """A running trial with its curve, then its end, then the next one, without starting the dashboard again."""
    ledger = new_ledger(tmp_path / "quick")
    study = StudyView(ledger, ledger.directory / "study.journal")
    ask = dashboard(ledger.directory / "study.journal")
    (summary,) = ask("studies")["study_summaries"]
    assert summary["study_name"] == "quick"

    def trials(*states):
        """Waited for: the dashboard keeps what it read for some seconds."""
        deadline = time.monotonic() + 60
        while True:
            found = ask(f"studies/{summary['study_id']}?after=0")["trials"]
            if tuple(one["state"] for one in found) == states:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.5)

    assert trials() == []
    view = of_number(0, ledger)
    study.add(view, ended=False)
    ledger.append(row(0, 1, -120.0))
    study.report(0, 1, -120.0)
    (running,) = trials("Running")
    assert [(point["step"], point["value"]) for point in running["intermediate_values"]] == [(1, -120.0)]

    ledger.append(row(0, 2, -100.0, "complete"))
    study.tell(view)
    study.add(of_number(1, ledger), ended=False)
    ended, _ = trials("Complete", "Running")
    assert ended["values"] == [-100.0]
    assert [param["name"] for param in ended["params"]] == ["lr"]
    assert {entry["key"] for entry in ended["user_attrs"]} >= {"config_hash", "seed"}
