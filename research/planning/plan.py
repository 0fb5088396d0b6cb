"""A sweep of a space in advance: its parameters, impossible draws, model sizes, and the trials that a budget buys."""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING, Any

from research.errors import UserError
from research.ledger.settings import Asha, rungs
from research.planning.data_notes import data_notes
from research.planning.footprint import BACKWARD, Footprint, footprint
from research.planning.forecast import expected_epochs, most_trials, total_range
from research.planning.metrics import default_metric
from research.planning.preflight import check_space, resolve_scheduler
from research.planning.probe import Cost, Speed, fit_speed, time_epoch
from research.search.draws import Draw, describe_parameters, draw_many
from vae.config import ConfigError
from vae.data import load_training
from vae.serialization import config_hash

if TYPE_CHECKING:
    from pathlib import Path

    from research.search.spaces import Space
    from vae.data import TrainingData
    from vae.train_config import TrainConfig

PROBE_SECONDS = 18.0  # all probes together
PROBED = ("cheapest", "median", "dearest")


def make_plan(
    space: Space,
    *,
    draws: int,
    trials: int,
    epochs: int | None,
    slots: int,
    threads: int,
    hours: float | None,
    data: str | None,
    data_dir: Path | None,
    seed: int,
    probe: bool,
    device: str = "cpu",
) -> dict[str, Any]:
    """Draw ``draws`` configs, build their models without memory, time three, and say what the budget buys.

    Returns JSON values; ``time`` is None without ``probe``, or where no model could be traced.

    Raises:
        UserError: no draw is a config. DataError: the data can't be read.

    """
    drawn = draw_many(space, epochs=epochs, seed=seed, count=draws, data=data)
    valid = [(index, one.config) for index, one in enumerate(drawn) if one.config is not None]
    if not valid:
        raise UserError(f"all {draws} draws are impossible; e.g. {_example(drawn[0])}")
    examples = load_training(valid[0][1].data, data_dir)
    prints: dict[int, tuple[TrainConfig, Footprint]] = {}
    for index, config in valid:
        try:
            prints[index] = config, footprint(config, examples)
        except ConfigError as error:
            drawn[index] = dataclasses.replace(drawn[index], config=None, problem=f"does not fit the data: {error}")
    if not prints:
        raise UserError(f"all {draws} draws are impossible; e.g. {_example(drawn[0])}")
    configs = [config for config, _ in prints.values()]
    longest = max(config.epochs for config in configs)
    scheduler, unstoppable = Asha(), None
    try:
        resolved = resolve_scheduler(scheduler, configs, grace=None)
        scheduler = resolved if isinstance(resolved, Asha) else scheduler
    except UserError as error:
        unstoppable = str(error)
    plan: dict[str, Any] = {
        "space": space.source.name,
        "data": configs[0].data.kind,
        "train_examples": len(examples.train),
        "validation_examples": 0 if examples.validation is None else len(examples.validation),
        "notes": data_notes(examples, configs),
        "seed": seed,
        "draws": draws,
        "refused": _refusal(space, epochs=epochs, seed=seed, data=data, data_dir=data_dir),
        "metric": default_metric(configs).name,
        "parameters": describe_parameters(drawn),
        "impossible": _impossible(drawn),
        "duplicates": _duplicates(configs),
        "model_parameters": _spread([found.parameters for _, found in prints.values()]),
        "memory": _memory([found for _, found in prints.values()]),
        "time": None,
        "budget": {
            "trials": trials,
            "epochs": longest,
            "slots": slots,
            "threads": threads,
            "rungs": [] if unstoppable else rungs(scheduler, longest),
            "reduction": scheduler.reduction,
            "without_early_stopping": {"epochs": trials * longest},
            "with_early_stopping": {"refused": unstoppable}
            if unstoppable
            else {"epochs": trials * expected_epochs(scheduler, longest, trials)},
        },
    }
    costs = {index: _cost(config, found, examples) for index, (config, found) in prints.items()}
    if probe and all(found.step_flops is not None for _, found in prints.values()):
        plan["time"], speed = _probe({index: config for index, (config, _) in prints.items()}, costs, examples, device)
        _add_hours(
            plan, [(config.epochs, costs[index]) for index, (config, _) in prints.items()], speed, scheduler, hours
        )
    return plan


def _example(one: Draw) -> str:
    chosen = ", ".join(f"{name}={value!r}" for name, value in one.params.items())
    return f"{one.problem}" + (f" (drawn with {chosen})" if chosen else "")


