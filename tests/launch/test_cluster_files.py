"""What Kubernetes and SkyPilot are given: held against their published schemas, and run as they would run it."""

import copy
import json
import os
import pathlib
import re
import subprocess
import sys

import jsonschema
import pytest
import yaml
from helpers.launchers import PROGRAM, ROOT, check_contract, contracts, executable

HERE = pathlib.Path(__file__).resolve().parent
FILES = {path.stem: path for path in (*(ROOT / "launch" / "k8s").glob("*.yaml"), ROOT / "launch" / "skypilot.yaml")}
FREE = ("labels", "limits", "envs")  # whose names are the user's

RUN = ["--config=configs/cifar100_lt_noise.py", "--distributed=env"]


def read(name):
    return yaml.safe_load(FILES[name].read_text())


def validator(name):
    return jsonschema.Draft202012Validator(json.loads((HERE / "schemas" / f"{name}.json").read_text()))


def misspelt(document, place=()):
    """Copies of a document with one name in it wrong, for each name that the schema knows, and where it is."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, inner in items:
        if isinstance(document, dict) and place[-1:] not in [(name,) for name in FREE]:
            wrong = dict(document)
            wrong[f"{key}x"] = wrong.pop(key)
            yield (*place, key), wrong
        if isinstance(inner, (dict, list)):
            for where, wrong in misspelt(inner, (*place, key)):
                outer = copy.copy(document)
                outer[key] = wrong
                yield where, outer


def test_every_file_has_a_schema():
    assert set(FILES) == {"jobset", "trainjob", "skypilot"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_is_of_the_published_schema_and_no_name_in_it_can_be_another(name):
    check, document = validator(name), read(name)
    check.validate(document)
    places = []
    for place, wrong in misspelt(document):
        assert not check.is_valid(wrong), place
        places.append(place)
    assert len(places) > 8


@pytest.mark.parametrize(
    "name, change",
    [
        ("jobset", lambda found: found["spec"]["failurePolicy"]["rules"][0].update(action="Fail")),
        ("jobset", lambda found: found["spec"]["failurePolicy"].update(maxRestarts="20")),
        ("jobset", lambda found: job(found).update(completionMode="Index")),
        ("jobset", lambda found: job(found)["template"]["spec"].update(restartPolicy="never")),
        ("jobset", lambda found: job(found)["template"]["spec"]["containers"][0]["env"].append({"value": "2"})),
        ("trainjob", lambda found: found["spec"].pop("runtimeRef")),
        ("trainjob", lambda found: found["spec"]["trainer"].update(args="--config=x")),
        ("skypilot", lambda found: found["resources"]["job_recovery"].update(recover_on_exit_codes=[256])),
        ("skypilot", lambda found: found.update(run=["python"])),
    ],
)
def test_the_schema_knows_values_too(name, change):
    document = read(name)
    change(document)
    assert not validator(name).is_valid(document)


def job(document):
    (replicated,) = document["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def run_as(command, directory, environment):
    """Runs a command with stand-ins for lt-noisy and main.py, and returns what it printed."""
    executable(directory / "bin" / "lt-noisy", PROGRAM)
    (directory / "main.py").write_text(PROGRAM)
    executable(directory / ".venv" / "bin" / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    path = f"{directory / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=directory, env={"PATH": path, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


def container_environment(entries, annotations):
    """What a container gets: values of the pod's annotations, and $(NAME) of what stands before."""
    environment = {}
    for entry in entries:
        if "value" in entry:
            text = entry["value"]
            environment[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], text)
        else:
            (key,) = re.fullmatch(
                r"metadata\.annotations\['(.*)'\]", entry["valueFrom"]["fieldRef"]["fieldPath"]
            ).groups()
            environment[entry["name"]] = annotations[key]
    return environment


def test_the_pods_of_a_jobset_get_the_contract(tmp_path):
    document = read("jobset")
    name, (replicated,) = document["metadata"]["name"], document["spec"]["replicatedJobs"]
    assert document["spec"]["coordinator"] == {"replicatedJob": replicated["name"]}
    coordinator = f"{name}-{replicated['name']}-0-0.{name}"  # <jobset>-<replicated job>-<job>-<pod>.<jobset>
    spec = job(document)
    (container,) = spec["template"]["spec"]["containers"]
    output = ""
    for index in range(spec["completions"]):
        annotations = {
            "batch.kubernetes.io/job-completion-index": str(index),
            "jobset.sigs.k8s.io/coordinator": coordinator,
        }
        environment = container_environment(container["env"], annotations)
        output += run_as([*container["command"], *container["args"]], tmp_path, environment)
    found = contracts(output)
    check_contract(found, spec["completions"], f"{coordinator}:12355")
    check_arguments(found, "/runs/cifar100")
    assert spec["parallelism"] == spec["completions"]  # all at once


