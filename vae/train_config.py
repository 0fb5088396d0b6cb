"""TrainConfig: everything that is needed to repeat one training run, and nothing else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vae.conditioning import ConditioningConfig, Unconditional
from vae.config import FractionBelowOne, NonNegativeInt, PositiveFloat, PositiveInt, part
from vae.corruption import CorruptionConfig, NoCorruption
from vae.data import Arrays, DataConfig, Digits
from vae.data.splits import SubsetRule
from vae.external import External
from vae.external_metric import ExternalMetric
from vae.likelihoods import Binomial, LikelihoodConfig
from vae.networks import Mlp, NetworkConfig
from vae.objectives import Capacity, CosineWarmup, Cyclical, Elbo, Iwae, LinearWarmup, ObjectiveConfig
from vae.optimizers import Adam, ConstantRate, OptimizerConfig, ScheduleConfig
from vae.posteriors import DiagonalGaussian, PosteriorConfig
from vae.priors import PriorConfig, StandardNormal

FEW_LEVELS = 32  # the largest number of levels for which a binomial is wide enough


@part
class Initialisation:
    """The initialisation of the weights.

    ``weights`` are PyTorch's defaults, or those of Glorot & Bengio 2010 (``xavier_*``) with zero biases.

    ``output_bias`` is the decoder's last bias. ``data_mean`` sets it to the value with which the decoder predicts the mean
    of the training data, by pixel, or by channel if the last layer is a convolution. For Bernoulli and binomial these are
    the log-odds, as in the code of Burda et al. 2016.
    """

    weights: Literal["pytorch", "xavier_uniform", "xavier_normal"] = "pytorch"
    output_bias: Literal["default", "data_mean"] = "default"


@part
class Evaluation:
    """The settings of held-out metrics. They belong to the sweep: a space that varies them is refused.

    ``samples`` is the number of draws of z for each example. ``nll_k`` is the number of importance samples of
    ``val/nll_iwae`` over ``nll_images`` examples; 0 leaves it out.

    ``classified_samples`` is for models conditioned on the label. This number of samples is judged by a classifier that is
    trained on the same data, as ``val/samples_as_asked``; 0 leaves it out.

    ``subset`` chooses the examples if fewer than all are used (``nll_images``, pictures). ``permuted`` takes the first of a
    fixed permutation by ``data.split_seed``. ``first`` takes the first in file order, as version 0.1.0 did.
    """

    seed: NonNegativeInt = 0
    samples: PositiveInt = 1
    batch_size: PositiveInt = 1000
    nll_k: Annotated[int, Field(ge=0, le=5000)] = 0
    nll_images: PositiveInt = 1000
    classified_samples: NonNegativeInt = 0
    subset: SubsetRule = "permuted"


def _for_integers(data: DataConfig) -> str:
    """Return the likelihood to recommend for whole numbers, by the number of their levels.

    A binomial's standard deviation is at most half the root of the levels. For 0..255 this is too narrow: a model can know
    less about a pixel, and then scores worse than a uniform guess.
    """
    levels = data.levels if isinstance(data, Arrays) else 16 if isinstance(data, Digits) else 255
    if levels is None or isinstance(data, External):
        return "'discretised_logistic' (0..255) or 'binomial' (few levels)"
    return "'binomial'" if levels <= FEW_LEVELS else "'discretised_logistic'"


@part
class TrainConfig:
    """One training run: a model (network × posterior × prior × likelihood × conditioning) and its training.

    ``seed`` decides weights, data order and noise in training. ``gradient_clip`` is a bound on the global norm of the
    gradient. With ``ema_decay`` an exponential moving average of the weights is evaluated and kept. ``precision: bfloat16``
    uses autocast. ``compile`` uses torch.compile, which pays for long runs only.
    """

    data: DataConfig = Digits()
    network: NetworkConfig = Mlp()
    latent_size: PositiveInt = 20
    posterior: PosteriorConfig = DiagonalGaussian()
    prior: PriorConfig = StandardNormal()
    likelihood: LikelihoodConfig = Binomial()
    conditioning: ConditioningConfig = Unconditional()
    corruption: CorruptionConfig = NoCorruption()
    objective: ObjectiveConfig = Elbo()
    optimizer: OptimizerConfig = Adam()
    schedule: ScheduleConfig = ConstantRate()
    initialisation: Initialisation = Initialisation()
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    gradient_clip: PositiveFloat | None = None
    ema_decay: FractionBelowOne | None = None
    seed: NonNegativeInt = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    eval: Evaluation = Evaluation()
    metrics: tuple[ExternalMetric, ...] = ()

    def __post_init__(self) -> None:
        """Refuse combinations of parts that have no meaning. Each message names the field to change."""
        binarisation = self.data.binarisation
        kind, support = self.likelihood.kind, self.likelihood.support
        if support == "binary" and binarisation == "none":
            raise ValueError(
                f"likelihood.kind {kind!r} needs data.binarisation 'expected', 'static' or 'dynamic', got 'none': "
                f"it is a mass function on {{0, 1}}; for integer pixels use likelihood.kind {_for_integers(self.data)}"
            )
        if support != "binary" and binarisation != "none":
            raise ValueError(
                f"likelihood.kind {kind!r} needs data.binarisation 'none', got {binarisation!r}; "
                "for binarised pixels use likelihood.kind 'bernoulli'"
            )
        if self.data.dequantise and self.likelihood.discrete:
            raise ValueError(f"data.dequantise needs a density, likelihood.kind 'gaussian', got {kind!r}")
        self._check_posterior_and_prior()
        self._check_annealing()
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"metrics must have different names, got {', '.join(names)}")
        if self.data.validation == 0 and self.metrics:
            raise ValueError("metrics need a validation split, but data.validation is 0")
        if self.data.validation == 0 and self.eval.nll_k > 0:
            raise ValueError("eval.nll_k needs a validation split, but data.validation is 0")
        if self.eval.classified_samples > 0 and self.conditioning.given != "label":
            raise ValueError(
                f"eval.classified_samples needs conditioning.kind 'label', got {self.conditioning.kind!r}: "
                "samples that were asked for by no label can't be as asked"
            )
        if binarisation == "expected" and self.eval.nll_k > 0:
            raise ValueError(
                "eval.nll_k needs a normalised likelihood, but data.binarisation is 'expected': cross-entropy on grey "
                "pixels is no log p(x); use 'static' or 'dynamic'"
            )
        if self.compile and isinstance(self.objective, Iwae) and self.objective.doubly_reparameterised:
            raise ValueError(
                "compile must be false with objective.doubly_reparameterised: its gradient is changed on the way through z"
            )

    def _check_posterior_and_prior(self) -> None:
        posterior, prior, objective = self.posterior.kind, self.prior.kind, self.objective
        if posterior not in objective.posteriors:
            allowed = " or ".join(repr(kind) for kind in objective.posteriors)
            raise ValueError(f"objective.kind {objective.kind!r} needs posterior.kind {allowed}, got {posterior!r}")
        priors: tuple[str, ...] = getattr(objective, "priors", (prior,))
        if prior not in priors:
            allowed = " or ".join(repr(kind) for kind in priors)
            raise ValueError(f"objective.kind {objective.kind!r} needs prior.kind {allowed}, got {prior!r}")
        if self.prior.needs_label and self.conditioning.given != "label":
            raise ValueError(f"prior.kind {prior!r} needs conditioning.kind 'label', got {self.conditioning.kind!r}")
        if prior == "vamp" and not isinstance(self.conditioning, Unconditional):
            raise ValueError(
                f"prior.kind 'vamp' needs conditioning.kind 'none', got {self.conditioning.kind!r}: its pseudo-inputs "
                "have no label; use 'label_conditional' or 'mixture'"
            )
        if not self.posterior.has_density and self.eval.nll_k > 0:
            raise ValueError(
                f"eval.nll_k must be 0 with posterior.kind {posterior!r}, got {self.eval.nll_k}: a code without a density "
                "gives no log p(x)"
            )
        sparsity = getattr(self.objective, "sparsity", None)
        if sparsity is not None and sparsity.kind == "kl_to_rho" and self.posterior.activation != "sigmoid":  # type: ignore[union-attr] # only deterministic codes get here
            raise ValueError(
                "objective.sparsity.kind 'kl_to_rho' needs posterior.activation 'sigmoid': a code in (0, 1)"
            )

    def _check_annealing(self) -> None:
        match getattr(self.objective, "beta_schedule", None):
            case (LinearWarmup() | CosineWarmup()) as schedule if schedule.epochs > self.epochs:
                raise ValueError(
                    f"objective.beta_schedule.epochs must be at most epochs ({self.epochs}), got {schedule.epochs}: "
                    "β would never reach its value"
                )
            case Cyclical(cycles=cycles) if cycles > self.epochs:
                raise ValueError(f"objective.beta_schedule.cycles must be at most epochs ({self.epochs}), got {cycles}")
            case _:
                pass
        if isinstance(self.objective, Capacity) and self.objective.epochs > self.epochs:
            raise ValueError(
                f"objective.epochs must be at most epochs ({self.epochs}), got {self.objective.epochs}: "
                "the capacity would never be reached"
            )
