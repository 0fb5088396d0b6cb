"""Use of a kept model: its folder, the data it is asked about, and files as answers. The verbs are in ``cli_models``."""

from __future__ import annotations

import json
import math
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from research.errors import UserError
from research.intervals import paired_interval
from research.ledger.comparison import why_not
from research.ledger.records import verify_model
from research.ledger.source import FORMS, Folder, JsonFile, SweepTrial, source_at
from research.models.evaluation import check_label_names, examples_of, recorded_label_names
from research.models.looks import earlier_look, model_hash, write_look
from research.search.spaces import on_other_data
from research.store.data_copy import data_directory
from research.store.layout import CONFIG, RECORD
from research.store.mirror import relative
from research.store.object_store import is_url
from research.text import shell
from research.worker.comparison import facts_of
from vae.apply import codes, scores, some_codes
from vae.data.arrays import UNREADABLE, read_array
from vae.data.image_files import grey_pixels
from vae.data.labels import label_name
from vae.data.pixels import pixels_of
from vae.durable import LARGE_TEXT, read_file, replacing
from vae.measure import measure_of
from vae.pictures import MEASURED, png, shown_range
from vae.portable import load_model
from vae.system.manifest import has_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from vae.data import Split
    from vae.data.pixels import Pixels
    from vae.measure import Measure
    from vae.model import VAE
    from vae.train_config import TrainConfig


COLUMNS = 10  # images in a row of a picture, where the rows may be folded
GIVEN_THE_LABEL = (
    "the model is given each example's label, so that its scores are of p(x given y) and can't find labels"
)


@dataclass(frozen=True)
class Model:
    """A kept model and where it came from."""

    folder: Path
    config: TrainConfig
    model: VAE
    label_names: tuple[str, ...] = field(default=(), kw_only=True)  # empty where each label is called by its number


@dataclass(frozen=True)
class Kept(Model):
    """A kept model, and the examples it is asked about. ``question``: what is asked of the test split, else empty.

    ``chosen``: the single examples that were asked for, by what they are for.
    """

    pixels: Pixels
    split: Split
    measure: Measure
    why: str = ""
    question: dict[str, Any] = field(default_factory=dict)
    chosen: dict[str, int] = field(default_factory=dict)

    def seen(self, row: dict[str, Any]) -> None:
        """Add what was seen to the look at test that was written down when the split was read."""
        if self.question and (look := earlier_look(self.folder, self.question)) is not None and not look["row"]:
            write_look(self.folder, self.question, row, self.why)


def model_folder(place: str | Path, rank: int = 1) -> Path:
    """Return the model folder that ``place`` means; see :func:`research.ledger.source.source_at`.

    Raises:
        UserError: there is no model, or the sweep did not keep it.
        CorruptFile: a file of the folder is not what its manifest, its record or the sweep around it says.

    """
    match source_at(place, rank):
        case SweepTrial(ledger, number, asked):
            folder = ledger.folder.model(number)
            if not folder.is_dir():
                again = shell("research", "train", f"{relative(ledger.directory)}:{number}", "--out", "runs/again")
                raise UserError(f"the model of {asked} was not kept: choose a kept one, or train it again with {again}")
        case Folder(path) | JsonFile(path):
            folder = path.parent if path.suffix == ".json" and path.is_file() else path
            if not (folder / CONFIG).is_file() and not has_manifest(folder):
                raise UserError(f"{path} holds no model: give {FORMS}")
    verify_model(folder)
    return folder


def open_alone(place: str | Path, *, rank: int = 1, device: str = "cpu") -> Model:
    """The model at ``place``, without any data."""
    folder = model_folder(place, rank)
    config, model = load_model(folder)
    return Model(folder, config, model.to(device), label_names=recorded_label_names(folder) or ())


