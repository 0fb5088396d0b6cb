"""The measure of held-out figures. Two rows may be ranked together only if their measures are equal."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from vae.conditioning import OnLabel

if TYPE_CHECKING:
    from vae.data import DataConfig, Split
    from vae.likelihoods import LikelihoodConfig
    from vae.train_config import TrainConfig

EXPECTED_BINARY = "expected-binary"
# The parts of a measure's text that a uniform guess depends on.
_TEXT = re.compile(r"p\(\S+\) (?P<space>\S+) (?P<dimensions>[0-9]{1,15})d \S")
_COUNTS = re.compile(r"counts\(0\.\.([0-9]{1,9})\)")


@dataclass(frozen=True)
class Measure:
    """Data, split, event space, conditioning and scored dimensions. Every row has it as text."""

    data: str  # the set's name
    examples: str  # first 12 digits of the sha256 of the scored examples
    split: str  # train, validation or test
    event_space: str
    conditional_on: str | None
    dimensions: int
    bound: bool = True  # True for a bound on log p(x), False for the reconstruction of a deterministic code

    def __str__(self) -> str:
        """Return one line of text, which is equal if and only if the measures are equal."""
        given = [*([] if self.bound else ["z"]), *([self.conditional_on] if self.conditional_on else [])]
        quantity = f"p(x|{','.join(given)})" if given else "p(x)"
        examples = f"{self.data}/{self.split}@{self.examples}"
        return f"{quantity} {self.event_space} {self.dimensions}d {examples}"

    @property
    def normalised(self) -> bool:
        """True if log p(x) is a log-likelihood. It is not for grey pixels that are scored by cross-entropy."""
        return self.event_space != EXPECTED_BINARY


def event_space(data: DataConfig, likelihood: LikelihoodConfig, levels: int, eval_seed: int) -> str:
    """Return the set of possible x and the reference measure of its density, as one word."""
    match data.binarisation:
        case "expected":
            return EXPECTED_BINARY
        case "static" | "dynamic":
            # Both are scored on the same binarisation of the held-out images, which the evaluation seed fixes.
            return f"binary(seed={eval_seed})"
        case "none":
            pass
    if likelihood.discrete:
        # Mass functions on the same integers rank together: binomial, categorical and discretised logistic.
        return f"counts(0..{levels})"
    name = "unit" if likelihood.support == "unit" else "real"
    if data.dequantise:
        return f"{name}((x+u)/{levels + 1},seed={eval_seed})"
    return f"{name}(x/{levels})" if levels else f"{name}(x)"


def measure_of(config: TrainConfig, split: Split, *, levels: int, marginal: bool = False) -> Measure:
    """Return the measure of ``config``'s scores on ``split``. With ``marginal`` it is that of p(x), the label summed out."""
    given = config.conditioning.given
    if marginal:
        assert isinstance(config.conditioning, OnLabel), "only a label can be summed out"
        given = None
    scored = config.conditioning.build((*split.shape,), max(1, int(split.labels.max()) + 1)).scored
    return Measure(
        data=config.data.kind,
        examples=split.digest[:12],
        split=split.name,
        event_space=event_space(config.data, config.likelihood, levels, config.eval.seed),
        conditional_on=given,
        dimensions=prod(split.shape) if scored is None else len(scored),
        bound=config.posterior.has_density,
    )


def uniform_nll(measure: str) -> float | None:
    """Return −log p(x), in nats per example, of a guess in which all values are equally likely.

    ``measure`` is the text of a :class:`Measure`. A model with a worse score has learned nothing. For grey pixels scored by
    cross-entropy it is the cross-entropy of one half. It is None if the values have no bounds, because there is no such
    guess, and for a density of integers without noise, which is no likelihood.
    """
    if (found := _TEXT.match(measure)) is None:
        return None
    space, dimensions = found["space"], int(found["dimensions"])
    if space == EXPECTED_BINARY or space.startswith("binary("):
        return dimensions * math.log(2)
    if counts := _COUNTS.fullmatch(space):
        return dimensions * math.log(int(counts[1]) + 1)
    return 0.0 if space.startswith("unit(") or "+u)" in space else None
