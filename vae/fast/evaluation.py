"""The seam between evaluation and the code that only makes estimates of log p(x) faster.

Scores from here equal ``VAE.nll`` to rounding, see
``tests/vae/fast/test_many_samples.py::test_many_samples_of_any_model_equal_the_plain_scores``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.fast.allocator import keep_freed_memory
from vae.fast.many_samples import ManySamples

if TYPE_CHECKING:
    from vae.model import VAE, Score

__all__ = ["scorer"]


def scorer(model: VAE) -> Score:
    """Return a function like ``model.nll`` that is fast for many samples of few examples.

    The weights of ``model`` must not change while it is in use, and no gradient flows through it. Memory that tensors
    free is kept for the process.
    """
    keep_freed_memory()
    return ManySamples(model).nll
