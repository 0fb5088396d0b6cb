"""The objectives besides the ELBO: each against its formula, by hand, by torch.distributions or by brute force."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence

from tests.support.affine import affine
from tests.support.small import digits, few_digits, run, small_config, without_times
from vae.conditioning import OnLabel
from vae.data.pixels import pixels_of
from vae.model import Terms
from vae.networks import Mlp
from vae.objectives import (
    L1,
    BetaTcvae,
    Capacity,
    DipVae,
    Elbo,
    FactorVae,
    InfoVae,
    Iwae,
    KlToRho,
    Reconstruction,
    WaeMmd,
)
from vae.objectives.beta_tcvae import decompose, log_weights
from vae.objectives.factor_vae import Discriminator, shuffle_dimensions
from vae.objectives.loss import Batch, Progress
from vae.objectives.mmd import mmd
from vae.optimizers import SGD, Adam
from vae.posteriors import Deterministic, FullCovariance
from vae.posteriors.deterministic import Point
from vae.posteriors.diagonal import Diagonal
from vae.priors import LabelConditional, Mixture, Vamp
from vae.state import TrainState
from vae.train import build, train

FEW = 16
POSTERIOR = Diagonal(
    torch.tensor([[0.3, -1.0], [2.0, 0.1], [0.0, 0.5], [-0.4, 0.9], [1.0, 1.0], [-1.5, 0.2]]),
    torch.tensor([[-1.0, 0.2], [0.4, -2.0], [0.0, 1.0], [-0.3, -0.6], [-2.0, 0.1], [0.5, -1.0]]),
)
CODES = POSTERIOR.sample(torch.randn((1, 6, 2), generator=torch.Generator().manual_seed(1)))


def batch_of(objective, *, seed=1, step=0, **changes):
    """A batch of digits under ``objective``, with the noise of ``seed``, as the training loop makes it."""
    config = small_config(objective=objective, **changes)
    data = few_digits()
    model = build(config, data)
    pixels = pixels_of(data.train, config, data.levels, torch.device("cpu"), held_out=True)
    index = torch.arange(FEW)
    x = pixels.batch(index)
    condition = model.condition(x, pixels.labels[index])
    noise = torch.randn((objective.samples, FEW, config.latent_size), generator=torch.Generator().manual_seed(seed))
    return Batch(model, model.terms(x, condition, noise), condition, Progress(step, 3, 6), len(pixels))


def of_codes(z, posterior=None, *, adversary=None, step=0, examples=6):
    """A batch that is nothing but codes, with reconstruction 100 and KL that of ``posterior`` to N(0, I)."""
    kl = z[0][:, :0] if posterior is None else posterior.kl_to_standard_normal()
    terms = Terms(torch.full(z.shape[:2], 100.0), kl, z, posterior)
    return Batch(None, terms, None, Progress(step, 10, 100), examples, adversary)


def loss_of(objective, batch):
    """The scalar that is minimised."""
    return objective.loss(batch).total.item()


# IWAE


@pytest.mark.parametrize("prior", [Mixture(components=3), Vamp(components=3)], ids=lambda prior: prior.kind)
@pytest.mark.parametrize("posterior", [None, FullCovariance()], ids=["diagonal", "full"])
def test_one_importance_sample_is_the_elbo_of_the_same_noise(prior, posterior):
    """Where the KL is estimated from the draw, IWAE₁'s loss is the ELBO's, number for number."""
    changes = {"prior": prior} | ({} if posterior is None else {"posterior": posterior})
    expected = loss_of(Elbo(), batch_of(Elbo(), **changes))
    assert loss_of(Iwae(k=1), batch_of(Iwae(k=1), **changes)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("doubly", [False, True])
def test_the_importance_weighted_loss_is_its_formula(doubly):
    """−log of the mean weight p(x|z) p(z) / q(z|x), with torch's densities, averaged over the batch."""
    batch = batch_of(Iwae(k=5, doubly_reparameterised=doubly))
    q = Normal(batch.terms.posterior.mean, batch.terms.posterior.variance.sqrt())
    log_p = Normal(0.0, 1.0).log_prob(batch.terms.z).sum(2) - batch.terms.reconstruction
    weight = log_p - q.log_prob(batch.terms.z).sum(2)
    bound = (torch.logsumexp(weight, 0) - math.log(5)).mean().item()
    loss = Iwae(k=5, doubly_reparameterised=doubly).loss(batch)
    assert loss.total.item() == pytest.approx(-bound, rel=1e-5)
    assert loss.terms["iwae_bound"].item() == pytest.approx(bound, rel=1e-5)


