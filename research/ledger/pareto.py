"""Pareto fronts: ranks by non-dominated sorting and the hypervolume, both computed by moocore."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.ledger.settings import Metric

    Point = Sequence[float]


def ranks(points: Sequence[Point], objectives: Sequence[Metric]) -> list[int]:
    """Return the front of each of ``points`` [N, M]. No point beats front 1; only front 1 beats front 2; and so on.

    Equal points share a rank (Deb et al. 2002, fast non-dominated sorting).
    """
    if not points:
        return []
    import moocore  # noqa: PLC0415 - with numpy: only for several objectives
    import numpy as np  # noqa: PLC0415

    return [1 + int(rank) for rank in moocore.pareto_rank(np.array(points, float), maximise=_maximised(objectives))]


def reference_point(points: Sequence[Point], objectives: Sequence[Metric]) -> tuple[float, ...]:
    """Return the worst value of each objective among ``points``: the default reference point of a hypervolume."""
    worst = [min if objective.direction == "maximize" else max for objective in objectives]
    return tuple(pick(column) for pick, column in zip(worst, zip(*points, strict=True), strict=True))


def hypervolume(points: Sequence[Point], objectives: Sequence[Metric], reference: Point) -> float:
    """Return the volume that ``points`` dominate, up to ``reference``, in the objectives' units (Zitzler & Thiele 1998).

    Volumes with different references do not compare.
    """
    if not points:
        return 0.0
    import moocore  # noqa: PLC0415 - as above
    import numpy as np  # noqa: PLC0415

    return float(
        moocore.hypervolume(np.array(points, float), ref=np.array(reference, float), maximise=_maximised(objectives))
    )


def _maximised(objectives: Sequence[Metric]) -> list[bool]:
    return [objective.direction == "maximize" for objective in objectives]
