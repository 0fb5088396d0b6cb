"""Use of a kept model: its folder, the data it is asked about, and files as answers. The verbs are in ``cli_models``."""

from __future__ import annotations

import json
import math
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from research.errors import UserError
from research.ledger.comparison import why_not
from research.ledger.log import Ledger
from research.ledger.records import verify_model
from research.models.evaluation import examples_of
from research.models.looks import earlier_look, model_hash, write_look
from research.search.spaces import on_other_data
from research.store.data_copy import data_directory
from research.store.layout import RECORD, trial_name
from research.store.object_store import is_url
from research.worker.comparison import facts_of
from vae.apply import codes, paired_difference, scores
from vae.data.arrays import UNREADABLE, read_array
from vae.data.image_files import grey_pixels
from vae.data.pixels import pixels_of
from vae.durable import LARGE_TEXT, read_file
from vae.measure import measure_of
from vae.pictures import png
from vae.portable import load_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from vae.data import Split
    from vae.data.pixels import Pixels
    from vae.measure import Measure
    from vae.model import VAE
    from vae.train_config import TrainConfig


COLUMNS = 10  # images in a row of a picture, where the rows may be folded


@dataclass(frozen=True)
class Model:
    """A kept model and where it came from."""

    folder: Path
    config: TrainConfig
    model: VAE


@dataclass(frozen=True)
class Kept(Model):
    """A kept model, and the examples it is asked about. ``question``: what is asked of the test split, else empty."""

    pixels: Pixels
    split: Split
    measure: Measure
    why: str = ""
    question: dict[str, Any] = field(default_factory=dict)

    def seen(self, row: dict[str, Any]) -> None:
        """Add what was seen to the look at test that was written down when the split was read."""
        if self.question and (look := earlier_look(self.folder, self.question)) is not None and not look["row"]:
            write_look(self.folder, self.question, row, self.why)


def model_folder(place: Path, rank: int = 1) -> Path:
    """The model folder that ``place`` means: one, a record in one, or the model of ``rank`` of a sweep.

    Raises:
        UserError: it is none of them, or the sweep did not keep that model.
        CorruptFile: a file of the folder is not what its manifest, its record or the sweep around it says.

    """
    if (place / "ledger").is_dir():
        ranked = Ledger.open(place).ranked()
        if not 1 <= rank <= len(ranked):
            raise UserError(f"--rank must be 1 to {len(ranked)}, the trials of {place} that have a result, got {rank}")
        folder = place / "models" / trial_name(ranked[rank - 1].number)
        if not folder.is_dir():
            raise UserError(f"the model of rank {rank} of {place} was not kept: choose a lower --rank, or reproduce it")
    else:
        folder = place.parent if place.suffix == ".json" else place
        if not (folder / "config.json").is_file():
            raise UserError(f"{place} is neither a model folder, nor a record in one, nor a sweep's directory")
        if rank != 1:
            raise UserError(f"--rank {rank}: {place} is one model; only a sweep's directory has ranks")
    verify_model(folder)
    return folder


def open_alone(place: Path, *, rank: int = 1, device: str = "cpu") -> Model:
    """The model at ``place``, without any data."""
    folder = model_folder(place, rank)
    config, model = load_model(folder)
    return Model(folder, config, model.to(device))


def open_model(
    place: Path,
    *,
    split: str = "validation",
    rank: int = 1,
    data: str | None = None,
    data_dir: Path | None = None,
    device: str = "cpu",
    why: str = "",
    asked: dict[str, Any] | None = None,
) -> Kept:
    """The model at ``place`` and the examples of ``split``; a look at test is written down, with ``why``.

    ``asked``: what with (JSON): the same question asked again is the same look. ``data_dir``: the record's, if None.

    Raises:
        UserError: model and data don't go together.

    """
    alone = open_alone(place, rank=rank, device=device)
    folder, config, model = alone.folder, alone.config, alone.model
    data_dir = data_dir or _recorded_data_dir(folder)
    if data is not None:
        config = on_other_data(config, data)
    examples, levels = examples_of(config, model, split, data_dir)
    measure = measure_of(config, examples, levels=levels)
    question: dict[str, Any] = {}
    if split == "test":  # before anything is shown
        question = {"model": model_hash(folder), "measure": str(measure), "verb": why, "asked": asked or {}}
        if earlier_look(folder, question) is None:
            write_look(folder, question, {}, why)
    pixels = pixels_of(examples, config, levels, torch.device(device), held_out=True)
    return Kept(folder, config, model, pixels, examples, measure, why, question)


def _recorded_data_dir(folder: Path) -> Path | None:
    """Where the data lay in training, if that place is still there."""
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


def write(
    out: Path, rows: Sequence[tuple[str, Tensor]], shape: tuple[int, int, int], title: str, *, fold: bool = True
) -> None:
    """``rows`` of (caption, [n, D]) as a captioned PNG, or as arrays by caption in an ``.npz``.

    ``fold``: rows longer than a page are broken, those of one height together. ``out`` is written whole or not at all.

    Raises:
        UserError: ``out`` ends in neither, or can't be written.

    """
    if out.suffix not in {".png", ".npz"}:
        raise UserError(f"--out must end in .png or .npz, got {str(out)!r}")
    try:
        with _whole(out) as temporary:
            if out.suffix == ".npz":
                arrays: dict[str, Any] = {_key(name): x.unflatten(1, shape).cpu().numpy() for name, x in rows}
                with temporary.open("wb") as file:
                    np.savez_compressed(file, **arrays)
            else:
                shown = _folded(rows) if fold else rows
                captions = [name for name, _ in shown]
                temporary.write_bytes(png([x.unflatten(1, shape) for _, x in shown], captions=captions, title=title))
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}); choose another --out") from None


