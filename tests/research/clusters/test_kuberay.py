"""cluster/kuberay.yaml has the operator's fields, and keeps the promises of its comments."""

from __future__ import annotations

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.support.places import ROOT
from tests.support.rayjob_schema import RAY_JOB


@pytest.fixture
def manifests():
    """cluster/kuberay.yaml, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((ROOT / "cluster" / "kuberay.yaml").read_text())}


def test_the_rayjob_has_the_operators_fields(manifests):
    """Every field of the RayJob is one that the operator's API has, in its place and of its type."""
    Draft202012Validator.check_schema(RAY_JOB)
    Draft202012Validator(RAY_JOB).validate(manifests["RayJob"])


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("spec",), "shutdownAfterJobFinished", True),
        (("spec", "rayClusterSpec"), "authOptions", {"mode": "on"}),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams"), "num-cpus", 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), "minReplicas", "0"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0), "cpu", 1),
    ],
)
def test_a_wrong_rayjob_is_refused(manifests, path, key, value):
    """The check above can fail: on a misspelt field, a wrong value, a wrong type, a field in the wrong place."""
    section = manifests["RayJob"]
    for part in path:
        section = section[part]
    section[key] = value

    assert not Draft202012Validator(RAY_JOB).is_valid(manifests["RayJob"])


def test_the_rayjob_keeps_its_promises(manifests):
    """None to N workers, idle ones go, no trial on the head, a token, one storage and one image for all, no open port."""
    cluster = manifests["RayJob"]["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    pods = [cluster["headGroupSpec"]["template"]["spec"], group["template"]["spec"]]

    assert group["minReplicas"] == 0 < group["maxReplicas"]
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] <= 600
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert manifests["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress"]
    for pod in pods:
        assert pod["containers"][0]["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
        assert (
            pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
            == manifests["PersistentVolumeClaim"]["metadata"]["name"]
        )
    assert len({pod["containers"][0]["image"] for pod in pods}) == 1


def test_the_rayjob_runs_the_ray_that_is_tested(manifests):
    """The version in the manifest is that of constraints.txt."""
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)

    assert manifests["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == pinned["ray"]
