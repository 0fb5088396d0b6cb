"""Who is stuck, by a clock that the test moves; and what becomes of a trial whose worker ended."""

from __future__ import annotations

import pytest
import torch

from research.driver.failures import MAX_LOST, classify, judge, summary, too_many
from research.driver.watchdog import MOST_BETWEEN_LOOKS, Watchdog
from research.ledger.events import TrialRetried
from research.ledger.log import Ledger
from tests.support.synthetic import failed, new_ledger, row, session, trial
from vae.data.dataset import DataError


class Clock:
    """Seconds, moved by hand."""

    now = 0.0

    def __call__(self):
        return self.now


def watch(watchdog, clock, seconds, running, waiting=0):
    """Look once a second for so long; all that were found stuck."""
    found = []
    for _ in range(seconds):
        clock.now += 1
        found += watchdog.look(running, waiting)
    return found


def test_a_trial_without_an_epoch_for_long_is_stuck_once():
    """Silent for longer than the minutes: named once; the one that reports is not."""
    clock = Clock()
    watchdog = Watchdog(1.0, slowest=2.0, clock=clock)
    found = []
    for _ in range(18):
        found += watch(watchdog, clock, 5, {1, 2})
        watchdog.row(2)
    assert found == [1]


def test_slow_epochs_allow_longer_silence():
    """An epoch of 20 s was seen: nobody is stuck before 200 s, whatever the minutes."""
    clock = Clock()
    watchdog = Watchdog(1.0, clock=clock)
    assert watch(watchdog, clock, 21, {1}) == []
    watchdog.row(1)
    assert watchdog.deadline == pytest.approx(200.0)
    assert watch(watchdog, clock, 200, {1}) == []
    assert watch(watchdog, clock, 2, {1}) == [1]


@pytest.mark.parametrize(("minutes", "slowest"), [(1.0, 0.0), (0.0, 2.0)])
def test_nothing_is_stuck_before_the_first_epoch_or_when_switched_off(minutes, slowest):
    """How long an epoch takes is not known yet; or nobody wants to know."""
    clock = Clock()
    assert watch(Watchdog(minutes, slowest=slowest, clock=clock), clock, 10_000, {1}) == []


def test_a_driver_that_slept_blames_nobody():
    """Two hours between two looks count for seconds: while the driver was stopped nobody could report."""
    clock = Clock()
    watchdog = Watchdog(1.0, slowest=1.0, clock=clock)
    watchdog.look({1})
    clock.now += 7200
    assert watchdog.look({1}) == []
    assert watchdog.silent[1] == MOST_BETWEEN_LOOKS


def test_a_queue_that_nobody_serves_is_told_once():
    """Trials wait and none runs for five minutes: said once, and again only after one ran."""
    clock = Clock()
    watchdog = Watchdog(0.0, clock=clock)
    told = []
    for running in (set(), set(), {1}, set(), set()):
        watch(watchdog, clock, 200, running, waiting=2)
        told.append(watchdog.no_place())
    assert told == [False, True, False, False, True]


def retried(view, cause):
    """The event of a retry."""
    return TrialRetried(trial=view.number, attempt=view.attempt + 1, reason="r", cause=cause)


def decide(view, cause=None, **how):
    """A verdict, with what most tests leave as it is."""
    return judge(view, cause, **({"lost": None, "stuck": False, "share": 0.0} | how))


@pytest.mark.fault("4 SIGTERM")
def test_lost_workers_are_counted_from_the_last_epoch(tmp_path, tally):
    """Preempted between any two epochs, for ever: it goes on. Six times at one epoch: lost. A new driver agrees."""
    ledger = new_ledger(tmp_path / "s", epochs=30)
    ledger.append(trial(0))
    view = ledger.trials[0]
    for epoch in range(1, 20):
        ledger.append(row(0, epoch, -1.0))
        assert decide(view, lost="the worker died").again == "lost"
        ledger.append(retried(view, "lost"))
        tally.happened()
    for _ in range(MAX_LOST - 1):
        ledger.append(retried(view, "lost"))
    for read in (ledger, Ledger.open(ledger.directory)):
        verdict = decide(read.trials[0], lost="the worker died")
        assert (verdict.again, verdict.kind) == (None, "lost")
        assert verdict.reason == "the worker died 6 times without an epoch between"


OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.fault("6 out of memory")
@pytest.mark.parametrize(
    "error", [OUT, RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")]
)
def test_a_share_of_a_gpu_that_was_too_small_becomes_a_whole_one_once(tmp_path, tally, error):
    """Out of a share's memory: again with a whole GPU, kept through restarts of the driver; then it has failed."""
    ledger = new_ledger(tmp_path / "s")
    ledger.append(trial(0))
    view = ledger.trials[0]
    first = decide(view, error, share=0.25)
    tally.happened()
    assert first.again == "out_of_memory"
    ledger.append(retried(view, "out_of_memory"))
    ledger.append(retried(view, "driver"))
    ledger.append(row(0, 1, -1.0))
    read = Ledger.open(ledger.directory).trials[0]
    assert read.whole_gpu
    second = decide(read, error, share=0.25)
    assert (second.again, second.kind) == (None, "out_of_memory")


@pytest.mark.fault("6 out of memory")
@pytest.mark.parametrize(
    ("error", "share"),
    [
        (OUT, 1.0),
        (OUT, 0.0),
        (MemoryError(), 0.25),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"), 0.5),
    ],
)
def test_what_a_whole_gpu_would_not_mend_fails_at_once(tmp_path, tally, error, share):
    """A whole GPU was too small, or the machine's own memory ran out: out_of_memory, not tried again."""
    ledger = new_ledger(tmp_path / "s")
    ledger.append(trial(0))
    verdict = decide(ledger.trials[0], error, share=share)
    tally.happened()
    assert (verdict.again, verdict.kind) == (None, "out_of_memory")


def test_a_trial_that_is_stuck_again_has_failed(tmp_path):
    """Stuck: again once; stuck again without an epoch between: FAIL by that name."""
    ledger = new_ledger(tmp_path / "s")
    ledger.append(trial(0))
    view = ledger.trials[0]
    assert decide(view, lost="the worker died", stuck=True).again == "stuck"
    ledger.append(retried(view, "stuck"))
    verdict = decide(view, lost="the worker died", stuck=True)
    assert (verdict.again, verdict.kind) == (None, "stuck")


def test_other_failures_have_their_kinds():
    """Data, bugs, and a message that only mentions memory."""
    assert classify(DataError("no such file"))[0] == "data"
    assert classify(RuntimeError("out of memories"))[0] == "bug"
    assert classify(None) == ("bug", "the worker failed without an exception")


def test_failures_in_a_row_are_counted_in_one_session(tmp_path):
    """The bound is met by the last that ended, in this session, without a success between; skipped draws don't count."""
    ledger = new_ledger(tmp_path / "s", max_failed=3)
    for number in range(7):
        ledger.append(trial(number))
    for number in (0, 1):
        ledger.append(failed(number))
    ledger.append(row(2, 1, -1.0, "complete"))
    ledger.append(failed(3))
    ledger.append(failed(4, "impossible", "no"))
    ledger.append(failed(5, "out_of_memory"))
    assert too_many(ledger) is None
    ledger.append(failed(6))
    told = too_many(ledger)
    assert told == "--max-failed 3: the last 3 trials failed (2 bug, 1 out_of_memory)"
    assert summary(ledger) == ("failed: 4 bug, 1 out_of_memory; e.g. trial 6, bug: IndexError: list index out of range")
    ledger.append(session(1))
    assert too_many(ledger) is None
