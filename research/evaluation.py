"""``research evaluate``: a kept model's numbers on a split, each look at test written down."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from research.checkpoints import model_hash
from research.errors import UserError
from research.looks import earlier_look, write_look
from research.spaces import on_other_data
from research.trial_rows import finite
from vae.data import Split, load_test, load_training
from vae.data.pixels import pixels_of
from vae.data.support import check_support
from vae.evaluate import evaluate, importance_weighted_nll
from vae.measure import measure_of
from vae.portable import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from vae.train_config import TrainConfig


@dataclass(frozen=True)
class Answer:
    """A row of held-out numbers, and whether it is a stored look at test rather than a new one."""

    row: dict[str, Any]
    stored: bool


def evaluate_model(
    folder: Path,
    *,
    split: str,
    nll_k: int,
    images: int,
    data: str | None,
    data_dir: Path | None,
    device: str,
    why: str,
) -> Answer:
    """The model's bound on ``split``, and with ``nll_k`` > 0 its importance-weighted likelihood.

    Raises:
        UserError: the model, the data and the question don't go together.

    """
    config, model = load_model(folder)
    if data is not None:
        config = on_other_data(config, data)  # so that the numbers mean the same
    examples, levels = _load(config, split, data_dir)
    if tuple(examples.images.shape[1:]) != model.shape or levels != model.levels:
        asked = f"{_shape(model.shape)} with values 0..{model.levels}"
        raise UserError(
            f"the model is of images {asked}; {config.data.kind!r} has {_shape(examples.images.shape[1:])} with 0..{levels}"
        )
    if nll_k > 0 and not model.has_density:
        raise UserError("--nll needs a density over z; the model's code is deterministic")
    measure = measure_of(config, examples, levels=levels)
    if nll_k > 0 and not measure.normalised:
        raise UserError(
            "--nll needs a normalised likelihood; the model was trained on grey pixels with binarisation 'expected', "
            "whose cross-entropy is no log p(x)"
        )
    question = {
        "model": model_hash(folder),
        "measure": str(measure),
        "eval": dataclasses.asdict(config.eval),
        "nll_k": nll_k,
        "images": images if nll_k > 0 else 0,
    }
    if split == "test" and (look := earlier_look(folder, question)) is not None:
        return Answer(row=look["row"], stored=True)
    model.to(device)
    check_support(config, examples, levels)
    pixels = pixels_of(examples, config, levels, torch.device(device), held_out=True)
    prefix = "val" if split == "validation" else split
    row: dict[str, Any] = {
        f"{prefix}/{name}": value
        for name, value in evaluate(model, pixels, config.eval, measure, config.corruption).items()
    }
    row["measure"] = str(measure)
    if nll_k > 0:
        ask: dict[str, Any] = {"k": nll_k, "images": images, "seed": config.eval.seed, "split": split}
        row |= {f"{prefix}/{name}": v for name, v in importance_weighted_nll(model, pixels, **ask).metrics().items()}
        if model.labelled:
            estimate = importance_weighted_nll(model, pixels, **ask, marginal=True)
            row |= {f"{prefix}/{name}": v for name, v in estimate.metrics("nll_iwae_marginal").items()}
            row["measure_marginal"] = str(measure_of(config, examples, levels=levels, marginal=True))
    row = finite(row)
    if split == "test":
        write_look(folder, question, row, why)
    return Answer(row=row, stored=False)


def _load(config: TrainConfig, split: str, data_dir: Path | None) -> tuple[Split, int]:
    training = load_training(config.data, data_dir)
    if split == "test":
        return load_test(config.data, data_dir), training.levels
    if training.validation is None:
        raise UserError("the model was trained with data.validation 0: there is no validation split; use --split test")
    return training.validation, training.levels


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
