"""The ledger: what is appended is there, in order, whatever dies; what is damaged is refused by name."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from research.errors import CorruptFile, UserError
from research.ledger.events import Event, Interrupted, TrialRetried
from research.ledger.log import Ledger
from research.ledger.settings import Metric
from tests.support.places import ROOT
from tests.support.synthetic import failed, new_ledger, row, session, sweep, trial
from vae.durable import read_file

if TYPE_CHECKING:
    from pathlib import Path


def views(ledger: Ledger) -> tuple[Any, ...]:
    """Everything that a ledger says, comparable."""
    return (
        len(ledger),
        ledger.created,
        ledger.identity,
        ledger.trials,
        ledger.sessions,
        ledger.interrupted,
        ledger.updated,
        [view.number for view in ledger.ranked(include_running=True)],
    )


def small_sweep(directory: Path) -> Ledger:
    """Ten events: a complete, a pruned and a failed trial."""
    ledger = new_ledger(directory)
    for event in (
        trial(0),
        trial(1),
        row(0, 0, -30.0, checkpoint="trials/trial-0000/epoch-0000-0"),
        row(1, 0, -40.0, "pruned", reason="rung 1"),
        row(0, 1, -20.0),
        row(0, 2, -25.0, "complete"),
        trial(2),
        failed(2),
    ):
        ledger.append(event)
    return ledger


def test_views_follow_from_the_events(tmp_path: Path) -> None:
    """Status, reason, best row, curve, checkpoint and ranking of each trial are what its events say."""
    ledger = small_sweep(tmp_path)
    metric = ledger.settings.metric
    done, pruned, bad = (ledger.trials[n] for n in range(3))
    assert [view.status for view in (done, pruned, bad)] == ["COMPLETE", "PRUNED", "FAIL"]
    assert (pruned.reason, bad.reason, bad.fail_kind) == (
        "rung 1",
        "IndexError: list index out of range",
        "bug",
    )
    best = done.best(metric)
    assert best is done.rows[1]
    assert done.curve("val/elbo") == {0: -30.0, 1: -20.0, 2: -25.0}
    assert done.last_checkpoint is done.rows[0]
    assert (bad.best(metric), bad.last_checkpoint) == (None, None)
    assert [view.number for view in ledger.ranked()] == [0, 1]


def test_a_trial_as_it_was_is_judged_by_its_rows_of_then(tmp_path: Path) -> None:
    """What a trial continues from, after its later checkpoints were damaged, knows nothing of the epochs after it."""
    done = small_sweep(tmp_path).trials[0]
    metric = Metric(name="val/elbo")
    assert done.best(metric) is done.rows[1]
    before = dataclasses.replace(done, rows={0: done.rows[0]})
    assert before.best(metric) is done.rows[0]
    assert before.curve("val/elbo") == {0: -30.0}
    assert dataclasses.replace(done, rows={}).best(metric) is None
    assert done.best(metric) is done.rows[1]


def test_rank_is_by_finite_values_then_by_lower_number(tmp_path: Path) -> None:
    """Null, failed and running don't rank; ties go to the lower number and the earlier epoch."""
    ledger = new_ledger(tmp_path, metric=Metric(name="val/kl", direction="minimize"))
    for number, elbo in enumerate([-5.0, -10.0, -5.0, None]):
        ledger.append(trial(number))
        ledger.append(row(number, 0, elbo))
        ledger.append(row(number, 1, elbo, "complete"))
    ledger.append(trial(4))
    ledger.append(row(4, 0, -1.0, "fail", reason="loss is not finite at step 3"))
    ledger.append(trial(5))
    ledger.append(row(5, 0, -1.0))
    assert [view.number for view in ledger.ranked()] == [0, 2, 1]
    assert [view.number for view in ledger.ranked(include_running=True)] == [5, 0, 2, 1]
    assert ledger.trials[0].best(ledger.settings.metric) is ledger.trials[0].rows[0]
    assert (ledger.trials[4].status, ledger.trials[4].fail_kind) == ("FAIL", "diverged")


