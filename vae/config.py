"""The common base of the configs of all parts. They are frozen and strict, and refuse unknown fields.

A part, such as a network, a likelihood or an optimizer, declares its configuration beside its own code as

    @part
    class Bernoulli:
        kind: Literal["bernoulli"] = "bernoulli"

and is registered by one line in the union of its group. The union is the registry: the type checker, the JSON loader
and the contract tests all read it.
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
    """A configuration can't be run. The message is one line with path, value, rule and remedy."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def part(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen, keyword-only dataclass whose fields are validated at construction.

    Unknown keys, wrong types (``"1e-3"`` for a number, ``True`` for an integer), NaN, infinities and values outside an
    annotated bound raise pydantic's ``ValidationError``, a ``ValueError``. ``vae.serialization`` turns it into one readable
    line.
    """
    made: type[T] = dataclass(cls, frozen=True, kw_only=True, config=_STRICT)  # type: ignore[assignment] # a subtype
    return made


# Bounds that several parts share. They are named once, so that all error messages have the same wording.
PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]


def nearest(name: str, valid: Iterable[str], *, prefix: str = "") -> str:
    """Return ``did you mean 'x'?`` with the valid name closest to ``name``, or the list of valid names.

    ``prefix`` is shown before each name. It is not compared, because a common prefix makes all names look close.
    """
    options = sorted(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean {prefix + close[0]!r}?"
    return f"valid: {', '.join(prefix + option for option in options)}"