def gradients(objective, exact, seed, x):
    """By name of parameter, of ``objective`` on the affine model."""
    noise = torch.randn((objective.k, len(x), 2), generator=torch.Generator().manual_seed(seed))
    exact.model.zero_grad()
    batch = Batch(exact.model, exact.model.terms(x, None, noise), None, Progress(0, 1, 1), len(x))
    loss = objective.loss(batch).total
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in exact.model.named_parameters()}


def test_the_doubly_reparameterised_gradient_agrees_in_expectation():
    """The encoder's gradients differ draw by draw and agree within 4 standard errors; loss and decoder's are equal."""
    exact = affine(error=1.0)
    x = exact.pixels.batch(slice(0, 10))
    plain, doubly = Iwae(k=4), Iwae(k=4, doubly_reparameterised=True)
    encoder = {True: [], False: []}
    for seed in range(400):
        value, first = gradients(plain, exact, seed, x)
        again, second = gradients(doubly, exact, seed, x)
        assert again == pytest.approx(value, rel=1e-6)
        for name, expected in first.items():
            if name.startswith("decoder"):
                assert torch.allclose(expected, second[name], rtol=1e-4, atol=1e-4)
        for which, found in ((False, first), (True, second)):
            flat = [g.flatten() for name, g in found.items() if name.startswith("encoder")]
            encoder[which].append(torch.cat(flat).double())
    plain, doubly = torch.stack(encoder[False]), torch.stack(encoder[True])
    difference = plain - doubly
    error = difference.std(0) / math.sqrt(len(difference))
    assert (difference.mean(0).abs() < 4 * error + 1e-6).all()
    # What makes this a test: the gradient is far from 0, and the estimates are not the same numbers.
    assert (plain.mean(0).abs() > 10 * error).any()
    assert (difference.abs() > 1e-3).any()


def test_the_doubly_reparameterised_gradient_vanishes_at_the_true_posterior():
    """Where q(z|x) = p(z|x), the weights don't depend on z: no noise is left in the encoder's gradient, unlike else."""
    exact = affine()
    x = exact.pixels.batch(slice(0, 10))
    largest = {}
    for doubly in (False, True):
        _, found = gradients(Iwae(k=4, doubly_reparameterised=doubly), exact, 1, x)
        largest[doubly] = max(g.abs().max().item() for name, g in found.items() if name.startswith("encoder"))
    assert largest[True] < 1e-3
    assert largest[False] > 0.1


def test_a_learned_prior_has_the_same_gradient_either_way():
    """Only the way through z is changed: a mixture's own parameters get Σ w̃ ∇log w from both."""
    found = []
    for doubly in (False, True):
        batch = batch_of(Iwae(k=4, doubly_reparameterised=doubly), prior=Mixture(components=3))
        Iwae(k=4, doubly_reparameterised=doubly).loss(batch).total.backward()
        found.append([p.grad for p in batch.model.prior.parameters()])
    for plain, doubly in zip(*found, strict=True):
        assert (plain != 0).any()
        assert torch.allclose(plain, doubly, rtol=1e-4, atol=1e-6)