def test_first_report_of_an_epoch_counts_and_nothing_follows_the_end(tmp_path: Path) -> None:
    """A repeated epoch, and whatever an orphan reports after the trial's end, change nothing."""
    ledger = new_ledger(tmp_path)
    events: list[Event] = [trial(0), row(0, 0, -3.0), row(0, 0, -1.0), row(0, 1, -2.0, "complete")]
    for event in events:
        ledger.append(event)
    ended = copy.deepcopy(ledger.trials)
    late: list[Event] = [row(0, 2, -1.0), failed(0), TrialRetried(trial=0, attempt=3, reason="lost")]
    for event in late:
        ledger.append(event)
    assert ledger.trials == ended
    assert ledger.trials[0].curve("val/elbo") == {0: -3.0, 1: -2.0}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("abc/é\x00", max_size=3), children),
    max_leaves=6,
)
facts = st.dictionaries(st.text("abc/é", min_size=1, max_size=4), json_values, max_size=4)
numbers = st.integers(0, 3)


def events_of(number: int) -> st.SearchStrategy[Event]:
    """Any event that may follow once trial ``number`` was created."""
    elbo = st.none() | st.floats(allow_nan=False, allow_infinity=False)
    decisions = st.sampled_from(["continue", "continue", "continue", "complete", "pruned", "fail"])
    return st.one_of(
        st.builds(
            lambda epoch, value, decision, more: row(
                number, epoch, value, decision, metrics={**more, "val/elbo": value}
            ),
            st.integers(0, 5),
            elbo,
            decisions,
            facts,
        ),
        st.builds(lambda a, why: TrialRetried(trial=number, attempt=a, reason=why), numbers, st.text(max_size=9)),
        st.builds(lambda why: failed(number, reason=why), st.text(max_size=9)),
        st.builds(lambda why: Interrupted(reason=why), st.text(max_size=9)),
        st.builds(session, numbers),
    )


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(params=facts, events=st.lists(numbers.flatmap(events_of), max_size=12))
def test_reopened_and_followed_ledgers_are_equal_to_the_written_one(
    params: dict[str, Any], events: list[Event]
) -> None:
    """Any sequence of events folds to the same views in the writer, in a follower and after opening again."""
    with tempfile.TemporaryDirectory() as directory:
        ledger = Ledger.create(directory, sweep())
        follower = Ledger.open(directory)
        for number in range(4):
            ledger.append(trial(number, params=params))
        for event in events:
            ledger.append(event)
        follower.refresh()
        assert views(Ledger.open(directory)) == views(ledger) == views(follower)
        assert ledger.trials[0].created.params == params


def test_follower_reads_each_event_once(tmp_path: Path) -> None:
    """refresh returns what others appended since, in order, and nothing when nothing is new."""
    ledger = new_ledger(tmp_path)
    follower = Ledger.open(tmp_path)
    assert follower.refresh() == []
    events: list[Event] = [trial(0), row(0, 0, -1.5)]
    for event in events:
        ledger.append(event)
    assert follower.refresh() == events
    assert follower.refresh() == []
    assert views(follower) == views(ledger)


def test_pickles_as_its_path(tmp_path: Path) -> None:
    """A pickled ledger is a few bytes, however much it holds, and reads itself again."""
    ledger = small_sweep(tmp_path)
    data = pickle.dumps(ledger)
    assert len(data) < 400
    assert views(pickle.loads(data)) == views(ledger)


def test_every_flipped_byte_is_refused_by_name(tmp_path: Path) -> None:
    """No byte of any event file can change without being noticed, be it only white space or a hash's case."""
    ledger = small_sweep(tmp_path)
    for path in sorted((tmp_path / "ledger").iterdir())[:6]:
        good = path.read_bytes()
        for place in range(len(good)):
            flipped = good[place] ^ (0x20 if place % 2 else 1 << place % 8)  # 0x20 turns a letter's case
            path.write_bytes(good[:place] + bytes([flipped]) + good[place + 1 :])
            with pytest.raises(CorruptFile, match=path.name):
                Ledger.open(tmp_path)
        path.write_bytes(good)
    assert views(Ledger.open(tmp_path)) == views(ledger)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("sequence", [0, 3, 9])
