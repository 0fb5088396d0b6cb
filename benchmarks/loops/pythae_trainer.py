"""pythae's own trainer: BaseTrainer.train_step with its default DataLoader and collate function.

Its progress bar goes to a file that nobody reads. Its evaluation, its copy of each better model and its
saving are outside the block, which flatters it.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from layers import MODELS, decoder_layers, encoder_layers
from protocol import serve
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig

if TYPE_CHECKING:
    from layers import Model
    from protocol import Block
    from torch import Tensor


class Encoder(BaseEncoder):
    """Our layers behind pythae's interface."""

    def __init__(self, model: Model) -> None:
        BaseEncoder.__init__(self)
        self.layers = encoder_layers(model)

    def forward(self, x: Tensor) -> ModelOutput:
        """x [B, 1, 28, 28]."""
        mean, log_variance = self.layers(x.flatten(1)).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """Our layers behind pythae's interface."""

    def __init__(self, model: Model) -> None:
        BaseDecoder.__init__(self)
        self.layers = decoder_layers(model)

    def forward(self, z: Tensor) -> ModelOutput:
        """z [B, L]; pythae wants probabilities."""
        return ModelOutput(reconstruction=torch.sigmoid(self.layers(z)).unflatten(1, (1, 28, 28)))


def build(name: str, images: Tensor) -> tuple[Block, dict[str, Any]]:
    """A trainer as a user of pythae makes it."""
    model = MODELS[name]
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=model.latent, reconstruction_loss="bce")
    vae = VAE(config, encoder=Encoder(model), decoder=Decoder(model))
    trainer = BaseTrainer(
        vae,
        train_dataset=BaseDataset(images.unsqueeze(1).float() / 255, torch.zeros(len(images))),
        training_config=BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(prefix="pythae-"),
            per_device_train_batch_size=model.batch,
            learning_rate=model.lr,
            optimizer_cls="Adam",
            optimizer_params={"eps": model.eps},
            no_cuda=True,
        ),
    )
    trainer.prepare_training()
    epochs = iter(range(1, 1_000_000))

    def block() -> dict[str, float]:
        return {"loss": trainer.train_step(next(epochs))}

    parameters = sum(p.numel() for p in vae.parameters())
    return block, {"parameters": parameters, "pythae": version("pythae")}


if __name__ == "__main__":
    serve(build)
