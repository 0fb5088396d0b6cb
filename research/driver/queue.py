"""Which trials run next: first those that were cut short, then new draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from research.ledger.settings import Grid
from research.search.spaces import SpaceError
from research.worker.gpu_memory import device_of
from vae.fast.stackable import why_not
from vae.serialization import from_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from research.ledger.log import Ledger
    from research.ledger.trial_view import TrialView
    from research.search.spaces import Space
    from research.search.study import StudyView
    from vae.train_config import TrainConfig

_FAILURES_IN_A_ROW = 10  # draws that are no config; with more, the space is wrong and not the draw
_SKIPS_IN_A_ROW = 100  # draws that the space calls impossible
_REPEATS_IN_A_ROW = 50  # random draws that were all drawn before: the space holds nothing new


def visible_below(ledger: Ledger, number: int) -> int:
    """Return the number below which trials may influence the sampling and the stopping of trial ``number``.

    In the default mode these are all trials. In deterministic mode they are the trials up to n − W, where W is the
    number of slots. The sweep then depends on its seed and W, and not on which trial finishes first.
    """
    settings = ledger.settings
    if not settings.deterministic:
        return len(ledger.trials)
    window, stack = settings.resources.concurrent, settings.stack
    # In whole stacks, because the trials of a stack are drawn before any of them has run.
    return max(0, (number // stack - window + 1) * stack)


class TrialQueue:
    """Chooses the trials for the next worker, and tells the study how trials ended."""

    def __init__(
        self,
        ledger: Ledger,
        study: StudyView,
        space: Space,
        *,
        on_end: Callable[[TrialView], None],
        spent: Callable[[], bool],
        why_incomparable: Callable[[TrainConfig], str | None],
    ) -> None:
        """Read from the ledger which trials are open.

        ``on_end(view)`` is called when a draw ends without training. ``spent()`` returns True if nothing new may start.
        ``why_incomparable(config)`` returns why the rows of a config could not be ranked with those of the sweep.
        """
        self.ledger = ledger
        self.study = study
        self.space = space
        self.on_end = on_end
        self.spent = spent
        self.why_incomparable = why_incomparable
        self.alone = set[int]()  # trials whose stack failed; each of them runs in a worker of its own
        self.exhausted = False  # every config of the space was drawn
        self.problem: SpaceError | None = None
        views = [ledger.trials[number] for number in sorted(ledger.trials)]
        self.todo = [view.number for view in views if not view.terminal and not view.whole_gpu]
        # Trials that need a whole GPU run last. While other trials hold shares of every GPU, none would be free.
        self.last = [view.number for view in views if not view.terminal and view.whole_gpu]
        below = visible_below(ledger, len(views))
        for view in views:
            study.add(view, ended=view.number < below)

    def next(self) -> list[int]:
        """Return the trials for one worker, or an empty list if none can start now."""
        numbers = self._cut_short() or self._new()
        if not numbers and self.last and self.problem is None:
            numbers = [self.last.pop(0)]
        return numbers

    def again(self, number: int) -> None:
        """Put a trial back that lost its worker."""
        queue = self.last if self.ledger.trials[number].whole_gpu else self.todo
        queue.append(number)
        queue.sort()

    def ended(self, view: TrialView) -> None:
        """Tell the study that a trial has ended. In deterministic mode the study learns of it at the next draw."""
        if not self.ledger.settings.deterministic:
            self.study.tell(view)
        self.on_end(view)

    def tell_rest(self) -> None:
        """Tell the study of every ended trial: in deterministic mode no draw follows after the last ones."""
        for number in list(self.study.untold):
            view = self.ledger.trials.get(number)  # None: the trial was drawn, and could not be written down
            if view is not None and view.terminal:
                self.study.tell(view)

    def _cut_short(self) -> list[int]:
        """Return the first trial that is to run again, and those that may be stacked with it."""
        if not self.todo:
            return []
        chosen = [self.todo[0]]
        if chosen[0] not in self.alone:
            others = [number for number in self.todo[1:] if number not in self.alone]
            chosen += self._like(chosen[0], others)[: self.ledger.settings.stack - 1]
        self.todo = [number for number in self.todo if number not in chosen]
        return chosen

    def _like(self, number: int, others: list[int]) -> list[int]:
        """Return those of ``others`` that may train in one stack with trial ``number``."""
        settings = self.ledger.settings
        if settings.stack == 1:
            return []
        device = device_of(settings.resources)
        config, *rest = (from_record(self.ledger.trials[each].created.config) for each in (number, *others))
        return [other for other, its in zip(others, rest, strict=True) if why_not([config, its], device) is None]

    def _new(self) -> list[int]:
        """Return new draws for one worker. Whether they can be stacked is not known before they are drawn."""
        stack, drawn = self.ledger.settings.stack, list[int]()
        while len(drawn) < stack and (number := self._draw()) is not None:
            drawn.append(number)
            if self.ledger.settings.deterministic and len(self.ledger.trials) % stack == 0:
                break  # the trials of a stack see the same others
        return drawn

    def _draw(self) -> int | None:
        """Return the number of a new trial, or None if there is none to draw, now or at all."""
        settings = self.ledger.settings
        failures = skips = 0
        while self.problem is None and not self.exhausted and not self.spent():
            number = len(self.ledger.trials)
            if self.ledger.trained >= settings.trials:
                return None
            below = visible_below(self.ledger, number)
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
