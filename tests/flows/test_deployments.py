"""Every flow as others start it: found, described, with a form whose values are checked before any work."""

from __future__ import annotations

import json
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ParameterTypeError
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema, parameter_schema_from_entrypoint
from prefect.utilities.schema_tools.validation import is_valid_schema, validate

import flows
from flows import deployments
from flows.deployments import OFFERS, deploy_all
from pipeline.errors import RequestError

ENOUGH: dict[str, dict[str, Any]] = {
    "train": {"task": "denoise", "source": ["in"], "model": "out"},
    "sweep": {"task": "denoise", "source": ["in"], "destination": "out", "space": {}},
    "generate": {"model": "representation-small", "destination": "out"},
    "verify": {"destination": "out"},
    "gc": {"destination": "out"},
}
BOTH_ENDS = {"source": "in", "destination": "out"}
WRONG = {"source": "in", "destination": "out", "no_such_field": 1}


def test_every_flow_there_is_is_offered() -> None:
    found = set()
    for module in pkgutil.iter_modules(flows.__path__):
        for name, value in vars(import_module(f"flows.{module.name}")).items():
            if isinstance(value, Flow):
                found.add(f"{value.fn.__module__}.{name}")
    assert found == {offer.entrypoint for offer in OFFERS.values()}


@pytest.mark.parametrize("name", OFFERS)
def test_a_served_flow_has_a_form_and_checks_what_it_is_given(name: str) -> None:
    """As a deployment does it: the schema by module and by file, the server's check, then the worker's."""
    flow = OFFERS[name].load()
    _, module, function = OFFERS[name].entrypoint.split(".")
    file = f"{Path(flows.__path__[0])}/{module}.py:{function}"
    assert flow.name == name
    assert flow.description
    schema = parameter_schema(flow)
    of_file = parameter_schema_from_entrypoint(file)
    assert schema.model_dump_for_openapi() == of_file.model_dump_for_openapi()
    form = schema.model_dump_for_openapi()
    is_valid_schema(form)
    (request,) = form["properties"]
    fields = form["definitions"][form["properties"][request]["$ref"].rpartition("/")[2]]["properties"]
    assert all(field.get("description") for field in fields.values())
    good = {request: ENOUGH.get(name, BOTH_ENDS)}
    assert validate(good, form) == []
    assert validate({request: WRONG}, form)
    stored = json.dumps(form)
    assert "_storage" not in stored, "secrets would be stored as they are typed"
    assert all(field.get("title") for field in fields.values())
    # what a worker loads has never been imported under its own name
    for loaded in (flow, load_flow_from_entrypoint(file)):
        assert type(loaded.validate_parameters(good)[request]).__name__ == f"{name.capitalize()}Request"
        with pytest.raises(ParameterTypeError, match=r"no_such_field|Field required"):
            loaded.validate_parameters({request: WRONG})


def test_what_people_changed_outlives_another_deployment(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # one flow is enough here, and ten take their time; `test_serve` has them all
    monkeypatch.setattr(deployments, "OFFERS", {"develop": OFFERS["develop"]})
    pool = "process-of-a-test"
    with get_client(sync_client=True) as client:
        ids = deploy_all(client, pool, "/somewhere")
        assert set(ids) == {"develop/on-demand", "develop/nightly"}
        nightly = client.read_deployment(ids["develop/nightly"])
        assert [one.active for one in nightly.schedules] == [False]
        assert nightly.concurrency_options is not None
        assert nightly.concurrency_options.collision_strategy.value == "CANCEL_NEW"
        assert nightly.job_variables == {"working_dir": "/somewhere"}
        client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=True)
        assert deploy_all(client, pool, "/elsewhere") == ids
        again = client.read_deployment(nightly.id)
        assert [one.active for one in again.schedules] == [True]
        assert again.job_variables == {"working_dir": "/elsewhere"}


def test_a_pool_of_another_type_is_refused(prefect_server: str) -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="of-containers", type="docker"))
        with pytest.raises(RequestError, match=r"of-containers.*type docker.*--work-pool"):
            deploy_all(client, "of-containers", "/somewhere")
