"""The comparison key: everything that two figures must share before one may be called better than the other.

A figure estimates a quantity (its measure: the data, the event space, the conditioning) in a certain way (the number of
samples, the noise, the examples). Two figures of one metric compare only if both agree. Each metric depends on some of
these facts only: importance-weighted estimates depend on ``eval.nll_k``, the ELBO does not.

The facts of a row are plain JSON values, so that the ledger, a record and a report can hold them. All code that ranks,
stops, keeps or compares trials uses :func:`why_not`. ``docs/reading-the-numbers.md`` gives the reasons.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from research.ledger.metrics import depends_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

    Facts = dict[str, JsonValue]

IMPORTANCE_WEIGHTED = ", importance-weighted objective"  # added to the posterior's family: trained for another bound
ALL = "all"  # eval.subset where no example is left out


def facts_of_config(config: Mapping[str, Any], measure: str | None, bound: str | None, examples: int | None) -> Facts:
    """Return the facts of every row that a config, as JSON values, gives on a split of ``examples`` examples.

    ``examples`` is None if the number is unknown, as in the ledger of an earlier version. A missing value is left out
    and is not compared.
    """
    settings = _part(config, "eval")
    facts: Facts = {} if measure is None else {"measure": measure}
    for name in ("seed", "samples", "nll_k", "nll_images", "classified_samples"):
        if name in settings:
            facts[f"eval.{name}"] = settings[name]
    if settings:
        facts["eval.subset"] = settings.get("subset", "first")  # before the setting existed
    if examples is not None and _whole(settings.get("nll_images")) >= examples:
        facts |= {"eval.nll_images": examples, "eval.subset": ALL}
    if bound is not None:
        facts["bound"] = bound
    if "corruption" in config:
        facts["corruption"] = json.dumps(config["corruption"], sort_keys=True)
    return facts


def facts_of_recorded(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> Facts:
    """Return the facts of a row of an earlier version, which did not store them, from its recorded config."""
    posterior, objective = (_part(config, name).get("kind") for name in ("posterior", "objective"))
    bound = None if posterior is None else str(posterior)
    if bound is not None and objective == "iwae":
        bound += IMPORTANCE_WEIGHTED
    measure = metrics.get("measure")
    facts = facts_of_config(config, None if measure is None else str(measure), bound, None)
    images = metrics.get("val/nll_iwae_images")
    if isinstance(images, int) and images < _whole(_part(config, "eval").get("nll_images")):
        facts |= {"eval.nll_images": images, "eval.subset": ALL}  # fewer than were asked for: the whole split
    return facts


def _whole(value: object) -> int:
    """Return ``value`` if it is a whole number, else 0: a damaged or foreign config may hold anything."""
    return value if isinstance(value, int) else 0


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def why_not(metrics: Iterable[str], a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """Return why rows with the facts ``a`` and ``b`` may not be ranked by ``metrics``; None if they may.

    The message names the first fact that differs, with both values. Facts that one side lacks are not compared.
    """
    if "measure" in a and "measure" in b and a["measure"] != b["measure"]:
        return f"its measure is {a['measure']!r}, not {b['measure']!r}"
    for metric in metrics:
        for fact in depends_on(metric):
            if fact not in a or fact not in b or a[fact] == b[fact]:
                continue
            if fact == "eval.subset" and ALL in {a[fact], b[fact]}:
                continue  # of the same split as many images, and on one side that is all
            what = "bound, whose tightness differs," if fact == "bound" else fact
            return f"{metric} does not compare: its {what} is {a[fact]}, not {b[fact]}"
    return None
