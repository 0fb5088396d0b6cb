"""Fully connected encoder and decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from vae.config import FractionBelowOne, PositiveInt, part
from vae.networks.activations import Activation, activation
from vae.networks.normalisation import VectorNormalisation, vector_normalisation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vae.networks.sizes import Sizes


@part
class Mlp:
    """Fully connected layers. ``hidden`` are the widths of the encoder's hidden layers, from first to last.

    The decoder has them in reverse order, or ``decoder_hidden`` if it is given. With ``hidden: []`` both maps are affine;
    with a Gaussian likelihood this is the model of probabilistic PCA.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = (400,)
    decoder_hidden: tuple[PositiveInt, ...] | None = None
    activation: Activation = "relu"
    normalisation: VectorNormalisation = "none"
    dropout: FractionBelowOne = 0.0

    def __post_init__(self) -> None:
        """Refuse a layer that normalisation would make constant."""
        if self.normalisation == "layer" and 1 in (*self.hidden, *(self.decoder_hidden or ())):
            raise ValueError(
                "hidden and decoder_hidden must be at least 2 with normalisation 'layer', got 1: "
                "the layer would put out the same for every x; use 'batch' or 'none'"
            )

    def build(self, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
        """Return encoder and decoder."""
        return MlpEncoder(self, sizes), MlpDecoder(self, sizes)


class _Layers(nn.Module):
    """Affine layers with normalisation, activation and dropout between them. Some layers also get the condition."""

    def __init__(self, widths: Sequence[int], config: Mlp, condition: int, *, everywhere: bool) -> None:
        super().__init__()
        extra = [condition if index == 0 or everywhere else 0 for index in range(len(widths) - 1)]
        self.affine = nn.ModuleList(
            nn.Linear(wide + more, narrow) for wide, narrow, more in zip(widths[:-1], widths[1:], extra, strict=True)
        )
        self.takes_condition = [more > 0 for more in extra]
        between = [vector_normalisation(config.normalisation, width) for width in widths[1:-1]]
        self.normalisations = nn.ModuleList(layer for layer in between if layer is not None)
        self.activation = activation(config.activation)
        self.dropout = nn.Dropout(config.dropout) if config.dropout > 0 else None

    def forward(self, h: Tensor, condition: Tensor | None) -> Tensor:
        last = len(self.affine) - 1
        for index, affine in enumerate(self.affine):
            if self.takes_condition[index]:
                assert condition is not None, "a conditional network is only called with its condition"
                h = torch.cat([h, condition], dim=1)
            h = affine(h)
            if index < last:
                if self.normalisations:
                    h = self.normalisations[index](h)
                h = self.activation(h)
                if self.dropout is not None:
                    h = self.dropout(h)
        return h


class MlpEncoder(_Layers):
    """[B, D] -> [B, posterior_outputs]."""

    def __init__(self, config: Mlp, sizes: Sizes) -> None:
        widths = (sizes.dimensions, *config.hidden, sizes.posterior_outputs)
        super().__init__(widths, config, sizes.encoder_condition, everywhere=sizes.condition_everywhere)


class MlpDecoder(_Layers):
    """[B, L] -> [B, outputs_per_dimension × D]."""

    def __init__(self, config: Mlp, sizes: Sizes) -> None:
        hidden = config.hidden[::-1] if config.decoder_hidden is None else config.decoder_hidden
        widths = (sizes.latent, *hidden, sizes.outputs_per_dimension * sizes.dimensions)
        super().__init__(widths, config, sizes.decoder_condition, everywhere=sizes.condition_everywhere)

    def set_output_bias(self, mean: Tensor, bias_of: Callable[[Tensor], Tensor]) -> None:
        """Set the output bias so that the decoder predicts ``mean`` [D] at first.

        ``bias_of`` is the likelihood's ``output_bias``.
        """
        output = self.affine[-1]
        assert isinstance(output, nn.Linear)
        with torch.no_grad():
            output.bias.copy_(bias_of(mean))
