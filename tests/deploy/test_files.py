"""What `deploy/` says is well-formed: as Prefect, Compose, Kubernetes and hadolint read it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.schema_tools.validation import is_valid_schema

from flows.deployments import OFFERS
from tests.processes import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def deployments() -> list[dict[str, Any]]:
    return yaml.safe_load((DEPLOY / "prefect.yaml").read_text())["deployments"]


def test_every_flow_is_deployed_and_limits_say_what_happens_when_reached() -> None:
    # takes seconds, in every process that only collects
    from prefect.cli.deploy._models import PrefectYamlModel

    model = PrefectYamlModel.model_validate(yaml.safe_load((DEPLOY / "prefect.yaml").read_text()))
    assert {one.entrypoint for one in model.deployments} == {offer.entrypoint for offer in OFFERS.values()}
    for one in deployments():
        assert one["concurrency_limit"]["limit"] == 1
        assert one["concurrency_limit"]["collision_strategy"] in ("ENQUEUE", "CANCEL_NEW")
        assert not any(schedule["active"] for schedule in one.get("schedules", []))
    pools = {one["work_pool"]["name"] for one in deployments()}
    assert pools == set(yaml.safe_load((DEPLOY / "server.yaml").read_text())["work_pools"])
    schedules = [set(schedule) for one in deployments() for schedule in one.get("schedules", [])]
    assert any("cron" in keys for keys in schedules)
    assert any("interval" in keys for keys in schedules)
    assert any(one.get("triggers") for one in deployments())


def comments(name: str) -> str:
    """The comments of a file of deploy/, in one line."""
    found = re.findall(r"(?m)^\s*# ?(.*)$", (DEPLOY / name).read_text())
    return " ".join(" ".join(found).split())


def test_what_prefect_yaml_says_of_itself_is_so() -> None:
    """Its commands, the variables it reads, what is on and off, and when, are those of the file."""
    text, said = (DEPLOY / "prefect.yaml").read_text(), comments("prefect.yaml")
    pools = {one["work_pool"]["name"] for one in deployments()}
    assert set(re.findall(r"worker start --pool (\S+)", said)) <= pools
    for name in re.findall(r"deploy/\S+|kubernetes/[\w.-]+", said):
        assert (ROOT / name).exists() or (DEPLOY / name).exists(), name
    assert set(re.findall(r"DARKROOM_\w+", said)) == set(re.findall(r"\{\{ \$(\w+) \}\}", text))
    on = {one["name"]: {t["enabled"] for t in one["triggers"]} for one in deployments() if one.get("triggers")}
    assert on == {"on-upload": {True}}
    assert "The trigger of on-upload is on" in said
    assert "Schedules are off" in said
    assert not any(schedule["active"] for one in deployments() for schedule in one.get("schedules", []))
    described = {one["name"]: one["description"] for one in deployments() if "description" in one}
    assert described.keys() == {"nightly", "every-quarter-hour", "on-upload"}
    times = {one["name"]: one["schedules"][0] for one in deployments() if one.get("schedules")}
    assert (times["nightly"]["cron"], times["nightly"]["timezone"]) == ("0 2 * * *", "UTC")
    assert described["nightly"].startswith("Every night at two (UTC)")
    assert times["every-quarter-hour"]["interval"] * 4 == 3600
    assert described["every-quarter-hour"].startswith("Four times an hour")
    (upload,) = [one for one in deployments() if one.get("triggers")]
    assert set(upload["triggers"][0]["expect"]) == set(re.findall(r"`(darkroom\.\S+)`", upload["description"]))
    waiting = {one["concurrency_limit"]["collision_strategy"] for one in deployments() if not one.get("schedules")}
    by_clock = {one["concurrency_limit"]["collision_strategy"] for one in deployments() if one.get("schedules")}
    assert (waiting, by_clock) == ({"ENQUEUE"}, {"CANCEL_NEW"})


def test_job_variables_of_the_cluster_are_in_its_template() -> None:
    """Every placeholder of the job has a variable, and every variable that a deployment gives is one."""
    template = json.loads((DEPLOY / "kubernetes/gpu-job-template.json").read_text())
    is_valid_schema(template["variables"])
    known = set(template["variables"]["properties"])
    assert set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"]))) <= known
    on_cluster = [one["work_pool"] for one in deployments() if one["work_pool"]["name"] == "kubernetes"]
    assert any(pool["job_variables"].get("gpus") for pool in on_cluster)
    for pool in on_cluster:
        assert set(pool["job_variables"]) <= known


def test_compose_keeps_to_its_specification() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, DEPLOY / "compose.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.slow
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_keep_to_the_schemas_of_kubernetes(path: Path) -> None:
    checker = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] == "Kustomization":
            assert all((path.parent / name).exists() for name in document["resources"])
        else:
            checker.validate(document, checker.latest_version(), strict=True)


def test_every_pod_is_without_privileges() -> None:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] not in ("Deployment", "StatefulSet"):
                continue
            pod = document["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert all(one["securityContext"]["capabilities"] == {"drop": ["ALL"]} for one in pod["containers"])


def test_the_images_recipe_passes_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if not hadolint:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = (DEPLOY / "Dockerfile").read_text()
    assert "\nUSER 10001" in text
    assert "\nHEALTHCHECK" in text
    for name in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        allowed = (ROOT / ".dockerignore").read_text().splitlines()
        assert all(f"!{one}" in allowed for one in name.split())
