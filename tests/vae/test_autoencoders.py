"""Autoencoders that are not variational, against what linear algebra knows of them."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from tests.support.small import few_digits, run, small_config
from vae.corruption import GaussianCorruption, Masking
from vae.data import Arrays, Digits
from vae.data.dataset import content_digest, make_split
from vae.data.pixels import pixels_of
from vae.likelihoods import Gaussian
from vae.measure import measure_of
from vae.networks import Mlp
from vae.objectives import L1, KlToRho, Reconstruction
from vae.optimizers import Adam, Cosine
from vae.posteriors import Deterministic, DiagonalGaussian
from vae.train import train
from vae.train_config import Evaluation, Initialisation

EXAMPLES, DIMENSIONS, RANK = 256, 12, 3


def table(scales):
    """Real-valued rows whose covariance has the squares of ``scales`` for eigenvalues; the same rows are held out."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randn((EXAMPLES, DIMENSIONS), generator=generator, dtype=torch.float64)
    codes = torch.linalg.qr(codes - codes.mean(0))[0] * math.sqrt(EXAMPLES)
    axes = torch.linalg.qr(torch.randn((DIMENSIONS, DIMENSIONS), generator=generator, dtype=torch.float64))[0]
    rows = ((codes * torch.tensor(scales).double()) @ axes + torch.linspace(-1, 2, DIMENSIONS)).float()
    images, labels = rows[:, None, None, :].contiguous(), torch.zeros(EXAMPLES, dtype=torch.int64)
    data = few_digits()
    return dataclasses.replace(
        data,
        train=make_split("train", images, labels),
        validation=make_split("validation", images, labels),
        levels=0,
        num_classes=0,
        data_hash=content_digest(images, labels),
    )


SCALES = [2.0, 1.5, 1.2] + [0.3] * (DIMENSIONS - RANK)


def linear(**changes):
    """Affine both ways, squared error, one batch an epoch, a rate that falls to nothing."""
    config = small_config(
        data=Arrays(path="table.csv"),
        network=Mlp(hidden=()),
        latent_size=RANK,
        posterior=Deterministic(),
        likelihood=Gaussian(),
        objective=Reconstruction(),
        optimizer=Adam(lr=0.03),
        schedule=Cosine(),
        batch_size=EXAMPLES,
        epochs=300,
    )
    return dataclasses.replace(config, **changes)


def last_of(config, data):
    """What a run ends with."""
    *_, last = train(config, data)
    return last


def largest_angle(first, second):
    """The largest principal angle between the column spaces of two matrices, in degrees."""
    bases = [torch.linalg.qr(matrix.double())[0] for matrix in (first, second)]
    cosines = torch.linalg.svdvals(bases[0].T @ bases[1])
    return math.degrees(math.acos(min(1.0, cosines.min().item())))


def principal(rows, count):
    """The first ``count`` principal axes [D, count], and the squared error per row of what they leave."""
    values, vectors = torch.linalg.eigh(torch.cov(rows.double().T, correction=0))
    return vectors[:, -count:], values[:-count].sum().item()


def test_a_linear_autoencoder_is_pca():
    """Its squared error is PCA's to 1 %, and the decoder spans the principal subspace to 1 degree."""
    data = table(SCALES)
    last = last_of(linear(batch_size=64, epochs=200), data)
    axes, error = principal(data.train.images.flatten(1), RANK)
    assert error == pytest.approx(0.09 * (DIMENSIONS - RANK), rel=1e-4)
    assert error * (1 - 1e-4) < last.row["val/squared_error"] < 1.01 * error
    assert largest_angle(last.model.decoder.affine[-1].weight.detach(), axes) < 1
    # With variance 1, −log p is half the squared error and a constant.
    constant = DIMENSIONS / 2 * math.log(2 * math.pi)
    assert last.row["val/reconstruction"] == pytest.approx(last.row["val/squared_error"] / 2 + constant, rel=1e-5)


def test_a_linear_autoencoder_of_the_digits_is_pca():
    """On real images too: 96 digits, 4 latents, the error never below PCA's, which no rank 4 map can pass.

    The error is there long before the subspace: after 600 epochs it is within 0.1 %, the largest angle 13 degrees.
    """
    data = few_digits()
    data = dataclasses.replace(data, validation=make_split("validation", data.train.images, data.train.labels))
    config = linear(data=Digits(), latent_size=4, batch_size=96, epochs=1500, optimizer=Adam(lr=0.05))
    config = dataclasses.replace(config, initialisation=Initialisation(output_bias="data_mean"), schedule=Cosine())
    last = last_of(config, data)
    axes, error = principal(data.train.images.flatten(1) / 16, 4)
    assert error * (1 - 1e-4) < last.row["val/squared_error"] < 1.001 * error
    assert largest_angle(last.model.decoder.affine[-1].weight.detach(), axes) < 1


