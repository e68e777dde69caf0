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
