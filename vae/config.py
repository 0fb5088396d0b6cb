"""The common base of all configs of parts: they are frozen and strict, and refuse unknown fields.

A part (a network, a likelihood, an optimizer, ...) declares its configuration beside its own code as

    @part
    class Bernoulli:
        kind: Literal["bernoulli"] = "bernoulli"

and joins the product by one line in a union of ``vae/train_config.py``. The union is the registry: the type
checker, the JSON loader and the contract tests all read it.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ConfigError(ValueError):
    """A configuration that can't be run: one line with path, value, rule and remedy."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def part(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen, keyword-only dataclass whose fields are validated at construction.

    Unknown keys, wrong types (``"1e-3"`` for a number, ``True`` for an integer), NaN, infinities and
    values outside an annotated bound raise pydantic's ``ValidationError``, a ``ValueError``.
    ``vae.serialization`` words it for people.
    """
    made: type[T] = dataclass(cls, frozen=True, kw_only=True, config=_STRICT)  # type: ignore[assignment] # adds to it
    return made


# The bounds that several parts share, named once so that every refusal reads alike.
PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]


def nearest(name: str, valid: Iterable[str], *, prefix: str = "") -> str:
    """``did you mean 'x'?`` for the valid name closest to ``name``, or the list of valid ones.

    ``prefix`` is shown before each name and not compared: what is common to all would make all look close.
    """
    options = sorted(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean {prefix + close[0]!r}?"
    return f"valid: {', '.join(prefix + option for option in options)}"
