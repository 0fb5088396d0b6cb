"""The study is a view of the ledger: told the truth, and rebuilt so that nothing is drawn differently after a kill."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import signal
import statistics
from typing import TYPE_CHECKING

import optuna
import pytest
import torch
from optuna.distributions import distribution_to_json

from research.driver.driver import Lost, Raised, Turn
from research.driver.growth import extend
from research.driver.queue import visible_below
from research.errors import StorageError, UserError
from research.ledger import budget
from research.ledger.log import Ledger
from research.ledger.settings import (
    Budget,
    Grid,
    Metric,
    Nsga2,
    OptunaSampler,
    QuasiRandom,
    RandomSearch,
    Resources,
    SpaceSource,
    StartFrom,
    Tpe,
)
from research.planning.earlier import learn_from
from research.planning.preflight import check_space
from research.search.samplers import build_sampler
from research.search.spaces import Space, load_recorded, load_space, of_sweep
from research.search.study import StudyView
from tests.support.by_hand import DriverByHand
from tests.support.synthetic import new_ledger, row, trial
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.serialization import config_hash, from_record, to_dict
from vae.train_config import Evaluation, TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

FINISHED = Turn.FINISHED


def draw_config(trial):
    """Conditional, categorical, integer and logarithmic parameters."""
    depth = trial.suggest_int("depth", 0, 2)
    width = trial.suggest_int("width", 8, 64) if depth else 8
    rate = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    return TrainConfig(
        network=Mlp(hidden=(width,) * depth),
        batch_size=trial.suggest_categorical("batch_size", [32, 64]),
        optimizer=Adam(lr=rate),
        epochs=3,
    )


SPACE = Space(function=draw_config, source=SpaceSource(name="s", source="", sha256=hashlib.sha256().hexdigest()))


def merit(created):
    """An invented score of a config, a function of its parameters."""
    return -100.0 * abs(created.params["lr"] - 3e-3) - created.params["depth"]


def searcher_of(ledger: Ledger, space: Space = SPACE) -> DriverByHand:
    """A driver on ``ledger``, as it is at the start of a session."""
    return DriverByHand(ledger, space)


def finish(ledger: Ledger, searcher: DriverByHand, key: str) -> None:
    """Let the trial run to its budget."""
    (number,) = searcher.numbers[key]
    score = merit(ledger.trials[number].created)
    for epoch in (1, 2, 3):
        ledger.append(row(number, epoch, score - 3 + epoch, "complete" if epoch == 3 else "continue"))
    searcher.left(key)


def sweep(directory: Path, *, restart_every: int | None, sampler=None, trials: int = 24) -> Ledger:
    """A whole sweep in one slot, the searcher built anew every so many trials."""
    resources = Resources(concurrent=1)
    chosen = sampler or Tpe(startup_trials=5)
    ledger = new_ledger(directory, trials=trials, sampler=chosen, resources=resources, deterministic=True)
    searcher = searcher_of(ledger)
    step = 0
    while (suggestion := searcher.ask(f"t{step}")) != FINISHED:
        assert suggestion is not Turn.WAIT
        finish(ledger, searcher, f"t{step}")
        step += 1
        if restart_every and step % restart_every == 0:
            ledger = Ledger.open(directory)
            searcher = searcher_of(ledger)
    searcher.driver.close()
    return ledger


@pytest.mark.parametrize("sampler", [Tpe(startup_trials=5), RandomSearch()])
def test_a_rebuilt_study_draws_what_the_old_one_would_have(tmp_path, sampler):
    """Restarted after every third trial, the sweep draws the same parameters, conditional ones included."""
    whole = sweep(tmp_path / "whole", restart_every=None, sampler=sampler)
    restarted = sweep(tmp_path / "restarted", restart_every=3, sampler=sampler)

    assert [v.created.params for v in whole.trials.values()] == [v.created.params for v in restarted.trials.values()]
    assert len(whole.trials) == 24


def test_no_two_trials_are_drawn_from_one_seed(tmp_path):
    """A re-made sampler does not repeat its first draws."""
    ledger = sweep(tmp_path / "s", restart_every=1, sampler=RandomSearch())

    assert len({str(view.created.params["lr"]) for view in ledger.trials.values()}) == 24
    assert len({view.created.seed for view in ledger.trials.values()}) == 24


def staggered(directory: Path, *, restarts: bool) -> list[object]:
    """Two slots, one trial always still running; with ``restarts`` the driver dies before every second draw."""
    directory.mkdir()
    ledger = new_ledger(
        directory / "s", trials=40, sampler=Tpe(startup_trials=4), resources=Resources(concurrent=2), deterministic=True
    )
    searcher = searcher_of(ledger)
    searcher.ask("t0")
    for step in range(1, 30):
        assert searcher.ask(f"t{step}")[0] == step
        finish(ledger, searcher, f"t{step - 1}")
        if restarts and step % 2:
            ledger = Ledger.open(ledger.directory)
            searcher = searcher_of(ledger)
            assert searcher.ask(f"t{step}")[0] == step, "what was running comes first"
    return [view.created.params for view in ledger.trials.values()]


def test_a_running_trial_is_seen_alike_after_a_restart(tmp_path):
    """Samplers see more of a trial that still runs than its parameters; the rebuilt study shows them that too."""
    assert staggered(tmp_path / "whole", restarts=False) == staggered(tmp_path / "killed", restarts=True)


def test_deterministic_mode_waits_for_its_window(tmp_path):
    """Trial n is drawn from trials up to n − W alone, and not before these have ended."""
    ledger = new_ledger(tmp_path / "s", resources=Resources(concurrent=2), deterministic=True)
    searcher = searcher_of(ledger)
    assert searcher.ask("a")[0] == 0
    assert searcher.ask("b")[0] == 1
    finish(ledger, searcher, "b")

    assert searcher.ask("c") is Turn.WAIT, "trial 2 needs trial 0"
    finish(ledger, searcher, "a")
    assert searcher.ask("c")[0] == 2
    assert visible_below(ledger, 2) == 1


def test_the_journal_tells_what_happened(tmp_path):
    """COMPLETE with the best value, PRUNED with its curve, FAIL with its reason: read back by Optuna itself."""
    ledger = new_ledger(tmp_path / "s", resources=Resources(concurrent=3))
    searcher = searcher_of(ledger)
    for key in "abc":
        searcher.ask(key)
    for epoch, elbo, decision in ((1, -9.0, "continue"), (2, -5.0, "continue"), (3, -6.0, "complete")):
        ledger.append(row(0, epoch, elbo, decision))
    ledger.append(row(1, 1, -50.0, "pruned"))
    ledger.append(row(2, 1, None, "fail", reason="loss is nan at step 3"))
    for key in "abc":
        searcher.left(key)

    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "s" / "study.journal"))
    trials = optuna.load_study(study_name="quick", storage=optuna.storages.JournalStorage(backend)).trials
    assert [one.state.name for one in trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert trials[0].value == -5.0
    assert trials[1].intermediate_values == {1: -50.0}
    assert trials[2].user_attrs["fail_kind"] == "diverged"
    assert trials[0].params == ledger.trials[0].created.params


def test_a_space_that_gives_no_config_ends_the_search(tmp_path):
    """Ten bad draws in a row are the space's fault: each is a FAIL with its reason, and no eleventh is made."""
    broken = Space(function=lambda trial: 1 / trial.suggest_int("zero", 0, 0), source=SPACE.source)
    ledger = new_ledger(tmp_path / "s", trials=50)
    searcher = searcher_of(ledger, broken)

    assert searcher.ask("a") == FINISHED
    assert "ZeroDivisionError" in str(searcher.driver.problem)
    assert [view.fail_kind for view in ledger.trials.values()] == ["config"] * 10


