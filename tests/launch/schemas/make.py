"""Makes the schemas beside it, of what the engines publish: as much of them as the files in launch/ touch.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install kubeflow-trainer-api==2.3.0 skypilot==0.14.1
    /tmp/v/bin/python tests/launch/schemas/make.py

Where a file goes, every name that is known there is kept and no other allowed; where it does not, nothing of the depth
is kept. JobSet and TrainJob come from the models that Kubeflow Trainer generates from its OpenAPI document, which has
the JobSet and pod types in it; what its generator leaves out, the values of enumerations, is taken from the Go types
that the custom resource is generated from. SkyPilot's schema is in its package. All are under the Apache License 2.0.
"""

import json
import pathlib

import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob
from sky.utils import schemas as sky

HERE = pathlib.Path(__file__).resolve().parent
LAUNCH = HERE.parent.parent.parent / "launch"

# Markers `+kubebuilder:validation:Enum` of kubernetes-sigs/jobset@0336a8f api/jobset/v1alpha2/jobset_types.go; of pods
# and jobs the lists of the API server, which stand in the texts of their fields.
ENUMS = {
    ("JobsetV1alpha2FailurePolicyRule", "action"): [
        "FailJobSet",
        "RestartJobSet",
        "RestartJobSetAndIgnoreMaxRestarts",
        "RestartJob",
        "RestartJobAndIgnoreMaxRestarts",
    ],
    ("JobsetV1alpha2FailurePolicy", "restartStrategy"): ["Recreate", "BlockingRecreate", "InPlaceRestart"],
    ("IoK8sApiBatchV1JobSpec", "completionMode"): ["NonIndexed", "Indexed"],
    ("IoK8sApiBatchV1PodFailurePolicyRule", "action"): ["FailJob", "FailIndex", "Ignore", "Count"],
    ("IoK8sApiBatchV1PodFailurePolicyOnExitCodesRequirement", "operator"): ["In", "NotIn"],
    ("IoK8sApiCoreV1PodSpec", "restartPolicy"): ["Always", "OnFailure", "Never"],
}
EITHER = {"IoK8sApimachineryPkgApiResourceQuantity", "IoK8sApimachineryPkgUtilIntstrIntOrString"}
TEXT = {"description", "title", "default", "$schema"}


def pruned(schema: dict, values: list, names: dict) -> dict:
    """As much of a schema as these values of it reach; `names` has what it refers to."""
    if not values:
        return {}
    name = schema.get("$ref", "").rpartition("/")[2]
    if name in EITHER:
        return {"type": ["integer", "string"]}
    schema = names[name] if name else schema
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        fitting = [option for option in options if len(options) == 1 or option["type"] == kind(values[0])]
        return pruned(fitting[0], values, names)
    kept = {key: value for key, value in schema.items() if key not in TEXT}
    if "properties" in kept:
        kept["additionalProperties"] = False
        kept["properties"] = {}
        for key, inner in schema["properties"].items():
            known = ENUMS.get((name, key))
            found = pruned(inner, [value[key] for value in values if key in value], names)
            kept["properties"][key] = {"enum": known} if found and known else found
    elif isinstance(kept.get("additionalProperties"), dict):
        every = [inner for value in values for inner in value.values()]
        kept["additionalProperties"] = pruned(kept["additionalProperties"], every, names)
    elif "items" in kept:
        kept["items"] = pruned(kept["items"], [inner for value in values for inner in value], names)
    return kept


def kind(value) -> str:
    return {str: "string", dict: "object", list: "array", int: "integer", bool: "boolean"}[type(value)]


def model(entry) -> dict:
    return entry.model_json_schema(by_alias=True)


def task() -> dict:
    """A task with its resources, which SkyPilot validates apart."""
    whole = sky.get_task_schema()
    whole["properties"]["resources"] = sky.get_resources_schema()
    return whole


KUBEFLOW = "kubeflow-trainer-api 2.3.0 of PyPI, generated from github.com/kubeflow/trainer; Apache-2.0"
SKYPILOT = "skypilot 0.14.1 of PyPI, sky/utils/schemas.py of github.com/skypilot-org/skypilot; Apache-2.0"

for path, published, source in (
    (LAUNCH / "k8s" / "jobset.yaml", model(JobsetV1alpha2JobSet), KUBEFLOW),
    (LAUNCH / "k8s" / "trainjob.yaml", model(TrainerV1alpha1TrainJob), KUBEFLOW),
    (LAUNCH / "skypilot.yaml", task(), SKYPILOT),
):
    found = pruned(published, [yaml.safe_load(path.read_text())], published.get("$defs", {}))
    found = {"$comment": f"Made by make.py from {source}", **{k: v for k, v in found.items() if k != "$defs"}}
    (HERE / f"{path.stem}.json").write_text(json.dumps(found, indent=1) + "\n")