def open_model(
    place: str | Path,
    *,
    split: str = "validation",
    rank: int = 1,
    data: str | None = None,
    data_dir: Path | None = None,
    device: str = "cpu",
    why: str = "",
    asked: dict[str, Any] | None = None,
    check: Callable[[TrainConfig, Split, int], object] | None = None,
    examples_asked: Mapping[str, int | None] | None = None,
) -> Kept:
    """The model at ``place`` and the examples of ``split``; a look at test is written down, with ``why``.

    ``asked``: what with (JSON): the same question asked again is the same look. ``data_dir``: the record's, if None.
    ``check`` is called with the config, the examples and the number of classes, before a look is written down.
    ``examples_asked``: single examples by number, by what they are for; where None, from the split's subset.

    Raises:
        UserError: model and data don't go together.

    """
    alone = open_alone(place, rank=rank, device=device)
    folder, config, model = alone.folder, alone.config, alone.model
    data_dir = data_dir or _recorded_data_dir(folder)
    if data is not None:
        config = on_other_data(config, data)
    examples, levels = examples_of(config, model, split, data_dir)
    if data is None:
        check_label_names(folder, examples)
    if check is not None:
        check(config, examples, model.num_classes)
    measure = measure_of(config, examples, levels=levels)
    pixels = pixels_of(examples, config, levels, torch.device(device), held_out=True)
    chosen = _chosen(pixels, examples_asked or {})
    question: dict[str, Any] = {}
    if split == "test":  # before anything is shown
        asked = (asked or {}) | chosen
        question = {"model": model_hash(folder), "measure": str(measure), "verb": why, "asked": asked}
        if earlier_look(folder, question) is None:
            write_look(folder, question, {}, why)
    names = examples.label_names
    return Kept(folder, config, model, pixels, examples, measure, why, question, chosen, label_names=names)


def _chosen(pixels: Pixels, asked: Mapping[str, int | None]) -> dict[str, int]:
    """Return the examples that are ``asked`` for. The n-th one, if nobody named it, is the n-th of the split's subset.

    Raises:
        UserError: the split has no example of that number.

    """
    given = [number for number in asked.values() if number is not None]
    if beyond := [number for number in given if number >= len(pixels)]:
        raise UserError(f"example {beyond[0]}: the split has {len(pixels)}, numbered from 0")
    usual = pixels.subset(2 * len(asked)).tolist()
    chosen: dict[str, int] = {}
    for place, (name, number) in enumerate(asked.items()):
        taken = {*given, *chosen.values()}  # an example that was named is not taken a second time by default
        free = [own for own in usual[place:] + usual[:place] if own not in taken]
        if number is None and not free:
            raise UserError(f"the split has {len(pixels)} examples, and this verb needs {len(asked)}")
        chosen[name] = free[0] if number is None else number
    return chosen


def _recorded_data_dir(folder: Path) -> Path | None:
    """Return the data directory of the training, if it still exists."""
    try:
        recorded = json.loads(read_file(folder / RECORD, LARGE_TEXT))["data_dir"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(recorded, str):
        return None
    if is_url(recorded):
        return data_directory(recorded)
    return Path(recorded) if os.path.isdir(recorded) else None  # noqa: PTH112 - a NUL in it


def need_images(kept: Model) -> None:
    """Refuse to draw tables.

    Raises:
        UserError: an example is a row of a table.

    """
    if min(kept.model.shape[1:]) < 2:  # noqa: PLR2004 - a line of pixels is no picture
        raise UserError("the model's data are no images: use --out FILE.npz for arrays, or encode and score")


def shown_span(kept: Model, rows: Sequence[tuple[str, Tensor]]) -> tuple[float, float] | None:
    """Return the values that are black and white in pictures: of the data where there are some, else of ``rows``."""
    if isinstance(kept, Kept):
        return shown_range(kept.model, kept.pixels.batch(slice(0, min(MEASURED, len(kept.pixels)))))
    return shown_range(kept.model, torch.cat([x for _, x in rows]))


def need_unlabelled(kept: Model) -> None:
    """Refuse to search for a label with the scores of a model that is given the label.

    Raises:
        UserError: the model is conditioned on the label.

    """
    if kept.model.labelled:
        raise UserError(f"--anomaly-label: {GIVEN_THE_LABEL}; train the model with conditioning.kind 'none'")


def write(
    out: Path,
    rows: Sequence[tuple[str, Tensor]],
    shape: tuple[int, int, int],
    title: str,
    *,
    fold: bool = True,
    span: tuple[float, float] | None = None,
) -> None:
    """``rows`` of (caption, [n, D]) as a captioned PNG, or as arrays by caption in an ``.npz``.

    ``fold``: rows longer than a page are broken, those of one height together. ``span``: the values that are black and
    white in a PNG, in place of 0 and 1; an ``.npz`` has the values themselves. ``out`` is written whole or not at all.

    Raises:
        UserError: ``out`` ends in neither, or can't be written.

    """
    if out.suffix not in {".png", ".npz"}:
        raise UserError(f"--out must end in .png or .npz, got {str(out)!r}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out, sync=False) as temporary:
            if out.suffix == ".npz":
                names = _keys([name for name, _ in rows])
                arrays: dict[str, Any] = {
                    name: x.unflatten(1, shape).cpu().numpy() for name, (_, x) in zip(names, rows, strict=True)
                }
                with temporary.open("wb") as file:
                    np.savez_compressed(file, **arrays)
            else:
                shown = _folded(rows) if fold else rows
                captions = [name for name, _ in shown]
                images = [x.unflatten(1, shape) for _, x in shown]
                temporary.write_bytes(png(images, captions=captions, title=title, span=span))
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}); choose another --out") from None


