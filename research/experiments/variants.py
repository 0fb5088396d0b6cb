"""The subject of an ablation and its variants, one for each row of the table."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from research.errors import UserError
from research.ledger.consistency import config_of
from research.ledger.records import load_record, read_config_file
from research.planning.metrics import default_metric
from research.planning.options import named_value
from research.store.layout import RECORD
from research.text import json_text
from vae.config import ConfigError
from vae.portable import in_model_folder
from vae.serialization import config_hash, from_json, to_dict, with_values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from research.ledger.settings import Metric
    from vae.train_config import TrainConfig

FULL = "full config"


@dataclass(frozen=True)
class Subject:
    """The subject of an ablation: a config, and the metric that ranks it."""

    config: TrainConfig
    metric: Metric
    data_dir: str | None  # where the record's data were: a folder, or an address that was not contacted
    data_hash: str | None


def read_subject(place: Path, rank: int) -> Subject:
    """The config of a record, a model folder, a config.json, or of a sweep's trial of ``rank``.

    Raises:
        UserError: it is none of these. ConfigError: it is no config.

    """
    if place.is_file() and place.name != RECORD:
        text = read_config_file(place)
        if '"config_hash"' not in text:
            if rank != 1:
                raise UserError(f"rank {rank} of {place}: only a sweep directory has ranks")
            config = from_json(text, recorded=in_model_folder(place))
            return Subject(config, default_metric([config]), None, None)
    record = load_record(place, rank)
    return Subject(config_of(record), record.metric, record.data_dir, record.data_hash)


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    label: str
    config: TrainConfig
    incomparable: str | None = None  # why it is not compared with the full config

    @property
    def folder(self) -> str:
        """A plain name for its runs, one for each label."""
        plain = re.sub(r"[^A-Za-z0-9._=-]+", "_", self.label)[:80]
        if plain == self.label:
            return plain
        return f"{plain}-{hashlib.sha256(self.label.encode()).hexdigest()[:6]}"


def change(config: TrainConfig, text: str) -> TrainConfig:
    """``config`` with ``PATH=VALUE``, or several of them with ``;`` between, in their place.

    Raises:
        UserError: it is not of that form, or changes what a row may not. ConfigError: the config doesn't accept it.

    """
    assignments: dict[str, Any] = {}
    for part in text.split(";"):
        if (found := named_value(part.strip())) is None:
            raise UserError(f"--change must be PATH=VALUE, e.g. objective.beta=1, got {text!r}")
        path, value = found
        if path == "seed" or path.partition(".")[0] == "eval":
            what = "--seeds are what every row is repeated over" if path == "seed" else "it belongs to all rows alike"
            raise UserError(f"--change {text!r}: {path} can't be ablated, {what}")
        assignments[path] = value
    try:
        return with_values(config, assignments)
    except ConfigError as error:
        raise ConfigError(f"--change {text!r}: {error}") from None


def given_variants(config: TrainConfig, changes: Sequence[str]) -> list[Variant]:
    """A row for each of ``changes``.

    Raises:
        UserError: one changes nothing, or does what another does already. ConfigError: see :func:`change`.

    """
    labels = {config_hash(config): FULL}
    variants = []
    for text in changes:
        changed = change(config, text)
        digest = config_hash(changed)
        if digest in labels:
            same = "changes nothing" if labels[digest] == FULL else f"is the same as {labels[digest]!r}"
            raise UserError(f"--change {text!r} {same} (config {digest[:12]}); leave it out")
        labels[digest] = text
        variants.append(Variant(text, changed))
    return variants


def default_variants(config: TrainConfig) -> tuple[list[Variant], list[str]]:
    """A row for each part that is not at its plainest, put back to that; the latent size halved and doubled.

    Also returns a line for each that this config does not accept.
    """
    values = to_dict(config)
    variants, left_out = [], []
    for path, plain in _PLAINEST:
        here: Any = values
        for name in path.split("."):
            here = here.get(name, _ABSENT) if isinstance(here, dict) else _ABSENT
        if here is _ABSENT or here == plain:
            continue
        label = f"{path}={plain if isinstance(plain, str) else json_text(plain, indent=None)}"
        try:
            variants.append(Variant(label, with_values(config, {path: plain})))
        except ConfigError as error:
            left_out.append(f"{label}: {error}")
    sizes = {max(1, config.latent_size // 2), config.latent_size * 2} - {config.latent_size}
    variants += [Variant(f"latent_size={n}", with_values(config, {"latent_size": n})) for n in sorted(sizes)]
    return variants, left_out


_ABSENT = object()
# What a part is at its plainest: switched off, or what a VAE of 2014 had. Not always what a config's default is.
_PLAINEST: tuple[tuple[str, Any], ...] = (
    ("objective.kind", "elbo"),
    ("objective.beta", 1.0),
    ("objective.beta_schedule.kind", "constant"),
    ("objective.free_bits", 0.0),
    ("objective.sparsity.kind", "none"),
    ("posterior.kind", "diagonal"),
    ("prior.kind", "standard_normal"),
    ("corruption.kind", "none"),
    ("network.normalisation", "none"),
    ("network.dropout", 0.0),
    ("optimizer.weight_decay", 0.0),
    ("schedule.kind", "constant"),
    ("initialisation.weights", "pytorch"),
    ("initialisation.output_bias", "default"),
    ("gradient_clip", None),
    ("ema_decay", None),
)
