"""p(x|z): how a decoder's outputs score an example, in nats, with every constant in place.

Each likelihood is a module with

* ``outputs_per_dimension``: decoder outputs for each dimension of x;
* ``nll(output, x)``: [B, outputs_per_dimension × D], [B, D] -> [B], −log p(x|z) summed over dimensions;
* ``mean(output)``: E[x|z], [B, D], on the scale of x;
* ``output_bias(mean)``: the output bias at which the decoder, with nothing learned, predicts ``mean`` [D].

x lies in [0, 1]: raw integer values divided by the data's largest one.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vae.likelihoods.bernoulli import Bernoulli, BernoulliLikelihood
from vae.likelihoods.binomial import Binomial, BinomialLikelihood
from vae.likelihoods.gaussian import Gaussian, GaussianLikelihood

LikelihoodConfig = Annotated[Bernoulli | Binomial | Gaussian, Field(discriminator="kind")]
Likelihood = BernoulliLikelihood | BinomialLikelihood | GaussianLikelihood


def build_likelihood(config: LikelihoodConfig, *, levels: int) -> Likelihood:
    """The likelihood of ``config`` for data whose integer values run from 0 to ``levels``."""
    match config:
        case Bernoulli():
            return BernoulliLikelihood()
        case Binomial():
            return BinomialLikelihood(levels)
        case Gaussian():
            return GaussianLikelihood(config)


__all__ = ["Bernoulli", "Binomial", "Gaussian", "Likelihood", "LikelihoodConfig", "build_likelihood"]