def _folded(rows: Sequence[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """The first columns of all rows, then the next of all rows, and so on."""
    most = max(len(x) for _, x in rows)
    starts = range(0, most, COLUMNS)
    return [(name, x[start : start + COLUMNS]) for start in starts for name, x in rows if start < len(x)]


def _keys(captions: Sequence[str]) -> list[str]:
    """Return a name for each array; captions may hold the names of labels, which may hold anything."""
    keys: list[str] = []
    for caption in captions:
        key = "_".join(re.sub(r"[=/\\:\x00-\x1f]", "_", caption).split())
        keys.append(f"{key}_{len(keys)}" if key in keys else key)
    return keys


def encode(kept: Kept, out: Path) -> int:
    """Posterior means, variances and labels as Parquet, one row an example; how many. Nothing is held but a batch."""
    import pyarrow as pa  # noqa: PLC0415 - tables alone need it

    size = kept.model.latent_size
    names = [f"mean_{i}" for i in range(size)] + [f"variance_{i}" for i in range(size)]
    called = [("label_name", pa.string())] if kept.label_names else []
    schema = pa.schema(
        [("index", pa.int64()), ("label", pa.int64()), *called, *((name, pa.float32()) for name in names)]
    )
    written = 0
    with _parquet(out, schema) as writer:
        for mean, variance, labels in codes(kept.model, kept.pixels):
            columns = [*mean.T, *variance.T]
            index = torch.arange(written, written + len(labels))
            arrays = [pa.array(column.numpy()) for column in (index, labels)]
            if called:
                arrays.append(pa.array(_called(kept, labels.tolist()), pa.string()))
            arrays += [pa.array(column.numpy()) for column in columns]
            writer.write_table(pa.table(arrays, schema=schema))
            written += len(labels)
    return written


def check_plane(how: str, count: int) -> None:
    """Refuse a plane that ``count`` examples don't span.

    Raises:
        UserError: with the least number.

    """
    least = 1 if how == "dimensions" else 2
    if count < least:
        raise UserError(f"--by {how} needs at least {least} examples, and the split has {count}: use --by dimensions")


def plane(
    kept: Kept, how: str, *, limit: int = 10_000
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float | None]:
    """The codes of up to ``limit`` examples in 2-D, their labels, and 5-NN accuracy there (5-fold; None unlabelled).

    ``how``: ``dimensions`` (the first two), ``pca`` or ``tsne``.
    """
    from sklearn.decomposition import PCA  # noqa: PLC0415 - takes seconds
    from sklearn.manifold import TSNE  # noqa: PLC0415
    from sklearn.model_selection import cross_val_score  # noqa: PLC0415
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415

    means, _, labels = some_codes(kept.model, kept.pixels, limit)
    z, y = means.numpy(), labels.numpy()
    if z.shape[1] < 2:  # noqa: PLR2004 - the second dimension is 0
        z = np.concatenate([z, np.zeros_like(z)], axis=1)
    match how:
        case "dimensions":
            flat = z[:, :2]
        case "pca":
            flat = PCA(2, random_state=0).fit_transform(z)
        case _:
            if not np.ptp(z, axis=0).any():  # scikit-learn would divide by 0, and the process crash
                raise UserError(
                    f"--by tsne needs codes that differ, and all {len(z)} are equal (the posterior has collapsed): use --by "
                    "dimensions"
                )
            flat = TSNE(2, random_state=0, init="pca", perplexity=max(1, min(30, len(z) // 4))).fit_transform(z)
    counts = np.unique(y, return_counts=True)[1]
    accuracy = None
    if len(counts) > 1 and counts.min() >= 5:  # noqa: PLR2004 - folds
        accuracy = float(cross_val_score(KNeighborsClassifier(5), flat, y, cv=5).mean())
    return flat, y, accuracy


def score(kept: Kept, out: Path | None) -> dict[str, np.ndarray[Any, Any]]:
    """Per-example scores by name, and as Parquet where ``out`` says so."""
    import pyarrow as pa  # noqa: PLC0415 - tables alone need it

    settings = kept.config.eval
    asked: dict[str, Any] = {"seed": settings.seed, "samples": settings.samples, "split": kept.measure.split}
    parts: dict[str, list[Any]] = {}
    for found in scores(kept.model, kept.pixels, **asked):
        for name, values in found.items():
            parts.setdefault(name, []).append(values.numpy())
    every = {name: np.concatenate(values) for name, values in parts.items()}
    if out is not None:
        labels = kept.split.labels.numpy()
        columns: dict[str, Any] = {"index": np.arange(len(labels)), "label": labels}
        if kept.label_names:
            columns["label_name"] = pa.array(_called(kept, labels.tolist()), pa.string())
        columns |= every
        table = pa.table(columns)
        with _parquet(out, table.schema) as writer:
            writer.write_table(table)
    return every


def strangeness(every: dict[str, np.ndarray[Any, Any]]) -> tuple[str, np.ndarray[Any, Any]]:
    """Return the score that ranks anomalies: −elbo if there is one, else the reconstruction in nats; larger is stranger."""
    return ("negative_elbo", -every["elbo"]) if "elbo" in every else ("reconstruction", every["reconstruction"])


def detection(scores_: np.ndarray[Any, Any], positive: np.ndarray[Any, Any]) -> dict[str, float]:
    """AUROC and average precision of ``scores_`` for ``positive``.

    Raises:
        UserError: there is but one kind.

    """
    from sklearn.metrics import average_precision_score, roc_auc_score  # noqa: PLC0415 - takes seconds

    if positive.all() or not positive.any():
        raise UserError("AUROC needs examples of both kinds, and all of these are of one")
    return {
        "auroc": float(roc_auc_score(positive, scores_)),
        "average_precision": float(average_precision_score(positive, scores_)),
    }


def compare(a: Kept, b: Kept) -> dict[str, Any]:
    """The paired per-example difference of two models' elbo (or reconstruction), a − b, with Student's 95 % interval.

    Of one example there is neither a standard error nor an interval: None.

    Raises:
        UserError: their measures differ, so that the difference would mean nothing, or a score is not finite.

    """
    if a.measure != b.measure:
        raise UserError(
            f"the models can't be compared: their numbers are of different things: {a.measure} and {b.measure}"
        )
    metric = "val/elbo" if a.model.has_density else "val/reconstruction"
    facts = [facts_of(kept.config, str(kept.measure), examples=len(kept.split)) for kept in (a, b)]
    if (reason := why_not([metric], *facts)) is not None:
        raise UserError(
            f"the models can't be compared: of the first {reason}; compare their figures of research evaluate --nll K"
        )
    one, other = score(a, None), score(b, None)
    name = "elbo" if "elbo" in one else "reconstruction"
    if not all(np.isfinite(each[name]).all() for each in (one, other)):
        raise UserError(f"the models can't be compared: {name} is not finite for every example")
    found = paired_interval((one[name] - other[name]).tolist())
    return {
        "quantity": name,
        "a": float(one[name].mean()),
        "b": float(other[name].mean()),
        "difference": found.mean,
        "standard_error": found.error,
        "interval_95": None if found.error is None else [found.low, found.high],
        "examples": len(one[name]),
        "measure": str(a.measure),
    }


def _called(kept: Model, labels: Sequence[int]) -> list[str]:
    return [label_name(kept.label_names, label) for label in labels]


@contextmanager
def _parquet(out: Path, schema: Any) -> Iterator[Any]:  # noqa: ANN401 - pyarrow's own
    from pyarrow import parquet  # noqa: PLC0415 - tables alone need it

    if out.suffix != ".parquet":
        raise UserError(f"--out must end in .parquet, got {str(out)!r}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out, sync=False) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
            yield writer
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror or error}); choose another --out") from None


def draw_mask(text: str, shape: tuple[int, int, int]) -> Tensor:
    """Return the mask of missing dimensions, [D]: a ``.png`` or ``.npy`` of the images' size (above half is missing), or a named part.

    Raises:
        UserError: it is neither, or of another size.

    """
    from vae.conditioning import seen_pixels  # noqa: PLC0415 - here alone

    halves: dict[str, tuple[Any, ...]] = {
        "top": ("top_left", "top_right"),
        "bottom": ("bottom_left", "bottom_right"),
        "left": ("top_left", "bottom_left"),
        "right": ("top_right", "bottom_right"),
    }
    quadrants: dict[str, tuple[Any, ...]] = {name: (name,) for half in halves.values() for name in half}
    if named := (halves | quadrants).get(text):
        return seen_pixels(shape, named).flatten()
    path = Path(text)
    if not path.is_file():
        raise UserError(f"--mask must be a .png or .npy file, or one of {', '.join(halves | quadrants)}, got {text!r}")
    try:
        is_array = path.suffix == ".npy"
        values = read_array(path).astype(float) if is_array else grey_pixels(path) / 255
    except UNREADABLE as error:
        raise UserError(f"--mask {text!r} can't be read: {' '.join(str(error).split())[:200]}") from None
    if values.shape != shape[1:]:
        raise UserError(f"--mask {text!r} must be {shape[1]}×{shape[2]}, as the images are, got {values.shape}")
    return torch.from_numpy(values > 0.5).expand(shape).flatten()  # noqa: PLR2004 - half


def export(kept: Model, out: Path) -> dict[str, float]:
    """``encoder.onnx`` and ``decoder.onnx`` in the folder ``out``, checked against the model on 64 random inputs.

    Encoder: x [B, D] (and condition [B, K]) -> mean, variance [B, L]. Decoder: z [B, L] (and condition) -> mean of x
    [B, D] and the raw outputs, a likelihood's logits say. Returns the largest differences.

    Raises:
        UserError: the packages are missing, or the graphs don't give the model's numbers.

    """
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
        import onnxscript  # noqa: F401, PLC0415 - what torch exports with
    except ImportError as error:
        raise UserError(f"export needs {error.name}: pip install 'vae-research[export]'") from None
    from research.models.onnx_graphs import DecoderGraph, EncoderGraph, export_graph  # noqa: PLC0415 - here alone

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} can't be made a folder ({error.strerror}); choose another --out") from None
    model = kept.model.eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((64, math.prod(model.shape)), generator=generator)
    condition = model.condition(x, torch.arange(64) % max(1, model.num_classes))
    told = () if condition is None else (condition,)
    names = [] if condition is None else ["condition"]
    with torch.no_grad():
        posterior = model.encode(x, condition)
        z = posterior.mean + torch.randn(posterior.mean.shape, generator=generator)
        expected = {
            "encoder": (posterior.mean, posterior.variance),
            "decoder": (model.likelihood.mean(model.decode(z, condition)), model.decode(z, condition)),
        }
    asked: dict[str, tuple[Any, tuple[Tensor, ...], list[str], list[str]]] = {
        "encoder": (
            EncoderGraph(model),
            (x, *(told if model.conditioning.encoder_size else ())),
            ["x", *(names if model.conditioning.encoder_size else [])],
            ["mean", "variance"],
        ),
        "decoder": (DecoderGraph(model), (z, *told), ["z", *names], ["x_mean", "output"]),
    }
    worst: dict[str, float] = {}
    for name, (graph, inputs, input_names, output_names) in asked.items():
        file = out / f"{name}.onnx"
        export_graph(graph, inputs, file, input_names, output_names)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for count in (len(x), 3):  # the batch is free
            feed = {key: value[:count].numpy() for key, value in zip(input_names, inputs, strict=True)}
            found = session.run(None, feed)
            for output, got, want in zip(output_names, found, expected[name], strict=True):
                difference = float(np.abs(got - want[:count].numpy()).max())
                close = bool(np.allclose(got, want[:count].numpy(), rtol=1e-4, atol=1e-5))
                worst[f"{name}.{output}"] = max(difference, worst.get(f"{name}.{output}", 0.0))
                if not close or (output == "mean" and difference > 1e-5):  # noqa: PLR2004 - what is promised
                    raise UserError(
                        f"{file}: {output} differs from the model's by {difference:.2g}: not exported faithfully"
                    )
    return worst