def test_a_lost_worker_s_trial_comes_first(tmp_path):
    """It keeps its number, and no new trial is drawn before it runs again."""
    ledger = new_ledger(tmp_path / "s", resources=Resources(concurrent=2))
    searcher = searcher_of(ledger)
    searcher.ask("a")
    searcher.ask("b")
    searcher.left("a", Lost("the worker died"))

    assert searcher.ask("c")[0] == 0
    assert len(ledger.trials) == 2


def test_samplers_by_their_settings():
    """TPE as it is described: multivariate, grouped, with the constant liar."""
    sampler = build_sampler(Tpe(startup_trials=7), 3, 0)

    assert isinstance(sampler, optuna.samplers.TPESampler)
    assert isinstance(build_sampler(RandomSearch(), 3, 0), optuna.samplers.RandomSampler)


def small_space(trial):
    """Six configs, two of which are one: width counts only where there is a layer."""
    depth = trial.suggest_int("depth", 0, 1)
    width = trial.suggest_categorical("width", [8, 16])
    return TrainConfig(network=Mlp(hidden=(width,) * depth), batch_size=32, epochs=3)


def test_a_duplicate_is_recognised_and_not_trained(tmp_path):
    """Three different configs exist: three are trained, repeats are skipped with the first one's number, then it ends."""
    space = Space(function=small_space, source=SPACE.source)
    ledger = sweep_of(tmp_path, space, RandomSearch(), trials=20)
    trained = [view for view in ledger.trials.values() if view.status == "COMPLETE"]
    assert len(trained) == 3
    assert ledger.trained == 3
    skipped = [view for view in ledger.trials.values() if view.status == "SKIPPED"]
    assert {view.fail_kind for view in skipped} == {"duplicate"}
    for view in skipped:
        first = int(view.reason.split()[5].rstrip(","))
        original = ledger.trials[first].created.config
        assert {**view.created.config, "seed": 0} == {**original, "seed": 0}


