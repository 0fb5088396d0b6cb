"""The section of pictures of the kept models, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from research.store.mirror import relative
from research.text import shell
from research.views.report.elements import Block, Heading, Paragraph, Pictures, Piece, command, figure, line, picture
from research.views.report.section import Section

if TYPE_CHECKING:
    from research.views.report.section import Context


def pictures(context: Context) -> Section:
    """Return the section of pictures: a row for each kind, with the kept models side by side."""
    models = _models(context)
    names = sorted({path.name for _, _, folder in models for path in folder.glob("*.png")}, key=_picture_order)
    if not models:
        return Section("pictures", "Pictures of the kept models", [Paragraph("No model has been kept yet.")])
    if not names:
        parts: list[Block] = [Paragraph("The kept models have no pictures, because their data are not images.")]
    else:
        parts = [
            Paragraph(
                "Drawn with each model's kept weights. Reconstructions are rows of held-out examples, each above its reconstruction. "
                "Samples are means E[x|z] for draws of z from the prior, not draws of pixels. Every .png file in a model's folder is "
                "shown here."
            )
        ]
    for name in names:
        shown = [
            picture(folder / name, f"{name}, {label}", line(label, *score))
            for label, score, folder in models
            if (folder / name).is_file()
        ]
        title = name.removesuffix(".png").replace("_", " ").replace("-", " ")
        parts += [Heading(title), Pictures(shown)]
    folder = relative(models[0][2])
    parts.append(
        command(
            shell("research", "sample", folder, "--out", "samples.png"),
            shell("research", "traverse", folder, "--out", f"{folder}/traverse.png"),
            shell("research", "encode", folder, "--picture", f"{folder}/codes.png", "--by", "pca"),
        )
    )
    return Section("pictures", "Pictures of the kept models", parts)


def _models(context: Context) -> list[tuple[str, list[Piece], Path]]:
    """Return each kept model's name, score and folder, the finalists after the search's own."""
    found: list[tuple[str, list[Piece], Path]] = [
        (
            f"rank {one['rank']}, trial {one['trial']}",
            [f", {context.metric} ", figure(one["value"])],
            Path(one["model"]),
        )
        for one in context.facts["best"]
        if one["model"]
    ]
    for one in (context.facts["finalists"] or {}).get("configurations", []):
        if one.get("model"):
            score = [] if one["mean"] is None else [f", mean {context.metric} ", figure(one["mean"])]
            folder = context.ledger.directory / one["model"]  # an absolute path stays one
            found.append((f"finalist {one['rank']}, of trial {one['parent_trial']}", score, folder))
    return found


def _picture_order(name: str) -> tuple[int, str]:
    first = ("reconstruct", "sample", "travers")
    return next((place for place, start in enumerate(first) if name.startswith(start)), len(first)), name
