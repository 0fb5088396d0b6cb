"""TrainConfig: everything that is needed to repeat one training run, and nothing that is not."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vae.config import FractionBelowOne, NonNegativeInt, PositiveFloat, PositiveInt, part
from vae.data import DataConfig, Digits
from vae.likelihoods import Bernoulli, Binomial, Gaussian, LikelihoodConfig
from vae.networks import ConditioningConfig, Mlp, NetworkConfig, Unconditional
from vae.objectives import Cyclical, Elbo, LinearWarmup, ObjectiveConfig
from vae.optimizers import Adam, ConstantRate, OptimizerConfig, ScheduleConfig
from vae.priors import LabelConditional, PriorConfig, StandardNormal


@part
class Initialisation:
    """How weights start.

    ``weights``: PyTorch's own defaults, or Glorot & Bengio 2010 (``xavier_*``) with zero biases.
    ``output_bias``: the decoder's last bias left as it is, or at the value that predicts the training data's
    mean pixel by pixel, channel by channel where a convolution ends it (for Bernoulli and binomial its
    log-odds, as Burda et al. 2016's code does).
    """

    weights: Literal["pytorch", "xavier_uniform", "xavier_normal"] = "pytorch"
    output_bias: Literal["default", "data_mean"] = "default"


@part
class Evaluation:
    """How held-out numbers are estimated. Belongs to the sweep: a space that varies it is refused.

    ``samples``: draws of z for each example. ``nll_k``: importance samples for ``val/nll_iwae`` (0: not
    computed), over the first ``nll_images`` examples.
    """

    seed: NonNegativeInt = 0
    samples: PositiveInt = 1
    batch_size: PositiveInt = 1000
    nll_k: Annotated[int, Field(ge=0, le=5000)] = 0
    nll_images: PositiveInt = 1000


@part
class TrainConfig:
    """One training run: a model is network × prior × likelihood × conditioning, an objective a function of its terms.

    ``seed`` covers weights, data order and noise in training. ``gradient_clip`` is a bound on the gradient's
    global norm. ``ema_decay``: evaluate and keep an exponential moving average of the weights.
    ``precision: bfloat16`` is autocast; ``compile`` is torch.compile, worth it only for long runs.
    """

    data: DataConfig = Digits()
    network: NetworkConfig = Mlp()
    latent_size: PositiveInt = 20
    prior: PriorConfig = StandardNormal()
    likelihood: LikelihoodConfig = Binomial()
    conditioning: ConditioningConfig = Unconditional()
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

    def __post_init__(self) -> None:
        """Refuse combinations of parts that mean nothing, naming the field that mends each."""
        binarisation = self.data.binarisation
        match self.likelihood:
            case Bernoulli() if binarisation == "none":
                raise ValueError(
                    "likelihood.kind 'bernoulli' needs data.binarisation 'expected', 'static' or 'dynamic', got 'none': "
                    "it is a mass function on {0, 1}; for integer pixels use likelihood.kind 'binomial'"
                )
            case Binomial() | Gaussian() if binarisation != "none":
                raise ValueError(
                    f"likelihood.kind {self.likelihood.kind!r} needs data.binarisation 'none', got {binarisation!r}; "
                    "for binarised pixels use likelihood.kind 'bernoulli'"
                )
            case _:
                pass
        if self.data.dequantise and not isinstance(self.likelihood, Gaussian):
            raise ValueError(
                f"data.dequantise needs a density, likelihood.kind 'gaussian', got {self.likelihood.kind!r}"
            )
        if isinstance(self.prior, LabelConditional) and isinstance(self.conditioning, Unconditional):
            raise ValueError("prior.kind 'label_conditional' needs conditioning.kind 'label', got 'none'")
        match self.objective.beta_schedule:
            case LinearWarmup(epochs=warmup) if warmup > self.epochs:
                raise ValueError(
                    f"objective.beta_schedule.epochs must be at most epochs ({self.epochs}), got {warmup}: "
                    "β would never reach its value"
                )
            case Cyclical(cycles=cycles) if cycles > self.epochs:
                raise ValueError(f"objective.beta_schedule.cycles must be at most epochs ({self.epochs}), got {cycles}")
            case _:
                pass
        if self.data.validation == 0 and self.eval.nll_k > 0:
            raise ValueError("eval.nll_k needs a validation split, but data.validation is 0")
        if binarisation == "expected" and self.eval.nll_k > 0:
            raise ValueError(
                "eval.nll_k needs a normalised likelihood, but data.binarisation is 'expected': cross-entropy on grey "
                "pixels is no log p(x); use 'static' or 'dynamic'"
            )
