"""The pictures of a trial, drawn on its worker. A picture that cannot be drawn is left out, and the trial goes on."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import torch

from research.store.layout import NAMES
from research.worker.scatter import scatter_png
from vae.apply import BATCH, some_codes
from vae.pictures import drawings

if TYPE_CHECKING:
    from pathlib import Path

    from vae.data.pixels import Pixels
    from vae.model import VAE
    from vae.train import EpochResult

CODES_SIDE = 400  # pixels
_PLANE = 2  # dimensions of a picture


def draw_pictures(sweep_dir: Path, trial: int, result: EpochResult, *, seed: int) -> dict[str, str]:
    """Draw the pictures of ``result``; return their paths by name, relative to ``sweep_dir``. Raises nothing."""
    model, examples = result.model, result.examples
    wanted = drawings(model, examples, seed=seed)
    wanted["codes"] = lambda: codes_scatter(model, examples)
    paths = {}
    for name, drawing in wanted.items():
        try:
            path = NAMES.picture(trial, result.row["epoch"], name)
            (sweep_dir / path).parent.mkdir(exist_ok=True)
            (sweep_dir / path).write_bytes(drawing())
        except Exception:  # noqa: BLE001 - whatever it is: a picture must not end a trial
            traceback.print_exc()  # into the worker's own log
        else:
            paths[name] = str(path)
    return paths


def codes_scatter(model: VAE, examples: Pixels) -> bytes:
    """Return a PNG of up to 1,000 posterior means. With more than two dimensions it shows their principal components."""
    mean, _, labels = some_codes(model, examples, BATCH)
    how = "z0 and z1"
    if mean.shape[1] == 1:
        mean = torch.cat([mean, torch.zeros_like(mean)], dim=1)
        how = "z0"
    elif mean.shape[1] > _PLANE:
        centred = mean.double() - mean.double().mean(0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        mean = centred @ directions[:_PLANE].T
        how = "two principal components"
    title, names = f"{len(mean)} posterior means, {how}", examples.split.label_names
    return scatter_png(mean.numpy(), labels.numpy(), title, side=CODES_SIDE, names=names)
