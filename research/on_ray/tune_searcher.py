"""Optuna as Ray Tune's searcher: what runs next, and who is told how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from research.ledger.log import TrialFailed
from research.ledger.settings import Grid
from research.search.spaces import SpaceError
from research.worker.gpu_memory import device_of
from vae.fast.stackable import why_not
from vae.serialization import from_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from research.ledger.log import Ledger, TrialView
    from research.search.spaces import Space
    from research.search.study import StudyView
    from vae.train_config import TrainConfig

_FAILURES_IN_A_ROW = 10  # draws that are no config; more means that the space, not the draw, is wrong
_SKIPS_IN_A_ROW = 100  # draws that the space calls impossible
_REPEATS_IN_A_ROW = 50  # random draws that were all drawn before: nothing new is left in the space


class LedgerSearcher(Searcher):
    """Hands out what is to be run next: trials cut short first, then new draws, then nothing."""

    def __init__(
        self,
        ledger: Ledger,
        study: StudyView,
        space: Space,
        *,
        assign: Callable[[list[TrialView]], dict[str, Any]],
        on_end: Callable[[TrialView], None],
        ended_with_error: Callable[[int], bool],
        stopping: Callable[[], bool],
        on_failure: Callable[[Exception], bool],
        spent: Callable[[], bool] = lambda: False,
        why_incomparable: Callable[[TrainConfig], str | None] = lambda _: None,
    ) -> None:
        """``assign``: what a worker is sent. ``ended_with_error(n)``: record it; True if n is to run again.

        A worker is sent one trial, or up to ``settings.stack``; those of ``alone`` always by themselves.

        ``stopping()``: somebody asked to stop, so a trial that leaves its worker has not ended. ``on_failure(error)``:
        whether that ends the session: Tune would take it for the trial's own. ``spent()``: the budget is, so nothing
        new starts. ``why_incomparable(config)``: why the rows of a drawn config could not be ranked with the sweep's, so
        that the trial ends before it is trained.
        """
        super().__init__()
        self.ledger = ledger
        self.study = study
        self.space = space
        self.assign = assign
        self.on_end = on_end
        self.ended_with_error = ended_with_error
        self.numbers: dict[str, list[int]] = {}  # Tune's trial id -> ours, running ones
        self.alone = set[int]()  # trials whose stack failed
        self.stopping = stopping
        self.on_failure = on_failure
        self.spent = spent
        self.why_incomparable = why_incomparable
        self.exhausted = False  # every config of the space was drawn
        self.problem: SpaceError | None = None
        views = [ledger.trials[number] for number in sorted(ledger.trials)]
        self.todo = [view.number for view in views if not view.terminal and not view.whole_gpu]
        # Who needs a whole GPU comes last: while others take up shares of all of them, it would never get one.
        self.last = [view.number for view in views if not view.terminal and view.whole_gpu]
        below = self.visible_below(len(views))
        for view in views:
            study.add(view, ended=view.number < below)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into files that nobody reads: the ledger is the truth."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger has it."""

    def visible_below(self, number: int) -> int:
        """Trial ``number`` may be sampled and stopped by the trials numbered less than this.

        In the default mode all that there are; in deterministic mode those numbered n − W and lower, W being
        the number of slots, so that the sweep depends on its seed and W, not on who finishes first.
        """
        if not self.ledger.settings.deterministic:
            return len(self.ledger.trials)
        window, stack = self.ledger.settings.resources.concurrent, self.ledger.settings.stack
        # In whole stacks: the trials of one are drawn before any of them has run.
        return max(0, (number // stack - window + 1) * stack)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # ray's own type leaves out FINISHED
        """The next assignment; None while it must wait; FINISHED when all trials have ended, or somebody asked to stop."""
        if self.stopping():
            return str(Searcher.FINISHED)  # at None, with no trial about, Tune would wait ten minutes for one
        if len(self.numbers) >= self.ledger.settings.resources.concurrent:
            return None
        numbers = self._cut_short() or self._new()
        if not numbers and self.last and self.problem is None:
            numbers = [self.last.pop(0)]
        if not numbers:
            return None if self.numbers and self.problem is None else str(Searcher.FINISHED)
        self.numbers[trial_id] = numbers
        return self.assign([self.ledger.trials[number] for number in numbers])

    def _cut_short(self) -> list[int]:
        """The first trial that is to run again, and what may be stacked with it."""
        if not self.todo:
            return []
        chosen = [self.todo[0]]
        if chosen[0] not in self.alone:
            others = [number for number in self.todo[1:] if number not in self.alone]
            chosen += self._like(chosen[0], others)[: self.ledger.settings.stack - 1]
        self.todo = [number for number in self.todo if number not in chosen]
        return chosen

    def _like(self, number: int, others: list[int]) -> list[int]:
        """Those of ``others`` that may train in one stack with trial ``number``."""
        settings = self.ledger.settings
        if settings.stack == 1:
            return []
        device = device_of(settings.resources)
        config, *rest = (from_record(self.ledger.trials[each].created.config) for each in (number, *others))
        return [other for other, its in zip(others, rest, strict=True) if why_not([config, its], device) is None]

    def _new(self) -> list[int]:
        """New draws for one worker; whether they can be stacked is not known before they are drawn."""
        stack, drawn = self.ledger.settings.stack, list[int]()
        while len(drawn) < stack and (number := self._draw()) is not None:
            drawn.append(number)
            if self.ledger.settings.deterministic and len(self.ledger.trials) % stack == 0:
                break  # a stack's trials see the same others
        return drawn

    def _draw(self) -> int | None:
        """A new trial's number; None when there is none to draw, now or at all."""
        settings = self.ledger.settings
        failures = skips = 0
        while self.problem is None and not self.exhausted and not self.spent():
            number = len(self.ledger.trials)
            if self.ledger.trained >= settings.trials:
                return None
            below = self.visible_below(number)
            untold = [self.ledger.trials[other] for other in self.study.untold if other < below]
            if settings.deterministic and not all(view.terminal for view in untold):
                return None
            for view in untold:
                if view.terminal:
                    self.study.tell(view)
            self.study.ask(self.space, number, self.why_incomparable)
            view = self.ledger.trials[number]
            if not view.terminal:
                return number
            self.on_end(view)
            match view.fail_kind:
                case "duplicate":
                    most = 1 if isinstance(settings.sampler, Grid) else _REPEATS_IN_A_ROW
                    self.exhausted = self.study.repeats(number + 1) >= most
                    continue
                case "impossible":
                    skips += 1
                case _:
                    failures += 1
            if failures >= _FAILURES_IN_A_ROW or skips >= _SKIPS_IN_A_ROW:
                self.problem = SpaceError(
                    f"{failures + skips} draws in a row were no runnable config; the last: {view.reason}"
                )
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler has written the row already."""

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - Tune's own
    ) -> None:
        """A trial left its worker: told to the study if it has ended, run again if its worker was lost."""
        del result
        numbers = self.numbers.pop(trial_id, [])
        if self.stopping():
            return
        try:
            for number in numbers:
                self._end(number, error=error)
        except Exception as problem:
            if not self.on_failure(problem):
                raise

    def _end(self, number: int, *, error: bool) -> None:
        view = self.ledger.trials[number]
        if not view.terminal:
            if error:
                if self.ended_with_error(number):
                    queue = self.last if view.whole_gpu else self.todo
                    queue.append(number)
                    queue.sort()
                    return
            else:
                self.ledger.append(
                    TrialFailed(trial=number, kind="bug", reason="the trial returned before its last epoch")
                )
        if not self.ledger.settings.deterministic:
            self.study.tell(view)
        self.on_end(view)

    def tell_rest(self) -> None:
        """Tell the study whatever has ended: in deterministic mode the last trials are told to no sampler."""
        for number in list(self.study.untold):
            view = self.ledger.trials.get(number)  # None: it was drawn, and could not be written down
            if view is not None and view.terminal:
                self.study.tell(view)
