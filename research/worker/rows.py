"""The parts of a row that describe its worker, and JSON without numbers that it cannot hold."""

from __future__ import annotations

import math
import os
import platform
from typing import TYPE_CHECKING, Any

from research.provenance import hardware
from vae.external import external_sources

if TYPE_CHECKING:
    from vae.train_config import TrainConfig


def describe_worker(threads: int, device: str, config: TrainConfig) -> dict[str, Any]:
    """Return where and how a row is made, which ``reproduce`` compares; ``external`` has the hashes of external parts."""
    external = external_sources(config)
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "threads": threads,
        "device": device,
        "hardware": hardware(),
        **({"external": external} if external else {}),
    }


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """Return ``row`` with None in place of every number that JSON cannot hold."""

    def clean(value: Any) -> Any:  # noqa: ANN401 - any JSON value
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return [clean(item) for item in value] if isinstance(value, list) else value

    return {name: clean(value) for name, value in row.items()}