def test_a_grid_tries_every_config_once(tmp_path):
    """Four combinations, one of which repeats a config: each combination is drawn once, and the sweep ends by itself."""
    space = Space(function=small_space, source=SPACE.source)
    ledger = sweep_of(tmp_path, space, Grid(), trials=50)
    drawn = [tuple(sorted(view.created.params.items())) for view in ledger.trials.values()]
    trained = [view for view in ledger.trials.values() if view.status == "COMPLETE"]
    assert len(trained) == 3
    assert len(set(drawn)) >= 3
    assert len(drawn) <= 5


def sweep_of(directory, space, sampler, /, *, restart_every=None, trials=24, **changes):
    """A whole sweep of ``space`` in one slot, all trials to the end, scored by their number."""
    ledger = new_ledger(directory, trials=trials, sampler=sampler, resources=Resources(concurrent=1), **changes)
    return go_on(ledger, searcher_of(ledger, space), space, restart_every)


def go_on(ledger, searcher, space=None, restart_every=None):
    """The rest of a sweep."""
    directory = ledger.directory
    step = 0
    while (suggestion := searcher.ask(f"t{step}")) != FINISHED:
        number = suggestion[0]
        score = -float(ledger.trials[number].created.seed % 97)
        reported = row(number, 3, score, "complete")
        reported.metrics["measure"] = ledger.settings.measure
        ledger.append(reported)
        searcher.left(f"t{step}")
        step += 1
        if restart_every and step % restart_every == 0:
            ledger = Ledger.open(directory)
            searcher = searcher_of(ledger, space)
    return ledger


