"""The VAE: encoder, prior, decoder and likelihood put together, and the terms of its bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from vae.distributions import sample_normal
from vae.likelihoods import build_likelihood
from vae.networks import OnLabel, Sizes, build_networks
from vae.priors import build_prior

if TYPE_CHECKING:
    from vae.networks.conv import ConvDecoder
    from vae.networks.mlp import MlpDecoder
    from vae.train_config import Initialisation, TrainConfig


class Terms(NamedTuple):
    """What one reparameterised sample for each example yields, in nats; ``elbo = −(reconstruction + kl.sum(1))``."""

    reconstruction: Tensor  # [B], −log p(x|z)
    kl: Tensor  # [B, L], KL(q(z|x) ‖ p(z)) by latent dimension, closed form


class VAE(nn.Module):
    """q(z|x) = N(μ(x), diag σ²(x)), p(z), p(x|z); with labels q(z|x,y), p(z) or p(z|y), p(x|z,y).

    Rows are flat: x is [B, D] in [0, 1], labels are one-hot [B, K] or None.
    """

    label_log_prior: Tensor

    def __init__(self, config: TrainConfig, *, shape: tuple[int, int, int], levels: int, num_classes: int) -> None:
        """A model for images of ``shape`` C, H, W with integer values 0..``levels``.

        Raises:
            ConfigError: when the network doesn't fit the shape.

        """
        super().__init__()
        self.shape = shape
        self.levels = levels
        self.latent_size = config.latent_size
        self.num_classes = num_classes
        self.conditional = isinstance(config.conditioning, OnLabel)
        self.likelihood = build_likelihood(config.likelihood, levels=levels)
        labels = num_classes if self.conditional else 0
        sizes = Sizes(
            shape=shape,
            latent=config.latent_size,
            posterior_outputs=2 * config.latent_size,
            outputs_per_dimension=self.likelihood.outputs_per_dimension,
            labels=labels,
            labels_everywhere=isinstance(config.conditioning, OnLabel) and config.conditioning.at == "every_layer",
        )
        self.encoder, self.decoder = build_networks(config.network, sizes)
        self.prior = build_prior(config.prior, latent_size=config.latent_size, label_size=labels)
        # p(y) of the training labels, for p(x) = Σ_y p(y) p(x|y). Kept with the weights; uniform until told.
        if self.conditional:
            uniform = torch.full((num_classes,), 1.0 / num_classes).log()
            self.register_buffer("label_log_prior", uniform)

    def sizes(self) -> dict[str, int]:
        """What of the data the model was built for: everything that ``VAE`` takes beside its config."""
        channels, height, width = self.shape
        sizes = {"channels": channels, "height": height, "width": width}
        return sizes | {"levels": self.levels, "num_classes": self.num_classes}

    def encode(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Posterior mean μ and log variance log σ², each [B, L]."""
        # In float32 under autocast too: the KL is a small difference of large numbers, lost in bfloat16.
        mean, log_variance = self.encoder(x, label).float().chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor, label: Tensor | None) -> Tensor:
        """What the likelihood needs, [B, outputs_per_dimension × D], from z [B, L]."""
        return cast("Tensor", self.decoder(z, label))

    def terms(self, x: Tensor, label: Tensor | None, noise: Tensor) -> Terms:
        """The two terms of the bound for a batch; ``noise`` [B, L] is the ε of z = μ + σ·ε."""
        mean, log_variance = self.encode(x, label)
        z = sample_normal(mean, log_variance, noise)
        reconstruction = self.likelihood.nll(self.decode(z, label), x)
        kl = self.prior.kl(mean, log_variance, label)
        return Terms(reconstruction, kl)

    @torch.no_grad()
    def sample(self, label: Tensor | None, noise: Tensor) -> Tensor:
        """E[x|z] for z drawn from the prior with ``noise`` [B, L] -> [B, D] in the scale of x."""
        mean, log_variance = self.prior.moments(label)
        return self.likelihood.mean(self.decode(sample_normal(mean, log_variance, noise), label))


def initialise(model: VAE, config: Initialisation, data_mean: Tensor) -> None:
    """Give ``model`` its starting weights. ``data_mean`` [D] is the training images' mean in [0, 1]."""
    if config.weights != "pytorch":
        draw = nn.init.xavier_uniform_ if config.weights == "xavier_uniform" else nn.init.xavier_normal_
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                draw(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    if config.output_bias == "data_mean":
        decoder = cast("MlpDecoder | ConvDecoder", model.decoder)
        decoder.set_output_bias(data_mean, model.likelihood.output_bias)


def num_parameters(model: nn.Module) -> int:
    """Trainable numbers in ``model``."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
