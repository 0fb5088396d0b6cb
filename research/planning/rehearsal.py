"""One real batch through the smallest, the largest and each kind of network of a space, before a sweep holds a worker.

A config that can't be trained would fail on a worker, minutes later and once for each trial. Building a model without
memory finds most misfits; a part that is wrong only when it computes is found here, in about two seconds.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import torch

from research.search.spaces import SpaceError
from vae.config import ConfigError
from vae.data.dataset import DataError
from vae.model import num_parameters
from vae.run import check_batches
from vae.train import train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.search.spaces import Space
    from vae.data import Split, TrainingData
    from vae.model import VAE
    from vae.train_config import TrainConfig

SECONDS = 2.0  # after that nothing more is begun, beside the smallest and the largest
EXAMPLES = 8
_OTHERS = 8  # configs of a group that are tried before the whole group is refused


def rehearse_training(space: Space, configs: Sequence[TrainConfig], models: Sequence[VAE], data: TrainingData) -> None:
    """Check every config's batches, and train one batch of the smallest, the largest and each kind of network.

    ``models`` are those of ``configs`` on torch's meta device. A config that its parts refuse is refused. An error that
    has no name, such as one of a part from outside the tree, refuses the space where no config of its kind gets through
    the batch: a trial that fails by itself is an ordinary thing.

    Raises:
        SpaceError: with the config's part that does not work.

    """
    name = space.source.name
    for config, model in zip(configs, models, strict=True):
        try:
            check_batches(config, model, len(data.train))
        except ConfigError as error:
            raise SpaceError(f"space {name!r}: {error}") from None
    sizes = {id(config): num_parameters(model) for config, model in zip(configs, models, strict=True)}
    by_size = sorted(configs, key=lambda config: sizes[id(config)])
    groups: dict[str, list[TrainConfig]] = {}
    for config in by_size:
        groups.setdefault(_kind(config), []).append(config)
    until = time.monotonic() + SECONDS
    ends = [by_size[0], by_size[-1]]
    for config in [*ends, *(group[0] for group in groups.values() if not any(one in group for one in ends))]:
        if config in ends or time.monotonic() < until:
            _rehearse(name, config, groups[_kind(config)], data, until)


def _rehearse(name: str, config: TrainConfig, group: Sequence[TrainConfig], data: TrainingData, until: float) -> None:
    """Train one batch of ``config``; where it fails for no named reason, of others of its group until one gets through."""
    if (problem := _problem(name, config, data)) is None:
        return
    for other in [one for one in group if one != config][:_OTHERS]:
        if time.monotonic() > until or _problem(name, other, data) is None:
            return
    raise SpaceError(
        f"space {name!r} can't be trained: the first batch of a network of kind {config.network.kind!r} ends in {problem}; "
        "mend the part, or take it out of the space"
    )


def _problem(name: str, config: TrainConfig, data: TrainingData) -> str | None:
    """Why a batch of ``config`` ends in an error without a name of ours; None where it does not.

    Raises:
        SpaceError: the parts refuse the config or the data.

    """
    part = _first_examples(data)
    small = dataclasses.replace(config.eval, nll_k=min(config.eval.nll_k, 2), nll_images=1, classified_samples=0)
    config = dataclasses.replace(config, batch_size=len(part.train), compile=False, eval=small)
    try:
        with torch.random.fork_rng(devices=[]):
            next(train(config, part))
    except (ConfigError, DataError) as error:
        raise SpaceError(f"space {name!r}: {error}") from None
    except (MemoryError, torch.OutOfMemoryError):
        return None  # a worker may have more
    except Exception as error:  # noqa: BLE001 - whatever a part raises
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


def _kind(config: TrainConfig) -> str:
    """The network's kind and normalisation: configs of one kind run the same code."""
    network = config.network
    return " ".join(str(getattr(network, field, "")) for field in ("kind", "normalisation", "path"))


def _first_examples(data: TrainingData) -> TrainingData:
    """The first few examples of each split: the same shapes, values and labels, and nothing to wait for."""
    held_out = None if data.validation is None else _first(data.validation)
    return dataclasses.replace(data, train=_first(data.train), validation=held_out)


def _first(split: Split) -> Split:
    if split.index is not None:
        return dataclasses.replace(split, labels=split.labels[:EXAMPLES], index=split.index[:EXAMPLES])
    return dataclasses.replace(split, labels=split.labels[:EXAMPLES], images=split.images[:EXAMPLES])
