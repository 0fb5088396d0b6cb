"""−log p(x|z) of many z for few examples, without a gradient: what an importance-weighted estimate spends its time on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vae.likelihoods import OfSamples
from vae.networks.mlp import MlpDecoder

if TYPE_CHECKING:
    from vae.model import VAE

# Rows that are decoded at once on a CPU: fewer waste the matrix products, more leave the cache (784 outputs a row).
ROWS_AT_ONCE = 500
ROWS_ELSEWHERE = 2000  # bounds the memory
# So many samples of one example make it worth asking which units of a decoder they leave idle.
SAMPLES_OF_ONE = 200


@torch.no_grad()
def nll_of_samples(model: VAE, z: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
    """As ``model.nll``, to rounding: z [S, B, L], condition [B, K] or None, x [B, D] -> [S, B] nats."""
    on_cpu = z.device.type == "cpu"
    if on_cpu and len(z) >= SAMPLES_OF_ONE and isinstance(model.decoder, MlpDecoder) and OfOne.knows(model.decoder):
        of_one = OfOne(model.decoder)
        columns = []
        for one in range(len(x)):
            its = slice(one, one + 1)
            told = None if condition is None else condition[one]
            outputs = (of_one(part, told) for part in z[:, one].split(ROWS_AT_ONCE))
            columns.append(torch.cat([_scored(model, output.unsqueeze(1), x[its]) for output in outputs]))
        return torch.cat(columns, 1)
    parts = z.split(max(1, (ROWS_AT_ONCE if on_cpu else ROWS_ELSEWHERE) // len(x)))
    outputs = (model.decode_samples(part, condition).unflatten(0, part.shape[:2]) for part in parts)
    return torch.cat([_scored(model, output, x) for output in outputs])


def _scored(model: VAE, output: Tensor, x: Tensor) -> Tensor:
    """[S, B, outputs_per_dimension × D], x [B, D] -> [S, B] nats. May overwrite ``output``."""
    if model.conditioning.scored is None and isinstance(model.likelihood, OfSamples):
        return model.likelihood.nll_of_samples(output, x)
    return model.score(output.flatten(0, 1), x.repeat(len(output), 1)).view(len(output), -1)


class OfOne:
    """What an MLP decoder puts out, to rounding, for many z of one example.

    z that are drawn from one q(z|x) lie close together, so that many ReLUs are off for all of them or on for all. The first put
    out zeros, and are left out. The second are affine maps, and so is one after the other: what reads them can read what
    they read, by the product of the two matrices. That is done where it leaves less to multiply. Nothing is approximated, and
    a trained decoder of 400 units is left with six tenths of its products (docs/performance.md).
    """

    @staticmethod
    def knows(decoder: MlpDecoder) -> bool:
        """Whether ``decoder`` is affine layers with ReLU or tanh between them, and numbers: none is to be left out that is not one."""
        if not isinstance(decoder.activation, nn.ReLU | nn.Tanh) or decoder.normalisations or decoder.training:
            return False
        return all(bool(parameter.isfinite().all()) for parameter in decoder.parameters())

    def __init__(self, decoder: MlpDecoder) -> None:
        """Hold the weights as [inputs, outputs]: taking some units' is then to copy whole rows.

        tanh h = 2 σ(2h) − 1, which takes half of tanh's time on a CPU: the twos and the one are put into weights and biases.
        """
        affine = [layer for layer in decoder.affine if isinstance(layer, nn.Linear)]
        self.takes_condition = decoder.takes_condition
        self.tanh = isinstance(decoder.activation, nn.Tanh)
        self.layers: list[tuple[Tensor, Tensor]] = []
        for index, layer in enumerate(affine):
            weight = layer.weight.t().clone(memory_format=torch.contiguous_format)  # a copy always, as it is changed
            bias: Tensor = layer.bias
            if self.tanh and index > 0:
                read = weight[: affine[index - 1].out_features]
                bias = bias - read.sum(0)
                read *= 2
            if self.tanh and index < len(affine) - 1:
                weight, bias = 2 * weight, 2 * bias
            self.layers.append((weight, bias))

    def __call__(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """Z [S, L], and its example's condition [K] or None -> [S, outputs_per_dimension × D]."""
        layers = [self._told(index, condition) for index in range(len(self.layers))]
        weight, bias = layers[0]
        read = z.t()  # what a layer reads, [units, S]
        for outer, shift in layers[1:]:
            h = torch.addmm(bias.unsqueeze(1), weight.t(), read)
            if self.tanh:
                read, weight, bias = h.sigmoid_(), outer, shift
                continue
            off, on = h.amax(1) <= 0, h.amin(1) > 0
            if (off | on).sum() - len(read) > len(h) // 8:
                bends, on = (~(off | on)).nonzero()[:, 0], on.nonzero()[:, 0]
                through = outer.index_select(0, on)
                bias = torch.addmv(shift, through.t(), bias.index_select(0, on))
                weight = torch.cat([outer.index_select(0, bends), weight.index_select(1, on) @ through])
                read = torch.cat([h.index_select(0, bends).relu_(), read])
            else:
                read, weight, bias = h.relu_(), outer, shift
        return torch.addmm(bias, read.t(), weight)

    def _told(self, index: int, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight and bias of a layer, what it is told of the ``condition`` in the bias."""
        weight, bias = self.layers[index]
        if not self.takes_condition[index]:
            return weight, bias
        assert condition is not None, "a conditional network is only called with its condition"
        own = len(weight) - len(condition)
        return weight[:own], torch.addmv(bias, weight[own:].t(), condition)
