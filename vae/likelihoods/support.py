"""The requirements of a likelihood on the data that it is built for."""

from __future__ import annotations

from vae.config import ConfigError


def integer_levels(kind: str, levels: int) -> int:
    """Return ``levels``, the data's largest integer value.

    Raises:
        ConfigError: The data are real numbers (0 levels), for which a mass function is not defined.

    """
    if levels < 1:
        raise ConfigError(
            f"likelihood.kind {kind!r} needs data of whole numbers 0..levels, and this set has real values; "
            "use 'gaussian' or 'laplace'"
        )
    return levels
