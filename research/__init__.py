"""The harness: sweeps on Ray Tune, searched by Optuna, kept in a ledger, shown in Weights & Biases.

``docs/python.md`` shows the Python API at work. Importing it is cheap: PyTorch, Ray and pandas are imported at the first use
of a function that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from research.planning.request import SweepRequest

if TYPE_CHECKING:
    from research.api import evaluate, load_model, reproduce, run_sweep
    from research.views.results import open_sweep

__all__ = ["SweepRequest", "evaluate", "load_model", "open_sweep", "reproduce", "run_sweep"]


def __getattr__(name: str) -> object:
    """Import a function when it is asked for (PEP 562). A sweep's tables need no PyTorch."""
    if name in __all__:
        return getattr(import_module("research.views.results" if name == "open_sweep" else "research.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