@pytest.mark.parametrize(
    "sampler",
    [
        QuasiRandom(),
        Nsga2(population=4),
        Grid(),
        OptunaSampler(name="CmaEsSampler"),
        OptunaSampler(name="NSGAIIISampler", options={"population_size": 4}),
    ],
    ids=lambda sampler: getattr(sampler, "name", sampler.kind),
)
def test_every_sampler_draws_the_same_after_a_restart(tmp_path, sampler):
    """Rebuilt from the ledger every three trials, a sampler draws what it would have drawn without."""
    space = Space(function=small_space if isinstance(sampler, Grid) else flat_space, source=SPACE.source)
    whole = sweep_of(tmp_path / "a", space, sampler, trials=18)
    parts = sweep_of(tmp_path / "b", space, sampler, trials=18, restart_every=3)
    assert [v.created.params for v in whole.trials.values()] == [v.created.params for v in parts.trials.values()]


def flat_space(trial):
    """Two parameters that every config has."""
    rate = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    return TrainConfig(latent_size=trial.suggest_int("latent_size", 2, 64), optimizer=Adam(lr=rate), epochs=3)


def test_quasi_random_points_are_a_sobol_sequence(tmp_path):
    """After the first, random, draw, 16 points put two in each eighth of the (log) range: better spread than chance."""
    space = Space(function=flat_space, source=SPACE.source)
    ledger = sweep_of(tmp_path, space, QuasiRandom(), trials=17)
    rates = [math.log10(view.created.params["lr"]) for view in list(ledger.trials.values())[1:]]
    eighths = [int((rate + 4) / 2 * 8) for rate in rates]
    assert max(eighths.count(i) for i in range(8)) <= 3
    assert min(eighths.count(i) for i in range(8)) >= 1


def test_several_objectives_reach_the_study(tmp_path):
    """Values are the trial's point, pruned trials have none, and the study's front is the ledger's."""
    objectives = (Metric(name="val/reconstruction", direction="minimize"), Metric(name="val/kl", direction="minimize"))
    resources = Resources(concurrent=1)
    ledger = new_ledger(tmp_path, trials=16, objectives=objectives, resources=resources, sampler=Tpe(startup_trials=4))
    searcher = searcher_of(ledger, Space(function=flat_space, source=SPACE.source))
    for step in range(16):
        number = searcher.ask(f"t{step}")[0]
        pruned = number % 4 == 3
        reported = row(number, 1 if pruned else 3, -50.0 - number, "pruned" if pruned else "complete")
        reported.metrics.update({"val/kl": float((number * 7) % 11), "val/reconstruction": 50.0 + (number * 5) % 13})
        ledger.append(reported)
        searcher.left(f"t{step}")
    study = searcher.driver.study.study
    states = [frozen.state.name for frozen in study.trials]
    assert states == [view.status for view in ledger.trials.values()]
    assert states.count("PRUNED") == 4
    assert sorted(frozen.number for frozen in study.best_trials) == sorted(view.number for view in ledger.front())
    for view in ledger.trials.values():
        if view.status == "COMPLETE":
            assert tuple(study.trials[view.number].values) == ledger.point(view)
        else:
            assert study.trials[view.number].values is None


def test_what_to_start_from_comes_first(tmp_path):
    """The given parameters are trials 0 and 1, with their source; what is not given is drawn."""
    starts = (StartFrom(params={"lr": 5e-3, "latent_size": 7}, source="x"), StartFrom(params={"lr": 2e-3}, source="y"))
    ledger = sweep_of(tmp_path, Space(function=flat_space, source=SPACE.source), Tpe(), trials=4, start_from=starts)
    assert ledger.trials[0].created.params == {"lr": 5e-3, "latent_size": 7}
    assert ledger.trials[1].created.params["lr"] == 2e-3
    assert [view.created.source for view in ledger.trials.values()] == ["x", "y", None, None]


