"""p(x|z): how a decoder's outputs score an example, in nats, with every constant in place.

Each likelihood is a config with

* ``discrete``: a mass function rather than a density;
* ``support``: what x must be: ``binary``, ``levels`` (integers 0..levels), ``unit`` ([0, 1]) or ``real``;
* ``build(levels=...)``: the module, for data of integers 0..levels, or of real values where levels is 0.

Each module has what :class:`Likelihood` lists. x is an integer divided by ``levels``, so in [0, 1]; real-valued data
are as they are. Of several outputs for each dimension, the decoder's rows hold all first ones, then all second ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol

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
    """B examples of D dimensions."""

    outputs_per_dimension: int

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """[B, outputs_per_dimension × D], [B, D] -> [B, D], −log p(x_d|z) in nats."""

    def mean(self, output: Tensor) -> Tensor:
        """E[x|z], [B, D], on the scale of x."""

    def output_bias(self, mean: Tensor) -> Tensor:
        """The output bias at which the decoder, with nothing learned, predicts ``mean`` [D]."""

    def diagnostics(self, output: Tensor) -> dict[str, Tensor]:
        """Return further figures for the row, [B] each, for example the number of variances at their floor."""


__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretisedLogistic",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LikelihoodConfig",
]
