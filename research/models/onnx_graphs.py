"""A model's two halves as modules of tensors alone, which is what ONNX has."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pathlib import Path

    from vae.model import VAE


class EncoderGraph(nn.Module):
    """x [B, D], and the condition where the encoder takes one -> mean, variance [B, L]."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        posterior = self.model.encode(x, condition)
        return posterior.mean, posterior.variance


class DecoderGraph(nn.Module):
    """z [B, L], and the condition where there is one -> E[x|z] [B, D], and what the likelihood is given."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output = self.model.decode(z, condition)
        return self.model.likelihood.mean(output), output


def export_graph(
    graph: nn.Module, inputs: tuple[Tensor, ...], file: Path, input_names: list[str], output_names: list[str]
) -> None:
    """Write ``graph`` to ``file``, weights inside, the first dimension of every input free."""
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in inputs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter about itself
        torch.onnx.export(
            graph.eval(),
            inputs,
            str(file),
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
