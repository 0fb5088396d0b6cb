"""The resources that a Ray cluster can give to a trial, from its nodes and from nodes that it may add."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import ray
import yaml
from ray._private.state import state  # there is no public way to an autoscaler's limits

from research.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from research.ledger.settings import Resources

# `ray up` writes this file only on the head of a cluster that grows.
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")

Node = dict[str, float]  # the amount of each resource


def check_capacity(resources: Resources, nodes: Sequence[Node], addable: Sequence[Node] | None) -> None:
    """Refuse a trial that no node can ever run. ``addable``: the kinds of node that may be added; None if unknown.

    Raises:
        UserError: the message has the requested resources and those of the largest nodes.

    """
    if addable is None or any(_fits(resources, node) for node in (*nodes, *addable)):
        return
    growing = f", and those it can add {_told(addable)}" if addable else ""
    raise UserError(
        f"no node of the cluster can take a trial with {_asked(resources)}: its nodes have {_told(nodes)}{growing}; "
        "lower --cpus-per-trial or --gpus-per-trial, or add a node that has as much"
    )


def cluster_nodes() -> list[Node]:
    """Return the resources of each living node, used or not."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def await_nodes(nodes: Callable[[], Sequence[Node]] = cluster_nodes, patience_s: float = 30.0) -> bool:
    """Wait for the first node with a CPU; return True if there is one.

    The head often has no CPU for trials, and directly after `ray up` the other nodes are still joining.
    """
    until = time.monotonic() + patience_s
    while not any(node.get("CPU", 0.0) > 0 for node in nodes()):
        if time.monotonic() >= until:
            return False
        time.sleep(min(1.0, patience_s))
    return True


def addable_nodes(bootstrap: Path = BOOTSTRAP) -> list[Node] | None:
    """Return the kinds of node that an autoscaler may add: empty for a fixed cluster, None if they are unknown.

    An autoscaler reports them to Ray's head, or `ray up` left its configuration on the head, where the driver then
    runs.
    """
    if (config := state.get_cluster_config()) is not None:
        groups = [group for group in config.node_group_configs if group.max_count != 0]
        return [{name: float(count) for name, count in group.resources.items()} for group in groups]
    try:
        told = yaml.safe_load(bootstrap.expanduser().read_text(encoding="utf-8"))
        return _kinds(told["available_node_types"], told.get("head_node_type"), told.get("max_workers", 0))
    except FileNotFoundError:
        return None if grows() else []
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
        return None


def grows() -> bool:
    """Return True if this cluster can start nodes. `ray up` and Kubernetes give each node the name of a group."""
    return any(node["Alive"] and node.get("Labels", {}).get("ray.io/node-group") for node in ray.nodes())


def _kinds(types: Mapping[str, dict[str, object]], head: object, most: int) -> list[Node] | None:
    kinds = [kind for name, kind in types.items() if name != head and (kind.get("max_workers", most) or 0) != 0]
    if any(not kind.get("resources") for kind in kinds):
        return None  # Ray knows them only when such a node has joined
    return [{name: float(count) for name, count in dict(kind["resources"]).items()} for kind in kinds]  # type: ignore[call-overload] # YAML


def no_place(resources: Resources) -> str:
    """Return a message for trials that wait while none runs, with the requested and the present resources."""
    return (
        f"no trial has been given a place for minutes: each asks for {_asked(resources)}, the nodes have "
        f"{_told(cluster_nodes())}; look at ray status"
    )


def _fits(resources: Resources, node: Node) -> bool:
    return node.get("CPU", 0.0) >= resources.cpus_per_trial and node.get("GPU", 0.0) >= resources.gpus_per_trial


def _asked(resources: Resources) -> str:
    return _one({"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial})


def _told(nodes: Sequence[Node]) -> str:
    """Return for example ``2 × (4 CPU, 1 GPU), (8 CPU)``, with equal nodes counted."""
    kinds = [_one(node) for node in nodes]
    counted = [
        f"{kinds.count(kind)} × ({kind})" if kinds.count(kind) > 1 else f"({kind})" for kind in dict.fromkeys(kinds)
    ]
    return ", ".join(counted) or "nothing"


def _one(node: Node) -> str:
    return ", ".join(f"{node.get(name, 0.0):g} {name}" for name in ("CPU", "GPU") if node.get(name) or name == "CPU")
