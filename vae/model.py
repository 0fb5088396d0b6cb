"""The model: encoder, posterior, prior, decoder and likelihood, and the terms of its bound."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from vae.conditioning import OnLabel
from vae.networks import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from vae.likelihoods import Likelihood
    from vae.networks.conv import ConvDecoder
    from vae.networks.mlp import MlpDecoder
    from vae.posteriors import Posterior
    from vae.priors import Prior
    from vae.train_config import Initialisation, TrainConfig

    # −log p(x|z) in nats: z [S, B, L], condition [B, K] or None, x [B, D] -> [S, B]
    Score = Callable[[Tensor, Tensor | None, Tensor], Tensor]


class Terms(NamedTuple):
    """The terms of the bound for S samples of each of B examples, in nats: ``elbo = −(reconstruction + kl.sum(1))``."""

    reconstruction: Tensor  # −log p(x|z) of the scored dimensions, [S, B]
    kl: Tensor  # KL(q(z|x) ‖ p(z)): [B, L] by latent dimension, [B, 1] undivided, [B, 0] for a deterministic code
    z: Tensor  # the reparameterised samples, [S, B, L]
    posterior: Posterior


class VAE(nn.Module):
    """A variational autoencoder: q(z|x), p(z) and p(x|z) (Kingma & Welling 2014, arXiv:1312.6114).

    Conditioned on c it is q(z|x,c), p(z) or p(z|c), and p(x|z,c). With a deterministic code it is a plain autoencoder.

    Examples are flat: x is [B, D], labels are [B]. :meth:`condition` makes the condition [B, K] from them.
    """

    label_log_prior: Tensor

    def __init__(self, config: TrainConfig, *, shape: tuple[int, int, int], levels: int, num_classes: int) -> None:
        """Build a model for data of ``shape`` C, H, W with integer values 0..``levels``; 0 stands for real values.

        Raises:
            ConfigError: A part does not fit the data.

        """
        super().__init__()
        self.shape = shape
        self.levels = levels
        self.latent_size = config.latent_size
        self.num_classes = num_classes
        self.posterior_config = config.posterior
        self.has_density = config.posterior.has_density
        # True if codes drawn from the prior resemble codes of examples. Those of a plain autoencoder do not.
        self.generative = self.has_density or bool(getattr(config.objective, "matches_prior", False))
        self.labelled = isinstance(config.conditioning, OnLabel)
        self.conditioning = config.conditioning.build(shape, num_classes)
        self.likelihood: Likelihood = config.likelihood.build(levels=levels)
        sizes = Sizes(
            shape=shape,
            latent=config.latent_size,
            posterior_outputs=config.posterior.num_outputs(config.latent_size),
            outputs_per_dimension=self.likelihood.outputs_per_dimension,
            encoder_condition=self.conditioning.encoder_size,
            decoder_condition=self.conditioning.decoder_size,
            condition_everywhere=self.conditioning.everywhere,
        )
        self.encoder: nn.Module
        self.decoder: nn.Module
        self.encoder, self.decoder = config.network.build(sizes)
        self.prior: Prior = config.prior.build(
            latent_size=config.latent_size,
            label_size=num_classes if self.labelled else 0,
            dimensions=prod(shape),
        )
        # log p(y) of the training labels, for p(x) = Σ_y p(y) p(x|y). It is saved with the weights. ``build`` sets it.
        if self.labelled:
            uniform = torch.full((num_classes,), 1.0 / num_classes).log()
            self.register_buffer("label_log_prior", uniform)

    def sizes(self) -> dict[str, int]:
        """Return the sizes that the model was built for: every argument of ``VAE`` except its config."""
        channels, height, width = self.shape
        sizes = {"channels": channels, "height": height, "width": width}
        return sizes | {"levels": self.levels, "num_classes": self.num_classes}

    def condition(self, x: Tensor, labels: Tensor) -> Tensor | None:
        """Return the condition [B, K] of encoder, prior and decoder for x [B, D] and labels [B]; None without conditioning."""
        return self.conditioning.condition(x, labels)

    def encode(self, x: Tensor, condition: Tensor | None) -> Posterior:
        """Return q(z|x) of x [B, D]."""
        outputs = self.encoder(x, condition if self.conditioning.encoder_size else None)
        # In float32 also under autocast: the KL is a small difference of large numbers, which bfloat16 would lose.
        posterior: Posterior = self.posterior_config.read(outputs.float(), self.latent_size)
        return posterior

    def encode_alone(self, x: Tensor) -> Posterior:
        """Return q(z|x) of x [B, D] without a condition, as VampPrior needs it for its pseudo-inputs."""
        return self.encode(x, None)

    def decode(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """Return the parameters of the likelihood, [B, outputs_per_dimension × D], from z [B, L]."""
        # In float32 also under autocast: a log variance in bfloat16 changes a score by nats.
        return cast("Tensor", self.decoder(z, condition)).float()

    def reconstruct(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """Return E[x|z], [B, D], from z [B, L]. Pixels that the condition gives are copied from it."""
        mean = self.likelihood.mean(self.decode(z, condition))
        seen = self.conditioning.seen
        return mean if seen is None or condition is None else mean.index_copy(1, seen, condition)

    def nll(self, z: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
        """Return −log p(x|z) summed over the scored dimensions: z [S, B, L], x [B, D] -> [S, B] nats."""
        samples = len(z)
        x = x.repeat(samples, 1) if samples > 1 else x
        return self.score(self.decode_samples(z, condition), x).view(samples, -1)

    def decode_samples(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """Decode S samples of each example: z [S, B, L] -> [S·B, outputs_per_dimension × D]; see :meth:`decode`."""
        if condition is not None and len(z) > 1:
            condition = condition.repeat(len(z), 1)
        return self.decode(z.flatten(0, 1), condition)

    def score(self, output: Tensor, x: Tensor) -> Tensor:
        """Return −log p(x|z) for decoder outputs [B, outputs_per_dimension × D], summed over the scored dimensions: [B] nats."""
        by_dimension = self.likelihood.nll(output, x)
        if self.conditioning.scored is not None:
            by_dimension = by_dimension.index_select(1, self.conditioning.scored)
        return by_dimension.sum(1)

    def terms(
        self,
        x: Tensor,
        condition: Tensor | None,
        noise: Tensor,
        seen: Tensor | None = None,
        nll: Score | None = None,
    ) -> Terms:
        """Return the two terms of the bound for each example of a batch (Kingma & Welling 2014, eq. 10).

        This is the only implementation of the bound. Training, held-out rows and scores by example call it.

        ``x`` is [B, D] and ``condition`` [B, K] or None. ``noise`` [S, B, L] is the ε of z = μ + σ·ε. ``seen`` [B, D] is a
        corrupted x for the encoder. ``nll`` computes −log p(x|z) in place of :meth:`nll`.
        """
        posterior = self.encode(x if seen is None else seen, condition)
        z = posterior.sample(noise)
        reconstruction = (self.nll if nll is None else nll)(z, condition, x)
        kl = self.prior.kl(posterior, z, condition, self.encode_alone) if self.has_density else posterior.mean[:, :0]
        return Terms(reconstruction, kl, z, posterior)

    def draw_prior(self, noise: Tensor, uniform: Tensor, condition: Tensor | None) -> Tensor:
        """Return samples of p(z), or of p(z|y), [B, L], from ε ~ N(0, I) [B, L] and u ~ U[0, 1) [B]."""
        return self.prior.sample(noise, uniform, condition, self.encode_alone)

    @torch.no_grad()
    def sample(self, noise: Tensor, uniform: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return E[x|z], [B, D] in the scale of x, for z drawn from the prior; see :meth:`draw_prior`."""
        return self.reconstruct(self.draw_prior(noise, uniform, condition), condition)


def initialise(model: VAE, config: Initialisation, data_mean: Callable[[], Tensor]) -> None:
    """Set the starting weights of ``model``.

    ``data_mean()`` returns the mean of the training images, [D] in the scale of x. It reads all images, so it is called
    only if ``config`` needs it.
    """
    if config.weights != "pytorch":
        draw = nn.init.xavier_uniform_ if config.weights == "xavier_uniform" else nn.init.xavier_normal_
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                draw(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    if config.output_bias == "data_mean":
        decoder = cast("MlpDecoder | ConvDecoder", model.decoder)
        decoder.set_output_bias(data_mean(), model.likelihood.output_bias)


def num_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters of ``model``."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
