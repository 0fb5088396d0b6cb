"""The clusters' files are ones that Ray's launcher accepts, and keep the promises of their comments."""

from __future__ import annotations

import copy
import re
import subprocess

import pytest
import yaml
from jsonschema import ValidationError

from tests.support.places import ROOT

CLOUDS = ("aws", "gcp", "azure")


def validated(config):
    """``config`` as `ray up` would complete and check it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def blocks(language):
    """The pieces of docs/other-clusters.md in one language."""
    text = (ROOT / "docs" / "other-clusters.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def files():
    """Every launcher's file that the project has, by its provider; as a person wrote it."""
    texts = [(ROOT / "cluster.yaml").read_text(), (ROOT / "cluster" / "on-premise.yaml").read_text(), *blocks("yaml")]
    found = [yaml.safe_load(text) for text in texts]
    return {config["provider"]["type"]: config for config in found}


@pytest.fixture(params=[*CLOUDS, "local"])
def config(request):
    """One of them."""
    return files()[request.param]


@pytest.fixture(params=CLOUDS)
def cloud(request):
    """One of those that start machines."""
    return files()[request.param]


def workers(config):
    """The node types that run trials, by name."""
    return {name: node for name, node in config["available_node_types"].items() if name != config["head_node_type"]}


def test_ray_accepts_the_file(config):
    """`ray up` finds nothing to complain about before it talks to anybody."""
    assert validated(config)["cluster_name"] == config["cluster_name"]


@pytest.mark.parametrize("path", [(), ("available_node_types", "gpu_spot")], ids=["top", "node type"])
def test_a_mistyped_key_is_refused(cloud, path):
    """The check above can fail: a misspelt key is not passed over."""
    section = cloud
    for key in path:
        section = section[key]
    section["max_wrokers"] = 2

    with pytest.raises(ValidationError, match="max_wrokers"):
        validated(cloud)


def test_an_unknown_head_type_is_refused(cloud):
    """The check above can fail: the head has to be one of the node types."""
    cloud["head_node_type"] = "haed"

    with pytest.raises(ValueError, match="head_node_type"):
        validated(cloud)


def test_idle_clusters_cost_only_their_head(cloud):
    """Workers start from none and go when idle, and no trial runs on the head."""
    prepared = validated(cloud)

    assert [node["min_workers"] for node in workers(prepared).values()] == [0, 0]
    assert prepared["idle_timeout_minutes"] <= 10
    assert prepared["available_node_types"]["head"]["resources"] == {"CPU": 0}


def test_trials_find_gpus_on_spot_first_and_on_demand_after(cloud):
    """Every worker type has a GPU; spot is preferred, and on demand differs from it in nothing else."""
    types = workers(cloud)
    spot, on_demand = types["gpu_spot"], types["gpu_on_demand"]
    assert all(node["resources"]["GPU"] >= 1 for node in types.values())
    assert spot["priority"] > on_demand["priority"]
    assert spot["resources"] == on_demand["resources"]

    said = {"aws": ["InstanceMarketOptions"], "gcp": ["scheduling"], "azure": ["priority", "billingProfile"]}
    places = [node["node_config"].get("azure_arm_parameters", node["node_config"]) for node in (spot, on_demand)]
    assert "SPOT" in str(places[0]).upper()
    assert "SPOT" not in str(places[1]).upper()
    for place in places:
        for key in said[cloud["provider"]["type"]]:
            place.pop(key, None)
    assert places[0] == places[1]


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_asks_for_the_token(config, key):
    """Ray starts with token authentication on every node, and the token is a file apart, not in this one."""
    (start,) = [command for command in config[key] if "ray start" in command]

    assert "RAY_AUTH_MODE=token" in start.split("ray start")[0]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_jobs_find_the_environment(config):
    """What `research submit` runs on the head is `python`: Ray is started with the environment's first in the path."""
    (start,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]

    assert "PATH=~/vae-research/.venv/bin:$PATH" in start.split("ray start")[0]


def test_the_dashboard_is_open_to_nobody(config):
    """It listens on the head itself alone; the way to it is SSH."""
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])


def test_no_rule_is_added_to_the_security_group():
    """On AWS the group is the person's own: Ray's would take SSH from everywhere."""
    assert set(files()["aws"]["provider"]["security_group"]) == {"GroupName"}


def test_storage_and_environment_are_the_same_everywhere(config):
    """Each node has the shared file system, or says that it hasn't, and installs what two files of the project say."""
    prepared = validated(config)
    mounted = {local for local in config["file_mounts"].values() if not local.startswith("~")}

    assert mounted == {"constraints.txt", "pyproject.toml"}
    assert all((ROOT / local).is_file() for local in mounted)
    assert any(re.search(r"mount\b.* /shared|mountpoint -q /shared", c) for c in prepared["initialization_commands"])
    shared = prepared["setup_commands"]
    for key in ("head_setup_commands", "worker_setup_commands"):
        # The launcher puts the common commands before each kind's own on a cloud; on premises it does so later.
        commands = prepared[key] if config["provider"]["type"] != "local" else [*shared, *prepared[key]]
        assert any("-c constraints.txt -r pyproject.toml" in command for command in commands)
        assert not any(command.startswith("pip install") for command in commands)


def test_every_worker_on_premises_is_started():
    """Ray 2.60's newer autoscaler would leave the last worker out, so the older one is asked for; the head runs no trial."""
    config = files()["local"]
    (start,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]

    assert "export RAY_enable_autoscaler_v2=0" in start
    assert "--num-cpus=0" in start
    (kind,) = validated(config)["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(config["provider"]["worker_ips"])


def test_the_slurm_script_is_a_shell_script():
    """Its syntax, at least, is bash's."""
    (script,) = [block for block in blocks("sh") if block.startswith("#!/bin/bash")]

    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False).stderr == ""
