"""−log p(x|z) for many z of few examples, without a gradient. Importance-weighted estimates spend their time on it."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vae.fast.cross_entropy import nll_of_seen, summed_cross_entropy
from vae.likelihoods.bernoulli import BernoulliLikelihood
from vae.likelihoods.binomial import BinomialLikelihood
from vae.networks.mlp import MlpDecoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from vae.likelihoods import Likelihood
    from vae.model import VAE

# Rows decoded at once on a CPU. Fewer rows make the matrix products slower; more rows leave the cache (784 outputs a row).
ROWS_AT_ONCE = 500
ROWS_ELSEWHERE = 2000  # rows decoded at once on another device, which bounds the memory
SAMPLES_OF_ONE = 200  # samples of one example from which on it pays to look for the units that they leave idle


class ManySamples:
    """Scores many z of few examples by a model whose weights stay the same meanwhile."""

    def __init__(self, model: VAE) -> None:
        self.model = model

    @cached_property
    def of_one(self) -> OfOne | None:
        """Return the faster decoder, or None if the model's decoder has no such form.

        It is made at its first use, because its copy of the weights is of no use for few samples or on a GPU.
        """
        decoder = self.model.decoder
        return OfOne(decoder) if isinstance(decoder, MlpDecoder) and OfOne.knows(decoder) else None

    @torch.no_grad()
    def nll(self, z: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
        """Return ``model.nll`` to rounding: z [S, B, L], condition [B, K] or None, x [B, D] -> [S, B] nats."""
        on_cpu = z.device.type == "cpu"
        if on_cpu and len(z) >= SAMPLES_OF_ONE and self.of_one is not None:
            conditions = [None] * len(x) if condition is None else list(condition)
            columns = [self._nll_of_one(self.of_one, *its) for its in zip(z.unbind(1), conditions, x, strict=True)]
            return torch.stack(columns, 1)
        parts = z.split(max(1, (ROWS_AT_ONCE if on_cpu else ROWS_ELSEWHERE) // len(x)))
        outputs = (self.model.decode_samples(part, condition).unflatten(0, part.shape[:2]) for part in parts)
        return torch.cat([self._scored(output, x) for output in outputs])

    def _nll_of_one(self, of_one: OfOne, z: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
        """Score the samples z [S, L] of one example with condition [K] and x [D] -> [S] nats."""
        parts = z.split(ROWS_AT_ONCE)
        likelihood, scored = self.model.likelihood, self.model.conditioning.scored
        if type(likelihood) is not BernoulliLikelihood or scored is not None or not ((x == 0) | (x == 1)).all():
            decode = of_one.decoder(condition)
            return torch.cat([self._scored(decode(part).unsqueeze(1), x.unsqueeze(0))[:, 0] for part in parts])
        decode = of_one.decoder(condition, times=2 * x - 1)  # Its outputs are the logits of the values that x has.
        found = []
        for part in parts:
            nll = nll_of_seen(decode(part))
            found.append(summed_cross_entropy(decode(part), torch.ones_like(x)) if nll is None else nll)
        return torch.cat(found)

    def _scored(self, output: Tensor, x: Tensor) -> Tensor:
        """Score outputs [S, B, outputs_per_dimension × D] for x [B, D] -> [S, B] nats. May overwrite ``output``."""
        if self.model.conditioning.scored is None:
            nll = summed_nll(self.model.likelihood, output, x)
            if nll is not None:
                return nll
        return self.model.score(output.flatten(0, 1), x.repeat(len(output), 1)).view(len(output), -1)


def summed_nll(likelihood: Likelihood, output: Tensor, x: Tensor) -> Tensor | None:
    """Return −log p(x|z) summed over dimensions, [..., D], [B, D] -> [..., B] nats. May overwrite ``output``.

    Returns None if there is no faster form for this likelihood. A subclass, which a user may have changed, has none.
    """
    if type(likelihood) is BernoulliLikelihood:
        return summed_cross_entropy(output, x)
    if type(likelihood) is BinomialLikelihood:
        return likelihood.n * summed_cross_entropy(output, x) - likelihood.log_coefficients(x).sum(-1)
    return None


class OfOne:
    """The output of an MLP decoder for many z of one example, equal to the plain output to rounding.

    Samples of one q(z|x) lie close together, so many ReLUs are off for all samples, or on for all samples. A unit that is
    off puts out zeros and is left out. A unit that is on is an affine map. The next layer can read that unit's inputs
    directly, through the product of the two weight matrices. This is done where it saves multiplications. Nothing is
    approximated. A trained decoder of 400 units keeps six tenths of its products (docs/performance.md).
    """

    @staticmethod
    def knows(decoder: MlpDecoder) -> bool:
        """Return True if ``decoder`` is a stack of linear layers with ReLU or tanh and all weights are finite.

        A unit with a NaN must not be pruned.
        """
        if not isinstance(decoder.activation, nn.ReLU | nn.Tanh) or decoder.normalisations or decoder.training:
            return False
        return all(bool(parameter.isfinite().all()) for parameter in decoder.parameters())

    def __init__(self, decoder: MlpDecoder) -> None:
        """Copy the weights as [inputs, outputs], so that the weights of one unit are one row.

        tanh h is computed as 2 σ(2h) − 1, which takes half the time on a CPU. The factors 2 and the −1 are folded into
        weights and biases.
        """
        affine = [layer for layer in decoder.affine if isinstance(layer, nn.Linear)]
        self.takes_condition = decoder.takes_condition
        self.tanh = isinstance(decoder.activation, nn.Tanh)
        self.layers: list[tuple[Tensor, Tensor]] = []
        for index, layer in enumerate(affine):
            # Always a copy, because it is changed below.
            weight = layer.weight.t().clone(memory_format=torch.contiguous_format)
            bias: Tensor = layer.bias
            if self.tanh and index > 0:
                read = weight[: affine[index - 1].out_features]
                bias = bias - read.sum(0)
                read *= 2
            if self.tanh and index < len(affine) - 1:
                weight, bias = 2 * weight, 2 * bias
            self.layers.append((weight, bias))

    def decoder(self, condition: Tensor | None, times: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return a decoder for one example with condition [K] or None: z [S, L] -> [S, outputs], scaled by ``times`` [outputs]."""
        layers = []
        for (weight, bias), takes_condition in zip(self.layers, self.takes_condition, strict=True):
            if takes_condition:
                assert condition is not None, "a conditional network is only called with its condition"
                own = len(weight) - len(condition)
                layers.append((weight[:own], torch.addmv(bias, weight[own:].t(), condition)))
            else:
                layers.append((weight, bias))
        if times is not None:
            weight, bias = layers[-1]
            layers[-1] = (weight * times, bias * times)
        return partial(self._decode, layers)

    def _decode(self, layers: list[tuple[Tensor, Tensor]], z: Tensor) -> Tensor:
        """Decode z [S, L] by ``layers``, each a weight [inputs, outputs] and a bias [outputs] -> [S, outputs]."""
        weight, bias = layers[0]
        read = z.t()  # the inputs of a layer, [units, S]
        for outer, shift in layers[1:]:
            h = torch.addmm(bias.unsqueeze(1), weight.t(), read)
            if self.tanh:
                read, weight, bias = h.sigmoid_(), outer, shift
                continue
            off, on = h.amax(1) <= 0, h.amin(1) > 0  # together a fifth of the time of h.aminmax (torch 2.15, CPU)
            if (off | on).sum() - len(read) > len(h) // 8:
                bends, on = (~(off | on)).nonzero()[:, 0], on.nonzero()[:, 0]
                through = outer.index_select(0, on)
                bias = torch.addmv(shift, through.t(), bias.index_select(0, on))
                # The halves are written in place; torch.cat would copy them a second time.
                count = len(bends)
                both = outer.new_empty(count + len(weight), outer.shape[1])
                units = h.new_empty(count + len(read), h.shape[1])
                torch.index_select(outer, 0, bends, out=both[:count])
                torch.mm(weight.index_select(1, on), through, out=both[count:])
                torch.index_select(h, 0, bends, out=units[:count]).relu_()
                units[count:] = read
                read, weight = units, both
            else:
                read, weight, bias = h.relu_(), outer, shift
        return torch.addmm(bias, read.t(), weight)