# β-TCVAE


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_the_terms_are_exact_when_the_batch_is_the_whole_set(estimator):
    """I(x; z), TC and dimension-wise KL with q(z) = 1/N Σ q(z|x_n), summed by loops over torch's densities."""
    z, size = CODES[0].double(), 6
    q = [
        Normal(m, (0.5 * v).exp())
        for m, v in zip(POSTERIOR.mean.double(), POSTERIOR.log_variance.double(), strict=True)
    ]
    information = correlation = dimension_wise = 0.0
    for n in range(size):
        log_q_given_x = q[n].log_prob(z[n]).sum().item()
        log_q = math.log(sum(math.exp(p.log_prob(z[n]).sum().item()) for p in q) / size)
        marginals = [math.log(sum(math.exp(p.log_prob(z[n])[d].item()) for p in q) / size) for d in range(2)]
        log_p = Normal(0.0, 1.0).log_prob(z[n]).sum().item()
        information += (log_q_given_x - log_q) / size
        correlation += (log_q - sum(marginals)) / size
        dimension_wise += (sum(marginals) - log_p) / size
    found = [term.item() for term in decompose(CODES[0], POSTERIOR, size, estimator)]
    assert found == pytest.approx([information, correlation, dimension_wise], abs=1e-5)


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
@pytest.mark.parametrize("examples", [6, 7, 1000])
def test_the_terms_sum_to_the_kl_of_the_draw(estimator, examples):
    """Whatever N and the estimate of q(z): mean(log q(z|x) − log p(z))."""
    expected = POSTERIOR.log_density(CODES[0]) - Normal(0.0, 1.0).log_prob(CODES[0]).sum(1)
    found = sum(decompose(CODES[0], POSTERIOR, examples, estimator))
    assert found.item() == pytest.approx(expected.mean().item(), abs=1e-5)


def test_stratified_is_unbiased_over_batches():
    """Averaged over every batch of 3 of 6 that holds an example, the estimate of q(z) is q(z); weighted is not."""
    density = POSTERIOR.log_density(CODES[0].unsqueeze(1)).exp()  # [6, 6], code i under posterior j
    others = list(itertools.combinations(range(1, 6), 2))
    mean = {
        estimator: sum(density[0, [0, *pair]] @ log_weights(3, 6, estimator)[0].exp() for pair in others) / len(others)
        for estimator in ("weighted", "stratified")
    }
    expected = density[0].mean().item()
    assert mean["stratified"].item() == pytest.approx(expected, rel=1e-5)
    assert mean["weighted"].item() > 1.2 * expected


@pytest.mark.parametrize("examples", [2, 3, 60_000])
def test_the_weights_of_a_row_sum_to_one(examples):
    """A batch of 2 of N: own 1/N, the other (N − 1)/N; weighted ½ each; a batch of one weighs 1."""
    own, other = log_weights(2, examples, "stratified")[0].exp().tolist()
    assert (own, other) == pytest.approx((1 / examples, (examples - 1) / examples))
    assert log_weights(2, examples, "weighted").exp().tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert log_weights(1, examples, "stratified").exp().tolist() == [[1.0]]


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_the_loss_weighs_the_three_terms(estimator):
    """Reconstruction + α·I + β·TC + γ·KL_d, the three of them in the row; N is the number of training examples."""
    objective = BetaTcvae(alpha=0.5, beta=6.0, gamma=2.0, estimator=estimator)
    terms = [term.item() for term in decompose(CODES[0], POSTERIOR, 40, estimator)]
    loss = objective.loss(of_codes(CODES, POSTERIOR, examples=40))
    expected = 100 + 0.5 * terms[0] + 6 * terms[1] + 2 * terms[2]
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)
    names = ["mutual_information", "total_correlation", "dimension_wise_kl"]
    assert [loss.terms[name].item() for name in names] == pytest.approx(terms)


def test_independent_codes_have_no_total_correlation():
    """q(z) a product (each posterior's second dimension is the same): TC is 0, and I that of the first."""
    posterior = Diagonal(
        torch.tensor([[-3.0, 0.5], [0.0, 0.5], [3.0, 0.5]]), torch.tensor([[-4.0, 0.3], [-4.0, 0.3], [-4.0, 0.3]])
    )
    z = posterior.sample(torch.randn((3, 2), generator=torch.Generator().manual_seed(2)))
    information, correlation, _ = decompose(z, posterior, 3, "weighted")
    assert correlation.item() == pytest.approx(0, abs=1e-5)
    assert information.item() == pytest.approx(math.log(3), abs=1e-4)  # the three are told apart for certain


# Capacity