def test_a_truncated_event_is_refused_by_name(tmp_path: Path, sequence: int, share: float) -> None:
    """A torn event file is never read around, not even the last one."""
    small_sweep(tmp_path)
    path = tmp_path / "ledger" / f"{sequence:08d}.json"
    good = path.read_bytes()
    path.write_bytes(good[: int(len(good) * share)])
    with pytest.raises(CorruptFile, match=path.name):
        Ledger.open(tmp_path)
    path.write_bytes(good + b"\n")
    with pytest.raises(CorruptFile, match=path.name):
        Ledger.open(tmp_path)


@pytest.mark.parametrize("sequence", [0, 4, 8])
def test_a_missing_event_is_refused_by_name(tmp_path: Path, sequence: int) -> None:
    """A gap in the sequence names the file that should be there."""
    small_sweep(tmp_path)
    (tmp_path / "ledger" / f"{sequence:08d}.json").unlink()
    with pytest.raises(CorruptFile, match=f"{sequence:08d}.json is missing"):
        Ledger.open(tmp_path)


def test_an_event_of_another_ledger_is_refused(tmp_path: Path) -> None:
    """Two copies of a sweep that went separate ways can't be mixed: each event names its predecessor."""
    for name in ("a", "b"):
        ledger = new_ledger(tmp_path / name)
        for event in (trial(0), row(0, 0, -1.0 if name == "a" else -2.0), row(0, 1, -1.0)):
            ledger.append(event)
    foreign = (tmp_path / "b" / "ledger" / "00000003.json").read_bytes()
    (tmp_path / "a" / "ledger" / "00000003.json").write_bytes(foreign)
    with pytest.raises(CorruptFile, match=r"00000003\.json does not follow"):
        Ledger.open(tmp_path / "a")


def test_a_directory_that_is_no_sweep_is_named(tmp_path: Path) -> None:
    """Opening a directory without events says that it is not a sweep directory."""
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="is not a sweep directory"):
            Ledger.open(directory)


def test_creating_over_a_sweep_or_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    """An existing sweep is never begun again, and a storage that can't be written is one line."""
    new_ledger(tmp_path / "sweep")
    with pytest.raises(UserError, match="research resume"):
        Ledger.create(tmp_path / "sweep", sweep())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another storage"):
        Ledger.create(tmp_path / "file" / "sweep", sweep())


def test_two_writers_collide_loudly(tmp_path: Path) -> None:
    """The second of two drivers at one sequence number is refused, and the first one's event stands."""
    first = new_ledger(tmp_path)
    second = Ledger.open(tmp_path)
    first.append(trial(0))
    with pytest.raises(UserError, match=r"00000002\.json was written by another process"):
        second.append(trial(0, seed=99))
    opened = Ledger.open(tmp_path)
    assert views(opened) == views(first)
    assert opened.trials[0].created.seed == 7
    assert not list((tmp_path / "ledger").glob(".*"))


def test_impossible_events_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """A second sweep event, an unknown trial's row, a trial twice, NaN: an error, an unchanged ledger."""
    ledger = new_ledger(tmp_path)
    ledger.append(trial(0))
    before = sorted(path.name for path in (tmp_path / "ledger").iterdir())
    smuggled = row(0, 0, -1.0)
    smuggled.metrics["val/elbo"] = float("nan")  # pydantic refuses it at construction; this comes after
    for event in (sweep(), row(1, 0, -1.0), trial(0), smuggled):
        with pytest.raises(ValueError, match=r"one sweep|never created|twice|JSON compliant"):
            ledger.append(event)
    assert sorted(path.name for path in (tmp_path / "ledger").iterdir()) == before
    assert views(Ledger.open(tmp_path)) == views(ledger)


