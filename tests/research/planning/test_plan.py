"""A plan: what it says of a space is true of the space's draws and models, and what a budget buys is counted right."""

from __future__ import annotations

import json
import math
import random
import sys

import numpy as np
import pytest

from research.cli import app as cli
from research.errors import UserError
from research.ledger.settings import Asha, NoScheduler, rungs
from research.planning import plan as planning
from research.planning.footprint import footprint
from research.planning.forecast import expected_arrivals, expected_epochs, most_trials, pass_probability, total_range
from research.planning.plan import make_plan
from research.planning.plan_text import bars
from research.planning.probe import Cost, Timing, fit_speed, time_epoch
from research.search.draws import describe_parameters, draw_many, histogram
from research.search.spaces import built_in_names, load_space
from vae.data import Digits, load_training
from vae.model import num_parameters
from vae.networks import Mlp
from vae.objectives import FactorVae
from vae.optimizers import SGD, Adam
from vae.train import build
from vae.train_config import TrainConfig

AWKWARD = """
import optuna
from vae.networks import Mlp
from vae.train_config import TrainConfig

def space(trial):
    depth = trial.suggest_int("depth", 1, 4)
    width = trial.suggest_categorical("width", [8, 16])
    if depth == 4:
        raise optuna.TrialPruned("too deep")
    if depth == 3:
        raise RuntimeError("unforeseen")
    extra = {"dropout": trial.suggest_float("dropout", 0.0, 0.5, step=0.25)} if depth == 2 else {}
    return TrainConfig(network=Mlp(hidden=(width,) * depth, **extra), epochs=9)
"""


def planned(space, **changes):
    """A plan on the digits, not timed."""
    options = {
        "draws": 40,
        "trials": 20,
        "epochs": None,
        "slots": 2,
        "threads": 1,
        "hours": None,
        "data": "digits",
        "data_dir": None,
        "seed": 0,
        "probe": False,
    }
    return make_plan(load_space(str(space)), **(options | changes))


@pytest.fixture
def awkward(tmp_path):
    """A space that skips some draws, raises on others, and repeats itself."""
    path = tmp_path / "awkward.py"
    path.write_text(AWKWARD)
    return path


@pytest.mark.parametrize("name", built_in_names())
def test_every_space_can_be_planned(name):
    """None of its draws is impossible, and its JSON is whole."""
    plan = json.loads(json.dumps(planned(name, draws=5)))
    assert plan["impossible"]["count"] == 0
    assert plan["refused"] is None
    assert plan["memory"]["activations_estimated"]
    assert 0 < plan["model_parameters"]["min"] <= plan["model_parameters"]["max"]
    assert {one["name"] for one in plan["parameters"]}
    assert plan["budget"]["with_early_stopping"]["epochs"] < plan["budget"]["without_early_stopping"]["epochs"]


def test_impossible_draws_are_counted_and_do_not_end_it(awkward):
    """Skipped and raised ones, with one example of the worse kind; equal configs are duplicates."""
    plan = planned(awkward)
    drawn = draw_many(load_space(str(awkward)), epochs=None, seed=0, count=40)
    depths = [one.params["depth"] for one in drawn]
    assert plan["impossible"]["count"] == sum(depth > 2 for depth in depths)
    assert plan["impossible"]["skipped_by_the_space"] == sum(depth == 4 for depth in depths)
    assert "unforeseen" in plan["impossible"]["example"]["reason"]
    assert plan["impossible"]["example"]["params"]["depth"] == 3
    different = {tuple(sorted(one.params.items())) for one in drawn if one.config is not None}
    assert plan["duplicates"] == sum(depth < 3 for depth in depths) - len(different)
    assert "unforeseen" in plan["refused"]


def test_conditional_parameters_are_counted(awkward):
    """How many draws had one; what was drawn adds up."""
    drawn = draw_many(load_space(str(awkward)), epochs=None, seed=0, count=40)
    depth, width, dropout = describe_parameters(drawn)
    assert (depth["drawn"], depth["of"], depth["kind"], depth["low"], depth["high"]) == (40, 40, "int", 1, 4)
    assert sum(depth["histogram"]) == 40
    assert depth["histogram"] == [sum(one.params["depth"] == d for one in drawn) for d in (1, 2, 3, 4)]
    assert width["choices"] == {str(w): sum(one.params["width"] == w for one in drawn) for w in (8, 16)}
    assert dropout["drawn"] == depth["histogram"][1] < 40
    assert dropout["step"] == 0.25