def test_the_capacity_grows_linearly_and_stays():
    """C is 0 at the first step, reaches its value after its epochs, parts of one counted, and stays there."""
    objective = Capacity(capacity=12.0, epochs=1.5)
    found = [objective.settings_at(Progress(step, 4, 40))["capacity"] for step in range(9)]
    assert found == pytest.approx([0, 2, 4, 6, 8, 10, 12, 12, 12])
    assert objective.annealing_epochs(10) == 2


@pytest.mark.parametrize("step", [0, 5, 10, 100])
def test_the_loss_is_the_distance_to_the_capacity(step):
    """Reconstruction + γ·|KL − C|, KL the batch's mean, on either side of C."""
    objective = Capacity(gamma=7.0, capacity=3.0, epochs=1.0)
    target = 3.0 * min(1.0, step / 10)
    kl = kl_divergence(Normal(POSTERIOR.mean, POSTERIOR.variance.sqrt()), Normal(0.0, 1.0)).sum(1).mean().item()
    assert 0 < kl < 1.5
    loss = objective.loss(of_codes(CODES, POSTERIOR, step=step))
    assert loss.total.item() == pytest.approx(100 + 7 * abs(kl - target), rel=1e-6)
    assert loss.terms["capacity_distance"].item() == pytest.approx(abs(kl - target), rel=1e-4)
    assert objective.settings_at(Progress(step, 10, 100)) == {"capacity": target}


def test_the_kl_follows_the_capacity():
    """On the digits a capacity of 8 nats over 6 epochs is the KL that training ends with, to 10 %."""
    objective = Capacity(capacity=8.0, epochs=5.0)
    rows, _ = run(small_config(objective=objective, epochs=6, latent_size=8, optimizer=Adam(lr=3e-3)), digits())
    assert rows[-1]["train/capacity"] == 8.0
    assert abs(rows[-1]["train/kl"] - 8.0) < 0.8
    assert rows[0]["train/kl"] < 4.0


# MMD


def kernel_mean(kind, distance, spread, bandwidth):
    """E k(x, y) where x − y ~ N(distance, spread·I), in closed form for rbf, by quadrature for imq."""

    def rbf(rate):  # E exp(−rate·d²)
        dimensions = len(distance)
        widened = 1 + 2 * rate * spread
        return widened ** (-dimensions / 2) * torch.exp(-rate * distance.square().sum() / widened)

    if kind == "rbf":
        return rbf(torch.tensor(1 / bandwidth, dtype=torch.float64)).item()
    # c/(c + d²) = ∫ c·exp(−c·t)·exp(−t·d²) dt
    t = torch.linspace(0, 40 / bandwidth, 100_001, dtype=torch.float64)
    return torch.trapezoid(bandwidth * torch.exp(-bandwidth * t) * rbf(t), t).item()


@pytest.mark.parametrize("kind", ["rbf", "imq"])
def test_the_mmd_of_two_gaussians_is_the_analytic_one(kind):
    """Over 400 pairs of samples the unbiased estimate is within 4 standard errors of the closed form, far from 0."""
    mean, scale, bandwidth = torch.tensor([0.8, -0.5], dtype=torch.float64), 0.6, 4.0
    zero = torch.zeros(2, dtype=torch.float64)
    expected = (
        kernel_mean(kind, zero, 2 * scale**2, bandwidth)
        + kernel_mean(kind, zero, 2.0, bandwidth)
        - 2 * kernel_mean(kind, mean, 1 + scale**2, bandwidth)
    )
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(400):
        a = mean.float() + scale * torch.randn((40, 2), generator=generator)
        b = torch.randn((30, 2), generator=generator)
        found.append(mmd(a, b, kind, bandwidth=bandwidth).item())
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - expected) < 4 * error
    assert expected > 20 * error


@pytest.mark.parametrize("kind", ["rbf", "imq"])
def test_the_mmd_of_equal_distributions_is_zero_in_expectation(kind):
    """Within 4 standard errors of 0, on both sides of it: no bias from comparing a code with itself."""
    generator = torch.Generator().manual_seed(2)
    draws = [torch.randn((2, 20, 3), generator=generator) for _ in range(400)]
    found = [mmd(a, b, kind, bandwidth=6.0).item() for a, b in draws]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(len(found))
    assert min(found) < 0 < max(found)


