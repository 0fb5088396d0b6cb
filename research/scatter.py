"""Codes in two dimensions as a picture, coloured by label."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

from research.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

SIDE = 800
MARGIN = 30


def scatter(points: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], out: Path, title: str) -> None:
    """Points [N, 2] as a PNG, a colour for each label, with a legend of up to 20.

    Raises:
        UserError: ``out`` is no ``.png``, or can't be written.

    """
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - only pictures need it

    if out.suffix != ".png":
        raise UserError(f"--picture must end in .png, got {str(out)!r}")
    low, high = points.min(0), points.max(0)
    span = max(float((high - low).max()), 1e-12)
    kinds = sorted(set(labels.tolist()))
    colours = {
        kind: tuple(round(255 * c) for c in colorsys.hsv_to_rgb(i / len(kinds), 0.85, 0.8))
        for i, kind in enumerate(kinds)
    }
    picture = Image.new("RGB", (SIDE + 2 * MARGIN + 60, SIDE + 2 * MARGIN), (255, 255, 255))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    pen.text((MARGIN, 8), title, fill=0, font=font)
    for (x, y), label in zip((points - low) / span, labels.tolist(), strict=True):
        left, top = MARGIN + x * SIDE, MARGIN + (1 - y) * SIDE
        pen.ellipse((left - 2, top - 2, left + 2, top + 2), fill=colours[label])
    for i, kind in enumerate(kinds[:20]):
        top = MARGIN + 20 * i
        pen.rectangle((SIDE + 2 * MARGIN, top, SIDE + 2 * MARGIN + 10, top + 10), fill=colours[kind])
        pen.text((SIDE + 2 * MARGIN + 16, top - 3), str(kind), fill=0, font=font)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(out)
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}); choose another --picture") from None
