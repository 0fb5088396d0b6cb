"""What holds of any ledger and of any order in which trials end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.driver.best_models import keep_best
from research.errors import CorruptFile
from research.ledger.events import Interrupted, TrialRetried
from research.ledger.log import Ledger
from research.store.folders import verify_folder
from research.store.layout import trial_name
from tests.support.synthetic import failed, new_ledger, row, trial
from vae.state import TrainState

few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
steps = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["row", "row", "row", "complete", "pruned", "retry", "end", "stop"]), st.floats(-1e6, 1e6)),
    max_size=14,
)  # fmt: skip


def written(directory: Path, events: list[tuple[int, str, float]]) -> Ledger:
    """A ledger of three trials and these events."""
    ledger = new_ledger(directory)
    for number in range(3):
        ledger.append(trial(number))
    for epoch, (number, kind, value) in enumerate(events, start=1):
        match kind:
            case "row":
                ledger.append(row(number, epoch, value))
            case "complete" | "pruned":
                ledger.append(row(number, epoch, value, kind))
            case "retry":
                ledger.append(TrialRetried(trial=number, attempt=epoch, reason="lost"))
            case "end":
                ledger.append(failed(number))
            case _:
                ledger.append(Interrupted(reason="SIGTERM"))
    return ledger


@few
@given(steps)
def test_any_ledger_reads_back_equal_and_so_does_any_prefix(events):
    """After any event the files are a whole ledger: what a killed driver leaves can be continued."""
    with tempfile.TemporaryDirectory() as place:
        whole = written(Path(place) / "whole", events)
        assert Ledger.open(whole.directory).trials == whole.trials
        prefix = Path(place) / "prefix"
        (prefix / "ledger").mkdir(parents=True)
        for length, file in enumerate(sorted((whole.directory / "ledger").iterdir()), start=1):
            shutil.copy(file, prefix / "ledger")
            opened = Ledger.open(prefix)
            assert len(opened) == length
        assert opened.trials == whole.trials
        opened.append(trial(3))
        assert Ledger.open(prefix).trials[3].created == trial(3)


@pytest.mark.fault("11 corrupt state")
def test_any_byte_changed_anywhere_is_refused(tally):
    """Whatever the events, whichever file, wherever in it, whatever the byte becomes."""

    @few
    @given(steps, st.data())
    def check(events, data):
        with tempfile.TemporaryDirectory() as place:
            ledger = written(Path(place), events)
            files = sorted((ledger.directory / "ledger").iterdir())
            file = data.draw(st.sampled_from(files))
            content = file.read_bytes()
            at = data.draw(st.integers(0, len(content) - 1))
            other = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
            file.write_bytes(content[:at] + bytes([other]) + content[at + 1 :])
            tally.happened()
            with pytest.raises(CorruptFile) as refusal:
                Ledger.open(place)
            assert file.name in str(refusal.value)

    check()


ends = st.lists(
    st.tuples(st.sampled_from(["complete", "pruned", "fail"]), st.none() | st.integers(-5, 5).map(float)),
    min_size=1,
    max_size=8,
)


@few
@given(ends, st.integers(1, 4))
def test_models_are_exactly_the_best_whatever_the_order(outcomes, keep):
    """After each end ``models/`` holds the best K that have a finite value, ties to the lower number; again: nothing changes."""
    with tempfile.TemporaryDirectory() as place:
        ledger = new_ledger(Path(place), keep=keep)
        scores: list[tuple[float, int]] = []
        for number, (decision, value) in enumerate(outcomes):
            ledger.append(trial(number))
            folder = f"trials/{trial_name(number)}/epoch-0001-0"
            sizes = {"channels": 1, "height": 8, "width": 8, "levels": 16, "num_classes": 10}
            state = TrainState("", 1, 1, sizes, {"model/weight": torch.full((2,), float(number))})
            sha256 = state.save(Path(place) / folder)
            ledger.append(row(number, 1, value, decision, checkpoint=folder, checkpoint_sha256=sha256))
            if decision != "fail" and value is not None:
                scores.append((-value, number))
            assert keep_best(ledger, Path(place)) == []
            best = {trial_name(n) for _, n in sorted(scores)[:keep]}
            models = Path(place) / "models"
            assert {path.name for path in models.glob("*")} == best
            before = {path: path.stat().st_mtime_ns for path in Path(place).rglob("*")}
            assert keep_best(Ledger.open(place), Path(place)) == []
            assert before == {path: path.stat().st_mtime_ns for path in Path(place).rglob("*")}
        for folder in models.glob("*"):
            verify_folder(folder)
        assert list((Path(place) / "trials").iterdir()) == []