def test_the_mmd_by_loops():
    """The mean of k over pairs of different codes in each set, less twice the mean over pairs across."""
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn((4, 2), generator=generator), torch.randn((3, 2), generator=generator)
    for kind, kernel in (("rbf", lambda d2: math.exp(-d2 / 5)), ("imq", lambda d2: 5 / (5 + d2))):

        def k(x, y, kernel=kernel):
            return kernel((x - y).square().sum().item())

        within = [np.mean([k(x, y) for x, y in itertools.permutations(rows, 2)]) for rows in (a, b)]
        across = np.mean([k(x, y) for x in a for y in b])
        assert mmd(a, b, kind, bandwidth=5.0).item() == pytest.approx(sum(within) - 2 * across, abs=1e-6)


def test_a_batch_of_one_has_no_mmd():
    """An epoch's last batch may hold one example, which makes no pair: 0, with a gradient of 0."""
    z = torch.ones((1, 2), requires_grad=True)
    found = mmd(z, torch.zeros(1, 2), "rbf", bandwidth=1.0)
    found.backward()
    assert found.item() == 0
    assert z.grad.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
@pytest.mark.parametrize("conditional", [False, True])
def test_codes_are_compared_with_draws_of_the_prior(kernel, conditional):
    """InfoVAE: reconstruction + (1 − α)·KL + (α + λ − 1)·MMD; WAE: reconstruction + λ·MMD; bandwidth 2·L·scale²."""
    changes = {"conditioning": OnLabel(), "prior": LabelConditional()} if conditional else {}
    info = InfoVae(alpha=0.3, weight=5.0, kernel=kernel, scale=0.7)
    wae = WaeMmd(weight=4.0, kernel=kernel, scale=0.7)
    batch = batch_of(info, **changes)
    if conditional:
        with torch.no_grad():
            batch.model.prior.mean_of.add_(torch.arange(10.0)[:, None])
    torch.manual_seed(9)
    z = batch.terms.z[0]
    drawn = torch.randn_like(z)
    if conditional:
        drawn = drawn + batch.condition.argmax(1, keepdim=True)
    expected = mmd(z, drawn, kernel, bandwidth=2 * 3 * 0.49).item()
    reconstruction, kl = batch.terms.reconstruction.mean().item(), batch.terms.kl.sum(1).mean().item()
    torch.manual_seed(9)
    loss = info.loss(batch)
    assert loss.terms["mmd"].item() == pytest.approx(expected, rel=1e-5)
    assert loss.total.item() == pytest.approx(reconstruction + 0.7 * kl + 4.3 * expected, rel=1e-6)
    torch.manual_seed(9)
    assert loss_of(wae, batch) == pytest.approx(reconstruction + 4 * expected, rel=1e-6)


def test_info_vae_without_its_mmd_is_the_elbo():
    """α = 0 and λ = 1 leave reconstruction + KL, to the last bit, and the gradients too."""
    found = []
    for objective in (Elbo(), InfoVae(alpha=0.0, weight=1.0)):
        batch = batch_of(objective)
        loss = objective.loss(batch).total
        loss.backward()
        found.append((loss.item(), [p.grad for p in batch.model.parameters()]))
    assert found[0][0] == found[1][0]
    for first, second in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(first, second, rtol=1e-5, atol=1e-7)