def test_learned_trials_are_in_the_study_before_the_first_draw(tmp_path):
    """Their states, values and curves; a TPE past its start-up thanks to them draws near their best from the start."""
    space = Space(function=flat_space, source=SPACE.source)
    other = new_ledger(tmp_path / "a", trials=30, sampler=RandomSearch(), resources=Resources(concurrent=1))
    searcher = searcher_of(other, space)
    for step in range(30):
        number = searcher.ask(f"t{step}")[0]
        params = other.trials[number].created.params
        score = -100 * abs(math.log10(params["lr"]) + 3.5)
        other.append(row(number, 3, score, "complete"))
        searcher.left(f"t{step}")
    mine = new_ledger(tmp_path / "b", trials=20, sampler=Tpe(startup_trials=10), resources=Resources(concurrent=1))
    mine.append(learn_from(tmp_path / "a", mine.settings, {3}))
    mine = Ledger.open(tmp_path / "b")
    searcher = searcher_of(mine, space)
    assert len(searcher.driver.study.study.trials) == 30
    rates = []
    for step in range(8):
        number = searcher.ask(f"t{step}")[0]
        rates.append(math.log10(mine.trials[number].created.params["lr"]))
        mine.append(row(number, 3, -500.0, "complete"))
        searcher.left(f"t{step}")
    frozen = searcher.driver.study.study.trials
    assert [frozen[n].value for n in range(30)] == [v.curve("val/elbo")[3] for v in other.trials.values()]
    assert statistics.median(abs(rate + 3.5) for rate in rates) < 0.3  # by chance: 0.5


def test_a_spent_budget_starts_nothing_more(tmp_path):
    """The searcher ends when the budget says so; what ran has ended."""
    ledger = new_ledger(tmp_path, trials=20, budget=Budget(total_epochs=3), resources=Resources(concurrent=1))
    searcher = searcher_of(ledger, Space(function=flat_space, source=SPACE.source))
    for step in range(3):
        number = searcher.ask(f"t{step}")[0]
        ledger.append(row(number, 3, -1.0, "complete"))
        searcher.left(f"t{step}")
    assert searcher.ask("t3") == FINISHED
    assert ledger.trained == 3


RANGE_SPACE = """
from vae.networks import Mlp
from vae.train_config import TrainConfig

def space(trial):
    return TrainConfig(network=Mlp(hidden=(8,)), latent_size=trial.suggest_int("latent_size", 2, {most}), epochs=3)
"""


def test_a_sweep_goes_on_in_a_wider_space(tmp_path):
    """After the extension trials come from the new space, the old ones stay, and the sweep knows both after a restart."""
    for name, most in (("narrow", 4), ("wider", 64)):
        (tmp_path / f"{name}.py").write_text(RANGE_SPACE.format(most=most))
    narrow = load_space(str(tmp_path / "narrow.py"))
    found = check_space(narrow, metric=None, epochs=3, seed=0, data_dir=None)
    facts = {"measure": found.measure, "data_hash": found.data.data_hash, "split_hash": found.data.split_hash}
    ledger = sweep_of(tmp_path / "s", narrow, Tpe(startup_trials=2), trials=3, space=narrow.source, **facts)
    assert ledger.trained == 3
    event = extend(Ledger.open(tmp_path / "s"), trials="+9", space=str(tmp_path / "wider.py"), more=budget.More())
    assert event.trials == 12
    ledger = Ledger.open(tmp_path / "s")
    assert (tmp_path / "s" / "space.py").read_text() == ledger.settings.space.source == RANGE_SPACE.format(most=64)
    space = load_recorded(ledger.settings.space, tmp_path / "s" / "space.py")
    go_on(ledger, searcher_of(ledger, space))
    again = Ledger.open(tmp_path / "s")
    assert again.trained == 12
    latents = [view.created.params["latent_size"] for _, view in sorted(again.trials.items())]
    assert max(latents[:3]) <= 4 < max(latents[3:])
    with pytest.raises(UserError, match="nothing to extend"):
        extend(Ledger.open(tmp_path / "s"), trials=None, space=str(tmp_path / "wider.py"), more=budget.More())


