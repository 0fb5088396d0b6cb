"""The shape of a RayJob, as far as cluster/kuberay.yaml uses it.

Written down by hand from the field names and types of KubeRay's API (``ray.io/v1``, operator 1.5; ``authOptions`` and its
modes from the API reference of 1.6, docs.ray.io): it is not the operator's own schema, and it knows only what the file has. What it can see is a
field that is misspelt, misplaced, or of the wrong type, at every level.
"""

from __future__ import annotations

from typing import Any


def fields(*required: str, **properties: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def each(item: dict[str, Any]) -> dict[str, Any]:
    """A list of them, not empty."""
    return {"type": "array", "items": item, "minItems": 1}


TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
QUANTITY = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
EXPRESSION = fields(
    "key", "operator", key=TEXT, operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}, values=each(TEXT)
)

POD = fields(
    "containers",
    affinity=fields(
        nodeAffinity=fields(
            preferredDuringSchedulingIgnoredDuringExecution=each(
                fields(
                    "weight",
                    "preference",
                    weight={"type": "integer", "minimum": 1, "maximum": 100},
                    preference=fields(matchExpressions=each(EXPRESSION)),
                )
            )
        )
    ),
    tolerations=each(
        fields(
            key=TEXT,
            operator={"enum": ["Exists", "Equal"]},
            effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        )
    ),
    containers=each(
        fields(
            "name",
            "image",
            name=TEXT,
            image=TEXT,
            resources=fields(requests=QUANTITIES, limits=QUANTITIES),
            volumeMounts=each(fields("name", "mountPath", name=TEXT, mountPath=TEXT)),
        )
    ),
    volumes=each(fields("name", name=TEXT, persistentVolumeClaim=fields("claimName", claimName=TEXT, readOnly=FLAG))),
)
TEMPLATE = fields("spec", spec=POD)

RAY_CLUSTER = fields(
    "headGroupSpec",
    rayVersion=TEXT,
    authOptions=fields("mode", mode={"enum": ["token", "disabled"]}),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=fields(
        idleTimeoutSeconds=COUNT, upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}
    ),
    headGroupSpec=fields(
        "rayStartParams",
        "template",
        serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        rayStartParams=TEXTS,
        template=TEMPLATE,
    ),
    workerGroupSpecs=each(
        fields(
            "groupName",
            "minReplicas",
            "maxReplicas",
            "rayStartParams",
            "template",
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=TEXTS,
            template=TEMPLATE,
        )
    ),
)

RAY_JOB = fields(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields("name", name=TEXT),
    spec=fields(
        "entrypoint",
        "rayClusterSpec",
        entrypoint=TEXT,
        backoffLimit=COUNT,
        runtimeEnvYAML=TEXT,
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=RAY_CLUSTER,
    ),
)