def test_wrong_input_ends_a_jobset_and_every_other_death_starts_all_again():
    document = read("jobset")
    (rule,) = document["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])  # as its webhook asks
    spec = job(document)
    (on_pod,) = spec["podFailurePolicy"]["rules"]
    (container,) = spec["template"]["spec"]["containers"]
    assert on_pod["action"] == "FailJob" and on_pod["onExitCodes"]["values"] == [2]
    assert on_pod["onExitCodes"]["operator"] == "In" and on_pod["onExitCodes"]["containerName"] == container["name"]
    assert spec["backoffLimit"] == 0 and spec["template"]["spec"]["restartPolicy"] == "Never"
    assert 0 < document["spec"]["failurePolicy"]["maxRestarts"] < 100


def test_the_nodes_of_a_trainjob_run_on_the_contract_of_the_runtime(tmp_path):
    document = read("trainjob")
    assert document["spec"]["runtimeRef"] == {"name": "jax-distributed"}
    name, trainer = document["metadata"]["name"], document["spec"]["trainer"]
    (patch,) = document["spec"]["runtimePatches"]
    (patched,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = patched["template"]["spec"]["template"]["spec"]
    # The names of that runtime, and what its plug-in sets (pkg/runtime/framework/plugins/jax/jax.go).
    assert patched["name"] == "node" and [one["name"] for one in pod["containers"]] == ["node"]
    coordinator, output = f"{name}-node-0-0.{name}:1234", ""
    for index in range(trainer["numNodes"]):
        set_by_it = {
            "JAX_NUM_PROCESSES": str(trainer["numNodes"]),
            "JAX_PROCESS_ID": str(index),
            "JAX_COORDINATOR_ADDRESS": coordinator,
            "JAX_COORDINATOR_PORT": "1234",
        }
        environment = {**container_environment(trainer["env"], {}), **set_by_it}
        output += run_as([*trainer["command"], *trainer["args"]], tmp_path, environment)
    found = contracts(output)
    check_contract(found, trainer["numNodes"], coordinator)
    check_arguments(found, "/runs/cifar100")


@pytest.mark.parametrize("name", ["jobset", "trainjob"])
def test_pods_have_the_claim_and_the_time_to_save(name):
    document = read(name)
    if name == "jobset":
        pod = job(document)["template"]["spec"]
        container = pod["containers"][0]
        environment = container["env"]
    else:
        (patched,) = document["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        pod = patched["template"]["spec"]["template"]["spec"]
        container, environment = pod["containers"][0], document["spec"]["trainer"]["env"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(volumes) == set(mounts.values())
    assert volumes[mounts["/runs"]]["persistentVolumeClaim"] == {"claimName": "lt-noisy"}
    assert {entry["name"]: entry.get("value") for entry in environment}["TFDS_DATA_DIR"] == "/runs/tfds"
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert pod["securityContext"] == {"runAsNonRoot": True, "fsGroup": 1000}


def check_arguments(found, workdir):
    """Every process is started alike, with a config that there is, a workdir on what all share, and the contract."""
    assert {tuple(sorted(one["arguments"])) for one in found} == {tuple(sorted([*RUN, f"--workdir={workdir}"]))}
    assert (ROOT / RUN[0].removeprefix("--config=")).is_file()


def test_the_nodes_of_skypilot_get_the_contract(tmp_path):
    document = read("skypilot")
    count, output = document["num_nodes"], ""
    addresses = [f"10.0.0.{index + 7}" for index in range(count)]
    for index in range(count):
        environment = {
            "SKYPILOT_NODE_IPS": "\n".join(addresses),  # in the order of the ranks
            "SKYPILOT_NUM_NODES": str(count),
            "SKYPILOT_NODE_RANK": str(index),
        }
        output += run_as(["bash", "-c", document["run"]], tmp_path, environment)
    found = contracts(output)
    check_contract(found, count, f"{addresses[0]}:12355")
    check_arguments(found, "/mnt/share/cifar100")


def test_skypilot_recovers_what_goes_on_and_not_wrong_input(tmp_path):
    document = read("skypilot")
    codes = document["resources"]["job_recovery"]["recover_on_exit_codes"]
    # 137 is what it calls every node that it ends because of another: with it [2, 137] would start again.
    assert {143, 75} <= set(codes) and not {0, 2, 137} & set(codes)
    (tmp_path / "plan.json").write_text('[["exit 75"]]')
    with pytest.raises(subprocess.CalledProcessError) as failed:  # what it looks at is the status of main.py
        run_as(["bash", "-c", document["run"]], tmp_path, {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "a"})
    assert failed.value.returncode == 75


def test_what_sets_a_node_of_skypilot_up(tmp_path):
    document = read("skypilot")
    for name in ("sudo", "python3"):
        executable(tmp_path / "bin" / name, f'#!/bin/sh\necho {name} "$@"\n')
    for mounted in (1, 0):
        executable(tmp_path / "bin" / "mountpoint", f"#!/bin/sh\nexit {mounted}\n")
        lines = run_as(["bash", "-c", document["setup"]], tmp_path, {"SHARE": "10.0.0.2:/runs"}).splitlines()
        assert ("sudo mount -t nfs 10.0.0.2:/runs /mnt/share" in lines) == bool(mounted)
        assert lines[-1].endswith("-e .[cuda]")