def test_who_needs_a_whole_gpu_comes_after_the_others(tmp_path):
    """Out of its share's memory: drawn trials go first, then it; after a restart of the driver too. Nobody is lost."""
    ledger = new_ledger(
        tmp_path / "s", trials=4, sampler=RandomSearch(), resources=Resources(concurrent=1, gpus_per_trial=0.5)
    )
    searcher = searcher_of(ledger)
    assert searcher.ask("a")[0] == 0
    searcher.left("a", Raised(torch.OutOfMemoryError("CUDA out of memory")))
    assert searcher.ask("b")[0] == 1
    finish(ledger, searcher, "b")

    ledger = Ledger.open(tmp_path / "s")
    searcher = searcher_of(ledger)
    order = []
    while (suggestion := searcher.ask("c")) != FINISHED:
        order.append(suggestion[0])
        finish(ledger, searcher, "c")
    assert order == [2, 3, 0]


def test_a_draw_that_could_not_be_written_down_is_no_trial(tmp_path, monkeypatch):
    """The disk is full as a trial is drawn: the session's end finds nothing to tell the study of it."""
    ledger = new_ledger(tmp_path, trials=4, sampler=RandomSearch())
    searcher = searcher_of(ledger)

    def refuse(_ledger, _event):
        raise StorageError("no room")

    monkeypatch.setattr(Ledger, "append", refuse)
    with pytest.raises(StorageError):
        searcher.ask("a")
    assert searcher.driver.study.untold
    searcher.driver.close()
    assert ledger.trials == {}


def test_who_is_asked_to_stop_has_nothing_more_to_give(tmp_path):
    """Not even "later": where no trial runs, Tune would wait for it."""
    ledger = new_ledger(tmp_path, trials=4, sampler=RandomSearch())
    searcher = searcher_of(ledger)
    searcher.stop.signal = signal.SIGINT
    assert searcher.ask("a") == FINISHED
    assert ledger.trials == {}


def one_shape(trial):
    """Configs of two shapes."""
    latent = trial.suggest_categorical("latent_size", [2, 3])
    rate = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    return TrainConfig(network=Mlp(hidden=(8,)), latent_size=latent, optimizer=Adam(lr=rate), epochs=3)


def stacking(directory: Path, **changes) -> tuple[Ledger, DriverByHand]:
    """A sweep that trains three trials at a time."""
    ledger = new_ledger(directory, trials=8, stack=3, resources=Resources(concurrent=2), **changes)
    return ledger, searcher_of(ledger, Space(function=one_shape, source=SPACE.source))


def test_a_worker_is_sent_a_stack_of_new_draws(tmp_path):
    """Three draws at a time, the last ones fewer; each is a trial of the ledger; the sweep ends after the last."""
    ledger, searcher = stacking(tmp_path / "s")
    sent = [searcher.ask(key) for key in ("a", "b")]
    assert sent == [[0, 1, 2], [3, 4, 5]]
    assert searcher.ask("c") is Turn.WAIT
    for number in sent[0]:
        ledger.append(row(number, 3, -1.0, "complete"))
    searcher.left("a")
    assert searcher.ask("c") == [6, 7]
    for number in (3, 4, 5, 6, 7):
        ledger.append(row(number, 3, -1.0, "complete"))
    for key in ("b", "c"):
        searcher.left(key)
    assert searcher.ask("d") == FINISHED


def test_what_was_cut_short_is_stacked_with_its_like(tmp_path):
    """After a restart unfinished trials run first, those of one shape together; one whose stack failed runs alone."""
    ledger, searcher = stacking(tmp_path / "s")
    for key in ("a", "b"):
        searcher.ask(key)
    again = searcher_of(Ledger.open(tmp_path / "s"), searcher.driver.queue.space)
    again.driver.queue.alone.add(0)
    latent = {number: view.created.config["latent_size"] for number, view in ledger.trials.items()}
    assert again.ask("a") == [0]
    first = again.ask("b")
    assert first[0] == 1
    assert first == [number for number in range(1, 6) if latent[number] == latent[1]][:3]


