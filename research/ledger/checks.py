"""Checks for values that JSON can hold but an event cannot. A ledger or record with such a value is refused."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

# Matches the JSON form of a number that is not finite or far too large. A match may also be inside a string, so each
# match is parsed. Almost no event matches, so this costs a long ledger no time.
_SUSPECT = re.compile(rb"NaN|Infinity|[eE]\+?\d{3}|\d{300}")
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)  # later ones can't be shown in every time zone


def moment(text: str) -> str:
    """Return ``text``, which must be a moment with its time zone in ISO 8601; else raise ``ValueError``."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:50]!r} is no time") from None
    if found.tzinfo is None or found.year == 1 or found >= _LATEST:
        raise ValueError(f"{text[:50]!r} is no time that a clock shows")
    return text


def numbers(raw: bytes) -> None:
    """Raise ``ValueError`` if the JSON in ``raw`` holds a number that is not finite as a 64-bit float."""
    if _SUSPECT.search(raw) is None:
        return
    try:
        _finite(json.loads(raw))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _finite(value: Any) -> None:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        for inner in value.values():
            _finite(inner)
    elif isinstance(value, list):
        for inner in value:
            _finite(inner)
    elif isinstance(value, int | float):
        try:
            finite = math.isfinite(value)
        except OverflowError:
            finite = False
        if not finite:
            text = str(value) if isinstance(value, float) else f"an integer of {value.bit_length():,} bits"
            raise ValueError(f"it holds {text}, which is no number that a ledger has")