def test_a_deterministic_wae_has_no_bound():
    """Its rows have reconstruction, squared error and MMD; no ELBO, no KL, and a measure of p(x|z)."""
    config = small_config(objective=WaeMmd(), posterior=Deterministic())
    rows, _ = run(config, few_digits())
    for row in rows:
        assert {"val/reconstruction", "val/squared_error", "train/mmd", "train/loss"} <= set(row)
        assert not [name for name in row if "elbo" in name or "kl" in name or "active" in name or "bits" in name]
        assert row["measure"].startswith("p(x|z) ")
        expected = row["train/reconstruction"] + 10 * row["train/mmd"]
        assert row["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_wae_pulls_its_codes_to_the_prior():
    """Codes that start far from N(0, I) end near it in mean and spread, which reconstruction alone doesn't do."""
    spread = {}
    for weight in (0.0, 1000.0):
        config = small_config(objective=WaeMmd(weight=weight), posterior=Deterministic(), latent_size=2)
        slow = {"network": Mlp(hidden=(32,)), "epochs": 60, "batch_size": 96, "optimizer": Adam(lr=3e-2)}
        config = dataclasses.replace(config, **slow)
        *_, last = train(config, few_digits())
        with torch.no_grad():
            codes = last.model.encode(last.examples.batch(slice(None)), None).mean
        spread[weight] = (codes.mean(0).abs().max().item(), (codes.std(0) - 1).abs().max().item())
    assert max(spread[1000.0]) < 0.5
    assert max(spread[0.0]) > 1.0


# DIP-VAE


@pytest.mark.parametrize("version", ["I", "II"])
def test_the_dip_penalty_is_that_of_numpys_covariance(version):
    """λ_od Σ off² + λ_d Σ (diagonal − 1)² of Cov[μ], for II with the mean variance added; and β·KL."""
    objective = DipVae(version=version, beta=2.0, off_diagonal=3.0, diagonal=5.0)
    covariance = np.cov(POSTERIOR.mean.numpy().T, bias=True)
    if version == "II":
        covariance += np.diag(POSTERIOR.variance.numpy().mean(0))
    penalty = 3 * 2 * covariance[0, 1] ** 2 + 5 * sum((covariance[d, d] - 1) ** 2 for d in range(2))
    kl = kl_divergence(Normal(POSTERIOR.mean, POSTERIOR.variance.sqrt()), Normal(0.0, 1.0)).sum(1).mean().item()
    loss = objective.loss(of_codes(CODES, POSTERIOR))
    assert loss.terms["covariance_penalty"].item() == pytest.approx(penalty, rel=1e-5)
    assert loss.total.item() == pytest.approx(100 + 2 * kl + penalty, rel=1e-5)


def test_whitened_means_have_no_dip_penalty():
    """Codes with the identity for covariance cost nothing in version I."""
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    posterior = Diagonal(square, torch.zeros(4, 2))
    loss = DipVae().loss(of_codes(square[None], posterior))
    assert loss.terms["covariance_penalty"].item() == pytest.approx(0, abs=1e-10)


# FactorVAE


def correlated(rho, count, seed):
    """Codes of two dimensions, N(0, 1) each, with correlation ``rho``: TC = −½ log(1 − ρ²)."""
    noise = torch.randn((count, 2), generator=torch.Generator().manual_seed(seed))
    return torch.stack([noise[:, 0], rho * noise[:, 0] + math.sqrt(1 - rho**2) * noise[:, 1]], dim=1)


class Optimal(nn.Module):
    """log q(z) − log Π q(z_d) of such codes, ``scale`` times."""

    def __init__(self, rho, scale=1.0):
        super().__init__()
        self.joint = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, rho], [rho, 1.0]]))
        self.scale = scale

    def forward(self, z):
        return self.scale * (self.joint.log_prob(z) - Normal(0.0, 1.0).log_prob(z).sum(1))


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9])
def test_the_optimal_discriminator_gives_the_total_correlation(rho):
    """The mean of its log-odds is the analytic TC within 4 standard errors, and no scaling of it has a lower loss."""
    count, objective = 20_000, FactorVae(gamma=10.0)
    z = correlated(rho, count, seed=1)
    batch = of_codes(z[None], Diagonal(z, torch.zeros_like(z)), adversary=Optimal(rho))
    loss = objective.loss(batch)
    error = Optimal(rho)(z).std().item() / math.sqrt(count)
    expected = -0.5 * math.log(1 - rho**2)
    assert abs(loss.terms["total_correlation"].item() - expected) < 4 * error + 1e-6
    kl = batch.terms.kl.sum(1).mean().item()
    assert loss.total.item() == pytest.approx(100 + kl + 10 * loss.terms["total_correlation"].item(), rel=1e-6)
    if rho != 0:
        at = {}
        for scale in (0.0, 0.5, 1.0, 1.5, -1.0):
            torch.manual_seed(2)
            at[scale] = objective.adversary_loss(dataclasses.replace(batch, adversary=Optimal(rho, scale))).item()
        assert min(at, key=at.get) == 1.0
        assert at[0.0] == pytest.approx(math.log(2))