def test_leftovers_of_a_killed_writer_are_ignored_and_cleared(tmp_path: Path) -> None:
    """A reader doesn't see a temporary file; the next writer removes it."""
    new_ledger(tmp_path)
    leftover = tmp_path / "ledger" / ".00000002.json.99999999-1a2b3c4d.tmp"  # no process has such a number
    leftover.write_text('{"half')
    ledger = Ledger.open(tmp_path)
    assert leftover.exists()
    ledger.append(trial(0))
    assert not leftover.exists()


def test_a_reason_with_undecodable_bytes_is_written_down(tmp_path: Path) -> None:
    """A traceback that quotes a file name outside UTF-8 does not keep the failure from being recorded."""
    ledger = new_ledger(tmp_path)
    ledger.append(trial(0))
    ledger.append(failed(0, reason="no file \udcff"))
    assert Ledger.open(tmp_path).trials[0].reason == "no file ?"


APPEND_FOR_EVER = """
import sys
from tests.support.synthetic import row, trial
from research.ledger.log import Ledger
ledger = Ledger.open(sys.argv[1])
number = len(ledger.trials)
ledger.append(trial(number))
print("going", flush=True)
for epoch in range(10**6):
    ledger.append(row(number, epoch, -1.0 / (epoch + 1)))
    print(len(ledger), flush=True)
"""


@pytest.mark.faults
@pytest.mark.fault("2 driver killed")
def test_sigkill_while_appending_leaves_a_gapless_prefix(tmp_path: Path, tally: Any) -> None:
    """Killed at any moment, the ledger opens, and holds every event whose append had returned."""
    new_ledger(tmp_path)
    delays = random.Random(1)
    for kill in range(6):
        command = [sys.executable, "-c", APPEND_FOR_EVER, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "going\n"
            time.sleep(delays.uniform(0.0, 0.06))
            os.kill(child.pid, signal.SIGKILL)
            returned = [int(line) for line in child.stdout.read().split("\n")[:-1]]
            assert child.wait(10) == -signal.SIGKILL
        tally.happened()
        ledger = Ledger.open(tmp_path)
        assert len(ledger) - max(returned, default=0) in (0, 1) or not returned
        assert sorted(ledger.trials) == list(range(kill + 1))
        assert sorted(ledger.trials[kill].rows) == list(range(len(ledger.trials[kill].rows)))
    assert len(Ledger.open(tmp_path)) > 20


def test_an_event_is_read_once_and_no_news_cost_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A night's worth of rows takes as many reads, once each. How long they take: docs/scale.md."""
    ledger = new_ledger(tmp_path)
    ledger.append(trial(0))
    for epoch in range(50):
        ledger.append(row(0, epoch, -1.0 - epoch))
    reads: list[str] = []

    def counted(path: str, limit: int) -> bytes:
        reads.append(path)
        return read_file(path, limit)

    monkeypatch.setattr("research.ledger.chain.read_file", counted)
    opened = Ledger.open(tmp_path)
    assert len(opened) == len(ledger)
    assert len(reads) == len(set(reads)) == len(ledger) + 1  # and the one that is not there yet
    reads.clear()
    assert opened.refresh() == []
    ledger.append(row(0, 50, -51.0))
    assert len(opened.refresh()) == 1
    assert len(reads) == 1 + 2


def test_is_one_readable_json_object_per_event(tmp_path: Path) -> None:
    """A person can read an event with any JSON tool."""
    small_sweep(tmp_path)
    event = json.loads((tmp_path / "ledger" / "00000004.json").read_text())
    assert set(event) == {"event", "previous", "sequence", "sha256", "time"}
    assert event["event"]["metrics"]["val/elbo"] == -30.0


def test_needs_no_torch_ray_or_optuna() -> None:
    """Reading a ledger loads none of the heavy libraries."""
    heavy = "{'torch', 'ray', 'optuna', 'wandb', 'numpy'}"
    code = f"import sys, research.ledger.log; print(sorted(sys.modules.keys() & {heavy}))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
