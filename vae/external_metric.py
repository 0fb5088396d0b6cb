"""Metrics of a user's own: a function of a model and held-out examples, computed once per epoch on the validation split.

A config names them in ``metrics``. A sweep can rank by such a metric, constrain it and show it, as ``val/NAME``. Its source
hash is in every row, and figures of different source or settings do not compare.
"""

from __future__ import annotations

import inspect
import json
import math
import random
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, JsonValue
from torch import Tensor

from vae import seeds
from vae.config import part
from vae.external import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vae.data.pixels import Pixels
    from vae.model import VAE

_NAME = r"^[a-z][a-z0-9_]{0,59}$"
# The names of the figures that a row of the validation split may have anyway, and the endings of figures about a figure.
RESERVED = frozenset(
    [
        "elbo",
        "reconstruction",
        "kl",
        "active_units",
        "collapsed",
        "kl_per_dimension",
        "kl_samples",
        "bits_per_dimension",
        "squared_error",
        "denoise_error",
        "nll_iwae",
        "nll_iwae_marginal",
        "samples_as_asked",
        "classifier_accuracy",
        "at_floor",
    ]
)
_ENDINGS = ("_standard_error", "_change_from_half_k", "_k", "_images", "_se", "_replicates")


_METRIC = "function {}(model, examples, ...)"


def _is_metric(found: object) -> bool:
    return isinstance(found, FunctionType) and list(inspect.signature(found).parameters)[:2] == ["model", "examples"]


@part
class ExternalMetric:
    """A metric by the place of its function: ``file.py:function`` or ``package.module:function``.

    The function is called as ``function(model, examples, **settings)`` with a :class:`HeldOut`, and returns a number.
    ``direction`` says which values are better. ``measure`` names what else the figure depends on, in words; figures with
    different ``measure`` do not compare.
    """

    kind: Literal["external"] = "external"
    name: Annotated[str, Field(pattern=_NAME)]
    path: str
    direction: Literal["maximize", "minimize"]
    settings: Annotated[dict[str, JsonValue], Field(default_factory=dict)]
    measure: str = ""

    def __post_init__(self) -> None:
        """Refuse a name that is taken and a function that can't be called, while the config is being read."""
        if self.name in RESERVED or self.name.endswith(_ENDINGS):
            raise ValueError(f"metrics: the name {self.name!r} is taken by the project's own figures: choose another")
        self._function()

    def __hash__(self) -> int:
        return hash((self.name, self.path, self.direction, json.dumps(self.settings, sort_keys=True), self.measure))

    @property
    def source_sha256(self) -> str:
        """The sha256 of the file that the function was read from, as it was then."""
        return load(self.path, _is_metric, _METRIC)[1]

    @property
    def identity(self) -> str:
        """Everything that the figure depends on besides model and examples, as text: source, settings, direction, measure."""
        settings = json.dumps(self.settings, sort_keys=True)
        return f"{self.path} {self.source_sha256[:16]} {settings} {self.direction} {self.measure}".strip()

    def compute(self, model: VAE, examples: HeldOut, seed: int) -> float:
        """Return the figure. Random numbers are drawn from ``seed``, and all generators are as before afterwards.

        Raises:
            ValueError: the function raised, or does not return a number; the message names the metric.

        """
        devices = [examples.x.device] if examples.x.is_cuda else []
        drawn = seeds.derive(seed, "metric", self.name)
        before = random.getstate(), np.random.get_state()  # noqa: NPY002 - a user's function may draw from it
        try:
            with torch.random.fork_rng(devices=devices), torch.no_grad():
                torch.manual_seed(drawn)
                random.seed(drawn)
                np.random.seed(drawn % 2**32)  # noqa: NPY002 - as above
                value = self._function()(model, examples, **self.settings)
        except Exception as error:
            line = " ".join(str(error).split())
            raise ValueError(f"metric {self.name!r} failed: {type(error).__name__}: {line}") from error
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002 - as above
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(f"metric {self.name!r} must return a number, got {type(value).__name__}") from None

    def _function(self) -> Callable[..., Any]:
        found: Callable[..., Any]
        found, _ = load(self.path, _is_metric, _METRIC)
        return found


@dataclass(frozen=True)
class HeldOut:
    """The held-out examples as a metric sees them. Every tensor is a copy, so that a function may write into it."""

    pixels: Pixels
    shape: tuple[int, int, int]

    @property
    def x(self) -> Tensor:
        """All examples as the model sees them, [N, D], float32."""
        return self.pixels.batch(slice(0, len(self.pixels))).clone()

    @property
    def images(self) -> Tensor:
        """All examples, [N, C, H, W]."""
        return self.x.view(-1, *self.shape)

    @property
    def labels(self) -> Tensor:
        """The labels by number, int64 [N]; all 0 for data without labels."""
        return self.pixels.labels.clone()

    def batches(self, size: int = 1000) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield x [B, D] and labels [B] of at most ``size`` examples at a time, in order."""
        for start in range(0, len(self.pixels), size):
            rows = slice(start, min(start + size, len(self.pixels)))
            yield self.pixels.batch(rows).clone(), self.pixels.labels[rows].clone()


def external_metrics(metrics: Sequence[ExternalMetric], model: VAE, pixels: Pixels, seed: int) -> dict[str, float]:
    """Return the figures of a config's own metrics by name; ``seed`` is the evaluation seed. NaN stays NaN."""
    if not metrics:
        return {}
    was_training = model.training
    model.eval()
    examples = HeldOut(pixels, model.shape)
    found = {metric.name: metric.compute(model, examples, seed) for metric in metrics}
    model.train(was_training)
    return {name: value if math.isfinite(value) else math.nan for name, value in found.items()}