def test_a_trained_discriminator_finds_the_total_correlation():
    """With FactorVAE's own loss on correlated Gaussians a small one learns TC = −½ log(1 − ρ²) to 0.06 nats."""
    rho, objective = 0.8, FactorVae(hidden=(32, 32))
    torch.manual_seed(0)
    opponent = objective.adversary(2)
    optimizer = torch.optim.Adam(opponent.parameters(), lr=1e-2)
    for step in range(150):
        z = correlated(rho, 1024, seed=step)
        optimizer.zero_grad()
        objective.adversary_loss(of_codes(z[None], adversary=opponent)).backward()
        optimizer.step()
    z = correlated(rho, 20_000, seed=1_000_000)
    found = opponent(z).mean().item()
    assert abs(found - -0.5 * math.log(1 - rho**2)) < 0.06


def test_the_adversarys_loss_by_hand():
    """½ (−log D(z) − log(1 − D(shuffled))), D = sigmoid of the logit; no gradient reaches the codes."""
    torch.manual_seed(0)
    opponent = Discriminator(2, (4,))
    z = CODES.clone().requires_grad_()
    torch.manual_seed(3)
    loss = FactorVae().adversary_loss(of_codes(z, POSTERIOR, adversary=opponent))
    torch.manual_seed(3)
    shuffled = shuffle_dimensions(CODES[0])
    real, fake = torch.sigmoid(opponent(CODES[0])), torch.sigmoid(opponent(shuffled))
    assert loss.item() == pytest.approx((-0.5 * (real.log().mean() + (1 - fake).log().mean())).item(), rel=1e-5)
    loss.backward()
    assert z.grad is None
    assert all(p.grad is not None for p in opponent.parameters())


def test_the_shuffle_keeps_each_dimensions_values():
    """Every column holds the same numbers in another order, and the columns' orders are not one."""
    torch.manual_seed(1)
    z = correlated(0.95, 2000, seed=4)
    shuffled = shuffle_dimensions(z)
    assert torch.equal(z.sort(0).values, shuffled.sort(0).values)
    assert torch.corrcoef(z.T)[0, 1] > 0.9
    assert abs(torch.corrcoef(shuffled.T)[0, 1]) < 5 / math.sqrt(2000)
    assert not torch.equal(z, shuffled)


@pytest.mark.parametrize("optimizer", [Adam(lr=1e-2), SGD(lr=1e-2, momentum=0.9)], ids=lambda o: o.kind)
def test_a_factor_vae_resumes_with_its_discriminator(optimizer, tmp_path):
    """Killed after an epoch and read from disk, it equals the uninterrupted run bit for bit, discriminator included."""
    config = small_config(objective=FactorVae(hidden=(8, 8), optimizer=optimizer), epochs=3)
    rows, states = [], []
    for result in train(config, few_digits()):
        result.state.save(tmp_path / str(result.row["epoch"]))
        rows.append(without_times(result.row))
        states.append({name: tensor.clone() for name, tensor in result.state.tensors.items()})
    adversary = [name for name in states[0] if name.startswith("adversary")]
    assert {name.partition("/")[0] for name in adversary} == {"adversary", "adversary_optimizer"}
    assert all(not torch.equal(states[0][name], states[1][name]) for name in adversary)
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        again, tensors = run(config, few_digits(), TrainState.load(tmp_path / str(epoch)))
        assert again == rows[epoch:]
        assert tensors.keys() == states[-1].keys()
        assert all(torch.equal(tensor, states[-1][name]) for name, tensor in tensors.items())


