"""Likelihoods p(x|z). Each scores an example by a decoder's outputs, in nats, with all constants.

Each likelihood is a config with

* ``discrete``: True for a mass function, False for a density;
* ``support``: the values that x must have: ``binary``, ``levels`` (integers 0..levels), ``unit`` ([0, 1]) or ``real``;
* ``build(levels=...)``: returns the module for data of integers 0..levels, or of real values if levels is 0.

Each module implements :class:`Likelihood`. Integer data are divided by ``levels``, so x is in [0, 1]. Real-valued data
are not scaled. If a dimension has several outputs, a decoder's row holds all first outputs, then all second ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

from pydantic import Field

from vae.external import External
from vae.likelihoods.bernoulli import Bernoulli
from vae.likelihoods.binomial import Binomial
from vae.likelihoods.categorical import Categorical
from vae.likelihoods.continuous_bernoulli import ContinuousBernoulli
from vae.likelihoods.discretised_logistic import DiscretisedLogistic
from vae.likelihoods.gaussian import Gaussian
from vae.likelihoods.laplace import Laplace

if TYPE_CHECKING:
    from torch import Tensor

LikelihoodConfig = Annotated[
    Bernoulli | Binomial | Categorical | ContinuousBernoulli | DiscretisedLogistic | Gaussian | Laplace | External,
    Field(discriminator="kind"),
]


class Likelihood(Protocol):
    """The interface of a likelihood for B examples of D dimensions."""

    outputs_per_dimension: int

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """Return −log p(x_d|z) in nats: outputs [B, outputs_per_dimension × D], x [B, D] -> [B, D]."""

    def mean(self, output: Tensor) -> Tensor:
        """Return E[x|z], [B, D], in the scale of x."""

    def output_bias(self, mean: Tensor) -> Tensor:
        """Return the output bias with which an untrained decoder predicts ``mean`` [D]."""


@runtime_checkable
class Diagnosed(Protocol):
    """The additional interface of a likelihood with figures of its own for the row."""

    def diagnostics(self, output: Tensor) -> dict[str, Tensor]:
        """Return further figures by name, [B] each, for example the share of variances at their floor."""


__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "Diagnosed",
    "DiscretisedLogistic",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LikelihoodConfig",
]
