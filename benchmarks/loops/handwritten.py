"""The best loop that one would write by hand: bytes in memory, one gather, logits, fused Adam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from layers import MODELS, Vae
from protocol import serve
from torch.nn import functional as F  # noqa: N812 - torch's own custom

if TYPE_CHECKING:
    from collections.abc import Callable

    from layers import Model
    from protocol import Block
    from torch import Tensor


def build(name: str, images: Tensor) -> tuple[Block, dict[str, Any]]:
    """No data set, no loader, no metric but the loss."""
    network, epoch = training(MODELS[name], images)
    return lambda: {"loss": epoch()}, {"parameters": sum(p.numel() for p in network.parameters())}


def training(model: Model, images: Tensor) -> tuple[Vae, Callable[[], float]]:
    """The network, on the device of ``images``, and its epoch, which returns the mean loss."""
    rows = images.flatten(1)
    network = Vae(model).to(rows.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=model.lr, eps=model.eps, fused=True)

    def epoch() -> float:
        network.train()
        total = torch.zeros((), device=rows.device)
        for index in torch.randperm(len(rows), device=rows.device).split(model.batch):
            x = rows.index_select(0, index).float().div_(255)
            mean, log_variance, logits = network(x)
            bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
            loss = (bce + kl) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(x)
        return total.item() / len(rows)

    return network, epoch


if __name__ == "__main__":
    serve(build)
