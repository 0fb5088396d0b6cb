"""A scatter plot of codes in two dimensions, coloured by label."""

from __future__ import annotations

import colorsys
import io
from typing import TYPE_CHECKING, Any

from research.errors import UserError
from vae.data.labels import label_name
from vae.durable import replace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

SIDE = 800
MARGIN = 30
LEGEND = 40  # letters of a name at most


def scatter(
    points: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], out: Path, title: str, *, names: Sequence[str] = ()
) -> None:
    """Write points [N, 2] as a PNG file, with a colour for each label and a legend of up to 20 ``names``.

    Raises:
        UserError: ``out`` is no ``.png``, or can't be written.

    """
    if out.suffix != ".png":
        raise UserError(f"--picture must end in .png, got {str(out)!r}")
    content = scatter_png(points, labels, title, names=names)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace(out, content, sync=False)
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}); choose another --picture") from None


def scatter_png(
    points: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    title: str,
    *,
    side: int = SIDE,
    names: Sequence[str] = (),
) -> bytes:
    """Return points [N, 2] as the bytes of a PNG whose plot is ``side`` pixels wide and high."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - only pictures need it

    low, high = points.min(0), points.max(0)
    span = max(float((high - low).max()), 1e-12)
    kinds = sorted(set(labels.tolist()))
    colours = {
        kind: tuple(round(255 * c) for c in colorsys.hsv_to_rgb(i / len(kinds), 0.85, 0.8))
        for i, kind in enumerate(kinds)
    }
    font = ImageFont.load_default(13)
    legend = [label_name(names, kind)[:LEGEND] for kind in kinds[:20]]
    wide = max(60, *(24 + round(font.getlength(name)) for name in legend)) if names and legend else 60
    picture = Image.new("RGB", (side + 2 * MARGIN + wide, side + 2 * MARGIN), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, 8), title, fill=0, font=font)
    for (x, y), label in zip((points - low) / span, labels.tolist(), strict=True):
        left, top = MARGIN + x * side, MARGIN + (1 - y) * side
        pen.ellipse((left - 2, top - 2, left + 2, top + 2), fill=colours[label])
    for i, (kind, name) in enumerate(zip(kinds, legend, strict=False)):
        top = MARGIN + 20 * i
        pen.rectangle((side + 2 * MARGIN, top, side + 2 * MARGIN + 10, top + 10), fill=colours[kind])
        pen.text((side + 2 * MARGIN + 16, top - 3), name, fill=0, font=font)
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
