"""The mistakes that tutorials contain, each planted in the code and caught by the check named for it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import vae.data
import vae.posteriors.diagonal
import vae.run
from tests.support import checks
from vae import seeds
from vae.data.pixels import pixels_of
from vae.likelihoods.binomial import BinomialLikelihood
from vae.model import VAE, initialise
from vae.objectives import Elbo, Loss


def exp_log_variance_as_sigma(monkeypatch):
    """exp(log σ²) taken for σ wherever a sample is drawn."""

    def wrong(mean, log_variance, noise):
        return mean + torch.exp(log_variance) * noise

    monkeypatch.setattr(vae.posteriors.diagonal, "sample_normal", wrong)


def noise_times_variance(monkeypatch):
    """z = μ + ε·σ² wherever a sample is drawn."""

    def wrong(mean, log_variance, noise):
        sigma = torch.exp(0.5 * log_variance)
        return mean + noise * sigma**2

    monkeypatch.setattr(vae.posteriors.diagonal, "sample_normal", wrong)


def kl_averaged_over_dimensions(monkeypatch):
    """KL averaged over latent dimensions where it is to be summed."""
    right = vae.posteriors.diagonal.kl_to_standard_normal
    monkeypatch.setattr(
        vae.posteriors.diagonal,
        "kl_to_standard_normal",
        lambda mean, log_variance: right(mean, log_variance) / mean.shape[1],
    )


def reconstruction_averaged_over_dimensions(monkeypatch):
    """The likelihood averaged over pixels where it is to be summed."""
    right = BinomialLikelihood.nll
    monkeypatch.setattr(BinomialLikelihood, "nll", lambda self, output, x: right(self, output, x) / x.shape[1])


def kl_without_trace(monkeypatch):
    """½ (μ² − 1 − log σ²): the σ² forgotten."""
    monkeypatch.setattr(
        vae.posteriors.diagonal,
        "kl_to_standard_normal",
        lambda mean, log_variance: 0.5 * (mean.square() - 1.0 - log_variance),
    )


def loss_without_reconstruction(monkeypatch):
    """A loss of the KL alone."""
    monkeypatch.setattr(Elbo, "loss", lambda self, batch: Loss(self.beta * self.counted(batch.terms.kl)))


def kl_logged_with_flipped_sign(monkeypatch):
    """−KL in the row, all else right."""
    right = vae.run.held_out_metrics

    def wrong(*asked):
        metrics = right(*asked)
        return metrics | {"kl": -metrics["kl"]}

    monkeypatch.setattr(vae.run, "held_out_metrics", wrong)


def kl_and_elbo_logged_with_flipped_sign(monkeypatch):
    """−KL in the row and an ELBO that agrees with it: the identity alone would not see it."""
    right = vae.run.held_out_metrics

    def wrong(*asked):
        metrics = right(*asked)
        kl = -metrics["kl"]
        return metrics | {"kl": kl, "elbo": -(metrics["reconstruction"] + kl)}

    monkeypatch.setattr(vae.run, "held_out_metrics", wrong)


def validating_with_another_kl_weight(monkeypatch):
    """The held-out KL and ELBO weighed by the β that trained: the identity alone would not see it."""
    right = vae.run.held_out_metrics
    loss = Elbo.loss
    in_force = [1.0]

    def loss_that_tells(self, batch):
        in_force[0] = self.beta
        return loss(self, batch)

    def wrong(*asked):
        metrics = right(*asked)
        kl = in_force[0] * metrics["kl"]
        return metrics | {"kl": kl, "elbo": -(metrics["reconstruction"] + kl)}

    monkeypatch.setattr(Elbo, "loss", loss_that_tells)
    monkeypatch.setattr(vae.run, "held_out_metrics", wrong)


def seed_set_after_the_weights(monkeypatch):
    """The generator seeded once the weights are drawn."""

    def wrong(config, data, device="cpu"):
        model = VAE(config, shape=data.shape, levels=data.levels, num_classes=data.num_classes)
        torch.manual_seed(seeds.derive(config.seed, "weights"))
        pixels = pixels_of(data.train, config, data.levels, torch.device("cpu"), held_out=False)
        initialise(model, config.initialisation, pixels.mean)
        return model.to(device)

    monkeypatch.setattr(vae.run, "build", wrong)


def selecting_on_the_test_split(monkeypatch):
    """What selects is the test split under another name."""
    right = vae.data.load_training

    def wrong(config, data_dir):
        test = vae.data.load_test(config, data_dir)
        return dataclasses.replace(right(config, data_dir), validation=dataclasses.replace(test, name="validation"))

    monkeypatch.setattr(vae.data, "load_training", wrong)


CAUGHT_BY = {
    exp_log_variance_as_sigma: checks.check_codes_follow_the_posterior,
    noise_times_variance: checks.check_evaluated_codes_follow_the_posterior,
    kl_averaged_over_dimensions: checks.check_kl_is_the_closed_form_summed_over_dimensions,
    reconstruction_averaged_over_dimensions: checks.check_reconstruction_is_summed_over_dimensions,
    kl_without_trace: checks.check_kl_is_the_closed_form_summed_over_dimensions,
    loss_without_reconstruction: checks.check_training_minimises_the_bound,
    kl_logged_with_flipped_sign: checks.check_row_identities,
    kl_and_elbo_logged_with_flipped_sign: checks.check_row_identities,
    validating_with_another_kl_weight: checks.check_held_out_elbo_ignores_beta,
    seed_set_after_the_weights: checks.check_weights_follow_the_seed,
    selecting_on_the_test_split: checks.check_selection_never_sees_the_test_split,
}


@pytest.mark.parametrize("mutant", CAUGHT_BY, ids=lambda mutant: mutant.__name__)
def test_the_mistake_is_caught(mutant, monkeypatch):
    """The check passes on the code as it is and fails once the mistake is planted."""
    check = CAUGHT_BY[mutant]
    check()
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