def test_deterministic_stacks_see_whole_stacks(tmp_path):
    """Two slots of three: trials 6 to 8 are drawn, and judged, from trials 0 to 2, and wait until those have ended."""
    ledger, searcher = stacking(tmp_path / "s", deterministic=True)
    for key in ("a", "b"):
        searcher.ask(key)
    assert [visible_below(ledger, number) for number in (0, 5, 6, 8, 9)] == [0, 0, 3, 3, 6]
    for number in (3, 4, 5):
        ledger.append(row(number, 3, -1.0, "complete"))
    searcher.left("b")
    assert searcher.ask("c") is Turn.WAIT


def test_a_stacks_lost_worker_takes_only_who_was_running(tmp_path):
    """The member that had ended stays ended; the others are to run again."""
    ledger, searcher = stacking(tmp_path / "s")
    searcher.ask("a")
    ledger.append(row(1, 3, -1.0, "complete"))
    searcher.left("a", Lost("the worker died"))
    assert searcher.driver.queue.todo == [0, 2]


def begun_by_an_earlier_version(directory: Path, trials: int) -> Ledger:
    """A sweep whose first trial was drawn by a version that did not know ``eval.subset``."""
    ledger = new_ledger(directory, trials=trials, sampler=RandomSearch(), resources=Resources(concurrent=1))
    config = to_dict(TrainConfig(batch_size=32, epochs=3, seed=7))
    del config["eval"]["subset"]
    distributions = {"batch_size": distribution_to_json(optuna.distributions.CategoricalDistribution([32, 64]))}
    fields = {"params": {"batch_size": 32}, "distributions": distributions, "config": config}
    ledger.append(trial(0, config_hash=config_hash(from_record(config)), **fields))
    ledger.append(row(0, 3, -100.0, "complete"))
    return ledger


def two_configs(trial: optuna.Trial) -> TrainConfig:
    """Two configs in all."""
    return TrainConfig(batch_size=trial.suggest_categorical("batch_size", [32, 64]), epochs=3)


def explicit(trial: optuna.Trial) -> TrainConfig:
    """The same, with the rule written down."""
    return dataclasses.replace(two_configs(trial), eval=Evaluation(subset="first"))


@pytest.mark.parametrize("function", [two_configs, explicit])
def test_draws_of_an_earlier_sweep_keep_its_rule_for_subsets(tmp_path, function):
    """Rows of one sweep are ranked together: a sweep that began with the first examples goes on with them."""
    ledger = begun_by_an_earlier_version(tmp_path / "s", 12)
    study = StudyView(ledger, tmp_path / "study.journal")
    study.add(ledger.trials[0], ended=True)
    for number in range(1, 12):
        created = study.ask(of_sweep(Space(function=function, source=SPACE.source), ledger), number)
        assert created.config["eval"]["subset"] == "first"
        assert from_record(created.config).eval.subset == "first"
        assert created.config_hash == config_hash(from_record(created.config))
        if not ledger.trials[number].terminal:
            ledger.append(row(number, 3, -100.0, "complete"))
    kinds = {view.created.config["batch_size"]: set() for view in ledger.trials.values()}
    for number in range(1, 12):
        view = ledger.trials[number]
        kinds[view.created.config["batch_size"]].add(view.fail_kind)
    # The config of trial 0, which lacks the field, is recognised when it is drawn again.
    assert kinds[32] == {"duplicate"}
    assert [view.created.config["batch_size"] for view in ledger.trials.values() if view.rows] == [32, 64]


@pytest.mark.parametrize(("function", "rule"), [(two_configs, "permuted"), (explicit, "first")])
def test_draws_of_a_new_sweep_have_the_rule_of_their_space(tmp_path, function, rule):
    """What the space says, which is ``permuted`` where it says nothing."""
    ledger = new_ledger(tmp_path / "s", trials=3, sampler=RandomSearch(), resources=Resources(concurrent=1))
    study = StudyView(ledger, tmp_path / "study.journal")
    for number in range(3):
        created = study.ask(Space(function=function, source=SPACE.source), number)
        assert created.config["eval"]["subset"] == rule
