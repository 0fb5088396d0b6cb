"""The verbs that use a kept model. What each needs is imported when it runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from research.cli.options import AsJson, DataDir, check_device, data_dir_of, later, one_of, set_threads
from research.errors import UserError
from research.paths import whole
from research.store.mirror import local, relative
from research.terminal import say
from research.text import json_text

if TYPE_CHECKING:
    from research.models.apply import Kept, Model
    from vae.data import Split
    from vae.train_config import TrainConfig

Place = Annotated[
    Path,
    typer.Argument(
        help="A sweep, a trial of it (DIR:7), a kept model's folder, or a record in one.",
        parser=later(local),
        metavar="PLACE",
    ),
]
Rank = Annotated[int, typer.Option(min=1, help="Of a sweep: which of its best.")]
SplitName = Annotated[str, typer.Option("--split", help="validation or test. Every look at test is written down.")]
Out = Annotated[
    Path | None,
    typer.Option(help="A .png with captions, or an .npz of arrays. Default: VERB.png.", parser=whole, metavar="PATH"),
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the noise that is drawn.")]
Count = Annotated[int, typer.Option(min=1, help="How many.")]


def sample(
    model: Place,
    *,
    count: Count = 64,
    label: Annotated[
        str | None,
        typer.Option(
            help="Of a labelled model: a label's name or number. Default: a row for each label.", metavar="NAME"
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Multiplies the noise that codes are made of.")] = 1.0,
    out: Out = None,
    seed: Seed = 0,
    rank: Rank = 1,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Draw from the prior and decode. Needs no data."""
    del data_dir  # taken as by every verb
    kept = _open_alone(model, rank=rank, device=device, threads=threads)
    import torch  # noqa: PLC0415

    from research.models.apply import need_images  # noqa: PLC0415
    from vae.apply import sample as draw  # noqa: PLC0415
    from vae.data.labels import label_name, label_number  # noqa: PLC0415

    place = out or whole("sample.png")
    if place.suffix == ".png":
        need_images(kept)
    network = kept.model
    if label is not None and not network.labelled:
        raise UserError(f"--label {label}: the model is told no label; leave it out")
    number = None if label is None else label_number(label, kept.label_names, network.num_classes, "--label")
    if network.labelled and label is None:
        each = max(1, count // network.num_classes)
        labels = torch.arange(network.num_classes).repeat_interleave(each)
        drawn = draw(network, len(labels), seed=seed, labels=labels, temperature=temperature)
        rows = [(f"label {label_name(kept.label_names, y)}", block) for y, block in enumerate(drawn.split(each))]
    else:
        asked = None if number is None else torch.full((count,), number)
        drawn = draw(network, count, seed=seed, labels=asked, temperature=temperature)
        rows = [("samples" if number is None else f"label {label_name(kept.label_names, number)}", drawn)]
    _written(kept, place, rows, f"samples, E[x|z], temperature {temperature:g}, seed {seed}")


def reconstruct(
    model: Place,
    *,
    count: Count = 16,
    split: SplitName = "validation",
    out: Out = None,
    rank: Rank = 1,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Examples above what the model makes of them, at the posterior mean."""
    kept = _open(
        model,
        split=split,
        rank=rank,
        data_dir=data_dir,
        device=device,
        threads=threads,
        verb="reconstruct",
        asked={"count": count},
    )
    from vae.apply import reconstruct as again  # noqa: PLC0415

    x, labels = _some(kept, count)
    _written(
        kept,
        out or whole("reconstruct.png"),
        [("original", x), ("reconstruction", again(kept.model, x, labels))],
        _which(kept, split, len(x)),
    )


def denoise(
    model: Place,
    *,
    corruption: Annotated[
        str | None,
        typer.Option(help="gaussian, masking or salt_and_pepper. Default: the model's own, else salt_and_pepper."),
    ] = None,
    amount: Annotated[
        float | None,
        typer.Option(min=0.0, help="Standard deviation, or fraction of dimensions. Default: the corruption's own."),
    ] = None,
    count: Count = 16,
    split: SplitName = "validation",
    out: Out = None,
    seed: Seed = 0,
    rank: Rank = 1,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Corrupt examples and have the model clean them."""
    kept = _open(
        model,
        split=split,
        rank=rank,
        data_dir=data_dir,
        device=device,
        threads=threads,
        verb="denoise",
        asked={"count": count, "corruption": corruption, "amount": amount, "seed": seed},
    )
    from vae.apply import denoise as clean  # noqa: PLC0415

    chosen = _corruption(kept, corruption, amount)
    x, labels = _some(kept, count)
    corrupted, cleaned = clean(kept.model, x, labels, chosen, seed=seed)
    before, after = (float((found - x).square().sum(1).mean()) for found in (corrupted, cleaned))
    kept.seen({"corrupted": before, "denoised": after})
    _written(
        kept,
        out or whole("denoise.png"),
        [("clean", x), ("corrupted", corrupted), ("denoised", cleaned)],
        f"{chosen.kind}: squared error {before:.2f} before, {after:.2f} after",
    )
    _say(f"squared error per example: {before:.3f} corrupted, {after:.3f} denoised")


def inpaint(
    model: Place,
    *,
    mask: Annotated[
        str | None,
        typer.Option(
            help="What is missing: top, bottom, left, right, a quadrant, or a .png/.npy, white where missing. "
            "Default: what the model is not told, where it is told a part; else bottom."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="How often the missing part is made anew from the whole.")] = 50,
    count: Count = 16,
    split: SplitName = "validation",
    out: Out = None,
    rank: Rank = 1,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Fill in a missing part of examples: a point that the model is content with, not a draw from p(missing | given)."""
    kept = _open(
        model,
        split=split,
        rank=rank,
        data_dir=data_dir,
        device=device,
        threads=threads,
        verb="inpaint",
        asked={"count": count, "mask": mask, "steps": steps},
    )
    import torch  # noqa: PLC0415

    from research.models.apply import draw_mask, need_images  # noqa: PLC0415
    from vae.apply import inpaint as fill  # noqa: PLC0415

    need_images(kept)
    told = kept.model.conditioning.seen
    if mask is None and told is not None:
        missing = torch.ones(math.prod(kept.model.shape), dtype=torch.bool, device=told.device)
        missing[told] = False
        mask = "the rest"
    else:
        mask = mask or "bottom"
        missing = draw_mask(mask, kept.model.shape).to(kept.pixels.labels.device)
    if not missing.any():
        raise UserError(f"--mask {mask!r} marks nothing as missing: white, or above half, is missing")
    x, labels = _some(kept, count)
    filled = fill(kept.model, x, labels, missing, steps=steps)
    error = float((filled - x)[:, missing].square().sum(1).mean())
    kept.seen({"squared_error": error})
    rows = [("original", x), ("given", x * ~missing), ("filled in", filled)]
    _written(kept, out or whole("inpaint.png"), rows, f"{mask} missing: squared error there {error:.2f}")
    _say(f"squared error per example where it was missing: {error:.3f}")


def interpolate(
    model: Place,
    *,
    start: Annotated[
        int | None,
        typer.Option("--from", min=0, help="An example of the split, by number. Default: of its fixed subset."),
    ] = None,
    end: Annotated[
        int | None, typer.Option("--to", min=0, help="Another example. Default: the next of the subset.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Pictures on the way, both ends included.")] = 10,
    spherical: Annotated[bool, typer.Option(help="Along the arc instead of the line.")] = False,
    split: SplitName = "validation",
    out: Out = None,
    rank: Rank = 1,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Decode the way between two examples' codes."""
    kept = _open(
        model,
        split=split,
        rank=rank,
        data_dir=data_dir,
        device=device,
        threads=threads,
        verb="interpolate",
        asked={"steps": steps, "spherical": spherical},
        examples_asked={"from": start, "to": end},
    )
    from vae.apply import interpolate as between  # noqa: PLC0415

    x, labels = _chosen(kept)
    way = between(kept.model, x, labels, steps=steps, path="spherical" if spherical else "linear")
    rows = [("originals", x), ("between", way)]
    _written(
        kept, out or whole("interpolate.png"), rows, "{} {} to {}".format(split, *kept.chosen.values()), fold=False
    )


def traverse(
    model: Place,
    *,
    example: Annotated[
        int | None,
        typer.Option(min=0, help="Number of the example whose code is moved. Default: the first of the fixed subset."),
    ] = None,
    dimension: Annotated[
        list[int] | None, typer.Option(min=0, help="A latent dimension. Repeatable. Default: all.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Values of each dimension.")] = 9,
    reach: Annotated[
        float,
        typer.Option(
            "--range",
            min=0.0,
            help="So many standard deviations of the prior to each side of its mean; of the codes, where there is no prior.",
        ),
    ] = 3.0,
    split: SplitName = "validation",
    out: Out = None,
    rank: Rank = 1,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Change one latent dimension at a time: a row for each."""
    kept = _open(
        model,
        split=split,
        rank=rank,
        data_dir=data_dir,
        device=device,
        threads=threads,
        verb="traverse",
        asked={"steps": steps, "range": reach, "dimension": dimension},
        examples_asked={"example": example},
    )
    from vae.apply import code_moments  # noqa: PLC0415
    from vae.apply import traverse as walk  # noqa: PLC0415

    network = kept.model
    for asked in dimension or []:
        if asked >= network.latent_size:
            raise UserError(f"--dimension must be 0 to {network.latent_size - 1}, got {asked}")
    changed = walk(
        network,
        *_chosen(kept),
        steps=steps,
        reach=reach,
        dimensions=dimension,
        moments=None if network.generative else code_moments(network, kept.pixels),
    )
    rows = [(f"z_{i}", row) for i, row in zip(dimension or range(network.latent_size), changed, strict=True)]
    whose = "the prior" if network.generative else f"{split} codes"
    title = f"{split} example {kept.chosen['example']}, mean ± {reach:g} standard deviations of {whose}"
    _written(kept, out or whole("traverse.png"), rows, title, fold=False)


def encode(
    model: Place,
    *,
    out: Annotated[
        Path,
        typer.Option(help="A .parquet of posterior means, variances and labels.", parser=whole, metavar="PATH"),
    ] = Path("codes.parquet"),
    picture: Annotated[
        Path | None, typer.Option(help="A .png of the codes in two dimensions.", parser=whole, metavar="PATH")
    ] = None,
    by: Annotated[str, typer.Option(help="dimensions (the first two), pca or tsne.")] = "dimensions",
    split: SplitName = "validation",
    rank: Rank = 1,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Write the codes of a split, and draw them."""
    if by not in {"dimensions", "pca", "tsne"}:
        raise UserError(f"--by must be dimensions, pca or tsne, got {by!r}")
    kept = _open(
        model,
        split=split,
        rank=rank,
        data_dir=data_dir,
        device=device,
        threads=threads,
        verb="encode",
        asked={"by": by if picture is not None else None},
    )
    from research.models import apply  # noqa: PLC0415

    if picture is not None:
        apply.check_plane(by, len(kept.split.labels))
    _say(f"{apply.encode(kept, out)} codes in {relative(out)}")
    if picture is not None:
        from research.worker.scatter import scatter  # noqa: PLC0415

        flat, labels, accuracy = apply.plane(kept, by)
        kept.seen({"accuracy": accuracy})
        told = "" if accuracy is None else f", 5-NN accuracy in 2-D {100 * accuracy:.1f} %"
        scatter(flat, labels, picture, f"{len(flat)} {split} codes by {by}{told}", names=kept.label_names)
        _say(f"{relative(picture)}: {len(flat)} codes by {by}{told}")


def score(
    model: Place,
    *,
    out: Annotated[
        Path | None, typer.Option(help="A .parquet with a row for each example.", parser=whole, metavar="PATH")
    ] = None,
    anomaly: Annotated[
        list[str] | None,
        typer.Option(
            "--anomaly-label",
            help="A label that is anomalous, by name or number: AUROC of finding it. Repeatable. Default: all but the one "
            "trained on, 1 of labels 0 and 1, or true. Needed for two labels with other names. Refused for a model that is "
            "given the label.",
            metavar="NAME",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another data set of the same shape: AUROC of telling it apart.")
    ] = None,
    split: SplitName = "validation",
    rank: Rank = 1,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Score every example of a split; find anomalies, or another data set."""
    opened: dict[str, Any] = {"split": split, "rank": rank, "data_dir": data_dir, "device": device, "threads": threads}
    from research.models.anomalies import anomalies, as_recorded  # noqa: PLC0415

    labels = None if anomaly is None else [as_recorded(label) for label in anomaly]
    asked = {"anomaly": labels, "against": against}
    from research.models import apply  # noqa: PLC0415

    if anomaly:  # before a look at test is written down
        apply.need_unlabelled(_open_alone(model, rank=rank, device=device, threads=threads))
    import numpy as np  # noqa: PLC0415

    anomalous: list[int] = []

    def find(config: TrainConfig, examples: Split, classes: int) -> None:
        needed = against is None and config.conditioning.given != "label"  # such a model finds no labels
        anomalous.extend(anomalies(config, examples, classes, anomaly, needed=needed))

    kept = _open(model, **opened, verb="score", asked=asked, check=find)

    every = apply.score(kept, out)
    found: dict[str, Any] = {name: float(values.mean()) for name, values in every.items()}
    found |= {"examples": len(kept.split), "measure": str(kept.measure)}
    name, strange = apply.strangeness(every)
    if anomalous and kept.model.labelled:
        found["no_auroc"] = apply.GIVEN_THE_LABEL
    elif anomalous:
        positive = np.isin(kept.split.labels.numpy(), anomalous)
        called = [kept.label_names[label] for label in anomalous] if kept.label_names else anomalous
        found |= {"anomalies": int(positive.sum()), "of_label": called}
        for by, values in ((name, strange), ("squared_error", every["squared_error"])):
            found |= {f"{what}_by_{by}": figure for what, figure in apply.detection(values, positive).items()}
    if against is not None:
        elsewhere = _open(model, **opened, data=against, verb="score", asked=asked)
        other = apply.strangeness(apply.score(elsewhere, None))[1]
        both = np.concatenate([strange, other])
        positive = np.arange(len(both)) >= len(strange)
        found["against"] = against
        found |= {f"{what}_against_by_{name}": figure for what, figure in apply.detection(both, positive).items()}
        found["known_failure"] = (
            "likelihoods can be higher out of distribution (Nalisnick et al. 2019, arXiv:1810.09136): an AUROC below 0.5 is "
            "that failure, and one near 1 may be nothing but darker or simpler images"
        )
        elsewhere.seen(found)
    kept.seen(found)
    _answer(found, as_json=as_json)
    if out is not None and not as_json:
        _say(f"scores of {len(kept.split)} examples in {relative(out)}")


def compare(
    a: Place,
    b: Annotated[Path, typer.Argument(help="Another.", parser=later(local), metavar="B")],
    *,
    split: SplitName = "validation",
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """The paired difference of two models on the same examples, a − b, with Student's 95 % interval."""
    from research.models import apply  # noqa: PLC0415

    opened: dict[str, Any] = {
        "split": split,
        "data_dir": data_dir,
        "device": device,
        "threads": threads,
        "verb": "compare",
    }
    one, other = _open(a, **opened), _open(b, **opened)
    found = apply.compare(one, other)
    one.seen(found)
    other.seen(found)
    if as_json:
        _answer(found, as_json=True)
        return
    _say(
        f"{found['quantity']} per example: A {found['a']:.4f}, B {found['b']:.4f} ({found['examples']} examples, {found['measure']})"
    )
    if found["interval_95"] is None:
        _say(f"A − B = {found['difference']:.4f}: one example gives no interval")
        return
    low, high = found["interval_95"]
    verdict = "no difference shown" if low <= 0 <= high else ("A is higher" if low > 0 else "B is higher")
    _say(
        f"A − B = {found['difference']:.4f} ± {found['standard_error']:.4f}, 95 % interval {low:.4f} to {high:.4f}: {verdict}"
    )


def export(
    model: Place,
    *,
    out: Annotated[
        Path, typer.Option(help="A folder for encoder.onnx and decoder.onnx.", parser=whole, metavar="PATH")
    ] = Path("onnx"),
    rank: Rank = 1,
    data_dir: DataDir = None,
    threads: Threads = 1,
) -> None:
    """Write the model as ONNX, and check it against the model on random inputs. Needs no data."""
    del data_dir  # taken as by every verb
    kept = _open_alone(model, rank=rank, device="cpu", threads=threads)
    from research.models import apply  # noqa: PLC0415

    worst = apply.export(kept, out)
    for name, difference in worst.items():
        _say(f"{name:18} largest difference {difference:.2g}")
    if kept.model.labelled and kept.label_names:
        _say(f"condition, in its order: {', '.join(map(repr, kept.label_names))}")
    _say(f"encoder.onnx and decoder.onnx in {relative(out)}")


VERBS = (sample, reconstruct, denoise, inpaint, interpolate, traverse, encode, score, compare, export)


def _open_alone(place: Path, *, rank: int, threads: int, device: str) -> Model:

    set_threads(threads)
    check_device(device)
    from research.models.apply import open_alone  # noqa: PLC0415

    return open_alone(place, rank=rank, device=device)


def _open(place: Path, *, threads: int, device: str, data_dir: Path | None, verb: str = "", **options: Any) -> Kept:  # noqa: ANN401 - open_model's own

    one_of("--split", options.get("split", "validation"), {"validation": 1, "test": 1})
    set_threads(threads)
    check_device(device)
    from research.models.apply import open_model  # noqa: PLC0415

    return open_model(place, device=device, data_dir=data_dir_of(data_dir), why=f"research {verb}", **options)


def _some(kept: Kept, count: int) -> tuple[Any, Any]:
    rows = kept.pixels.subset(count)
    return kept.pixels.batch(rows), kept.pixels.labels[rows]


def _chosen(kept: Kept) -> tuple[Any, Any]:
    import torch  # noqa: PLC0415

    rows = torch.tensor([*kept.chosen.values()], device=kept.pixels.device)
    return kept.pixels.batch(rows), kept.pixels.labels[rows]


def _which(kept: Kept, split: str, count: int) -> str:
    if kept.config.eval.subset == "first" or count == len(kept.pixels):
        return f"{split} examples 0 to {count - 1}"
    return f"{count} of {len(kept.pixels)} {split} examples, permuted by data.split_seed"


def _corruption(kept: Kept, name: str | None, amount: float | None) -> Any:  # noqa: ANN401 - one of a union
    from vae import corruption  # noqa: PLC0415

    kinds: dict[str, Any] = {
        "gaussian": (corruption.GaussianCorruption, "std"),
        "masking": (corruption.Masking, "fraction"),
        "salt_and_pepper": (corruption.SaltAndPepper, "fraction"),
    }
    own = kept.config.corruption
    if name is None and amount is None and own.kind != "none":
        return own
    chosen = name or (own.kind if own.kind != "none" else "salt_and_pepper")
    if chosen not in kinds:
        raise UserError(f"--corruption must be one of {', '.join(kinds)}, got {chosen!r}")
    made, field = kinds[chosen]
    try:
        return made() if amount is None else made(**{field: amount})
    except ValueError:
        raise UserError(
            f"--amount must be a {field} that {chosen} takes (a fraction is 0 to 1), got {amount:g}"
        ) from None


def _written(kept: Model, out: Path, rows: list[tuple[str, Any]], title: str, *, fold: bool = True) -> None:
    from research.models.apply import need_images, shown_span, write  # noqa: PLC0415

    if out.suffix == ".png":
        need_images(kept)
    write(out, rows, kept.model.shape, f"{kept.folder.name}: {title}", fold=fold, span=shown_span(kept, rows))
    _say(f"{relative(out)}: {title}")


def _answer(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _say(json_text(found))
        return
    for name, value in found.items():
        _say(f"{name:20} {value:.4f}" if isinstance(value, float) else f"{name:20} {value}")


def _say(text: str) -> None:
    say(text)