def _folded(rows: Sequence[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """The first columns of all rows, then the next of all rows, and so on."""
    most = max(len(x) for _, x in rows)
    starts = range(0, most, COLUMNS)
    return [(name, x[start : start + COLUMNS]) for start in starts for name, x in rows if start < len(x)]


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A name beside ``out`` to write to; ``out`` is there when all went well, and what it was when not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.rename(out)
    finally:
        temporary.unlink(missing_ok=True)


def _key(caption: str) -> str:
    return "_".join(caption.replace("=", "_").split())


def encode(kept: Kept, out: Path) -> int:
    """Posterior means, variances and labels as Parquet, one row an example; how many. Nothing is held but a batch."""
    import pyarrow as pa  # noqa: PLC0415 - tables alone need it

    size = kept.model.latent_size
    names = [f"mean_{i}" for i in range(size)] + [f"variance_{i}" for i in range(size)]
    schema = pa.schema([("index", pa.int64()), ("label", pa.int64()), *((name, pa.float32()) for name in names)])
    written = 0
    with _parquet(out, schema) as writer:
        for mean, variance, labels in codes(kept.model, kept.pixels):
            columns = [*mean.T, *variance.T]
            index = torch.arange(written, written + len(labels))
            arrays = [pa.array(column.numpy()) for column in (index, labels, *columns)]
            writer.write_table(pa.table(arrays, schema=schema))
            written += len(labels)
    return written


def plane(
    kept: Kept, how: str, *, limit: int = 10_000
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float | None]:
    """The codes of the first ``limit`` examples in 2-D, their labels, and 5-NN accuracy there (5-fold; None unlabelled).

    ``how``: ``dimensions`` (the first two), ``pca`` or ``tsne``.
    """
    from sklearn.decomposition import PCA  # noqa: PLC0415 - takes seconds
    from sklearn.manifold import TSNE  # noqa: PLC0415
    from sklearn.model_selection import cross_val_score  # noqa: PLC0415
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415

    means, labels = [], []
    for mean, _, label in codes(kept.model, kept.pixels):
        means.append(mean)
        labels.append(label)
        if sum(map(len, labels)) >= limit:
            break
    z, y = torch.cat(means)[:limit].numpy(), torch.cat(labels)[:limit].numpy()
    if z.shape[1] < 2:  # noqa: PLR2004 - the second dimension is 0
        z = np.concatenate([z, np.zeros_like(z)], axis=1)
    match how:
        case "dimensions":
            flat = z[:, :2]
        case "pca":
            flat = PCA(2, random_state=0).fit_transform(z)
        case _:
            flat = TSNE(2, random_state=0, init="pca", perplexity=min(30, len(z) // 4)).fit_transform(z)
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
        columns = {"index": np.arange(len(labels)), "label": labels} | every
        table = pa.table(columns)
        with _parquet(out, table.schema) as writer:
            writer.write_table(table)
    return every


def strangeness(every: dict[str, np.ndarray[Any, Any]]) -> tuple[str, np.ndarray[Any, Any]]:
    """What anomalies are ranked by: −elbo where there is one, else the reconstruction's nats; larger is stranger."""
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
    """The paired per-example difference of two models' elbo (or reconstruction), a − b, with its 95 % interval.

    Raises:
        UserError: their measures differ, so that the difference would mean nothing.

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
    mean, error, half = paired_difference(torch.from_numpy(one[name]), torch.from_numpy(other[name]))
    return {
        "quantity": name,
        "a": float(one[name].mean()),
        "b": float(other[name].mean()),
        "difference": mean,
        "standard_error": error,
        "interval_95": [mean - half, mean + half],
        "examples": len(one[name]),
        "measure": str(a.measure),
    }


def known_anomalies(kept: Kept) -> list[int]:
    """The labels that the data themselves call anomalous: all but the one trained on; 1 where labels are 0 and 1."""
    present = kept.split.labels.unique().tolist()
    normal = getattr(kept.config.data, "train_label", None)
    if normal is not None:
        return [label for label in present if label != normal]
    return [1] if present == [0, 1] else []


@contextmanager
def _parquet(out: Path, schema: Any) -> Iterator[Any]:  # noqa: ANN401 - pyarrow's own
    from pyarrow import parquet  # noqa: PLC0415 - tables alone need it

    if out.suffix != ".parquet":
        raise UserError(f"--out must end in .parquet, got {str(out)!r}")
    try:
        with _whole(out) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
            yield writer
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror or error}); choose another --out") from None


def draw_mask(text: str, shape: tuple[int, int, int]) -> Tensor:
    """What is missing, [D]: a ``.png`` or ``.npy`` of the images' size (above half is missing), or a named part.

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
                relative = bool(np.allclose(got, want[:count].numpy(), rtol=1e-4, atol=1e-5))
                worst[f"{name}.{output}"] = max(difference, worst.get(f"{name}.{output}", 0.0))
                if not relative or (output == "mean" and difference > 1e-5):  # noqa: PLR2004 - what is promised
                    raise UserError(
                        f"{file}: {output} differs from the model's by {difference:.2g}: not exported faithfully"
                    )
    return worst
