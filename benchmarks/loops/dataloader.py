"""The loop of most tutorials: an image made of each sample, a DataLoader, plain Adam, .item()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from layers import MODELS, Vae
from PIL import Image
from protocol import serve
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

if TYPE_CHECKING:
    from protocol import Block
    from torch import Tensor


class Images(Dataset[tuple["Tensor", int]]):
    """What torchvision.datasets.MNIST does with each sample: a PIL image, then the transform."""

    def __init__(self, images: Tensor) -> None:
        self.data = images
        self.transform = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index].numpy())), 0


def build(name: str, images: Tensor) -> tuple[Block, dict[str, Any]]:
    """As in PyTorch's own VAE example."""
    model = MODELS[name]
    network = Vae(model)
    optimizer = torch.optim.Adam(network.parameters(), lr=model.lr, eps=model.eps)
    loader = DataLoader(Images(images), batch_size=model.batch, shuffle=True)

    def block() -> dict[str, float]:
        network.train()
        total = 0.0
        for image, _ in loader:
            x = image.view(-1, 784)
            optimizer.zero_grad()
            mean, log_variance, logits = network(x)
            bce = F.binary_cross_entropy(torch.sigmoid(logits), x, reduction="sum")
            kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
            loss = (bce + kl) / len(x)
            loss.backward()
            total += loss.item() * len(x)
            optimizer.step()
        return {"loss": total / len(images)}

    return block, {"parameters": sum(p.numel() for p in network.parameters())}


if __name__ == "__main__":
    serve(build)