def test_a_linear_denoiser_is_the_wiener_filter():
    """With as many latents as dimensions, Gaussian corruption of s makes the best map λ/(λ + s²), error Σ λs²/(λ + s²).

    Had the corrupted image been the target, the map would be the identity and the error D·s².
    """
    noise, scales = 0.8, torch.linspace(0.4, 2, DIMENSIONS).tolist()
    data = table(scales)
    config = linear(
        latent_size=DIMENSIONS,
        corruption=GaussianCorruption(std=noise),
        epochs=300,
        batch_size=128,
        optimizer=Adam(lr=0.01),
    )
    last = last_of(config, data)
    expected = sum(s**2 * noise**2 / (s**2 + noise**2) for s in scales)
    assert expected < 0.75 * DIMENSIONS * noise**2
    layers = (last.model.encoder.affine[-1], last.model.decoder.affine[-1])
    filtered = (layers[1].weight @ layers[0].weight).detach().double()
    covariance = torch.cov(data.train.images.flatten(1).double().T, correction=0)
    wiener = covariance @ torch.linalg.inv(covariance + noise**2 * torch.eye(DIMENSIONS))
    assert (filtered - wiener).norm() < 0.1 * wiener.norm()
    assert last.row["val/denoise_error"] == pytest.approx(expected, rel=0.1)
    # A filter shrinks clean images: what they lose is Σ λ (s²/(λ + s²))².
    lost = sum(s**2 * (noise**2 / (s**2 + noise**2)) ** 2 for s in scales)
    assert last.row["val/squared_error"] == pytest.approx(lost, rel=0.15)


def test_the_rows_of_an_autoencoder():
    """Reconstruction and squared error, clean and corrupted; nothing that takes a density over z; a measure of its own."""
    config = small_config(posterior=Deterministic(), objective=Reconstruction(), corruption=Masking())
    rows, _ = run(config, few_digits())
    held_out = {name for name in rows[0] if name.startswith("val/")}
    assert held_out == {"val/reconstruction", "val/squared_error", "val/denoise_error"}
    assert not {name for row in rows for name in row if "kl" in name or "elbo" in name}
    data = few_digits()
    bounded = measure_of(small_config(), data.validation, levels=data.levels)
    assert rows[0]["measure"].startswith("p(x|z) counts(0..16) 64d ")
    assert rows[0]["measure"] != str(bounded)
    for row in rows:
        assert row["train/loss"] == pytest.approx(row["train/reconstruction"], rel=1e-6)
    assert rows[1]["train/reconstruction"] < rows[0]["train/reconstruction"]


def codes_of(last, config, data):
    """The codes of the training images."""
    with torch.no_grad():
        pixels = pixels_of(data.train, config, data.levels, torch.device("cpu"), held_out=True)
        return last.model.encode(pixels.batch(slice(None)), None).mean


def test_an_l1_penalty_makes_codes_small():
    """The mean |z| falls far with the weight, and the penalty in the row is that of the formula."""
    size = {}
    for weight in (0.0, 10.0):
        config = small_config(
            posterior=Deterministic(),
            objective=Reconstruction(sparsity=L1(weight=weight)),
            epochs=30,
            batch_size=96,
            optimizer=Adam(lr=1e-2),
        )
        last = last_of(config, few_digits())
        size[weight] = codes_of(last, config, few_digits()).abs().sum(1).mean().item()
        expected = last.row["train/reconstruction"] + last.row["train/sparsity_penalty"]
        assert last.row["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert size[10.0] < 0.5 * size[0.0]


def test_kl_to_rho_pulls_the_mean_activation_to_rho():
    """With a heavy weight every code's mean over the training images ends near ρ, from ½ at the start."""
    config = small_config(
        posterior=Deterministic(activation="sigmoid"),
        objective=Reconstruction(sparsity=KlToRho(weight=3000.0, rho=0.2)),
        epochs=60,
        batch_size=96,
        optimizer=Adam(lr=2e-2),
    )
    last = last_of(config, few_digits())
    codes = codes_of(last, config, few_digits())
    assert ((codes > 0) & (codes < 1)).all()
    assert (codes.mean(0) - 0.2).abs().max() < 0.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"posterior": DiagonalGaussian()}, r"needs posterior.kind 'deterministic', got 'diagonal'"),
        ({"eval": Evaluation(nll_k=5)}, r"eval.nll_k must be 0 with posterior.kind 'deterministic', got 5"),
        ({"objective": Reconstruction(sparsity=KlToRho())}, r"'kl_to_rho' needs posterior.activation 'sigmoid'"),
    ],
    ids=["posterior", "nll", "rho"],
)
def test_what_means_nothing_without_a_density_is_refused(changes, words):
    """One line that names the field to change."""
    values = {"posterior": Deterministic(), "objective": Reconstruction()} | changes
    with pytest.raises(ValueError, match=words):
        small_config(**values)
