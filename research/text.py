"""Figures as people read them."""

from __future__ import annotations


def number_text(value: object) -> str:
    """A figure as a table shows it: five digits at most; ``-`` for none."""
    if isinstance(value, bool) or value is None:
        return "-" if value is None else str(value)
    if isinstance(value, float):
        return f"{value:.2f}" if 0.1 <= abs(value) < 1e5 else f"{value:.3g}"  # noqa: PLR2004 - what reads well
    return str(value)
