"""``research evaluate``: a kept model's numbers on a split, each look at test written down."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from research.errors import UserError
from research.ledger.records import verify_model
from research.models.looks import earlier_look, model_hash, write_look
from research.search.spaces import on_other_data
from research.store.layout import RECORD
from research.worker.rows import finite
from vae.data import Split, load_test, load_training
from vae.data.labels import listed
from vae.data.pixels import pixels_of
from vae.data.support import check_support
from vae.durable import LARGE_TEXT, read_file
from vae.evaluate import evaluate, importance_weighted_nll
from vae.external_metric import external_metrics
from vae.measure import measure_of
from vae.portable import load_model
from vae.serialization import as_earlier

if TYPE_CHECKING:
    from pathlib import Path

    from vae.model import VAE
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
        CorruptFile: a file of the folder is not what its manifest, its record or the sweep around it says.

    """
    if split not in {"validation", "test"}:
        raise UserError(f"split must be validation or test, got {split!r}")
    verify_model(folder)
    config, model = load_model(folder)
    if data is not None:
        config = on_other_data(config, data)  # so that the numbers mean the same
    examples, levels = examples_of(config, model, split, data_dir)
    if data is None:
        check_label_names(folder, examples)
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
        "eval": as_earlier("Evaluation", dataclasses.asdict(config.eval)),  # so earlier looks are found
        "nll_k": nll_k,
        "images": images if nll_k > 0 else 0,
    }
    if split == "test" and (look := earlier_look(folder, question)) is not None:
        return Answer(row=look["row"], stored=True)
    model.to(device)
    pixels = pixels_of(examples, config, levels, torch.device(device), held_out=True)
    prefix = "val" if split == "validation" else split
    row: dict[str, Any] = {
        f"{prefix}/{name}": value
        for name, value in evaluate(model, pixels, config.eval, measure, config.corruption).items()
    }
    own = external_metrics(config.metrics, model, pixels, config.eval.seed)
    row |= {f"{prefix}/{name}": value for name, value in own.items()}
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


def examples_of(config: TrainConfig, model: VAE, split: str, data_dir: Path | None) -> tuple[Split, int]:
    """The examples of ``split`` that ``model`` is asked about, and their levels.

    Raises:
        UserError: there is no such split, or the model is of other data.
        DataError: the likelihood gives a value no probability.

    """
    training = load_training(config.data, data_dir)
    examples = load_test(config.data, data_dir) if split == "test" else training.validation
    if examples is None:
        raise UserError(
            "the model was trained without a validation split (data.validation is 0, or the set is too small for one): "
            "use --split test"
        )
    if examples.shape != model.shape or training.levels != model.levels:
        wanted, found = ("×".join(map(str, shape)) for shape in (model.shape, examples.shape))
        raise UserError(
            f"the model is of {wanted} with values 0..{model.levels}; data {config.data.kind!r} has {found} with 0..{training.levels}"
        )
    if model.labelled and (highest := int(examples.labels.max())) >= model.num_classes:
        raise UserError(
            f"the model knows labels 0 to {model.num_classes - 1}; data {config.data.kind!r} has label {highest}"
        )
    check_support(config, examples, training.levels)
    return examples, training.levels


def check_label_names(folder: Path, examples: Split) -> None:
    """Refuse data whose label numbers mean other names than those that the model in ``folder`` was trained with.

    Raises:
        UserError: naming both.

    """
    recorded = recorded_label_names(folder)
    if recorded is not None and recorded != examples.label_names:
        was, now = (listed(names) if names else "numbers" for names in (recorded, examples.label_names))
        raise UserError(
            f"the labels of the data are not the model's ({was} -> {now}): its label numbers would mean others; "
            "put the old files back"
        )


def recorded_label_names(folder: Path) -> tuple[str, ...] | None:
    """Return the labels' names that the model's record holds; None where it is of a version that kept none."""
    try:
        names = json.loads(read_file(folder / RECORD, LARGE_TEXT))["label_names"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None
