"""Grids of images as PNG: reconstructions with their originals, samples from the prior, and latent traversals."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae import seeds
from vae.apply import BATCH, code_moments, reconstruct, some_codes, traverse
from vae.data.labels import label_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from vae.data.pixels import Pixels
    from vae.model import VAE

COLOUR = 3  # channels of a colour image; with any other number the mean of the channels is shown
TRAVERSED = 8  # the largest number of latents in a traversal; those that vary most are shown
REACH = 2.0  # standard deviations to each side
MEASURED = 1000  # the largest number of examples that the shown range is measured on
_CAPTION = 60  # the largest number of letters of a caption, because a label can have any name
MINIMUM_SIDE = 28  # small images are enlarged by whole factors until an image is at least this wide


@torch.no_grad()
def reconstructions(model: VAE, pixels: Pixels, *, count: int = 32) -> bytes:
    """Return a PNG with ``count`` examples in rows of 8. Each row is followed by E[x|z] at the posterior mean."""
    model.eval()
    rows = pixels.subset(count)
    x = pixels.batch(rows)
    back = reconstruct(model, x, pixels.labels[rows])
    pairs = [row for eight in zip(x.split(8), back.split(8), strict=True) for row in eight]
    return png([row.unflatten(1, model.shape) for row in pairs], span=shown_range(model, x))


@torch.no_grad()
def samples(model: VAE, *, seed: int, count: int = 64, given: Pixels | None = None) -> bytes:
    """Return a PNG of E[x|z] with z from the prior.

    For a model conditioned on the label there is one row of 8 for each of its first 16 labels. For a model conditioned on
    part of an image there is one row of 8 for each of 8 images of ``given``.
    """
    model.eval()
    device = next(model.parameters()).device
    condition = None
    if model.labelled:
        labels = torch.arange(min(model.num_classes, 16)).repeat_interleave(8).to(device)
        count = len(labels)
        condition = model.condition(labels.new_zeros(len(labels), 0).float(), labels)
    elif given is not None:
        rows = given.subset(8)
        told = model.condition(given.batch(rows), given.labels[rows])
        if told is not None:
            condition = told.repeat_interleave(8, dim=0)
            count = len(condition)
    generator = seeds.generator(seed, "samples")
    noise = torch.randn((count, model.latent_size), generator=generator).to(device)
    uniform = torch.rand(count, generator=generator).to(device)
    drawn = model.sample(noise, uniform, condition)
    like = drawn if given is None else given.batch(slice(0, min(MEASURED, len(given))))
    images = list(drawn.unflatten(1, model.shape).split(8))
    names = given.split.label_names if given is not None and model.labelled else ()
    captions = [label_name(names, label) for label in range(len(images))] if names else None
    return png(images, captions=captions, span=shown_range(model, like))


@torch.no_grad()
def traversals(model: VAE, pixels: Pixels, *, steps: int = 8) -> bytes:
    """Return a PNG with a row for each of the latents whose posterior means vary most.

    A row shows the code of one example moved along that latent, from -2 to 2 standard deviations of the prior. Without a
    prior they are those of some examples' codes.
    """
    model.eval()
    first = pixels.subset(1)
    like = pixels.batch(slice(0, min(MEASURED, len(pixels))))
    mean, _, _ = some_codes(model, pixels, BATCH)
    dimensions = mean.var(0, correction=0).argsort(descending=True)[:TRAVERSED].tolist()
    moments = None if model.generative else code_moments(model, pixels)
    moved = traverse(
        model,
        pixels.batch(first),
        pixels.labels[first],
        steps=steps,
        reach=REACH,
        dimensions=dimensions,
        moments=moments,
    )
    return png(
        [row.unflatten(1, model.shape) for row in moved],
        captions=[f"z{d}" for d in dimensions],
        span=shown_range(model, like),
    )


def drawings(model: VAE, pixels: Pixels, *, seed: int) -> dict[str, Callable[[], bytes]]:
    """Return functions that draw the pictures of a model, by name. Samples are included only if codes can be drawn."""
    found: dict[str, Callable[[], bytes]] = {
        "reconstructions": lambda: reconstructions(model, pixels),
        "traversals": lambda: traversals(model, pixels),
    }
    if model.generative:
        found["samples"] = lambda: samples(model, seed=seed, given=pixels)
    return found


def shown_range(model: VAE, x: Tensor) -> tuple[float, float] | None:
    """Return the values that are shown as black and as white in pictures of data like x; None for pixels in [0, 1]."""
    if model.levels > 0 or x.numel() == 0:
        return None
    low, high = (value.item() for value in torch.aminmax(x))
    return None if low >= 0 and high <= 1 else (low, high)


def png(
    rows: list[Tensor],
    *,
    captions: list[str] | None = None,
    title: str = "",
    span: tuple[float, float] | None = None,
) -> bytes:
    """Return a PNG of rows of images, each [n, C, H, W] in [0, 1], with a thin border between images.

    ``captions`` are texts to the left of the rows, and ``title`` stands above them. ``span`` are the values that are shown
    as black and as white instead of 0 and 1; the title names them.
    """
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - only pictures need it

    if span is not None:
        low, high = span
        rows = [(row - low) / ((high - low) or 1.0) for row in rows]
        told = f"black {low:.4g}, white {high:.4g}"
        title, captions = f"{title}; {told}" if title else told, captions or [""] * len(rows)

    channels, height, width = rows[0].shape[1:]
    factor = max(1, -(-MINIMUM_SIDE // max(height, width)))
    cell_h, cell_w = height * factor + 2, width * factor + 2
    canvas = torch.full((channels, cell_h * len(rows), cell_w * max(len(row) for row in rows)), 0.5)
    for i, row in enumerate(rows):
        for j, image in enumerate(row.detach().float().cpu().clamp(0, 1)):
            large = image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
            top, left = i * cell_h + 1, j * cell_w + 1
            canvas[:, top : top + large.shape[1], left : left + large.shape[2]] = large
    values = (canvas * 255).round().to(torch.uint8)
    array = values.permute(1, 2, 0).numpy() if channels == COLOUR else values.float().mean(0).to(torch.uint8).numpy()
    picture = Image.fromarray(array)
    if captions is not None:
        captions = [caption[:_CAPTION] for caption in captions]
        font = ImageFont.load_default(11)
        margin = max(round(font.getlength(caption)) for caption in captions) + 8
        header = 18 if title else 0
        wide = max(picture.width + margin, round(font.getlength(title)) + 8)
        page = Image.new(picture.mode, (wide, picture.height + header), 255 if picture.mode == "L" else (255, 255, 255))
        page.paste(picture, (margin, header))
        pen = ImageDraw.Draw(page)
        pen.text((4, 2), title.replace("−", "-"), fill=0, font=font)  # the font has no minus sign
        for i, caption in enumerate(captions):
            pen.text((4, header + i * cell_h + cell_h // 2 - 7), caption, fill=0, font=font)
        picture = page
    file = io.BytesIO()
    picture.save(file, format="PNG")  # optimize=True takes nine times as long for 5 % fewer bytes
    return file.getvalue()
