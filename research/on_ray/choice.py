"""The choice of an engine by ``--address``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from research.driver.in_process import InProcess
from research.planning.preflight import IN_PROCESS

if TYPE_CHECKING:
    from research.driver.engine import Engine


def engine_at(address: str | None) -> Engine:
    """Return the engine for ``--address``: None is a Ray of its own, ``none`` is this process, else a cluster."""
    if address == IN_PROCESS:
        return InProcess()
    from research.on_ray.engine import RayEngine  # noqa: PLC0415 - Ray takes seconds to import

    return RayEngine(address)