def test_a_space_without_any_config_is_refused(tmp_path):
    """With an example."""
    path = tmp_path / "never.py"
    path.write_text(
        "import optuna\n\ndef space(trial):\n    raise optuna.TrialPruned(f\"no {trial.suggest_int('n', 1, 1)}\")\n"
    )
    with pytest.raises(UserError, match=r"all 40 draws are impossible; e\.g\. .*no 1 \(drawn with n=1\)"):
        planned(path)


def test_histograms():
    """Equal bins on the parameter's own scale, the ends included."""
    assert histogram([1.0, 10.0, 100.0], 1.0, 100.0, log=True, whole=False) == [1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert histogram([5, 5, 7], 5, 7, log=False, whole=True) == [2, 0, 1]
    assert bars([0, 1, 100]) == " ▁█"


@pytest.mark.parametrize("name", ["quickstart", "cvae", "resnet", "vamp_prior", "quadrants"])
def test_parameter_counts_are_those_of_a_built_model(name):
    """The model that was never given memory has as many numbers as one that was."""
    config = draw_many(load_space(name), epochs=None, seed=3, count=1, data="digits")[0].config
    data = load_training(config.data, None)
    assert footprint(config, data).parameters == num_parameters(build(config, data))


def test_memory_in_closed_form():
    """Two layers each way: weights, as many gradients, two moments, one average; the activations that are saved."""
    data = load_training(Digits(), None)
    config = TrainConfig(network=Mlp(hidden=(5,)), latent_size=2, batch_size=10, ema_decay=0.9)
    found = footprint(config, data)
    count = (64 * 5 + 5) + (5 * 4 + 4) + (2 * 5 + 5) + (5 * 64 + 64)
    assert found.parameters == count
    assert found.memory["weights"] == found.memory["gradients"] == found.memory["average"] == 4 * count
    assert found.memory["optimizer"] == 8 * count
    least = 4 * 10 * (64 + 5 + 2 + 5 + 64)  # inputs of the four layers and the output that is scored
    assert least <= found.memory["activations"] <= 6 * least
    # Multiply and add for each weight and example, forward and twice that backward.
    assert found.step_flops == 3 * 2 * 10 * (64 * 5 + 5 * 4 + 2 * 5 + 5 * 64)
    plain = TrainConfig(network=Mlp(hidden=(5,)), latent_size=2, optimizer=SGD())
    assert footprint(plain, data).memory["optimizer"] == 0
    amsgrad = TrainConfig(network=Mlp(hidden=(5,)), latent_size=2, optimizer=Adam(amsgrad=True))
    assert footprint(amsgrad, data).memory["optimizer"] == 12 * count
    factor = TrainConfig(network=Mlp(hidden=(5,)), latent_size=2, objective=FactorVae(hidden=(7,)))
    assert footprint(factor, data).adversary_parameters == (2 * 7 + 7) + (7 + 1)


def test_the_chance_to_go_on_is_the_schedulers():
    """Counted over the ranks that a newcomer can have, by the rule that decides in a sweep."""
    from research.ledger.settings import Metric
    from research.search.early_stopping import keeps_going

    for asha in (Asha(), Asha(reduction=4, min_population=7)):
        for n in range(1, 24):
            # Far from 0, where the rounding of a quantile that falls on a value does not show.
            values = [1000.0 + rank for rank in range(n)]
            passed = sum(keeps_going(asha, Metric(), own, [v for v in values if v != own]) for own in values)
            assert pass_probability(asha, n) == pytest.approx(passed / n), (asha, n)


@pytest.mark.parametrize(("asha", "epochs", "trials"), [(Asha(grace=3), 81, 20), (Asha(reduction=2), 9, 35)])
def test_expected_epochs_equal_a_simulation(asha, epochs, trials):
    """Trials that come one after the other with values of their own at each rung, stopped by the rule itself."""
    from research.ledger.settings import Metric
    from research.search.early_stopping import keeps_going

    rng = random.Random(0)
    totals = []
    for _ in range(150):
        seen = {rung: [] for rung in rungs(asha, epochs)}
        total = 0
        for _ in range(trials):
            ran = epochs
            for rung, others in seen.items():
                own = 1000 + rng.random()
                goes_on = keeps_going(asha, Metric(), own, others)
                others.append(own)
                if not goes_on:
                    ran = rung
                    break
            total += ran
        totals.append(total / trials)
    error = np.std(totals) / math.sqrt(len(totals))
    assert expected_epochs(asha, epochs, trials) == pytest.approx(np.mean(totals), abs=4 * error)


def test_expected_epochs_at_the_ends():
    """Without stopping the budget; of few trials the budget too; of very many Li et al.'s geometric shares."""
    assert expected_epochs(NoScheduler(), 81, 20) == 81
    assert expected_epochs(Asha(grace=3), 81, 2) == 81
    many = expected_epochs(Asha(grace=3), 81, 1_000_000)
    assert many == pytest.approx(3 + 6 / 3 + 18 / 9 + 54 / 27, rel=0.01)
    arrivals = expected_arrivals(Asha(grace=3), 81, 1500)
    assert np.all(np.diff(arrivals) < 0)
    # Nothing jumps where the exact count ends.
    more = expected_arrivals(Asha(grace=3), 81, 1501)
    assert all(0 <= b - a <= 1 for a, b in zip(arrivals, more, strict=True))


def test_what_hours_buy():
    """The most that fit, found without trying all; nothing where one trial is too long."""
    assert most_trials(lambda n: 0.5 * n, 10.0) == 20
    assert most_trials(lambda n: 11.0 * n, 10.0) == 0
    low, high = total_range([1.0, 3.0], 100, 1.1)
    assert low < 200 < high
    assert total_range([2.0], 10, 1.0) == (20.0, 20.0)


def test_the_fit_is_exact_where_the_law_is():
    """Times that are a sum of steps and FLOPs are found again, for configs that were not timed too."""

    def law(cost):
        return Timing(2e-3 * cost.steps + 1e-9 * cost.train_flops, 0.1 + 1e-8 * cost.example_flops, 0.01, 1, 1)

    costs = [Cost(9, 1e7, 1e4, 10), Cost(36, 1e8, 1e5, 100), Cost(9, 1e9, 1e6, 1000)]
    speed = fit_speed(costs, [law(cost) for cost in costs])
    assert speed.misfit == pytest.approx(1.0)
    other = Cost(18, 3e8, 3e5, 500)
    assert speed.seconds(other) == pytest.approx(law(other).seconds)


def test_a_probe_of_real_configs(awkward, monkeypatch):
    """A timed plan has hours, a range around them, and what hours buy."""
    monkeypatch.setattr(planning, "PROBE_SECONDS", 1.0)
    plan = planned(awkward, draws=6, probe=True, hours=0.5, slots=3)
    time, budget = plan["time"], plan["budget"]
    assert time["epoch_seconds"]["min"] > 0
    assert time["misfit"] >= 1
    for one in (budget["without_early_stopping"], budget["with_early_stopping"]):
        assert 0 < one["hours_low"] <= one["hours"] <= one["hours_high"]
        assert one["trials_in_hours_low"] <= one["trials_in_hours"] <= one["trials_in_hours_high"]
    assert budget["without_early_stopping"]["trials_in_hours"] < budget["with_early_stopping"]["trials_in_hours"]


def test_a_probe_leaves_the_data_alone():
    """It trains on the first batches, with no more steps than an epoch has."""
    data = load_training(Digits(), None)
    timing = time_epoch(TrainConfig(network=Mlp(hidden=(4,)), batch_size=500), data, seconds=0.2, device="cpu")
    assert 2 <= timing.steps <= 3
    assert timing.evaluated == 287
    assert timing.seconds > 0
    assert len(data.train) == 1150


def research(capsys, monkeypatch, *arguments):
    """Exit code, stdout and stderr of ``research``."""
    monkeypatch.setattr(sys, "argv", ["research", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_as_text(capsys, monkeypatch, awkward):
    """Every parameter, what is impossible, sizes and epochs are there, and that a sweep would be refused."""
    code, out, _ = research(capsys, monkeypatch, "plan", awkward, "--no-probe", "--draws", "40", "--trials", "9")
    assert code == 0
    for told in ("depth", "dropout", "impossible", "duplicates", "memory", "81 epochs", "refuses this space"):
        assert told in out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["quickstrat"], "did you mean 'quickstart'?"),
        (["quickstart", "--data", "digitz", "--no-probe"], "data.kind must be one of"),
        (["quickstart", "--hours", "2", "--no-probe"], "--hours needs the probe"),
        (["quickstart", "--hours", "-1"], "--hours must be > 0"),
        (["quickstart", "--draws", "0"], "--draws"),
        (["vae", "--data-dir", "/nowhere", "--no-probe"], "--data-dir"),
    ],
)
def test_refusals(capsys, monkeypatch, arguments, why):
    """One line each."""
    code, out, err = research(capsys, monkeypatch, "plan", *arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert why in err