def _refusal(space: Space, **options: Any) -> str | None:  # noqa: ANN401 - check_space's own
    """The line with which ``research sweep`` would refuse the space; None where it would not."""
    try:
        check_space(space, metric=None, **options)
    except (UserError, ConfigError) as error:
        return str(error)
    return None


def _impossible(drawn: list[Draw]) -> dict[str, Any]:
    bad = [one for one in drawn if one.config is None]
    example = next((one for one in bad if not one.skipped), bad[0] if bad else None)
    return {
        "count": len(bad),
        "skipped_by_the_space": sum(one.skipped for one in bad),
        "example": None if example is None else {"reason": example.problem, "params": example.params},
    }


def _duplicates(configs: list[TrainConfig]) -> int:
    """Return how many configs equal an earlier one; all were drawn with one seed."""
    return len(configs) - len({config_hash(config) for config in configs})


def _spread(values: list[int]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _memory(found: list[Footprint]) -> dict[str, Any]:
    """Bytes of the smallest, the middle and the largest, and what the largest consists of."""
    by_size = sorted(found, key=lambda one: one.bytes)
    return {
        **_spread([one.bytes for one in found]),
        "largest": by_size[-1].memory,
        "activations_estimated": all("activations" in one.memory for one in found),
    }


def _cost(config: TrainConfig, found: Footprint, data: TrainingData) -> Cost:
    steps = -(-len(data.train) // config.batch_size)
    by_step = found.step_flops or 0
    by_example = by_step / min(config.batch_size, len(data.train))
    return Cost(steps, by_example * len(data.train), by_example / BACKWARD, found.parameters)


def _probe(
    configs: dict[int, TrainConfig], costs: dict[int, Cost], data: TrainingData, device: str
) -> tuple[dict[str, Any], Speed]:
    """Time the cheapest, the median and the dearest config by arithmetic; what all draws take follows."""
    by_cost = sorted(configs, key=lambda index: (costs[index].train_flops, index))
    places = (by_cost[0], by_cost[len(by_cost) // 2], by_cost[-1])
    chosen = list(dict(zip(places, PROBED, strict=True)).items())
    timings = [time_epoch(configs[i], data, seconds=PROBE_SECONDS / len(chosen), device=device) for i, _ in chosen]
    speed = fit_speed([costs[index] for index, _ in chosen], timings)
    every = [speed.seconds(cost) for cost in costs.values()]
    told = {
        "device": device,
        "probes": [
            {
                "which": which,
                "draw": index,
                "parameters": costs[index].parameters,
                "train_flops": costs[index].train_flops,
                **dataclasses.asdict(timing),
                "seconds": timing.seconds,
                "fitted_seconds": speed.seconds(costs[index]),
            }
            for (index, which), timing in zip(chosen, timings, strict=True)
        ],
        "misfit": speed.misfit,
        "epoch_seconds": {"min": min(every), "median": statistics.median(every), "max": max(every)},
    }
    return told, speed


def _add_hours(
    plan: dict[str, Any], drawn: list[tuple[int, Cost]], speed: Speed, scheduler: Asha, hours: float | None
) -> None:
    """The budget in hours, and with ``hours`` how many trials they buy."""
    budget = plan["budget"]
    slots, longest, trials = budget["slots"], budget["epochs"], budget["trials"]
    whole = [epochs * speed.seconds(cost) for epochs, cost in drawn]
    mean = statistics.fmean(whole)

    def share(count: int, *, stopping: bool) -> float:
        return expected_epochs(scheduler, longest, count) / longest if stopping else 1.0

    for name, stopping in (("without_early_stopping", False), ("with_early_stopping", True)):
        if "refused" in budget[name]:
            continue
        busy = share(trials, stopping=stopping) / min(slots, trials) / 3600
        low, high = total_range(whole, trials, speed.misfit)
        budget[name] |= {"hours": trials * mean * busy, "hours_low": low * busy, "hours_high": high * busy}
        if hours is not None:

            def needed(count: int, *, stops: bool = stopping, seconds: float = mean) -> float:
                return float(count * seconds * share(count, stopping=stops) / min(slots, count) / 3600)

            budget[name]["trials_in_hours"] = most_trials(needed, hours)
            slow = most_trials(lambda count: needed(count, seconds=mean * speed.misfit), hours)
            fast = most_trials(lambda count: needed(count, seconds=mean / speed.misfit), hours)
            budget[name]["trials_in_hours_low"], budget[name]["trials_in_hours_high"] = slow, fast
    if hours is not None:
        budget["hours"] = hours
