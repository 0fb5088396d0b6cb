"""cluster.yaml is a file that Ray's own launcher accepts, and keeps the promises of its comments."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def validated(config):
    """``config`` as `ray up` would complete and check it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.fixture
def config():
    """cluster.yaml as a person wrote it."""
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def workers(config):
    """The node types that run trials, by name."""
    return {name: node for name, node in config["available_node_types"].items() if name != config["head_node_type"]}


def test_ray_accepts_the_file(config):
    """`ray up` finds nothing to complain about before it talks to AWS."""
    assert validated(config)["cluster_name"] == config["cluster_name"]


@pytest.mark.parametrize("path", [(), ("available_node_types", "gpu_spot")], ids=["top", "node type"])
def test_a_mistyped_key_is_refused(config, path):
    """The check above can fail: a misspelt key is not passed over."""
    from jsonschema import ValidationError

    section = config
    for key in path:
        section = section[key]
    section["max_wrokers"] = 2

    with pytest.raises(ValidationError, match="max_wrokers"):
        validated(config)


def test_an_unknown_head_type_is_refused(config):
    """The check above can fail: the head has to be one of the node types."""
    config["head_node_type"] = "haed"

    with pytest.raises(ValueError, match="head_node_type"):
        validated(config)


def test_idle_clusters_cost_only_their_head(config):
    """Workers start from none and go when idle, and no trial runs on the head."""
    prepared = validated(config)

    assert [node["min_workers"] for node in workers(prepared).values()] == [0, 0]
    assert prepared["idle_timeout_minutes"] <= 10
    assert prepared["available_node_types"]["head"]["resources"] == {"CPU": 0}


def test_trials_find_gpus_on_spot_first_and_on_demand_after(config):
    """Every worker type has a GPU; spot is preferred, and on demand differs from it in nothing else."""
    types = workers(config)
    spot, on_demand = types["gpu_spot"], types["gpu_on_demand"]

    assert all(node["resources"]["GPU"] >= 1 for node in types.values())
    assert spot["priority"] > on_demand["priority"]
    assert spot["node_config"].pop("InstanceMarketOptions") == {"MarketType": "spot"}
    assert spot["node_config"] == on_demand["node_config"]
    assert spot["resources"] == on_demand["resources"]


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_asks_for_the_token(config, key):
    """Ray starts with token authentication on every node, and the token is a file apart, not in this one."""
    (start,) = [command for command in config[key] if "ray start" in command]

    assert "RAY_AUTH_MODE=token" in start.split("ray start")[0]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_no_port_of_ray_is_open_to_the_world(config):
    """The security group is the person's own, no rule is added to it; the dashboard listens at home only."""
    assert set(config["provider"]["security_group"]) == {"GroupName"}
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])


def test_every_node_gets_all_the_code(config):
    """What git tracks at the top is mounted, so that workers import it and records see an unchanged tree."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {line.split("/")[0] for line in listing.splitlines()}
    mounted = {local for local in config["file_mounts"].values() if not local.startswith("~")}

    assert tracked - mounted == set()


def test_storage_and_environment_are_the_same_everywhere(config):
    """Each node mounts the shared file system and installs from constraints.txt."""
    prepared = validated(config)

    assert any("mount /shared" in command for command in prepared["initialization_commands"])
    for key in ("head_setup_commands", "worker_setup_commands"):
        assert any("-c constraints.txt" in command for command in prepared[key])
        assert not any(command.startswith("pip install") for command in prepared[key])