def test_a_factor_vaes_rows_are_its_loss():
    """train/loss = reconstruction + KL + γ·TC; the discriminator starts at log 2, where it knows nothing."""
    rows, _ = run(small_config(objective=FactorVae(gamma=3.0, hidden=(8,)), epochs=3), few_digits())
    for row in rows:
        expected = row["train/reconstruction"] + row["train/kl"] + 3 * row["train/total_correlation"]
        assert row["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert rows[0]["train/adversary_loss"] == pytest.approx(math.log(2), abs=0.05)


def test_the_discriminator_learns_from_its_own_loss_alone():
    """One step of each: its weights move by the gradient of its cross-entropy, whatever the model's loss left there."""
    config = small_config(
        objective=FactorVae(gamma=1e4, hidden=(8,), optimizer=SGD(lr=1.0)),
        epochs=1,
        batch_size=96,
        optimizer=SGD(lr=1e-9),
    )
    seen = {}
    right = FactorVae.adversary_loss

    def watched(self, batch):
        loss = right(self, batch)
        named = dict(batch.adversary.named_parameters())
        seen["before"] = {name: p.detach().clone() for name, p in named.items()}
        seen["gradient"] = dict(zip(named, torch.autograd.grad(loss, named.values(), retain_graph=True), strict=True))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FactorVae, "adversary_loss", watched)
        _, tensors = run(config, few_digits())
    for name, before in seen["before"].items():
        assert torch.allclose(before - seen["gradient"][name], tensors[f"adversary/{name}"], rtol=1e-4, atol=1e-6)


# Penalties on a code


CODE = torch.tensor([[0.1, 0.7], [0.3, 0.2], [0.2, 0.6]])


def test_l1_in_closed_form():
    """weight · the mean over examples of Σ |z_d|: signs don't matter."""
    loss = Reconstruction(sparsity=L1(weight=0.5)).loss(of_codes(-CODE[None], Point(-CODE)))
    assert loss.terms["sparsity_penalty"].item() == pytest.approx(0.5 * 2.1 / 3)
    assert loss.total.item() == pytest.approx(100 + 0.5 * 2.1 / 3)


def test_kl_to_rho_in_closed_form():
    """weight · Σ_d KL(Bernoulli(ρ) ‖ Bernoulli(mean of z_d)), as torch.distributions has it."""
    expected = kl_divergence(Bernoulli(torch.tensor(0.1)), Bernoulli(torch.tensor([0.2, 0.5]))).sum().item()
    loss = Reconstruction(sparsity=KlToRho(weight=3.0, rho=0.1)).loss(of_codes(CODE[None], Point(CODE)))
    assert loss.terms["sparsity_penalty"].item() == pytest.approx(3 * expected, rel=1e-5)
    assert loss.total.item() == pytest.approx(100 + 3 * expected, rel=1e-6)


def test_kl_to_rho_is_zero_at_rho():
    """Codes whose means are ρ cost nothing, and move nowhere; codes at 0 or 1 cost much, and not infinity."""
    code = torch.tensor([[0.1, 0.3], [0.3, 0.1]], requires_grad=True)
    penalty = KlToRho(rho=0.2).penalty(code)
    penalty.backward()
    assert penalty.item() == pytest.approx(0, abs=1e-7)
    assert code.grad.abs().max() < 1e-6
    for value in (0.0, 1.0):
        assert 1 < KlToRho(rho=0.2).penalty(torch.full((3, 1), value)).item() < 20


def test_without_a_penalty_reconstruction_is_all():
    """The plain autoencoder's loss has no other term."""
    loss = Reconstruction().loss(of_codes(CODE[None], Point(CODE)))
    assert (loss.total.item(), loss.terms) == (100.0, {})


# Free bits where the KL doesn't divide


def test_free_bits_are_for_the_whole_where_the_kl_does_not_divide():
    """With an estimated KL, [B, 1], λ holds for the sum: below it counts as λ, above as it is."""
    for kl, expected in ((1.5, 2.0), (3.5, 3.5)):
        terms = Terms(torch.full((1, 2), 100.0), torch.tensor([[kl - 1], [kl + 1]]), None, None)
        loss = Elbo(free_bits=2.0, beta=3.0).loss(Batch(None, terms, None, Progress(0, 1, 1), 2))
        assert loss.total.item() == pytest.approx(100 + 3 * expected)
